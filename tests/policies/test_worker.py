"""The inference worker on a stepped clock: every case is exact."""

from __future__ import annotations

import threading
from asyncio import CancelledError
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from loguru import logger

from runtime.clock import RealClock
from runtime.inference import InferenceFailureError, NotReadyError, checked
from runtime.interfaces import ChunkSource, NoAnswerError, PolicyError, PolicySpec
from runtime.latest import Latest
from runtime.messages import Floats, Observation, PolicyAnswer, PolicyStatus
from runtime.stepped import SteppedClock
from runtime.worker import ChunkRequest, InferenceWorker, Trial
from tests.policies.conftest import JOINTS, make_observation

S = 1_000_000_000
NO_PREFIX = np.zeros((0, JOINTS))


class ScriptedPolicy:
    spec = PolicySpec("scripted", chunk_steps=4, joints=JOINTS)

    def __init__(self, answer: Callable[[Observation], Any] | None = None) -> None:
        self.answer = answer or (lambda o: np.full((4, JOINTS), float(o.step)))
        self.calls: list[str] = []
        self.threads: set[str] = set()

    def _note(self, call: str) -> None:
        self.calls.append(call)
        self.threads.add(threading.current_thread().name)

    def warm_up(self) -> None:
        self._note("warm_up")

    def infer(self, observation: Observation) -> PolicyAnswer:
        self._note("infer")
        answer = self.answer(observation)
        return answer if isinstance(answer, PolicyAnswer) else PolicyAnswer(answer)

    def reset(self) -> None:
        self._note("reset")

    def statistics(self) -> dict[str, int]:
        return {}

    def close(self) -> None:
        self._note("close")


def observe(request: ChunkRequest) -> Observation:
    return make_observation(request.step, request.epoch, request.stamp_ns)


class Bench:
    """A worker on a stepped clock, driven by the test's own thread."""

    def __init__(self) -> None:
        self.clock = SteppedClock()
        self.worker: InferenceWorker | None = None

    def start(self, policy: ScriptedPolicy, latency_s: float | None = None, **more: Any) -> InferenceWorker:
        self.worker = InferenceWorker(policy, observe, self.clock, latency_s, **more)
        self.worker.start()
        self.step(0)
        return self.worker

    def step(self, seconds: float) -> None:
        while self.clock.run_threads():
            pass
        self.clock.wait_until_ns(self.clock.now_ns() + round(seconds * S))
        while self.clock.run_threads():
            pass

    def close(self) -> None:
        if self.worker is not None:
            self.worker.stop()
            self.step(0)
            assert not self.worker.is_alive()


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    made.close()


def test_a_chunk_arrives_exactly_one_latency_after_its_request(bench: Bench) -> None:
    worker = bench.start(ScriptedPolicy(), latency_s=0.2)
    source: ChunkSource = worker.attempt()
    assert source.request(7, 0, NO_PREFIX, 0)
    assert not source.request(8, 0, NO_PREFIX, 0)
    bench.step(0.199)
    assert source.poll() is None
    assert worker.in_flight
    bench.step(0.001)
    chunk = source.poll()
    assert chunk is not None
    assert (chunk.step, chunk.epoch, chunk.observed_ns, chunk.inference_s) == (7, 0, 0, 0.2)
    assert chunk.actions.tolist() == [[7.0] * JOINTS] * 4
    assert source.poll() is None
    assert worker.statistics()["inference_s"] == {"p50": 0.2, "max": 0.2}


def test_it_says_since_when_the_policy_is_busy_whatever_is_asked_meanwhile(bench: Bench) -> None:
    worker = bench.start(ScriptedPolicy(), latency_s=0.5)
    one = worker.attempt()
    bench.step(1.0)
    assert worker.report.busy_since_ns is None
    one.request(7, 0, NO_PREFIX, 0)
    bench.step(0.2)
    worker.attempt().request(8, 1, NO_PREFIX, 0)
    bench.step(0.1)
    assert worker.report.busy_since_ns == S
    bench.step(1.0)
    assert worker.report.busy_since_ns is None


