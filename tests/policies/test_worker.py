"""The inference worker on a stepped clock: every case is exact."""

from __future__ import annotations

import threading
from asyncio import CancelledError
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from runtime.clock import RealClock
from runtime.interfaces import ChunkSource, PolicyError, PolicySpec
from runtime.messages import Floats, Observation
from runtime.stepped import SteppedClock
from runtime.worker import ChunkRequest, InferenceWorker, Latest
from tests.policies.conftest import JOINTS, make_observation

S = 1_000_000_000
NO_PREFIX = np.zeros((0, JOINTS))


class ScriptedPolicy:
    spec = PolicySpec("scripted", chunk_steps=4, joints=JOINTS)

    def __init__(self, answer: Callable[[Observation], Floats] | None = None) -> None:
        self.answer = answer or (lambda o: np.full((4, JOINTS), float(o.step)))
        self.calls: list[str] = []
        self.threads: set[str] = set()

    def _note(self, call: str) -> None:
        self.calls.append(call)
        self.threads.add(threading.current_thread().name)

    def warm_up(self) -> None:
        self._note("warm_up")

    def infer(self, observation: Observation) -> Floats:
        self._note("infer")
        return self.answer(observation)

    def reset(self) -> None:
        self._note("reset")

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
    source: ChunkSource = worker
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
    bench.step(1.0)
    assert worker.busy_since_ns is None
    worker.request(7, 0, NO_PREFIX, 0)
    bench.step(0.2)
    worker.reset()
    worker.request(8, 1, NO_PREFIX, 0)
    bench.step(0.1)
    assert worker.busy_since_ns == S
    bench.step(1.0)
    assert worker.busy_since_ns is None


def test_without_latency_a_stepped_chunk_is_there_at_once(bench: Bench) -> None:
    worker = bench.start(ScriptedPolicy())
    worker.request(1, 0, NO_PREFIX, 0)
    bench.step(0)
    assert worker.poll() is not None


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
    worker.request(1, 0, NO_PREFIX, 0)
    bench.step(0)
    chunk = worker.poll()
    assert chunk is not None
    assert (chunk.rate_hz, chunk.discrete) == expected


def test_policy_and_snapshot_stay_on_the_workers_thread(bench: Bench) -> None:
    policy = ScriptedPolicy()
    worker = bench.start(policy)
    worker.request(1, 0, NO_PREFIX, 0)
    bench.step(0)
    bench.close()
    assert policy.calls == ["warm_up", "infer", "close"]
    assert policy.threads == {"inference"}


def test_a_chunk_of_an_old_epoch_is_never_returned(bench: Bench) -> None:
    worker = bench.start(ScriptedPolicy(), latency_s=0.1)
    worker.request(1, 0, NO_PREFIX, 0)
    bench.step(0.05)
    assert worker.request(2, 1, NO_PREFIX, 0)
    bench.step(0.05)
    assert worker.poll() is None
    bench.step(0.05)
    chunk = worker.poll()
    assert chunk is not None
    assert (chunk.step, chunk.epoch) == (2, 1)
    assert worker.statistics()["dropped_chunks"] == 1


def test_a_finished_chunk_is_dropped_when_the_epoch_moves_on_before_it_is_collected(bench: Bench) -> None:
    worker = bench.start(ScriptedPolicy(), latency_s=0.1)
    worker.request(1, 0, NO_PREFIX, 0)
    bench.step(0.1)
    worker.request(2, 1, NO_PREFIX, 0)
    assert worker.poll() is None
    assert worker.statistics()["dropped_chunks"] == 1
    bench.step(0.1)
    chunk = worker.poll()
    assert chunk is not None
    assert chunk.epoch == 1


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
    worker.request(1, 0, NO_PREFIX, 0)
    bench.step(0.1)
    assert worker.poll() is None
    assert worker.failures == {kind: 1}
    assert worker.last_error
    assert "\n" not in worker.last_error
    policy.answer = lambda _: np.ones((4, JOINTS))
    assert worker.request(2, 0, NO_PREFIX, 0)
    bench.step(0.1)
    assert worker.poll() is not None


def test_a_snapshot_that_cannot_be_made_is_counted(bench: Bench) -> None:
    def broken(_: ChunkRequest) -> Observation:
        raise KeyError("head")

    worker = bench.worker = InferenceWorker(ScriptedPolicy(), broken, bench.clock)
    worker.start()
    worker.request(1, 0, NO_PREFIX, 0)
    bench.step(0)
    assert worker.failures == {"observation": 1}
    assert "head" in worker.last_error


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


@pytest.mark.parametrize("call", ["reset", "close"])
def test_a_policy_that_exits_beside_its_answers_does_not_end_the_thread(bench: Bench, call: str) -> None:
    class Leaves(ScriptedPolicy):
        def reset(self) -> None:
            raise SystemExit(f"no {call}")

        close = reset

    worker = bench.start(Leaves())
    worker.swap(ScriptedPolicy()) if call == "close" else worker.reset()
    worker.request(1, 0, NO_PREFIX, 0)
    bench.step(0)
    assert worker.poll() is not None
    assert worker.failures == {"raised": 1}
    assert worker.last_error == f"SystemExit: no {call}"


def test_a_policy_that_exits_while_it_warms_up_cannot_be_used(bench: Bench) -> None:
    class Cold(ScriptedPolicy):
        def warm_up(self) -> None:
            raise SystemExit("a script's last line")

    worker = bench.start(Cold())
    with pytest.raises(PolicyError, match=r"policy scripted: raised: SystemExit: a script's last line"):
        worker.check_ready()


def test_swap_answers_from_the_new_policy_and_closes_the_old(bench: Bench) -> None:
    old, new = ScriptedPolicy(), ScriptedPolicy(lambda _: np.ones((2, JOINTS)))
    worker = bench.start(old, latency_s=0.1)
    worker.request(1, 0, NO_PREFIX, 0)
    bench.step(0.05)
    worker.swap(new)
    bench.step(0.05)
    assert worker.poll() is None
    assert old.calls[-1] == "close"
    worker.request(2, 0, NO_PREFIX, 0)
    bench.step(0.1)
    chunk = worker.poll()
    assert chunk is not None
    assert chunk.actions.shape == (2, JOINTS)
    assert new.calls == ["warm_up", "infer"]


def test_reset_reaches_the_policy_before_the_next_inference(bench: Bench) -> None:
    policy = ScriptedPolicy()
    worker = bench.start(policy)
    worker.reset()
    worker.request(1, 0, NO_PREFIX, 0)
    bench.step(0)
    assert policy.calls == ["warm_up", "reset", "infer"]


def test_stop_does_not_wait_for_the_simulated_latency(bench: Bench) -> None:
    worker = bench.start(ScriptedPolicy(), latency_s=100.0)
    worker.request(1, 0, NO_PREFIX, 0)
    bench.step(0)
    worker.stop()
    bench.step(0)
    assert not worker.is_alive()
    assert not worker.request(2, 0, NO_PREFIX, 0)


def test_on_the_real_clock_the_loop_never_waits_for_a_slow_policy() -> None:
    release = threading.Event()

    def answer(_: Observation) -> Floats:
        release.wait(10)
        return np.ones((4, JOINTS))

    async def main(clock: RealClock) -> None:
        worker = InferenceWorker(ScriptedPolicy(answer), observe, clock)
        worker.start()
        await worker.ready()
        assert worker.request(1, 0, NO_PREFIX, 0)
        for _ in range(100):
            assert worker.poll() is None
        release.set()
        while (chunk := worker.poll()) is None:
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
    assert box.take() == 2
    assert not box
