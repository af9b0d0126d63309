"""A policy that misbehaves, on the whole robot: the arm holds meanwhile, and the summary says so."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dexrun import policies
from dexrun.exit_codes import BAD_CONFIGURATION, NOT_DONE, OK, STOPPED
from policies.geometric.policy import GeometricPolicy
from runtime.clock import NS_PER_S
from runtime.interfaces import Policy
from runtime.messages import Floats, Observation, PolicyAnswer
from runtime.part_context import PolicyContext
from runtime.parts import PolicyTable
from runtime.stepped import SteppedClock
from runtime.tick import TickFlag
from tests.dexrun.rig import Stage, assert_tame, perform, records

Deed = Callable[[Floats], Floats]


def raises(rows: Floats) -> Floats:
    raise ZeroDivisionError("division by zero")


def leaves(rows: Floats) -> Floats:
    raise SystemExit("the end of a script")


def nan(rows: Floats) -> Floats:
    spoilt = rows.copy()
    spoilt[len(rows) // 2, 2] = np.nan
    return spoilt


def wrong_shape(rows: Floats) -> Floats:
    return rows[:, :-1]


def far_away(rows: Floats) -> Floats:
    """Well-formed, and nowhere near where the arm may go."""
    return rows + 100.0


KINDS = ("raised", "not_finite", "wrong_shape")


def one_after_the_other() -> Deed:
    """Each of the three, again and again."""
    deeds = itertools.cycle((raises, nan, wrong_shape))
    return lambda rows: next(deeds)(rows)


class Faulty:
    """The geometric policy, but its answers ``first..last`` (from 0, warm-up left out) are `deed`'s."""

    def __init__(self, policy: Policy, deed: Deed, first: int, last: int) -> None:
        self._policy = policy
        self._deed = deed
        self._range = range(first, last)
        self._asked = -1
        self._warm = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._policy, name)

    def reset(self) -> None:
        self._policy.reset()
        self._warm = True

    def infer(self, observation: Observation) -> PolicyAnswer:
        self._asked += self._warm
        answer = self._policy.infer(observation)
        return replace(answer, rows=self._deed(answer.rows)) if self._asked in self._range else answer