def test_without_latency_a_stepped_chunk_is_there_at_once(bench: Bench) -> None:
    worker = bench.start(ScriptedPolicy())
    one = worker.attempt()
    one.request(1, 0, NO_PREFIX, 0)
    bench.step(0)
    assert one.poll() is not None


@pytest.mark.parametrize(
    ("given", "expected"),
    [({}, (25.0, (1,))), ({"rate_hz": 10.0}, (10.0, (1,))), ({"discrete": (0,)}, (25.0, (0,)))],
)
def test_a_chunk_has_the_rate_that_is_configured_or_else_the_policys_own(
    bench: Bench, given: dict[str, Any], expected: tuple[float, tuple[int, ...]]
) -> None:
    policy = ScriptedPolicy()
    policy.spec = replace(ScriptedPolicy.spec, rate_hz=25.0, discrete=(1,))
    worker = bench.start(policy, **given)
    one = worker.attempt()
    one.request(1, 0, NO_PREFIX, 0)
    bench.step(0)
    chunk = one.poll()
    assert chunk is not None
    assert (chunk.rate_hz, chunk.discrete) == expected


def test_policy_and_snapshot_stay_on_the_workers_thread(bench: Bench) -> None:
    policy = ScriptedPolicy()
    worker = bench.start(policy)
    one = worker.attempt()
    one.request(1, 0, NO_PREFIX, 0)
    bench.step(0)
    bench.close()
    assert policy.calls == ["warm_up", "reset", "infer", "close"]
    assert policy.threads == {"inference"}


def test_a_chunk_of_an_older_attempt_is_never_returned(bench: Bench) -> None:
    worker = bench.start(ScriptedPolicy(), latency_s=0.1)
    one, two = worker.attempt(), worker.attempt()
    one.request(1, 0, NO_PREFIX, 0)
    bench.step(0.05)
    assert two.request(2, 1, NO_PREFIX, 0)
    bench.step(0.05)
    assert two.poll() is None
    bench.step(0.05)
    chunk = two.poll()
    assert chunk is not None
    assert (chunk.step, chunk.epoch) == (2, 1)
    assert worker.statistics()["dropped_chunks"] == 1


def test_a_finished_chunk_is_dropped_when_the_next_attempt_begins_before_it_is_collected(
    bench: Bench,
) -> None:
    worker = bench.start(ScriptedPolicy(), latency_s=0.1)
    one, two = worker.attempt(), worker.attempt()
    one.request(1, 0, NO_PREFIX, 0)
    bench.step(0.1)
    two.request(2, 1, NO_PREFIX, 0)
    assert two.poll() is None
    assert worker.statistics()["dropped_chunks"] == 1
    bench.step(0.1)
    chunk = two.poll()
    assert chunk is not None
    assert chunk.epoch == 1
    assert one.poll() is None


def test_a_finished_chunk_is_not_given_to_another_attempt(bench: Bench) -> None:
    worker = bench.start(ScriptedPolicy())
    one, two = worker.attempt(), worker.attempt()
    one.request(1, 0, NO_PREFIX, 0)
    bench.step(0)
    assert two.poll() is None
    assert worker.statistics()["dropped_chunks"] == 1


def test_how_the_attempt_stands_comes_with_the_chunk(bench: Bench) -> None:
    policy = ScriptedPolicy(lambda _: PolicyAnswer(np.ones((2, JOINTS)), PolicyStatus.DONE))
    one = bench.start(policy).attempt()
    one.request(1, 0, NO_PREFIX, 0)
    bench.step(0)
    chunk = one.poll()
    assert chunk is not None
    assert (chunk.status, chunk.why, chunk.actions.shape) == (PolicyStatus.DONE, "", (2, JOINTS))
    policy.answer = lambda _: PolicyAnswer(np.zeros((0, JOINTS)), PolicyStatus.FAILED, "it slipped")
    one.request(2, 0, NO_PREFIX, 0)
    bench.step(0)
    chunk = one.poll()
    assert chunk is not None
    assert (chunk.status, chunk.why, chunk.actions.shape) == (PolicyStatus.FAILED, "it slipped", (0, JOINTS))


