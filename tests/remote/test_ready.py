"""Ready means one whole answer: a server that starts slowly, answers wrongly, or has nothing to look at."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
from typing import Any

import numpy as np
import pytest
from loguru import logger

from dexrun.config.serve_options import ServeOptions
from runtime.clock import RealClock
from runtime.interfaces import NoAnswerError, PolicyError, ServedPolicy
from runtime.messages import Observation, PolicyAnswer
from runtime.stepped import SteppedClock
from runtime.worker import InferenceWorker, Trial
from tests.remote.support import (
    GUARD_S,
    NAMES,
    OPTIONS,
    PROTOCOLS,
    EchoPolicy,
    both_ends,
    connected,
    expected,
    make_client,
    observation,
    serving,
)

SHORT_S = 0.5
"""As little as a request may take here: less than the first answer takes."""


class Compiling(EchoPolicy):
    """Answers nothing before `compiled` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.asked, self.compiled = threading.Event(), threading.Event()

    def infer(self, observation: Observation) -> PolicyAnswer:
        self.asked.set()
        assert self.compiled.wait(GUARD_S)
        return super().infer(observation)


def waits(policy: Compiling, seconds: float) -> threading.Thread:
    """Let `policy` answer `seconds` after it was asked."""

    def run() -> None:
        assert policy.asked.wait(GUARD_S)
        RealClock().wait_until_ns(RealClock().now_ns() + round(seconds * 1e9))
        policy.compiled.set()

    thread = threading.Thread(target=run)
    thread.start()
    return thread


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_first_answer_on_a_connection_may_take_longer_than_the_others(protocol: str) -> None:
    made, patient = observation(), {"request_timeout_s": SHORT_S, "ready_timeout_s": GUARD_S}
    policy = Compiling()
    with serving(policy, ServeOptions(protocol=protocol)) as server:
        port = server.port
        with connected(protocol, port, **patient) as remote:
            assert isinstance(remote, ServedPolicy)
            remote.warm_up()
            assert "its first may take 30 s" in remote.unready
            thread = waits(policy, 2 * SHORT_S)
            assert np.abs(remote.infer(made).rows - expected(made)).max() < 2e-5
            thread.join()
            assert not remote.unready
            policy.compiled.clear()
            with pytest.raises(PolicyError, match=r"within 0\.5 s"):
                remote.infer(dataclasses.replace(made, step=8))
            policy.compiled.set()
            server.stop()
            again = Compiling()
            with serving(again, ServeOptions(protocol=protocol, port=port)):
                thread, before = waits(again, 2 * SHORT_S), remote.statistics()["timeout"]
                while remote.statistics().get("reconnects", 0) < 1 or remote.unready:
                    with contextlib.suppress(PolicyError):  # that the connection has ended is known by asking
                        remote.infer(dataclasses.replace(made, step=9))
                thread.join()
                if protocol != "lerobot":  # gRPC connects again by itself: three silent answers tell of it
                    assert remote.statistics()["timeout"] == before


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_wait_for_the_first_answer_ends_with_the_worker(protocol: str) -> None:
    policy, clock = Compiling(), RealClock()
    with serving(policy, ServeOptions(protocol=protocol)) as server:
        remote = make_client(protocol, server.port, clock, ready_timeout_s=GUARD_S)
        worker = InferenceWorker(remote, lambda _: observation(), clock, trial=Trial(observation, 10.0))
        worker.start()
        assert policy.asked.wait(GUARD_S)
        worker.stop()
        began_ns = clock.now_ns()
        while worker.is_alive():
            clock.wait_until_ns(clock.now_ns() + 1_000_000)
        assert clock.now_ns() - began_ns < GUARD_S / 2 * 1e9
        policy.compiled.set()


def trial_of(remote: Any, clock: SteppedClock) -> InferenceWorker:
    worker = InferenceWorker(remote, lambda _: observation(), clock, trial=Trial(observation, 10.0))
    worker.start()
    clock.wait_until_ns(clock.now_ns() + 1_000_000)
    worker.stop()
    clock.wait_until_ns(clock.now_ns() + 10_000_000)
    assert not worker.is_alive()
    return worker


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_an_action_of_another_width_is_told_before_anything_moves(protocol: str) -> None:
    keys, clock = OPTIONS[protocol]().keys, SteppedClock()
    key = next(iter(keys.action))
    fewer = keys.model_copy(update={"action": {**keys.action, key: NAMES[:4]}})
    with serving(EchoPolicy(), ServeOptions(protocol=protocol)) as server:
        worker = trial_of(make_client(protocol, server.port, clock, keys=fewer), clock)
    with pytest.raises(PolicyError, match=rf"action '{key}' has shape .*; expected \[steps, 4\]"):
        worker.check_ready()


class Blind(EchoPolicy):
    """Sees no object."""

    def infer(self, observation: Observation) -> PolicyAnswer:
        raise NoAnswerError("the mask is empty")


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_that_there_is_nothing_to_see_is_told_from_what_is_wrong(protocol: str) -> None:
    with both_ends(protocol, Blind()) as remote, pytest.raises(NoAnswerError) as caught:
        remote.infer(observation())
    assert str(caught.value) == "no action for this view: the mask is empty"
    keys = with_instruction(protocol)
    with (
        both_ends(protocol, EchoPolicy(), {"keys": keys}, keys=keys) as remote,
        pytest.raises(PolicyError, match="told to refuse") as refused,
    ):
        remote.infer(observation(instruction="refuse"))
    assert not isinstance(refused.value, NoAnswerError)


def with_instruction(protocol: str) -> Any:
    keys = OPTIONS[protocol]().keys
    return keys.model_copy(update={"instruction": keys.instruction or "task"})


def test_it_is_said_every_few_seconds_that_a_policy_is_waited_for() -> None:
    clock, said = SteppedClock(), []
    handle = logger.add(said.append, level="INFO", format="{message}")

    class Slow(EchoPolicy):
        def infer(self, observation: Observation) -> PolicyAnswer:
            clock.wait_until_ns(clock.now_ns() + 12_000_000_000)
            return super().infer(observation)

    async def main() -> None:
        worker = InferenceWorker(Slow(), lambda _: observation(), clock, trial=Trial(observation, 60.0))
        worker.start()
        await worker.ready()
        worker.stop()
        await worker.join()

    try:
        clock.run(main)
    finally:
        logger.remove(handle)
    lines = [line.strip() for line in said if "no answer yet" in line]
    assert lines == [
        f"policy echo: no answer yet after {n} s; its first may take 300 s (policy.ready_timeout_s)"
        for n in (5, 10)
    ]
