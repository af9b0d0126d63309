"""The slow half: asked with the newest observation, where it holds nobody up."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Protocol

from loguru import logger

from runtime.clock import NS_PER_S, Clock, ClockThread
from runtime.inference import checked_latent, failure_of, printable
from runtime.interfaces import NoAnswerError, Policy, PolicyError, PolicySpec, ServedPolicy
from runtime.latest import Latest
from runtime.messages import Observation, Thought

_CLOSE_NS = 2 * NS_PER_S


@dataclass(frozen=True, slots=True)
class AskedThought:
    """What to think about, and which attempt it is of."""

    observation: Observation
    attempt: int
    asked_ns: int


@dataclass(frozen=True, slots=True)
class UnseenObject:
    """What is asked for was not to be seen since `since_ns`, in so many `looks` one after the other."""

    attempt: int
    instruction: str
    since_ns: int
    looks: int = 1


@dataclass(frozen=True, slots=True)
class SlowReport:
    """What may be known of the slow half elsewhere.

    Attributes:
        spec: its policy's. ready: whether it is warm. cold: why it cannot be.
        busy_since_ns: when what it does now began; ``None`` if it has nothing to do.
        newest: its newest thought.
        thoughts, failures: how many came, and how many observations came to nothing.
        last_error: the newest of these, in one line; empty once a thought has come after it.
        unseen: since when it does not see what is asked for; ``None`` if it does, or cannot say.
        own: its policy's own statistics.
    """

    spec: PolicySpec
    ready: bool = False
    cold: PolicyError | None = None
    busy_since_ns: int | None = None
    newest: Thought | None = None
    thoughts: int = 0
    failures: int = 0
    last_error: str = ""
    unseen: UnseenObject | None = None
    own: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))


class Thinker(Protocol):
    """Where the slow half is asked. All methods are of the fast half's thread."""

    @property
    def report(self) -> SlowReport:
        """The newest one."""

    def begin(self) -> None:
        """Warm it up, and wait for that.

        Raises:
            PolicyError: it cannot be.
        """

    def post(self, asked: AskedThought) -> None:
        """Have it think about this next, in place of what it has not begun with.

        Raises:
            PolicyError: it is asked at once, and cannot answer.
        """

    def interrupt(self) -> None:
        """End what it waits for, if it is served. From any thread."""

    def close(self) -> None:
        """End it; one that hangs is left behind."""


