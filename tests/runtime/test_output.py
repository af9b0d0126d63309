"""What is sent, without a loop: the time between targets, gaps, goals that servos did not get."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from runtime.inputs import LoopInputs
from runtime.messages import Clip, Floats
from runtime.output import BRIEF_NS, LoopOutput
from tests.runtime.control_rig import MS, TICK, Arm, D, Guard, Outcome

HOLDER = D - 1


class Told:
    """Goals as somebody says."""

    def __init__(self) -> None:
        self.held: Floats | None = None
        self.asked: list[tuple[int, int]] = []
        self.restarts: list[list[float]] = []

    def behind(self, now_ns: int, posted_ns: int, target: Floats) -> Floats | None:
        del target
        self.asked.append((now_ns, posted_ns))
        return self.held

    def restart(self, now_ns: int, target: Floats) -> None:
        del now_ns
        self.restarts.append(target.tolist())


class Bench:
    """An output at 100 Hz with all that it meets."""

    def __init__(self) -> None:
        self.arm, self.guard, self.goals = Arm(), Guard(), Told()
        self.inputs = LoopInputs(self.arm.states, None, (), 0.025)
        self.output = LoopOutput(self.arm, self.guard, 100.0, (HOLDER,), self.goals)

    def post(self, row: float, at_ns: int = 0, passed_s: float = 0.01) -> list[float] | None:
        """What the arm's mailbox got."""
        self.output.post(at_ns, np.full(D, row), self.inputs, passed_s)
        posted = self.arm.targets.take()
        return None if posted is None else posted["position"].tolist()


@pytest.mark.parametrize(
    ("before_ns", "now_ns", "skipped", "passed_ms"),
    [
        (None, 50 * TICK, 0, 10),  # there was none
        (50 * TICK, 51 * TICK, 0, 10),
        (50 * TICK, 51 * TICK + MS // 2, 0, 10),  # within a tenth of a period
        (50 * TICK, 51 * TICK + 3 * MS, 0, 13),
        (50 * TICK, 53 * TICK, 2, 30),
        (50 * TICK, 53 * TICK - 4 * MS, 2, 26),
        (50 * TICK, 50 * TICK, 0, 10),  # time stood still
    ],
)
def test_the_time_since_the_tick_before(
    before_ns: int | None, now_ns: int, skipped: int, passed_ms: float
) -> None:
    output = Bench().output
    if before_ns is not None:
        output.begin_tick(before_ns, 0)
    assert output.begin_tick(now_ns, skipped) * 1000 == pytest.approx(passed_ms)


def test_a_late_target_is_credited_a_period_and_its_speed_is_that_of_the_time_that_passed() -> None:
    bench = Bench()
    assert bench.post(0.1, passed_s=0.006) == [0.1] * D
    assert bench.post(0.2, passed_s=0.03) == [0.2] * D
    assert [call["dt_s"] for call in bench.guard.calls] == [0.006, 0.01]
    assert bench.guard.lasts == [(0.01, 0.03)]
    assert bench.guard.calls[1]["previous"].tolist() == [0.1] * D


def test_where_nobody_knows_the_arm_nothing_is_sent() -> None:
    bench = Bench()
    assert np.isnan(bench.output.previous).all()
    bench.guard.rule = lambda requested: Outcome(requested * np.nan, Clip.NOT_FINITE, "unknown")
    assert bench.post(0.1) is None
    assert bench.output.target is None


def test_the_first_position_is_where_it_begins() -> None:
    bench = Bench()
    bench.output.go_on(0, np.full(D, 0.3), None, 0)
    assert (bench.output.previous.tolist(), bench.guard.resets, bench.guard.gaps) == ([0.3] * D, 1, 0)
    assert bench.goals.restarts == [[0.3] * D]


@pytest.mark.parametrize(("gap_ns", "then"), [(BRIEF_NS, [1.0, 1.0, 1.0]), (BRIEF_NS + 1, [0.5, 1.0, 1.0])])
def test_after_a_gap_a_joint_goes_on_from_where_it_is_found(gap_ns: int, then: list[float]) -> None:
    """The first was moved, the second sags, the gripper pushes against what it holds."""
    bench = Bench()
    bench.post(1.0)
    bench.output.go_on(0, np.array([0.5, 0.99, 0.4]), np.array([1.0, 0.99, 0.4]), gap_ns)
    assert bench.output.previous.tolist() == then
    assert (bench.guard.resets, bench.guard.gaps) == (0, 1)
    assert bench.goals.restarts == ([then] if gap_ns > BRIEF_NS else [])


def test_a_joint_goes_on_from_the_goal_that_its_servo_has() -> None:
    bench = Bench()
    output, goals = bench.output, bench.goals
    output.look_at_goals(TICK, fresh=True)
    assert goals.asked == []  # nothing was posted
    bench.post(1.0, TICK)
    goals.held = np.array([np.nan, 0.7, np.nan])
    output.look_at_goals(2 * TICK, fresh=True)
    assert goals.asked == [(2 * TICK, TICK)]
    assert (output.previous.tolist(), output.held) == ([1.0, 0.7, 1.0], goals.held)
    output.look_at_goals(3 * TICK, fresh=False)
    assert (output.held, len(goals.asked)) == (None, 1)


def test_it_goes_on_from_a_snapshot() -> None:
    first, second = Bench(), Bench()
    first.output.limit_speed(0.5)
    first.output.begin_tick(7 * TICK, 0)
    first.post(0.4, 7 * TICK)
    state: dict[str, Any] = first.output.snapshot()
    second.output.restore(state)
    assert second.output.begin_tick(9 * TICK, 0) == 0.02
    assert (second.output.previous.tolist(), second.output.speed) == ([0.4] * D, 0.5)
    second.output.look_at_goals(9 * TICK, fresh=True)
    assert second.goals.asked == [(9 * TICK, 7 * TICK)]
