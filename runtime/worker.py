"""Runs a policy off the loop: requests in, snapshots and chunks made on a thread of its own.

The loop hands over a `ChunkRequest` and goes on; the thread (`runtime.inference`) assembles the observation,
asks the policy, checks what comes back and leaves an `ActionChunk` for the loop to collect. Whatever the
policy does (raise, return NaN, take two seconds) the loop sees at most "no chunk yet", and the failure is
counted in the thread's report.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from loguru import logger

from runtime.clock import NS_PER_S, Clock, ClockThread
from runtime.inference import Answered, Boxes, ChunkPace, ChunkRequest, Inference, Trial, WorkerReport
from runtime.interfaces import Policy, PolicyError, ServedPolicy
from runtime.messages import ActionChunk, Floats, Observation

__all__ = ["ChunkRequest", "InferenceWorker", "PolicyAttempt", "Trial", "WorkerReport"]

READY_POLL_NS = 5_000_000

SAY_AGAIN_NS = 5 * NS_PER_S
"""So often it is said that a policy is still waited for."""


class InferenceWorker:
    """Owns a `Policy` and the thread it is warmed up, reset, asked and closed on. All methods are the loop's.

    Args:
        policy: what to ask; the thread's own from now on.
        observe: makes the observation for a request; called on the worker's thread.
        clock: times the inference; on a stepped clock inference takes no time by itself.
        simulated_latency_s: deliver each chunk (or failure) this long after its request at the earliest.
        name: the thread's name.
        rate_hz, discrete: of its chunks, where the policy's own spec is not to hold.
        trial: asks the policy once before it counts as ready.
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
        trial: Trial | None = None,
    ) -> None:
        self._clock = clock
        self._name = name
        self._boxes = Boxes(clock.signal())
        latency_ns = round((simulated_latency_s or 0.0) * NS_PER_S)
        pace = ChunkPace(rate_hz, discrete)
        self._inference = Inference(policy, observe, clock, latency_ns, self._boxes, pace, trial)
        self._trial = trial
        self._served = policy if isinstance(policy, ServedPolicy) else None
        self._said_ns = 0
        self._thread: ClockThread | None = None
        self._attempts = 0
        self._asked: ChunkRequest | None = None
        self._finished: Answered | None = None
        self._dropped = 0

    def start(self) -> None:
        """Start the thread, which first warms the policy up."""
        self._thread = self._clock.spawn(self._name, self._inference.main)

    async def ready(self) -> None:
        """Wait until the policy is warm.

        Raises:
            PolicyError: it cannot be, and the thread has ended; or its trial does not come to an end.
        """
        self._said_ns = self._clock.now_ns()
        while not self.check_ready():
            await self._clock.sleep_until_ns(self._clock.now_ns() + READY_POLL_NS)
            self._check_trial(self.report)

    def _check_trial(self, report: WorkerReport) -> None:
        if self._trial is None or report.busy_since_ns is None:
            return
        now_ns, limit_s = self._clock.now_ns(), self._trial.ready_s
        waited_s = (now_ns - report.busy_since_ns) / NS_PER_S
        if waited_s > limit_s:
            raise PolicyError(
                f"policy {report.spec.name}: no answer within {limit_s:g} s (policy.ready_timeout_s)"
            )
        if now_ns - self._said_ns >= SAY_AGAIN_NS:
            self._said_ns = now_ns
            said = (
                "policy {}: no answer yet after {:.0f} s; its first may take {:g} s (policy.ready_timeout_s)"
            )
            logger.info(said, report.spec.name, waited_s, limit_s)

    def check_ready(self) -> bool:
        """Whether the policy is warm, without waiting.

        Raises:
            PolicyError: it cannot be; one line.
        """
        report = self.report
        if report.cold is not None:
            raise report.cold
        return report.ready

    def stop(self) -> None:
        """Ask the thread to close the policy and end. Does not wait; a running inference is finished, a wait
        for a server ends.
        """
        self._boxes.end.post(item=True)
        self._boxes.wake.set()
        if self._served is not None:
            self._served.interrupt()  # the one call that is made to be another thread's

    async def join(self) -> None:
        """Wait until the thread has ended."""
        if self._thread is not None:
            await self._thread.join()

    def is_alive(self) -> bool:
        """Whether the thread still runs."""
        return self._thread is not None and self._thread.is_alive()

    @property
    def report(self) -> WorkerReport:
        """The thread's newest report."""
        report = self._boxes.reports.newest()
        assert report is not None  # noqa: S101 - the first is posted at construction
        return report

    @property
    def in_flight(self) -> bool:
        """Whether a request has not been answered yet."""
        self._collect()
        return self._asked is not None

    def attempt(self, instruction: str = "") -> PolicyAttempt:
        """Something to follow from its beginning: before the first answer the policy is reset."""
        self._attempts += 1
        return PolicyAttempt(self, self._attempts, instruction)

    def statistics(self) -> dict[str, Any]:
        """``{chunks, dropped_chunks, inference_s: {p50, max}, failures, last_error}``, and ``remote``, counts
        by kind, of a policy that has `statistics` of its own; of a part of it, ``<part>/<kind>``, by part.
        """
        report = self.report
        return {
            "chunks": report.chunks,
            "dropped_chunks": report.replaced + self._dropped,
            "inference_s": {"p50": report.inference_s[0], "max": report.inference_s[1]},
            "failures": dict(report.failures),
            "last_error": report.last_error,
            **_in_parts(report.own),
        }

    # --- for `PolicyAttempt`

    def ask(
        self, attempt: PolicyAttempt, step: int, epoch: int, committed: Floats, frozen_steps: int
    ) -> bool:
        """Post a request unless one of its epoch is still in flight.

        One of a newer epoch replaces one that is waiting; what is computed for the older will be dropped.
        """
        self._collect()
        if self._boxes.end or (self._asked is not None and self._asked.epoch == epoch):
            return False
        if self._finished is not None and self._finished.request.epoch != epoch:
            self.take(attempt=None)
        rows, now_ns = np.array(committed, float), self._clock.now_ns()
        self._asked = ChunkRequest(
            step, epoch, rows, frozen_steps, now_ns, attempt.number, attempt.instruction
        )
        self._boxes.requests.post(self._asked)
        self._boxes.wake.set()
        return True

    def take(self, attempt: PolicyAttempt | None) -> ActionChunk | None:
        """The finished chunk, if it is the newest request's; dropped where that was not `attempt`'s."""
        self._collect()
        reply, self._finished = self._finished, None
        if reply is None:
            return None
        if attempt is None or reply.request.attempt != attempt.number:
            self._dropped += 1
            return None
        return reply.chunk

    def _collect(self) -> None:
        reply = self._boxes.replies.take()
        if reply is None:
            return
        current = reply.request is self._asked
        if current:
            self._asked = None
        if reply.chunk is not None and current:
            self._finished = reply
        elif reply.chunk is not None:
            self._dropped += 1