class SlowHalf:
    """The policy that thinks, on whichever thread asks it."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.report = SlowReport(policy.spec)
        self._attempt: int | None = None

    def warm_up(self) -> None:
        """The policy's own.

        Raises:
            PolicyError: as there; or it is one that does not think for others.
        """
        self.policy.warm_up()
        self.tell(ready=True, spec=self.policy.spec)

    def think(self, asked: AskedThought) -> Thought | None:
        """A thought about what is `asked`; without one, the report says why.

        Raises:
            PolicyError: nothing came of it; counted, and said in one line the 1st, 2nd, 4th, 8th... time.
        """
        try:
            return self._thought(asked)
        except BaseException as error:
            failure = failure_of(error)
            said = f"{failure}"
            failures = self.report.failures + 1
            unseen = self._unseen(asked) if isinstance(error, NoAnswerError) else None
            self.tell(failures=failures, last_error=said, unseen=unseen, own=self._own())
            if failures & (failures - 1) == 0:
                level = "INFO" if isinstance(error, NoAnswerError) else "WARNING"
                name = self.policy.spec.name
                logger.log(level, "the slow half, {}: {} (time {}): {}", name, failure.kind, failures, said)
            if isinstance(error, PolicyError):
                raise
            raise PolicyError(f"{self.policy.spec.name}: {failure.kind}: {said}") from error

    def _unseen(self, asked: AskedThought) -> UnseenObject:
        seen, before = asked.observation, self.report.unseen
        if before is None or (before.attempt, before.instruction) != (asked.attempt, seen.instruction):
            return UnseenObject(asked.attempt, seen.instruction, seen.stamp_ns)
        return replace(before, looks=before.looks + 1)

    def _thought(self, asked: AskedThought) -> Thought:
        seen = asked.observation
        if asked.attempt != self._attempt:
            self.policy.reset()
            self._attempt = asked.attempt
        answer = self.policy.infer(seen)
        latent = checked_latent(answer.latent)
        if latent is None:
            raise PolicyError(
                f"{self.policy.spec.name}: its answers carry no latent: it cannot be a slow half"
            )
        number = self.report.thoughts + 1
        thought = Thought(
            latent,
            seen.stamp_ns,
            printable(answer.reasoning, 2000),
            seen.instruction,
            asked.attempt,
            number,
        )
        self.tell(thoughts=number, last_error="", unseen=None, spec=self.policy.spec, own=self._own())
        return thought

    def tell(self, **changes: object) -> None:
        """Change the report."""
        self.report = replace(self.report, **changes)  # type: ignore[arg-type]

    def _own(self) -> Mapping[str, int]:
        try:
            return MappingProxyType(dict(self.policy.statistics()))
        except Exception as error:
            logger.debug("{}: no statistics: {}", self.policy.spec.name, error)
            return self.report.own

    def interrupt(self) -> None:
        """End what it waits for, if it is served."""
        if isinstance(self.policy, ServedPolicy):
            self.policy.interrupt()

    def close(self) -> None:
        """Release what the policy holds."""
        try:
            self.policy.close()
        except Exception as error:
            logger.warning("the slow half, {}, does not close: {}", self.policy.spec.name, error)


class ThreadThinker:
    """A thread of its own. With it are shared latest-wins mailboxes, and nothing else.

    Args:
        policy: the thread's own from now on.
        latency_ns: on a stepped clock, how long a thought takes.
    """

    def __init__(self, policy: Policy, clock: Clock, latency_ns: int = 0) -> None:
        self._half = SlowHalf(policy)
        self._clock = clock
        self._latency_ns = latency_ns if clock.stepped else 0
        self._asked: Latest[AskedThought] = Latest()
        self._reports: Latest[SlowReport] = Latest()
        self._end: Latest[bool] = Latest()
        self._ended: Latest[bool] = Latest()
        self._wake, self._told = clock.signal(), clock.signal()
        self._thread: ClockThread | None = None
        self._reports.post(self._half.report)

    @property
    def report(self) -> SlowReport:
        """See `Thinker`."""
        report = self._reports.newest()
        assert report is not None  # noqa: S101 - the first is posted at construction
        return report

    def begin(self) -> None:
        """See `Thinker`."""
        if self._thread is None:
            self._thread = self._clock.spawn("slow half", self._main)
        while not (report := self.report).ready:
            if report.cold is not None:
                raise report.cold
            self._told.wait()

    def post(self, asked: AskedThought) -> None:
        """See `Thinker`."""
        self._asked.post(asked)
        self._wake.set()

    def interrupt(self) -> None:
        """See `Thinker`."""
        self._half.interrupt()  # the one call that is made to be another thread's

    def close(self) -> None:
        """See `Thinker`."""
        self._end.post(item=True)
        self._wake.set()
        self.interrupt()
        if self._thread is None:
            self._half.close()
            return
        deadline_ns = self._clock.now_ns() + _CLOSE_NS
        while not self._ended and (left_ns := deadline_ns - self._clock.now_ns()) > 0:
            self._told.wait(left_ns)
        if not self._ended:
            logger.warning("the slow half still has not answered: it is left behind")

    # --- the thread

    def _main(self) -> None:
        half = self._half
        try:
            half.warm_up()
        except BaseException as error:
            failure = failure_of(error)
            name = half.policy.spec.name
            half.tell(cold=error if isinstance(error, PolicyError) else PolicyError(f"{name}: {failure}"))
        self._publish()
        while not self._end and half.report.ready:
            asked = self._asked.take()
            if asked is None:
                self._wake.wait()
            else:
                self._think(asked)
        half.close()
        self._ended.post(item=True)
        self._told.set()

    def _think(self, asked: AskedThought) -> None:
        half, began_ns = self._half, self._clock.now_ns()
        half.tell(busy_since_ns=began_ns)
        self._publish()
        thought = half.report.newest
        with contextlib.suppress(PolicyError):  # counted and told; the fast half goes on with what there is
            thought = half.think(asked)
        while not self._end and (left_ns := began_ns + self._latency_ns - self._clock.now_ns()) > 0:
            self._wake.wait(left_ns)
        half.tell(busy_since_ns=None, newest=thought)
        self._publish()

    def _publish(self) -> None:
        self._reports.post(self._half.report)
        self._told.set()


class InlineThinker:
    """On the fast half's own thread: where nobody else can run beside it, and where it is to wait.

    Args:
        waits: a thought is there as soon as it is asked for, and what went wrong is raised where there is
            none to go on with; otherwise it is there `latency_ns` after it was begun, and meanwhile the
            newest observation waits.
    """

    def __init__(self, policy: Policy, clock: Clock, latency_ns: int = 0, *, waits: bool = False) -> None:
        self._half = SlowHalf(policy)
        self._clock = clock
        self._latency_ns = latency_ns
        self._waits = waits
        self._next: AskedThought | None = None
        self._begun_ns: int | None = None
        self._made: Thought | None = None

    @property
    def report(self) -> SlowReport:
        """See `Thinker`."""
        if not self._waits:
            self._come_to(self._clock.now_ns())
        return self._half.report

    def begin(self) -> None:
        """See `Thinker`."""
        self._half.warm_up()

    def post(self, asked: AskedThought) -> None:
        """See `Thinker`."""
        if self._waits:
            self._think_at_once(asked)
            return
        self._come_to(asked.asked_ns)
        self._next = asked
        self._come_to(asked.asked_ns)

    def _think_at_once(self, asked: AskedThought) -> None:
        newest = self._half.report.newest
        try:
            newest = self._half.think(asked)
        except PolicyError:
            known = newest is not None and newest.attempt == asked.attempt
            if newest is None or not known or newest.instruction != asked.observation.instruction:
                raise
        self._half.tell(newest=newest)

    def _come_to(self, now_ns: int) -> None:
        """What is due by `now_ns` is there, and what has waited for that is begun with."""
        free_ns = 0
        if self._begun_ns is not None and now_ns < self._begun_ns:
            self._begun_ns = self._next = None  # the clock was set back: another scene has begun
        while True:
            if self._begun_ns is not None:
                free_ns = self._begun_ns + self._latency_ns
                if free_ns > now_ns:
                    return
                self._half.tell(busy_since_ns=None, newest=self._made)
                self._begun_ns = None
            if (asked := self._next) is None:
                return
            self._next, self._begun_ns = None, max(free_ns, asked.asked_ns)
            self._half.tell(busy_since_ns=self._begun_ns)
            self._made = self._half.report.newest
            with contextlib.suppress(PolicyError):  # counted and told
                self._made = self._half.think(asked)

    def interrupt(self) -> None:
        """See `Thinker`."""
        self._half.interrupt()

    def close(self) -> None:
        """See `Thinker`."""
        self._half.close()
