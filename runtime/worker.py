"""Runs a policy off the loop: requests in, snapshots and chunks made on a thread of its own.

The loop hands over a `ChunkRequest` and goes on; the thread assembles the observation, asks the policy,
checks what comes back and leaves an `ActionChunk` for the loop to collect. Whatever the policy does
(raise, return NaN, take two seconds) the loop sees at most "no chunk yet", and the failure is counted.

References cross between the threads through `Latest`, a latest-wins mailbox: one `append` to or
`popleft` from a ``deque(maxlen=1)``, each atomic under the GIL. What they point to is never changed
afterwards. Every other field has one writing thread.
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

import numpy as np
from loguru import logger

from runtime.clock import NS_PER_S, Clock, ClockThread
from runtime.interfaces import Policy, PolicyError
from runtime.messages import ActionChunk, Floats, Observation
from runtime.stepped import ClockClosed

T = TypeVar("T")

KEPT_TIMES = 4096
"""Inference times kept for the median; older ones only count in the maximum."""

READY_POLL_NS = 5_000_000


class Latest(Generic[T]):
    """A mailbox for one reference: a post replaces what was not taken yet."""

    def __init__(self) -> None:
        self._box: collections.deque[T] = collections.deque(maxlen=1)

    def post(self, item: T) -> None:
        """Replace what is in the box."""
        self._box.append(item)

    def take(self) -> T | None:
        """What is in the box, if anything; it is empty afterwards."""
        try:
            return self._box.popleft()
        except IndexError:
            return None

    def __bool__(self) -> bool:
        return bool(self._box)


@dataclass(frozen=True, slots=True)
class ChunkRequest:
    """What the loop asks: the arguments of `ChunkSource.request` and when it asked."""

    step: int
    epoch: int
    committed: Floats
    frozen_steps: int
    stamp_ns: int


class InferenceFailureError(Exception):
    """One request came to nothing. `kind` is a short, countable word."""

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(detail)
        self.kind = kind


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return text or type(error).__name__


def _failure_of(error: BaseException) -> InferenceFailureError:
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
    # torch.OutOfMemoryError, without importing torch for it
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return InferenceFailureError("out_of_memory", _one_line(error))
    return InferenceFailureError("raised", f"{type(error).__name__}: {_one_line(error)}")


class InferenceWorker:
    """A `runtime.interfaces.ChunkSource` over a `Policy`, on a clock thread.

    The worker owns the policy: it is warmed up, asked, reset and closed on the worker's thread only.

    Args:
        policy: what to ask.
        observe: makes the observation for a request; called on the worker's thread.
        clock: times the inference; on a stepped clock inference takes no time by itself.
        simulated_latency_s: deliver each chunk (or failure) this long after its request at the earliest.
        name: the thread's name.
        rate_hz, discrete: of its chunks, where the policy's own spec is not to hold.
    """

    def __init__(
        self,
        policy: Policy,
        observe: Callable[[ChunkRequest], Observation],
        clock: Clock,
        simulated_latency_s: float | None = None,
        name: str = "inference",
        rate_hz: float = 0.0,
        discrete: tuple[int, ...] = (),
    ) -> None:
        self._policy = policy
        self._observe = observe
        self._clock = clock
        self._latency_ns = round((simulated_latency_s or 0.0) * NS_PER_S)
        self._name = name
        self._rate_hz, self._discrete = rate_hz, discrete
        self._wake = clock.signal()
        self._thread: ClockThread | None = None
        self._requests: Latest[ChunkRequest] = Latest()
        self._finished: Latest[ActionChunk] = Latest()
        self._policies: Latest[Policy] = Latest()
        self._asked: ChunkRequest | None = None
        self._answered: ChunkRequest | None = None
        self._busy_since_ns: int | None = None
        self._epoch = 0
        self._reset = False
        self._stopping = False
        self._ready = False
        self._warm_up_error: PolicyError | None = None
        self._failures: dict[str, int] = {}
        self._last_error = ""
        self._chunks = 0
        self._dropped = 0
        self._dropped_late = 0
        self._times_s: collections.deque[float] = collections.deque(maxlen=KEPT_TIMES)
        self._max_s = 0.0

    # --- life, from the loop

    def start(self) -> None:
        """Start the thread, which first warms the policy up."""
        self._thread = self._clock.spawn(self._name, self._main)

    async def ready(self) -> None:
        """Wait until the policy is warm.

        Raises:
            PolicyError: it cannot be; one line. The thread has ended.
        """
        while not (self._ready or self._warm_up_error):
            await self._clock.sleep_until_ns(self._clock.now_ns() + READY_POLL_NS)
        self.check_ready()

    def check_ready(self) -> bool:
        """Whether the policy is warm, without waiting.

        Raises:
            PolicyError: it cannot be; one line.
        """
        if self._warm_up_error is not None:
            raise self._warm_up_error
        return self._ready

    def stop(self) -> None:
        """Ask the thread to close the policy and end. Does not wait; a running inference is finished."""
        self._stopping = True
        self._wake.set()

    async def join(self) -> None:
        """Wait until the thread has ended."""
        if self._thread is not None:
            await self._thread.join()

    def is_alive(self) -> bool:
        """Whether the thread still runs."""
        return self._thread is not None and self._thread.is_alive()

    def swap(self, policy: Policy) -> None:
        """Answer from `policy` from now on. What the old one still works on is dropped; it is closed."""
        self._policies.post(policy)
        self._finished.take()
        self._wake.set()

    def reset(self) -> None:
        """Make the policy forget the episode before it is asked again."""
        self._reset = True
        self._wake.set()

    # --- the ChunkSource protocol, from the loop

    def request(self, step: int, epoch: int, committed: Floats, frozen_steps: int) -> bool:
        """Ask for a chunk for `step`; ``False`` if one of this epoch is still in flight.

        A request of a newer epoch replaces one that is waiting, and what is being computed for the older
        epoch will be dropped. `committed` is copied.
        """
        if self._stopping or (self.in_flight and self._epoch == epoch):
            return False
        made = ChunkRequest(step, epoch, np.array(committed, float), frozen_steps, self._clock.now_ns())
        self._epoch = epoch
        self._asked = made
        self._requests.post(made)
        self._wake.set()
        return True

    def poll(self) -> ActionChunk | None:
        """The finished chunk, if any; never one of an epoch older than the newest request's."""
        chunk = self._finished.take()
        if chunk is not None and chunk.epoch != self._epoch:
            self._dropped_late += 1
            return None
        return chunk

    @property
    def in_flight(self) -> bool:
        """Whether a request has not been answered yet."""
        return self._asked is not self._answered

    # --- reports

    @property
    def busy_since_ns(self) -> int | None:
        """When what the policy is doing now began; ``None`` if it has nothing to do."""
        return self._busy_since_ns

    @property
    def policy(self) -> Policy:
        """The policy that answers at present."""
        return self._policy

    @property
    def failures(self) -> Mapping[str, int]:
        """Requests that came to nothing, by kind: ``policy_error``, ``raised``, ``not_finite``,
        ``wrong_shape``, ``out_of_memory``, ``observation``.
        """
        return dict(self._failures)

    @property
    def last_error(self) -> str:
        """The newest failure in one line, or ``""``."""
        return self._last_error

    def statistics(self) -> dict[str, Any]:
        """``{chunks, dropped_chunks, inference_s: {p50, max}, failures, last_error}``, and ``remote``, counts
        by kind, of a policy that has `statistics` of its own.
        """
        times = list(self._times_s)
        own = getattr(self._policy, "statistics", None)
        return {
            "chunks": self._chunks,
            "dropped_chunks": self._dropped + self._dropped_late,
            "inference_s": {"p50": float(np.median(times)) if times else 0.0, "max": self._max_s},
            "failures": dict(self._failures),
            "last_error": self._last_error,
            **({} if own is None else {"remote": dict(own())}),
        }

    # --- the thread

    def _main(self) -> None:
        if self._warm_up(self._policy):
            self._ready = True
            while not self._stopping:
                self._busy_since_ns = self._clock.now_ns()
                self._housekeeping()
                request = self._requests.take()
                if request is not None:
                    self._answer(request)
                self._busy_since_ns = None
                if request is None:
                    self._wake.wait()
        self._close(self._policy)

    def _warm_up(self, policy: Policy) -> bool:
        try:
            policy.warm_up()
        except PolicyError as error:
            self._warm_up_error = error
        except BaseException as error:
            failure = _failure_of(error)
            self._warm_up_error = PolicyError(f"policy {policy.spec.name}: {failure.kind}: {failure}")
        return self._warm_up_error is None

    def _housekeeping(self) -> None:
        policy = self._policies.take()
        if policy is not None and policy is not self._policy:
            self._close(self._policy)
            self._policy = policy
            self._guard(policy.warm_up)
        if self._reset:
            self._reset = False
            self._guard(self._policy.reset)

    def _guard(self, call: Callable[[], None]) -> None:
        try:
            call()
        except BaseException as error:
            self._count(_failure_of(error))

    def _answer(self, request: ChunkRequest) -> None:
        started_ns = self._clock.now_ns()
        failure: InferenceFailureError | None = None
        chunk: ActionChunk | None = None
        try:
            chunk = self._infer(request)
        except BaseException as error:
            failure = _failure_of(error)
        self._wait_until(request.stamp_ns + self._latency_ns)
        taken_s = (self._clock.now_ns() - started_ns) / NS_PER_S
        if failure is not None:
            self._count(failure)
        elif chunk is not None:
            self._deliver(chunk, taken_s)
        self._answered = request

    def _infer(self, request: ChunkRequest) -> ActionChunk:
        try:
            observation = self._observe(request)
        except BaseException as error:
            detail = f"{type(error).__name__}: {_one_line(error)}"
            raise InferenceFailureError("observation", detail) from error
        actions = np.asarray(self._policy.infer(observation))
        joints = observation.arm.position.shape[0]
        if actions.ndim != 2 or actions.shape[0] == 0 or actions.shape[1] != joints:
            raise InferenceFailureError(
                "wrong_shape", f"actions of shape {list(actions.shape)}; expected [steps, {joints}]"
            )
        if actions.dtype.kind not in "fiu" or not np.isfinite(actions).all():
            raise InferenceFailureError("not_finite", "actions hold NaN, infinity or no numbers")
        return ActionChunk(actions.astype(np.float64), request.step, request.epoch, observation.stamp_ns, 0.0)

    def _wait_until(self, deadline_ns: int) -> None:
        while not self._stopping and (left := deadline_ns - self._clock.now_ns()) > 0:
            self._wake.wait(left)

    def _deliver(self, chunk: ActionChunk, taken_s: float) -> None:
        self._chunks += 1
        self._times_s.append(taken_s)
        self._max_s = max(self._max_s, taken_s)
        if chunk.epoch != self._epoch or self._policies or self._stopping:
            self._dropped += 1
            return
        spec = self._policy.spec
        rate_hz, discrete = self._rate_hz or spec.rate_hz, self._discrete or spec.discrete
        self._finished.post(replace(chunk, inference_s=taken_s, rate_hz=rate_hz, discrete=discrete))

    def _count(self, failure: InferenceFailureError) -> None:
        times = self._failures[failure.kind] = self._failures.get(failure.kind, 0) + 1
        self._last_error = _one_line(failure)
        if times & (times - 1) == 0:  # the 1st, 2nd, 4th, 8th...: a policy that is broken fails at every tick
            name = self._policy.spec.name
            logger.warning("policy {}: {} (time {}): {}", name, failure.kind, times, self._last_error)

    def _close(self, policy: Policy) -> None:
        self._guard(policy.close)