@pytest.fixture
def faulty(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Make runs use a `Faulty` policy."""
    build = policies.build_policy

    def use(deed: Deed, first: int = 0, last: int = 1_000_000) -> None:
        def faulty_one(table: PolicyTable, context: PolicyContext) -> Any:
            return Faulty(build(table, context), deed, first, last)

        monkeypatch.setattr(policies, "build_policy", faulty_one)

    return use


def assert_held(stage: Stage) -> None:
    assert stage.servos is not None
    assert stage.servos.holding()
    assert_tame(stage.up)


@pytest.mark.slow
def test_a_policy_that_recovers_completes(tmp_path: Path, faulty: Callable[..., None]) -> None:
    """It fails at three chunks in the middle of the approach: the horizon runs dry, and the arm waits."""
    faulty(one_after_the_other(), 1, 4)
    stage = perform(tmp_path, grasp__time_limit_s="12")
    assert [attempt["grasped"] for attempt in stage.summary["attempts"]] == [True]
    assert stage.summary["policy"]["failures"] == dict.fromkeys(KINDS, 1)
    assert stage.summary["device_faults"]["policy"] == dict.fromkeys(KINDS, 1)
    assert_held(stage)


@pytest.mark.slow
def test_a_policy_that_never_recovers_is_given_up(tmp_path: Path, faulty: Callable[..., None]) -> None:
    faulty(one_after_the_other())
    stage = perform(tmp_path, grasp__max_attempts="1")
    assert stage.code == NOT_DONE
    assert stage.summary["outcome"] == "incomplete"
    failures = stage.summary["policy"]["failures"]
    assert list(failures) == list(KINDS)
    assert stage.summary["policy"]["last_error"]
    faults = stage.summary["device_faults"]["policy"]
    late = {kind: failures[kind] - faults[kind] for kind in KINDS}
    assert sorted(late.values()) in ([0, 0, 0], [0, 0, 1])  # of what was asked as the attempt ended
    assert stage.summary["attempts"][0]["grasped"] is False
    assert_held(stage)


@pytest.mark.slow
def test_a_policy_that_exits_is_asked_again(tmp_path: Path, faulty: Callable[..., None]) -> None:
    """As a script's ``sys.exit`` does: it ends neither the thread nor the run."""
    faulty(leaves, 1, 2)
    stage = perform(tmp_path, grasp__time_limit_s="6")
    assert (stage.code, stage.summary["stop_reason"]) == (NOT_DONE, "time limit of 6 s")
    assert stage.summary["policy"]["chunks"] >= 2
    assert stage.summary["device_faults"]["policy"] == {"raised": 1}
    assert stage.summary["policy"]["last_error"] == "SystemExit: the end of a script"
    assert_held(stage)


def test_a_failing_policy_may_stop_the_run(tmp_path: Path, faulty: Callable[..., None]) -> None:
    faulty(raises, 1)
    stage = perform(tmp_path, faults__policy="stop")
    assert stage.code == STOPPED
    assert stage.summary["outcome"] == "stopped"
    assert stage.summary["stop_reason"] == "policy: raised: ZeroDivisionError: division by zero"
    assert_held(stage)


def test_targets_out_of_reach_are_clipped(tmp_path: Path, faulty: Callable[..., None]) -> None:
    faulty(far_away)
    stage = perform(tmp_path, grasp__time_limit_s="3")
    assert stage.code == NOT_DONE
    clips = stage.summary["clips"]
    assert clips.get("range", 0) + clips.get("collision", 0) > 0
    assert_held(stage)


@pytest.mark.slow
def test_a_chunk_that_takes_two_seconds_is_waited_for(tmp_path: Path, faulty: Callable[..., None]) -> None:
    clock = SteppedClock()

    def dawdles(rows: Floats) -> Floats:
        clock.wait_until_ns(clock.now_ns() + 2 * NS_PER_S)
        return rows

    faulty(dawdles, 1, 2)
    stage = perform(tmp_path, None, clock, grasp__time_limit_s="12")
    assert [attempt["grasped"] for attempt in stage.summary["attempts"]] == [True]
    assert stage.summary["starved_ticks"] > 0
    assert stage.summary["policy"]["inference_s"]["max"] == pytest.approx(2.0)
    starved = [each for each in records(stage.up) if each["flags"] & TickFlag.STARVED]
    assert all((each["requested"] == each["clipped"]).all() for each in starved)
    assert_held(stage)


@pytest.mark.slow
def test_a_policy_that_always_takes_two_seconds_still_grasps(tmp_path: Path) -> None:
    stage = perform(tmp_path, policy__simulated_latency_s="2.0", grasp__attempt_timeout_s="60")
    assert stage.code == OK, stage.summary["stop_reason"]
    assert stage.summary["judge"]["success"]
    assert stage.summary["policy"]["inference_s"]["p50"] == pytest.approx(2.0)
    assert_held(stage)


@pytest.mark.slow
def test_a_policy_that_hangs_latches_a_stop(tmp_path: Path, faulty: Callable[..., None]) -> None:
    clock = SteppedClock()

    def hangs(rows: Floats) -> Floats:
        clock.wait_until_ns(clock.now_ns() + 3600 * NS_PER_S)
        return rows

    faulty(hangs, 1)
    stage = perform(tmp_path, None, clock, control__stop_after_starved_s="2")
    assert stage.code == STOPPED
    assert stage.summary["stop_reason"] == "no action for 2 s"
    assert stage.summary["device_faults"]["policy"] == {"hung": 1}
    assert_held(stage)


@pytest.mark.slow
@pytest.mark.parametrize("first", [0, 1])
def test_a_policy_that_hangs_longer_than_attempts_last_latches_a_stop(
    tmp_path: Path, faulty: Callable[..., None], first: int
) -> None:
    """As by default: an attempt is over before the patience is, and the next one begins anew."""
    clock = SteppedClock()

    def hangs(rows: Floats) -> Floats:
        clock.wait_until_ns(clock.now_ns() + 3600 * NS_PER_S)
        return rows

    faulty(hangs, first)
    keys = {"grasp__attempt_timeout_s": "1.5", "control__stop_after_starved_s": "6"}
    stage = perform(tmp_path, None, clock, **keys)
    assert stage.code == STOPPED
    assert stage.summary["stop_reason"] == "no action for 6 s"
    assert stage.summary["device_faults"]["policy"] == {"hung": 1}
    assert [attempt["grasped"] for attempt in stage.summary["attempts"][:1]] == [False]
    assert stage.summary["duration_s"] < 30
    assert_held(stage)


def test_a_policy_that_cannot_be_used_moves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: GeometricPolicy) -> None:
        raise RuntimeError("weights of another robot")

    monkeypatch.setattr(GeometricPolicy, "warm_up", broken)
    stage = perform(tmp_path)
    assert stage.code == BAD_CONFIGURATION
    assert "weights of another robot" in stage.summary["stop_reason"]
    assert stage.summary["ticks"] == 0
    assert stage.servos is not None
    assert stage.servos.goal == pytest.approx(stage.servos.position, abs=20)
