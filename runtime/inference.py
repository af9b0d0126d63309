"""The thread that owns a policy: warms it up, resets it, asks it, checks what comes back.

It shares three latest-wins mailboxes with the loop (`Boxes`) and nothing else: requests come in, each is
answered by one `Answered`, and what else the loop wants to know is in the newest `WorkerReport`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

import numpy as np
from loguru import logger

from runtime.clock import NS_PER_S, Clock, Signal
from runtime.horizon import bounded
from runtime.interfaces import NoAnswerError, Policy, PolicyError, PolicySpec, ServedPolicy
from runtime.latest import Latest
from runtime.messages import (
    MOST_ACTION,
    ActionChunk,
    Floats,
    Latent,
    Observation,
    PolicyAnswer,
    PolicyStatus,
)
from runtime.stepped import ClockClosed

KEPT_TIMES = 4096
"""Inference times kept for the median; older ones only count in the maximum."""

SLOW_SHARE = 1 / 3
"""An answer that takes more than this share of an attempt is warned about."""

_LONGEST_WHY, _LONGEST_REASONING = 500, 2000
_FIRST_LOOK_NS = 5 * NS_PER_S
_LOOK_AGAIN_NS = NS_PER_S // 20


@dataclass(frozen=True, slots=True)
class ChunkRequest:
    """What the loop asks: the arguments of `ChunkSource.request`, when it asked, and for which attempt."""

    step: int
    epoch: int
    committed: Floats
    frozen_steps: int
    stamp_ns: int
    attempt: int = 0
    instruction: str = ""


@dataclass(frozen=True, slots=True)
class Answered:
    """`request` was answered; without a chunk where it came to nothing, or not all is ready for it yet."""

    request: ChunkRequest
    chunk: ActionChunk | None = None


@dataclass(frozen=True, slots=True)
class WorkerReport:
    """What the loop may know of the policy and its thread.

    Attributes:
        spec: the policy's, as it stands.
        ready: whether it is warm. cold: why it cannot be, if so; the thread has ended.
        busy_since_ns: when what it does now began; ``None`` if it has nothing to do.
        chunks: answered requests. replaced: chunks that a later one replaced before the loop took them.
        failures: requests that came to nothing, by kind: ``policy_error``, ``raised``, ``not_finite``,
            ``wrong_shape``, ``out_of_memory``, ``observation``.
        last_error: the newest failure in one line, or ``""``.
        attempt: whose requests are answered now. attempt_failures: those of this attempt, by kind.
        waits_for: what the newest request had to wait for, in words, or ``""``.
        unready: why what the policy does now may take as long as its first answer, or ``""``.
        inference_s: median and maximum.
        own: the policy's own statistics.
    """

    spec: PolicySpec
    ready: bool = False
    cold: PolicyError | None = None
    busy_since_ns: int | None = None
    chunks: int = 0
    replaced: int = 0
    failures: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    last_error: str = ""
    attempt: int | None = None
    attempt_failures: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    waits_for: str = ""
    unready: str = ""
    inference_s: tuple[float, float] = (0.0, 0.0)
    own: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))


class Boxes:
    """What the two threads share."""

    def __init__(self, wake: Signal) -> None:
        self.wake = wake
        self.requests: Latest[ChunkRequest] = Latest()
        self.replies: Latest[Answered] = Latest()
        self.reports: Latest[WorkerReport] = Latest()
        self.end: Latest[bool] = Latest()


@dataclass(frozen=True, slots=True)
class Trial:
    """One whole answer before anything moves.

    Attributes:
        observe: makes an observation like those to come, on the worker's thread; `NotReadyError` if it
            cannot yet.
        attempt_s: how long an attempt may last.
        ready_s: how long the first answer may take, for which something may be compiled.
        limit: the key that says `attempt_s`, for whoever reads that it is too short.
    """

    observe: Callable[[], Observation]
    attempt_s: float
    ready_s: float = 300.0
    limit: str = ""


@dataclass(frozen=True, slots=True)
class ChunkPace:
    """The configured rate and discrete joints of chunks, each where the policy's own spec is not to hold."""

    rate_hz: float = 0.0
    discrete: tuple[int, ...] = ()