def test_a_status_in_plain_words_is_one_and_another_word_is_none() -> None:
    rows = np.zeros((1, JOINTS))
    said = checked(PolicyAnswer(rows, "failed", ValueError("it slipped")), JOINTS)  # type: ignore[arg-type]
    assert said.status is PolicyStatus.FAILED
    assert said.why == "it slipped"
    with pytest.raises(InferenceFailureError, match="status 'over'; accepted are running, done, failed"):
        checked(PolicyAnswer(rows, "over"), JOINTS)  # type: ignore[arg-type]


def test_an_instruction_and_an_attempt_travel_in_the_request(bench: Bench) -> None:
    asked: list[ChunkRequest] = []

    def seen(request: ChunkRequest) -> Observation:
        asked.append(request)
        return observe(request)

    worker = bench.worker = InferenceWorker(ScriptedPolicy(), seen, bench.clock)
    worker.start()
    bench.step(0)
    for epoch, instruction in enumerate(("the cube", "the ball")):
        worker.attempt(instruction).request(1, epoch, NO_PREFIX, 0)
        bench.step(0)
    assert [(request.instruction, request.attempt) for request in asked] == [("the cube", 1), ("the ball", 2)]


def test_what_is_not_ready_yet_is_no_failure_and_is_asked_for_again(bench: Bench) -> None:
    ready: list[bool] = []

    def seen(request: ChunkRequest) -> Observation:
        if not ready:
            raise NotReadyError("no mask yet")
        return observe(request)

    policy = ScriptedPolicy()
    worker = bench.worker = InferenceWorker(policy, seen, bench.clock, 0.5)
    worker.start()
    bench.step(0)
    one = worker.attempt()
    assert one.request(1, 0, NO_PREFIX, 0)
    bench.step(0)
    assert one.poll() is None
    assert worker.report.waits_for == "no mask yet"
    assert not worker.in_flight
    ready.append(True)
    assert one.request(1, 0, NO_PREFIX, 0)
    bench.step(0.5)
    assert one.poll() is not None
    assert (dict(worker.report.failures), worker.report.waits_for) == ({}, "")
    assert policy.calls == ["warm_up", "reset", "infer"]


def test_failures_are_the_attempts_own(bench: Bench) -> None:
    policy = ScriptedPolicy(_raise(ValueError("boom")))
    worker = bench.start(policy, latency_s=0.1)
    one, two = worker.attempt(), worker.attempt()
    one.request(1, 0, NO_PREFIX, 0)
    bench.step(0.1)
    assert (dict(one.failures), dict(two.failures)) == ({"raised": 1}, {})
    policy.answer = lambda _: np.ones((4, JOINTS))
    two.request(2, 1, NO_PREFIX, 0)
    bench.step(0.1)
    assert (dict(one.failures), dict(two.failures)) == ({}, {})
    assert dict(worker.report.failures) == {"raised": 1}


def _raise(error: BaseException) -> Callable[[Observation], Floats]:
    def answer(_: Observation) -> Floats:
        raise error

    return answer


@pytest.mark.parametrize(
    ("kind", "answer"),
    [
        ("policy_error", _raise(PolicyError("no\nmask"))),
        ("raised", _raise(ValueError("boom"))),
        ("raised", _raise(SystemExit(1))),
        ("raised", _raise(KeyboardInterrupt())),
        ("raised", _raise(CancelledError())),
        ("out_of_memory", _raise(MemoryError("16 GiB"))),
        ("not_finite", lambda _: np.full((4, JOINTS), np.nan)),
        ("not_finite", lambda _: np.full((4, JOINTS), np.inf)),
        ("not_finite", lambda _: np.full((4, JOINTS), "a")),
        ("wrong_shape", lambda _: np.zeros((4, 3))),
        ("wrong_shape", lambda _: np.zeros((0, JOINTS))),
        ("wrong_shape", lambda _: np.zeros(JOINTS)),
    ],
)
def test_a_bad_answer_is_counted_and_the_next_request_is_served(
    bench: Bench, kind: str, answer: Callable[[Observation], Floats]
) -> None:
    policy = ScriptedPolicy(answer)
    worker = bench.start(policy, latency_s=0.1)
    one = worker.attempt()
    one.request(1, 0, NO_PREFIX, 0)
    bench.step(0.1)
    assert one.poll() is None
    assert dict(worker.report.failures) == {kind: 1}
    assert worker.report.last_error
    assert "\n" not in worker.report.last_error
    policy.answer = lambda _: np.ones((4, JOINTS))
    assert one.request(2, 0, NO_PREFIX, 0)
    bench.step(0.1)
    assert one.poll() is not None


