"""A slow half never makes the fast one wait; on a stepped clock, to the tick."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
import pytest
from loguru import logger
from pydantic import ValidationError

from dexrun.gym.asking import Pace
from dexrun.gym.clock import SetClock
from policies.slow_fast.config import SlowFastConfig
from policies.slow_fast.policy import SlowFastPolicy
from policies.slow_fast.thinking import AskedThought, InlineThinker
from runtime.clock import NS_PER_S
from runtime.inference import ChunkRequest, NotReadyError, Trial
from runtime.interfaces import NoAnswerError, PolicyError, PolicySpec
from runtime.messages import Observation, PolicyAnswer, PolicyStatus
from runtime.stepped import SteppedClock
from runtime.worker import InferenceWorker
from tests.slow_fast.halves import JOINTS, STILL, Fast, Halves, Slow, halves, observation


@pytest.fixture
def warnings() -> Any:
    said: list[str] = []
    sink = logger.add(lambda message: said.append(message.record["message"]), level="INFO")
    yield said
    logger.remove(sink)


@pytest.mark.parametrize("kind", ["thread", "inline"])
def test_the_fast_half_acts_on_the_newest_thought_and_knows_its_age(kind: str) -> None:
    with halves(latency_s=1.0, kind=kind) as pair:
        seen = []
        for _ in range(25):
            try:
                seen.append(pair.ask())
            except NotReadyError:
                seen.append(None)
            pair.step(0.125)
        assert seen[:8] == [None] * 8
        # the first is of the beginning, the second of the newest observation when the first was done
        assert seen[8:16] == [(0.0, 1.0 + 0.125 * n) for n in range(8)]
        assert seen[16:24] == [(0.875, 1.125 + 0.125 * n) for n in range(8)]
        assert pair.answer.reasoning == "look at red"
        statistics = pair.policy.statistics()
        assert statistics["slow/thoughts"] == (3 if kind == "thread" else 4)  # one is not due yet
        assert statistics["slow/acted_on"] == 17
        assert 1000 <= statistics["slow/age_ms_p50"] <= 2000 <= statistics["slow/age_ms_max"] < 2126
        assert statistics["slow/calls"] >= 3


def test_the_slow_half_has_a_thread_of_its_own_and_is_closed_on_it() -> None:
    slow = Slow()
    with halves(slow) as pair:
        with pytest.raises(NotReadyError):
            pair.ask()
        pair.step(1.5)
        pair.ask()
    assert slow.threads == {"slow half"}
    assert slow.closed


def test_a_thought_of_another_instruction_is_told_and_not_acted_on() -> None:
    with halves() as pair:
        with pytest.raises(NotReadyError, match="no thought yet of 'red'"):
            pair.ask("red")
        pair.step(0.5)
        with pytest.raises(NotReadyError):
            pair.ask("blue")  # told while the slow half is at red
        pair.step(0.6)
        with pytest.raises(NotReadyError, match="no thought yet of 'blue'; the newest is of 'red'"):
            pair.ask("blue")
        pair.step(1.0)
        assert pair.ask("blue")[1] > 0
        assert pair.answer.reasoning == "look at blue"
        assert pair.policy.statistics()["slow/of_other_instructions"] == 1


def test_it_is_acted_on_meanwhile_where_that_is_configured() -> None:
    with halves(other_instructions=True) as pair:
        with pytest.raises(NotReadyError):
            pair.ask("red")
        pair.step(1.1)
        assert pair.ask("blue") == (0.0, 1.1)
        assert pair.answer.reasoning == "look at red"


def test_a_thought_of_an_attempt_before_is_none_of_this_one() -> None:
    slow = Slow()
    with halves(slow) as pair:
        with pytest.raises(NotReadyError):
            pair.ask()
        pair.step(1.1)
        pair.ask()
        pair.policy.reset()
        with pytest.raises(NotReadyError, match="the newest is of 'red' in an attempt before"):
            pair.ask()
        pair.step(2.1)
        pair.ask()
        assert slow.resets == 2  # on its own thread, before the first observation of each
        assert pair.fast.resets == 2


def test_a_slow_half_that_raises_is_one_line_and_old_thoughts_count_for_a_while(warnings: list[str]) -> None:
    def fail(seen: Observation) -> None:
        if seen.stamp_ns > 0:
            raise ZeroDivisionError("no more")

    with halves(Slow(fail), max_age_s=3.0) as pair:
        with pytest.raises(NotReadyError):
            pair.ask()
        pair.step(1.0)
        assert [pair.ask()[1], pair.step(0.5), pair.ask()[1], pair.step(1.5), pair.ask()[1]][::2] == [
            1.0, 1.5, 3.0,
        ]  # fmt: skip
        pair.step(0.5)
        with pytest.raises(
            NoAnswerError, match=r"3\.5 s old \(policy.max_age_s = 3\): ZeroDivisionError: no more"
        ):
            pair.ask()
        assert pair.policy.statistics()["slow/failures"] >= 2
        assert pair.policy.statistics()["slow/too_old"] == 1
    assert warnings[0] == "the slow half, thinker: raised (time 1): ZeroDivisionError: no more"
    assert len(warnings) == 2  # the 1st and the 2nd time


@pytest.mark.parametrize("kind", ["thread", "inline"])
def test_an_attempt_whose_object_the_arm_hides_from_the_first_has_failed(kind: str) -> None:
    def hidden(seen: Observation) -> None:
        if seen.instruction == "blue":
            raise NoAnswerError("nothing in the picture fits 'blue'")

    with halves(Slow(hidden), latency_s=1.0, kind=kind) as pair:
        with pytest.raises(NotReadyError):
            pair.ask("red")
        pair.step(1.1)
        pair.ask("red")
        pair.policy.reset()  # it is told something else, from where the arm is
        waited = 0
        while True:
            pair.step(0.25)
            try:
                answer = pair.policy.infer(observation(pair.clock, "blue"))
            except NotReadyError:
                waited += 1
                continue
            break
        assert 12 <= waited <= 20
        assert (answer.status, answer.rows.shape) == (PolicyStatus.FAILED, (0, JOINTS))
        assert answer.why.startswith("not seen for 3.")
        assert answer.why.endswith(
            "the arm may hide it: no action for this view: nothing in the picture fits 'blue'"
        )
        pair.policy.reset()  # the next one waits again
        with pytest.raises(NotReadyError):
            pair.policy.infer(observation(pair.clock, "blue"))
        assert pair.policy.statistics()["slow/unseen"] == 1


def test_while_the_arm_is_held_nothing_counts_as_not_seen() -> None:
    """Nobody asks then, so that a person who holds the arm for long does not make an attempt fail by it."""

    def hidden(seen: Observation) -> None:
        raise NoAnswerError("the arm is in the way")

    with halves(Slow(hidden), latency_s=0.5) as pair:
        for pause_s in (60.0, 60.0, 0.0):
            for _ in range(8):
                pair.step(0.25)
                with pytest.raises(NotReadyError):
                    pair.ask()
            pair.step(pause_s)
        for _ in range(6):
            pair.step(0.25)
            with contextlib.suppress(NotReadyError):
                answer = pair.policy.infer(observation(pair.clock, "red"))
        assert answer.status is PolicyStatus.FAILED
        assert answer.why.startswith("not seen for 3.")


def test_an_object_that_was_seen_may_be_hidden_as_long_as_its_thought_counts() -> None:
    def once(seen: Observation) -> None:
        if seen.stamp_ns > 0:
            raise NoAnswerError("the arm is in the way")

    with halves(Slow(once), latency_s=1.0) as pair:
        with pytest.raises(NotReadyError):
            pair.ask()
        for _ in range(8):
            pair.step(1.1)
            assert pair.ask()[0] == 0.0
        assert "slow/unseen" not in pair.policy.statistics()


def test_a_slow_half_that_hangs_is_one_line_and_left_behind(warnings: list[str]) -> None:
    with SteppedClock() as clock:
        never = clock.signal()

        def hang(seen: Observation) -> None:
            if seen.stamp_ns > 0:
                never.wait()

        pair = Halves(clock, Slow(hang), hung_s=2.0, max_age_s=6.0)
        pair.policy.warm_up()
        pair.policy.reset()
        ages = []
        for _ in range(9):
            try:
                ages.append(pair.ask()[1])
            except NotReadyError:
                ages.append(0.0)
            except NoAnswerError:
                ages.append(-1.0)
            pair.step(1.0)
        assert ages == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, -1.0, -1.0]
        assert len(warnings) == 1
        assert warnings[0].startswith("the slow half, thinker, has been at one thought for 2 s")
        pair.policy.close()
        assert "left behind" in warnings[-1]


def test_asked_synchronously_the_answer_waits_and_what_fails_without_a_thought_is_its_own() -> None:
    slow = Slow()
    with halves(slow, kind="waits") as pair:
        assert pair.ask() == (0.0, 0.0)
        pair.step(0.25)
        assert pair.ask() == (0.25, 0.0)

        def fail(seen: Observation) -> None:
            raise PolicyError("no answer")

        slow.act = fail
        pair.step(0.25)
        assert pair.ask() == (0.25, 0.25)  # as it does asynchronously, it goes on with the newest
        with pytest.raises(PolicyError, match="no answer"):
            pair.ask("blue")
        pair.policy.reset()
        with pytest.raises(PolicyError, match="no answer"):
            pair.ask()


def test_a_clock_that_is_set_back_ends_what_was_thought_about() -> None:
    """As the simulation in one process does for every scene."""
    clock = SetClock()
    thinker = InlineThinker(Slow(), clock, NS_PER_S)
    clock.set(20 * NS_PER_S)
    thinker.post(AskedThought(observation(clock), 1, clock.now_ns()))
    clock.set(0)
    assert thinker.report.newest is None
    thinker.post(AskedThought(observation(clock), 2, 0))
    clock.set(NS_PER_S)
    newest = thinker.report.newest
    assert newest is not None
    assert (newest.stamp_ns, newest.attempt) == (0, 2)


def test_a_slow_half_that_cannot_begin_is_known_before_anything_moves() -> None:
    class Cold(Slow):
        def warm_up(self) -> None:
            raise PolicyError("no such model")

    with SteppedClock() as clock:
        pair = Halves(clock, Cold())
        with pytest.raises(PolicyError, match="no such model"):
            pair.policy.warm_up()
        pair.policy.close()


def test_a_policy_without_a_latent_is_no_slow_half() -> None:
    class Mute(Slow):
        def infer(self, observation: Observation) -> PolicyAnswer:
            return PolicyAnswer(observation.arm.position[None])

    with halves(Mute(), kind="waits") as pair, pytest.raises(PolicyError, match="carry no latent"):
        pair.ask()


def test_a_latent_that_is_too_small_is_said_before_anything_moves() -> None:
    slow = Slow()
    slow.spec = PolicySpec("thinker", 1, JOINTS, latent=1)
    with SteppedClock() as clock:
        pair = Halves(clock, slow)
        with pytest.raises(PolicyError, match=r"hands wants 2 numbers of a thought; .* gives 1"):
            pair.policy.warm_up()
        pair.policy.close()


def test_in_a_run_no_thought_yet_is_no_failure_and_the_worker_tells_of_it() -> None:
    clock = SteppedClock()
    pair = Halves(clock, Slow(), latency_s=1.0)

    def observe(request: ChunkRequest) -> Observation:
        return observation(clock, request.instruction)

    worker = InferenceWorker(
        pair.policy, observe, clock, trial=Trial(lambda: observation(clock, "", trial=True), 10.0)
    )
    worker.start()
    pair.step(0.0)
    assert worker.check_ready()
    attempt, chunks = worker.attempt("red"), []
    for _ in range(12):
        attempt.request(0, 0, np.zeros((0, JOINTS)), 0)
        pair.step(0.125)
        if (chunk := attempt.poll()) is not None:
            chunks.append(chunk)
        elif not chunks:
            assert worker.report.waits_for == "no thought yet of 'red'"
    assert worker.report.failures == {}
    assert chunks[0].reasoning == "look at red"
    statistics = worker.statistics()
    assert statistics["slow"]["thoughts"] == 1
    assert "remote" not in statistics
    worker.stop()
    pair.step(0.1)
    assert not worker.is_alive()
    clock.close()


def test_the_table_says_what_has_no_effect() -> None:
    made = SlowFastConfig.model_validate({"slow": {**STILL, "simulated_latency_s": 3.0}, "fast": STILL})
    assert made.simulated_latency_s == 0.1
    slow_s = {"slow": {**STILL, "simulated_latency_s": 3.0}, "fast": STILL, "synchronous": True}
    assert SlowFastConfig.model_validate(slow_s).simulated_latency_s == 3.1
    for half, key, value in (
        ("fast", "stretch", True),
        ("fast", "blend", "rtc"),
        ("slow", "stretch", True),
    ):
        given = {"slow": STILL, "fast": STILL, half: {**STILL, key: value}}
        with pytest.raises(ValidationError, match=rf"{half}\.{key} has no effect"):
            SlowFastConfig.model_validate(given)
    for key, value in (("unseen_s", 2.0), ("hung_s", 2.0), ("other_instructions", True)):
        with pytest.raises(ValidationError, match=f"{key} has no effect with synchronous = true"):
            SlowFastConfig.model_validate({**slow_s, key: value})
    assert SlowFastConfig.model_validate(made.model_dump(mode="json")) == made  # as a recording has it
    inner = {"type": "slow_fast", "slow": STILL, "fast": STILL}
    with pytest.raises(ValidationError, match="a half is one policy"):
        SlowFastConfig.model_validate({"slow": STILL, "fast": inner})


def test_rows_are_played_as_the_fast_half_s_table_says_unless_the_whole_says_otherwise() -> None:
    """A network's own answers do not say it: the rate is its table's, or its checkpoint's."""
    fast = {"type": "act", "checkpoint": "act.safetensors", "rate_hz": 15.0, "discrete": ["gripper"]}
    made = SlowFastConfig.model_validate({"slow": STILL, "fast": fast})
    assert (made.rate_hz, made.discrete) == (15.0, ("gripper",))
    assert Pace.of(made, ("shoulder", "gripper")) == Pace(15.0, (1,), made.simulated_latency_s)
    with SteppedClock() as clock:
        thinker = InlineThinker(Slow(), clock)
        assert SlowFastPolicy(Fast(), thinker, made, clock).spec.rate_hz == 15.0
    whole = SlowFastConfig.model_validate({"slow": STILL, "fast": fast, "rate_hz": 10.0, "discrete": []})
    assert (whole.rate_hz, whole.discrete) == (10.0, ())
