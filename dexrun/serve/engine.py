"""One thread that asks the policy, for requests that arrive together in one call where it can."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from loguru import logger

from policies.remote.extras import said_as_json
from policies.remote.serving.engine import Answer
from policies.remote.serving.metrics import Metrics
from runtime.clock import NS_PER_S, Clock
from runtime.inference import InferenceFailureError, NotReadyError, checked
from runtime.interfaces import NoAnswerError, Policy, PolicyError
from runtime.messages import Observation, PolicyAnswer

STOP_S = 2.0
"""How long a call of the policy may go on when the server ends, whose clients have had `drain_s`."""


@runtime_checkable
class BatchPolicy(Protocol):
    """A `Policy` that takes several observations at once."""

    def infer_batch(self, observations: Sequence[Observation]) -> Sequence[PolicyAnswer]:
        """One answer for each observation, in order."""


@dataclass(slots=True)
class _Job:
    observations: Sequence[Observation]
    client: str
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Any]
    kind: Literal["infer", "reset", "forget"] = "infer"


def _settle(future: asyncio.Future[Any], result: Any, error: PolicyError | None) -> None:
    if future.done():
        return
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(result)


class LocalEngine:
    """The policy, or one policy for each client, on one thread.

    Args:
        policy: what to ask; `BatchPolicy` is used where it is one. The thread owns it.
        fresh: makes another policy like it. Given for a policy that remembers the episode: then every client
            gets its own, and no batch is made of several clients' observations.
        max_policies: so many of these there are at most; the longest silent client's makes room.
        clock: times inference and the batch delay.
        metrics: gets inference times and batch sizes.
        batch_size: observations asked about in one call, at most.
        batch_delay_s: how long the first of a batch waits for others.
    """

    def __init__(
        self,
        policy: Policy,
        clock: Clock,
        metrics: Metrics,
        batch_size: int = 1,
        batch_delay_s: float = 0.0,
        fresh: Callable[[], Policy] | None = None,
        max_policies: int = 32,
    ) -> None:
        self.isolated = fresh is not None
        self._policy = policy
        self._fresh = fresh
        self._spare: Policy | None = policy if fresh is not None else None
        self._own: dict[str, Policy] = {}  # the longest silent client's first
        self._max_policies = max_policies
        self._clock = clock
        self._metrics = metrics
        self._batch_size = batch_size
        self._delay_ns = round(batch_delay_s * NS_PER_S)
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._left_over: _Job | None = None
        self._thread: threading.Thread | None = None
        self._warm: queue.SimpleQueue[PolicyError | None] = queue.SimpleQueue()

    def start(self) -> None:
        """See `policies.remote.serving.engine.Engine`."""
        self._thread = threading.Thread(target=self._main, name="inference", daemon=True)
        self._thread.start()
        error = self._warm.get()
        if error is not None:
            self._thread.join()
            raise error

    def stop(self) -> None:
        """See `Engine`."""
        self._jobs.put(None)
        if self._thread is not None:
            self._thread.join(STOP_S)
            if self._thread.is_alive():
                logger.warning("the policy is still at an observation; the server ends without it")

    async def infer(self, observations: Sequence[Observation], client: str) -> list[Answer]:
        """See `Engine`."""
        self._metrics.pending.inc(len(observations))
        result: list[Answer] = await self._post(observations, client, "infer")
        return result

    async def reset(self, client: str) -> None:
        """See `Engine`."""
        await self._post((), client, "reset")

    def forget(self, client: str) -> None:
        """See `Engine`."""
        if self.isolated:
            self._post((), client, "forget")

    def _post(self, observations: Sequence[Observation], client: str, kind: Any) -> asyncio.Future[Any]:
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        self._jobs.put(_Job(observations, client, loop, future, kind))
        return future

    # --- the thread

    def _main(self) -> None:
        error = self._warm_up()
        self._warm.put(error)
        while error is None and (jobs := self._collect()):
            self._run(jobs)
        for policy in (self._policy, *self._own.values()):
            self._guard(policy.close)

    def _warm_up(self) -> PolicyError | None:
        try:
            self._policy.warm_up()
        except PolicyError as error:
            return error
        except BaseException as error:
            return PolicyError(f"policy {self._policy.spec.name}: {type(error).__name__}: {error}")
        return None

    def _next(self, timeout_s: float | None) -> _Job | None:
        job, self._left_over = self._left_over, None
        return job if job is not None else self._jobs.get(timeout=timeout_s)

    def _collect(self) -> list[_Job]:
        """The next jobs to run together; empty at the end."""
        first = self._next(None)
        if first is None or first.kind != "infer" or self.isolated:
            return [first] if first is not None else []
        jobs, size = [first], len(first.observations)
        deadline = self._clock.now_ns() + self._delay_ns
        while size < self._batch_size:
            left_s = max(0, deadline - self._clock.now_ns()) / NS_PER_S
            try:
                job = self._jobs.get(timeout=left_s) if left_s > 0 else self._jobs.get_nowait()
            except queue.Empty:
                break
            if job is None or job.kind != "infer" or size + len(job.observations) > self._batch_size:
                self._put_back(job)
                break
            jobs.append(job)
            size += len(job.observations)
        return jobs

    def _put_back(self, job: _Job | None) -> None:
        if job is None:
            self._jobs.put(None)  # nothing follows the end
        else:
            self._left_over = job

    def _run(self, jobs: list[_Job]) -> None:
        first = jobs[0]
        self._metrics.pending.dec(sum(len(job.observations) for job in jobs))
        if first.kind == "forget":
            self._let_go(first)
            return
        jobs = [job for job in jobs if not job.future.cancelled()]  # who asked has gone
        if not jobs:
            return
        first = jobs[0]
        policy, error = self._guard(lambda: self._policy_of(first.client))
        if error is None and first.kind == "reset":
            self._finish(first, *self._guard(policy.reset))
        elif error is not None:
            self._finish(first, None, error)
        else:
            self._run_batch(policy, jobs)

    def _policy_of(self, client: str) -> Policy:
        if self._fresh is None:
            return self._policy
        found = self._own.pop(client, None)
        if found is None:
            if len(self._own) >= self._max_policies:
                silent = next(iter(self._own))
                logger.info(
                    "{} is silent for longest: its policy makes room, and its episode is lost", silent
                )
                self._retire(silent)
            found, self._spare = self._spare or self._fresh(), None
            if found is not self._policy:
                found.warm_up()
        self._own[client] = found
        return found

    def _let_go(self, job: _Job) -> None:
        self._retire(job.client)
        self._finish(job, None, None)

    def _retire(self, client: str) -> None:
        found = self._own.pop(client, None)
        if found is not None and found is not self._policy:
            self._guard(found.close)
        elif found is not None:
            self._guard(found.reset)
            self._spare = found

    def _run_batch(self, policy: Policy, jobs: list[_Job]) -> None:
        answers, error = self._infer(policy, [o for job in jobs for o in job.observations])
        if error is not None and len(jobs) > 1:  # one bad observation is not the others' fault
            for job in jobs:
                self._finish(job, *self._infer(policy, job.observations))
            return
        at = 0
        for job in jobs:
            self._finish(job, answers[at : at + len(job.observations)], error)
            at += len(job.observations)

    def _infer(
        self, policy: Policy, observations: Sequence[Observation]
    ) -> tuple[list[Answer], PolicyError | None]:
        started = self._clock.now_ns()
        answers, error = self._guard(lambda: ask(policy, observations))
        self._metrics.inference_s.observe((self._clock.now_ns() - started) / NS_PER_S)
        self._metrics.batch_size.observe(len(observations))
        return answers or [], error

    def _guard(self, call: Callable[[], Any]) -> tuple[Any, PolicyError | None]:
        try:
            return call(), None
        except PolicyError as error:
            return None, error
        except BaseException as error:
            logger.exception("policy {} raised", self._policy.spec.name)
            return None, PolicyError(f"policy {self._policy.spec.name} raised {type(error).__name__}")

    def _finish(self, job: _Job, result: Any, error: PolicyError | None) -> None:
        try:
            job.loop.call_soon_threadsafe(_settle, job.future, result, error)
        except RuntimeError:  # the loop has gone: nobody waits any more
            logger.warning("an answer came after the server's end")


def ask(policy: Policy, observations: Sequence[Observation]) -> list[Answer]:
    """Checked answers of `policy`, in one call if it is a `BatchPolicy`.

    Raises:
        NoAnswerError: there is no action for what is seen, or none yet: no protocol has a word for that.
        PolicyError: it cannot answer, or gave no chunk.
    """
    try:
        if len(observations) > 1 and isinstance(policy, BatchPolicy):
            answers = list(policy.infer_batch(observations))
        else:
            answers = [policy.infer(o) for o in observations]
    except NotReadyError as error:
        raise NoAnswerError(str(error)) from None
    tells = policy.spec.tells_end
    return [_checked(a, o, tells) for a, o in zip(answers, observations, strict=True)]


def _checked(answer: PolicyAnswer, observation: Observation, tells: bool) -> Answer:
    """`answer` for the wire; where it has no rows, one that stays where the arm is.

    Raises:
        PolicyError: rows of another shape than ``[T, D]``, or not finite.
    """
    position = observation.arm.position
    try:
        answer = checked(answer, position.size)
    except InferenceFailureError as error:
        raise PolicyError(f"the policy gave {error}") from None
    rows = answer.rows if len(answer.rows) else position[None].astype(np.float64)
    return Answer(rows, said_as_json(answer, tells_end=tells))