def test_a_snapshot_that_cannot_be_made_is_counted(bench: Bench) -> None:
    def broken(_: ChunkRequest) -> Observation:
        raise KeyError("head")

    worker = bench.worker = InferenceWorker(ScriptedPolicy(), broken, bench.clock)
    worker.start()
    worker.attempt().request(1, 0, NO_PREFIX, 0)
    bench.step(0)
    assert dict(worker.report.failures) == {"observation": 1}
    assert "head" in worker.report.last_error


def test_warm_up_that_fails_is_one_line_and_ends_the_thread() -> None:
    class Cold(ScriptedPolicy):
        def warm_up(self) -> None:
            raise RuntimeError("no kernel\nimage")

    async def main(clock: SteppedClock) -> InferenceWorker:
        worker = InferenceWorker(Cold(), observe, clock)
        worker.start()
        with pytest.raises(PolicyError, match=r"policy scripted: raised: RuntimeError: no kernel image"):
            await worker.ready()
        await worker.join()
        return worker

    clock = SteppedClock()
    assert not clock.run(main, clock).is_alive()


def test_a_reset_that_fails_is_repeated_before_the_policy_is_asked(bench: Bench) -> None:
    class Leaves(ScriptedPolicy):
        def reset(self) -> None:
            super().reset()
            if self.calls.count("reset") == 1:
                raise SystemExit("no reset")

    policy = Leaves()
    worker = bench.start(policy)
    one = worker.attempt()
    one.request(1, 0, NO_PREFIX, 0)
    bench.step(0)
    assert one.poll() is None
    assert dict(one.failures) == {"raised": 1}
    assert worker.report.last_error == "SystemExit: no reset"
    one.request(1, 0, NO_PREFIX, 0)
    bench.step(0)
    assert one.poll() is not None
    assert policy.calls == ["warm_up", "reset", "reset", "infer"]


def test_a_policy_that_exits_as_it_is_closed_ends_nothing_else(bench: Bench) -> None:
    class Leaves(ScriptedPolicy):
        def close(self) -> None:
            raise SystemExit("no close")

    worker = bench.start(Leaves())
    bench.close()
    assert worker.report.last_error == "SystemExit: no close"


def test_a_policy_that_exits_while_it_warms_up_cannot_be_used(bench: Bench) -> None:
    class Cold(ScriptedPolicy):
        def warm_up(self) -> None:
            raise SystemExit("a script's last line")

    worker = bench.start(Cold())
    with pytest.raises(PolicyError, match=r"policy scripted: raised: SystemExit: a script's last line"):
        worker.check_ready()


def test_the_policy_is_reset_once_before_each_attempt(bench: Bench) -> None:
    policy = ScriptedPolicy()
    worker = bench.start(policy)
    for epoch in range(2):
        one = worker.attempt()
        for step in range(2):
            one.request(step, epoch, NO_PREFIX, 0)
            bench.step(0)
            assert one.poll() is not None
    assert policy.calls == ["warm_up", *("reset", "infer", "infer") * 2]


class Slow(ScriptedPolicy):
    """Each answer takes the next of `times_s`, on `clock`."""

    def __init__(self, clock: SteppedClock, *times_s: float) -> None:
        super().__init__()
        self._clock, self._times_s = clock, iter(times_s)

    def infer(self, observation: Observation) -> PolicyAnswer:
        self._clock.wait_until_ns(self._clock.now_ns() + round(next(self._times_s) * S))
        return super().infer(observation)