class NotReadyError(Exception):
    """Not all that an attempt needs is there yet. A state: neither a failure nor a fault."""


class InferenceFailureError(Exception):
    """One request came to nothing. `kind` is a short, countable word."""

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(detail)
        self.kind = kind


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return text or type(error).__name__


def out_of_memory(error: BaseException) -> bool:
    """Whether the machine's or the device's memory did not suffice."""
    # torch.OutOfMemoryError, without importing torch for it
    return isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"


def failure_of(error: BaseException) -> InferenceFailureError:
    """What `error` counts as: ``SystemExit`` and the like must not end the thread either.

    Raises:
        ClockClosed: that is what it is, and the thread ends.
    """
    if isinstance(error, ClockClosed):
        raise error
    if isinstance(error, InferenceFailureError):
        return error
    if isinstance(error, PolicyError):
        return InferenceFailureError("policy_error", _one_line(error))
    if out_of_memory(error):
        return InferenceFailureError("out_of_memory", _one_line(error))
    return InferenceFailureError("raised", f"{type(error).__name__}: {_one_line(error)}")


def checked(answer: PolicyAnswer, joints: int) -> PolicyAnswer:
    """`answer` with float64 rows, if it is one for `joints` joints.

    Raises:
        InferenceFailureError: ``wrong_shape`` or ``not_finite``.
    """
    if not isinstance(answer, PolicyAnswer):
        raise InferenceFailureError("wrong_shape", f"a {type(answer).__name__}; a PolicyAnswer is wanted")
    if answer.status not in tuple(PolicyStatus):
        raise InferenceFailureError(
            "wrong_shape", f"status {answer.status!r}; accepted are {', '.join(PolicyStatus)}"
        )
    rows, status = np.asarray(answer.rows), PolicyStatus(answer.status)  # a plain "done" is meant so, too
    least = 0 if status is not PolicyStatus.RUNNING else 1
    if rows.ndim != 2 or rows.shape[0] < least or rows.shape[1] != joints:
        raise InferenceFailureError(
            "wrong_shape", f"actions of shape {list(rows.shape)}; expected [steps, {joints}]"
        )
    if rows.dtype.kind not in "fiu" or not bounded(rows):
        raise InferenceFailureError(
            "not_finite", f"actions hold NaN, infinity, no numbers or numbers beyond {MOST_ACTION:g}"
        )
    reasoning = printable(answer.reasoning, _LONGEST_REASONING)
    return PolicyAnswer(
        rows.astype(np.float64), status, printable(answer.why), reasoning, checked_latent(answer.latent)
    )


def checked_latent(latent: object) -> Latent | None:
    """`latent` as float32, if there is one.

    Raises:
        InferenceFailureError: ``wrong_shape`` or ``not_finite``.
    """
    if latent is None:
        return None
    numbers = np.asarray(latent)
    if numbers.ndim != 1 or numbers.dtype.kind not in "fiu":
        raise InferenceFailureError("wrong_shape", f"a latent of shape {list(numbers.shape)}; [L] is wanted")
    numbers = numbers.astype(np.float32)
    if not np.isfinite(numbers).all():
        raise InferenceFailureError("not_finite", "a latent holds NaN or infinity")
    return numbers


def printable(why: object, longest: int = _LONGEST_WHY) -> str:
    """What a policy says, as one short line that can be written anywhere."""
    text = str(why)[:longest].encode("utf-8", "replace").decode("utf-8")
    return " ".join("".join(each if each.isprintable() else " " for each in text).split())