def _in_parts(own: Mapping[str, int]) -> dict[str, dict[str, int]]:
    """A policy's own counts: of a part of it, ``<part>/<kind>``, by themselves; the rest as ``remote``."""
    parts: dict[str, dict[str, int]] = {}
    for name, count in own.items():
        part, _, kind = name.rpartition("/")
        parts.setdefault(part or "remote", {})[kind] = count
    return parts


class PolicyAttempt:
    """A `runtime.interfaces.ChunkSource`: one go at one instruction.

    Attributes:
        number: which it is; what is of another attempt (chunk, status, failure, mask) does not count.
        instruction: what the policy is asked to do.
    """

    def __init__(self, worker: InferenceWorker, number: int, instruction: str) -> None:
        self._worker = worker
        self.number = number
        self.instruction = instruction

    def request(self, step: int, epoch: int, committed: Floats, frozen_steps: int) -> bool:
        """Ask for a chunk for `step`; ``False`` if one of this epoch is in flight. `committed` is copied."""
        return self._worker.ask(self, step, epoch, committed, frozen_steps)

    def poll(self) -> ActionChunk | None:
        """The finished chunk, if any; never one of another attempt, or of an epoch that was left."""
        return self._worker.take(self)

    @property
    def unready(self) -> str:
        """Why the policy has to start again before it answers, or ``""``: nothing is starved meanwhile."""
        return self._worker.report.unready

    @property
    def failures(self) -> Mapping[str, int]:
        """Requests of this attempt that came to nothing, by kind."""
        report = self._worker.report
        return report.attempt_failures if report.attempt == self.number else {}
