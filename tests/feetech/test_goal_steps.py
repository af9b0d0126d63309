"""Goals that were not written are caught up with, and never by a jump."""

from __future__ import annotations

from collections.abc import Collection, Iterable

import numpy as np
import pytest

from drivers.feetech.goal_steps import FASTER, GoalSteps

PERIOD_NS = 33_333_333
PACE = 54
"""Ticks a period: 2.5 rad/s."""
FAR_BEHIND = np.array([-10_000])
"""Where a joint is that lags behind whatever it is asked for."""


def written(targets: Iterable[tuple[int, int]], missed: Collection[int] = ()) -> list[int]:
    """The goals that a servo has, target by target ``(ticks, period)``; `missed` ones were not written."""
    steps, goals = GoalSteps(), [0]
    for number, (ticks, period) in enumerate(targets):
        wanted, stamp_ns = np.array([ticks]), period * PERIOD_NS
        goal = steps.towards(wanted, FAR_BEHIND, stamp_ns)
        obeyed = np.array([number not in missed])
        steps.wrote(wanted, goal, obeyed, stamp_ns)
        goals.append(int(goal[0]) if obeyed[0] else goals[-1])
    return goals[1:]


def test_goals_that_are_written_one_after_the_other_are_the_targets() -> None:
    speeds = [0, 10, 30, PACE, PACE, 20, 0, -20, -PACE, -PACE, 0]
    targets = [(int(ticks), n) for n, ticks in enumerate(np.cumsum(speeds))]
    assert written(targets) == [ticks for ticks, _ in targets]


@pytest.mark.parametrize("missed", [{5}, {5, 6, 7}, {5, 6, 7, 8, 9}])
def test_what_was_missed_is_caught_up_with_a_little_faster_than_targets_move(missed: set[int]) -> None:
    targets = [(PACE * n, n) for n in range(60)]
    goals = written(targets, missed)
    steps = np.diff(goals)
    assert steps.max() <= np.ceil(FASTER * PACE)
    assert steps[10] > PACE
    assert goals[-1] == targets[-1][0]


def test_a_bus_that_was_late_does_not_make_up_for_it_at_once() -> None:
    """It took no target for four periods: it sees only the newest."""
    targets = [(PACE * n, n) for n in (*range(10), 14, *range(15, 60))]
    goals = written(targets)
    assert np.diff(goals).max() <= np.ceil(FASTER * PACE)
    assert goals[-1] == targets[-1][0]


def test_a_goal_comes_to_a_target_that_stands_still() -> None:
    targets = [(min(PACE * n, 8 * PACE), n) for n in range(40)]
    goals = written(targets, {5, 6, 7, 8})
    assert np.diff(goals[9:]).max() <= 12
    assert goals[-1] == 8 * PACE


def test_a_loop_that_is_late_now_and_then_keeps_its_pace() -> None:
    dice = np.random.default_rng(0)
    steps, lags = GoalSteps(), []
    for number in range(300):
        wanted = np.array([PACE * number])
        stamp_ns = number * PERIOD_NS + int(dice.integers(0, PERIOD_NS // 3))
        goal = steps.towards(wanted, FAR_BEHIND, stamp_ns)
        steps.wrote(wanted, goal, np.array([True]), stamp_ns)
        lags.append(int(wanted[0] - goal[0]))
    assert max(lags) < PACE


def test_a_joint_that_fell_meanwhile_is_not_drawn_back_to_its_old_goal() -> None:
    steps = GoalSteps()
    for number in range(3):
        steps.wrote(np.array([500]), np.array([500]), np.array([True]), number * PERIOD_NS)
    fallen = np.array([120])
    assert steps.towards(fallen, fallen, 30 * PERIOD_NS).tolist() == [120]


def test_after_an_opening_nothing_is_known() -> None:
    steps = GoalSteps()
    steps.wrote(np.array([500]), np.array([500]), np.array([True]), PERIOD_NS)
    steps.forget()
    assert steps.towards(np.array([900]), FAR_BEHIND, 2 * PERIOD_NS).tolist() == [900]