class Inference:
    """What the worker's thread runs. The policy is touched here only.

    Args:
        observe: makes the observation for a request.
        latency_ns: what each answer takes at least.
        pace: stamped on every chunk.
        trial: asks the policy once at warm-up and judges how long that takes.
    """

    def __init__(
        self,
        policy: Policy,
        observe: Callable[[ChunkRequest], Observation],
        clock: Clock,
        latency_ns: int,
        boxes: Boxes,
        pace: ChunkPace,
        trial: Trial | None,
    ) -> None:
        self._policy = policy
        self._observe = observe
        self._clock = clock
        self._latency_ns = latency_ns
        self._boxes = boxes
        self._pace = pace
        self._trial = trial
        self._served = policy if isinstance(policy, ServedPolicy) else None
        self._attempt: int | None = None
        self._times_s = np.zeros(KEPT_TIMES)
        self._answers = 0
        self._report = WorkerReport(policy.spec)
        self._tell()

    def main(self) -> None:
        """Until the end is asked for."""
        boxes = self._boxes
        if self._warm_up():
            self._tell(ready=True, spec=self._policy.spec)
            while not boxes.end:
                request = boxes.requests.take()
                if request is None:
                    boxes.wake.wait()
                    continue
                self._tell(busy_since_ns=self._clock.now_ns(), unready=self._unready())
                self._answer(request)
        self._guard(self._policy.close)

    def _tell(self, **changes: object) -> None:
        self._report = replace(self._report, **changes)  # type: ignore[arg-type]
        self._boxes.reports.post(self._report)

    def _unready(self) -> str:
        return "" if self._served is None else self._served.unready

    # --- before anything moves

    def _warm_up(self) -> bool:
        try:
            self._tell(busy_since_ns=self._clock.now_ns())
            self._policy.warm_up()
            self._tell(busy_since_ns=None)
            self._try()
        except PolicyError as error:
            self._tell(cold=error)
        except BaseException as error:
            failure = failure_of(error)
            self._tell(cold=PolicyError(f"policy {self._policy.spec.name}: {failure.kind}: {failure}"))
        return self._report.cold is None

    def _try(self) -> None:
        """Ask once; twice where the first answer was slow, as it is where something is compiled for it."""
        trial, name = self._trial, self._policy.spec.name
        if trial is None:
            return
        answer_s = self._timed(trial)
        if answer_s > SLOW_SHARE * trial.attempt_s:
            answer_s = self._timed(trial)
        self._policy.reset()
        answer_s = max(answer_s, self._latency_ns / NS_PER_S)
        said = f"policy {name}: one answer takes {answer_s:.3g} s, an attempt may take {trial.attempt_s:g} s"
        said += f" ({trial.limit})" if trial.limit else ""
        if answer_s >= trial.attempt_s:
            raise PolicyError(f"{said}: none could succeed")
        if answer_s > SLOW_SHARE * trial.attempt_s:
            logger.warning("{}", said)

    def _timed(self, trial: Trial) -> float:
        observation = self._seen(trial)
        began_ns = self._clock.now_ns()
        self._tell(busy_since_ns=began_ns)
        try:
            checked(self._policy.infer(observation), observation.arm.position.shape[0])
        except NoAnswerError as error:
            if not self._policy.spec.masks:
                raise
            logger.debug("policy {}, shown no object: {}", self._policy.spec.name, error)
        self._tell(busy_since_ns=None)
        return (self._clock.now_ns() - began_ns) / NS_PER_S

    def _seen(self, trial: Trial) -> Observation:
        """What the policy would look at now; cameras may need a moment."""
        last_ns = self._clock.now_ns() + _FIRST_LOOK_NS
        while True:
            try:
                return trial.observe()
            except NotReadyError as error:
                if self._boxes.end or self._clock.now_ns() >= last_ns:
                    raise PolicyError(
                        f"policy {self._policy.spec.name}: nothing to look at: {error}"
                    ) from error
            self._clock.wait_until_ns(self._clock.now_ns() + _LOOK_AGAIN_NS)

    # --- one request

    def _answer(self, request: ChunkRequest) -> None:
        started_ns = self._clock.now_ns()
        chunk: ActionChunk | None = None
        failure: InferenceFailureError | None = None
        waits_for = ""
        try:
            self._begin(request)
            chunk = self._infer(request)
        except NotReadyError as error:
            waits_for = str(error)
        except BaseException as error:
            failure = failure_of(error)
        changes: dict[str, object] = {"waits_for": waits_for}
        if failure is not None or chunk is not None:
            self._wait_until(request.stamp_ns + self._latency_ns)
        if failure is not None:
            changes |= self._failed(failure)
        if chunk is not None:
            taken_s = (self._clock.now_ns() - started_ns) / NS_PER_S
            chunk = replace(chunk, inference_s=taken_s)
            changes |= self._counted(taken_s)
        before = self._boxes.replies.take()
        replaced = self._report.replaced + (before is not None and before.chunk is not None)
        spec, own = self._policy.spec, self._own()
        self._tell(busy_since_ns=None, unready="", spec=spec, own=own, replaced=replaced, **changes)
        self._boxes.replies.post(Answered(request, chunk))

    def _begin(self, request: ChunkRequest) -> None:
        """The first request of an attempt finds a policy that has forgotten the one before."""
        if request.attempt == self._attempt:
            return
        if self._report.attempt != request.attempt:
            self._tell(attempt=request.attempt, attempt_failures=MappingProxyType({}))
        self._policy.reset()
        self._attempt = request.attempt

    def _infer(self, request: ChunkRequest) -> ActionChunk:
        try:
            observation = self._observe(request)
        except NotReadyError:
            raise
        except BaseException as error:
            detail = f"{type(error).__name__}: {_one_line(error)}"
            raise InferenceFailureError("observation", detail) from error
        answer = checked(self._policy.infer(observation), observation.arm.position.shape[0])
        return ActionChunk(
            answer.rows,
            request.step,
            request.epoch,
            observation.stamp_ns,
            rate_hz=float(self._pace.rate_hz or self._policy.spec.rate_hz),
            discrete=tuple(map(int, self._pace.discrete or self._policy.spec.discrete)),
            status=answer.status,
            why=answer.why,
            reasoning=answer.reasoning,
        )

    def _wait_until(self, deadline_ns: int) -> None:
        while not self._boxes.end and (left := deadline_ns - self._clock.now_ns()) > 0:
            self._boxes.wake.wait(left)

    def _counted(self, taken_s: float) -> dict[str, object]:
        self._times_s[self._answers % KEPT_TIMES] = taken_s
        self._answers += 1
        median_s = float(np.median(self._times_s[: self._answers]))
        longest_s = max(self._report.inference_s[1], taken_s)
        return {"chunks": self._answers, "inference_s": (median_s, longest_s)}

    def _failed(self, failure: InferenceFailureError) -> dict[str, object]:
        kind, report, said = failure.kind, self._report, _one_line(failure)
        failures = MappingProxyType({**report.failures, kind: report.failures.get(kind, 0) + 1})
        mine = MappingProxyType({**report.attempt_failures, kind: report.attempt_failures.get(kind, 0) + 1})
        times = failures[kind]
        if times & (times - 1) == 0:  # the 1st, 2nd, 4th, 8th...: a policy that is broken fails at every tick
            logger.warning("policy {}: {} (time {}): {}", self._policy.spec.name, kind, times, said)
        return {"failures": failures, "attempt_failures": mine, "last_error": said}

    def _own(self) -> Mapping[str, int]:
        try:
            return MappingProxyType(dict(self._policy.statistics()))
        except Exception as error:
            logger.debug("policy {}: no statistics: {}", self._policy.spec.name, _one_line(error))
            return self._report.own

    def _guard(self, call: Callable[[], None]) -> None:
        try:
            call()
        except BaseException as error:
            self._tell(**self._failed(failure_of(error)))