@pytest.mark.parametrize(
    ("times_s", "latency_s", "verdict"),
    [
        ((0.1,), 0.0, "ready"),
        ((9.0, 0.1), 0.0, "ready"),  # the first may be slow: something is compiled for it
        ((9.0, 9.0), 0.0, "warned"),
        ((11.0, 11.0), 0.0, "one answer takes 11 s, an attempt may take 10 s"),
        ((0.1,), 12.0, "one answer takes 12 s, an attempt may take 10 s"),
        ((50.0, 1.0), 0.0, r"no answer within 40 s \(policy.ready_timeout_s\)"),
    ],
)
def test_a_policy_that_is_too_slow_for_any_attempt_is_told_so_before_the_first(
    times_s: tuple[float, ...], latency_s: float, verdict: str
) -> None:
    clock, said = SteppedClock(), []
    handle = logger.add(said.append, level="WARNING", format="{message}")
    policy = Slow(clock, *times_s)

    async def main() -> None:
        trial = Trial(make_observation, 10.0, 40.0)
        worker = InferenceWorker(policy, observe, clock, latency_s, trial=trial)
        worker.start()
        try:
            await worker.ready()
        finally:
            worker.stop()
            await worker.join()

    try:
        if verdict in ("ready", "warned"):
            clock.run(main)
        else:
            with pytest.raises(PolicyError, match=verdict):
                clock.run(main)
    finally:
        logger.remove(handle)
    assert [line.strip() for line in said] == (
        ["policy scripted: one answer takes 9 s, an attempt may take 10 s"] if verdict == "warned" else []
    )
    assert policy.calls.count("infer") == len(times_s)


@pytest.mark.parametrize("error", [PolicyError("no answer"), NoAnswerError("no answer")])
@pytest.mark.parametrize("masks", [(), ("head",)])
def test_a_policy_that_cannot_answer_at_warm_up_cannot_be_used_unless_it_lacks_an_object(
    bench: Bench, masks: tuple[str, ...], error: PolicyError
) -> None:
    policy = ScriptedPolicy(_raise(error))
    policy.spec = replace(policy.spec, masks=masks)
    trial = Trial(make_observation, 10.0)
    worker = bench.worker = InferenceWorker(policy, observe, bench.clock, trial=trial)
    worker.start()
    bench.step(0)
    if masks and isinstance(error, NoAnswerError):
        assert worker.check_ready()
    else:
        with pytest.raises(PolicyError, match="no answer"):
            worker.check_ready()


def test_a_wrong_shape_shows_at_warm_up(bench: Bench) -> None:
    policy = ScriptedPolicy(lambda _: np.zeros((4, 3)))
    trial = Trial(make_observation, 10.0)
    worker = bench.worker = InferenceWorker(policy, observe, bench.clock, trial=trial)
    worker.start()
    bench.step(0)
    with pytest.raises(PolicyError, match=r"wrong_shape: actions of shape \[4, 3\]"):
        worker.check_ready()


def test_stop_does_not_wait_for_the_simulated_latency(bench: Bench) -> None:
    worker = bench.start(ScriptedPolicy(), latency_s=100.0)
    one = worker.attempt()
    one.request(1, 0, NO_PREFIX, 0)
    bench.step(0)
    worker.stop()
    bench.step(0)
    assert not worker.is_alive()
    assert not one.request(2, 0, NO_PREFIX, 0)


def test_on_the_real_clock_the_loop_never_waits_for_a_slow_policy() -> None:
    release = threading.Event()

    def answer(_: Observation) -> Floats:
        release.wait(10)
        return np.ones((4, JOINTS))

    async def main(clock: RealClock) -> None:
        worker = InferenceWorker(ScriptedPolicy(answer), observe, clock)
        worker.start()
        await worker.ready()
        one = worker.attempt()
        assert one.request(1, 0, NO_PREFIX, 0)
        for _ in range(100):
            assert one.poll() is None
        release.set()
        while (chunk := one.poll()) is None:
            await clock.sleep_until_ns(clock.now_ns() + 1_000_000)
        assert chunk.inference_s > 0
        worker.stop()
        await worker.join()

    clock = RealClock()
    clock.run(main, clock)


def test_latest_keeps_only_the_newest() -> None:
    box: Latest[int] = Latest()
    assert box.take() is None
    box.post(1)
    box.post(2)
    assert box
    assert box.newest() == 2
    assert box.take() == 2
    assert not box
    assert box.newest() is None
