"""Moves: limits, ends, straight lines."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from policies import motion
from policies.motion import MotionError, MotionLimits
from runtime.arm_model import ArmModel

VECTOR = npst.arrays(np.float64, 6, elements=st.floats(-2, 2))
LIMITS = MotionLimits(np.array([1.2] * 5 + [1.0]), np.array([6.0] * 5 + [10.0]))


def within(start: np.ndarray, rows: np.ndarray, limits: MotionLimits, velocity: np.ndarray) -> None:
    speed = np.diff(np.vstack([start, rows]), axis=0) * limits.rate_hz
    change = np.diff(np.vstack([velocity, speed, np.zeros(6)]), axis=0) * limits.rate_hz
    assert (np.abs(speed) <= np.maximum(limits.velocity, np.abs(velocity)) + 1e-6).all()
    assert (np.abs(change) <= limits.acceleration + 1e-4).all()


@settings(deadline=None, max_examples=100)
@given(VECTOR, VECTOR)
def test_joint_moves_keep_their_limits(start: np.ndarray, goal: np.ndarray):
    rows = motion.plan_joint_move(start, goal, LIMITS)
    np.testing.assert_allclose(rows[-1], goal, atol=1e-12)
    within(start, rows, LIMITS, np.zeros(6))


@settings(deadline=None, max_examples=100)
@given(VECTOR, VECTOR, npst.arrays(np.float64, 6, elements=st.floats(-1, 1)))
def test_joint_moves_take_over_a_motion(start: np.ndarray, goal: np.ndarray, velocity: np.ndarray):
    rows = motion.plan_joint_move(start, goal, LIMITS, velocity)
    np.testing.assert_allclose(rows[-1], goal, atol=1e-12)
    within(start, rows, LIMITS, velocity)
    assert len(rows) < 400


def test_a_replanned_move_continues_the_first():
    goal = np.array([1.0, -0.5, 0.3, 0.2, 0.0, 0.4])
    whole = motion.plan_joint_move(np.zeros(6), goal, LIMITS)
    cut = len(whole) // 2
    velocity = (whole[cut] - whole[cut - 1]) * LIMITS.rate_hz
    rest = motion.plan_joint_move(whole[cut], goal, LIMITS, velocity)
    assert len(rest) <= 1.5 * (len(whole) - cut) + 2
    assert np.abs(rest[0] - whole[cut + 1]).max() < 0.01


def test_nothing_to_do_is_one_row():
    start = np.full(6, 0.3)
    np.testing.assert_array_equal(motion.plan_joint_move(start, start, LIMITS), [start])
    np.testing.assert_array_equal(motion.plan_path(np.array([start, start]), LIMITS), [start])


def test_a_cartesian_move_is_straight(arm: ArmModel, home: np.ndarray):
    start = arm.ik(motion.pointing_down((0.2, 0.05, 0.1), 0.4), home).q
    goal = motion.pointing_down((0.22, -0.05, 0.03), 0.9)
    rows = motion.plan_cartesian_move(arm, start, goal, LIMITS, gripper=0.2)
    within(start, rows, LIMITS, np.zeros(6))
    points = np.array([arm.fk(q)[:3, 3] for q in rows])
    begin, end = arm.fk(start)[:3, 3], goal[:3, 3]
    along = (end - begin) / np.linalg.norm(end - begin)
    off = points - begin - np.outer((points - begin) @ along, along)
    assert np.linalg.norm(off, axis=1).max() < 1e-3
    np.testing.assert_allclose(points[-1], end, atol=1e-3)
    assert rows[-1, 5] == pytest.approx(0.2)


def test_a_line_out_of_reach_is_refused_in_one_line(arm: ArmModel, home: np.ndarray):
    with pytest.raises(MotionError, match=r"the arm misses \(.*\) m by .* mm") as caught:
        motion.plan_cartesian_move(arm, home, motion.pointing_down((0.7, 0.0, 0.1), 0.0), LIMITS)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("y", [-0.15, 0.0, 0.2])
def test_reach_down_faces_the_place(arm: ArmModel, home: np.ndarray, y: float):
    yaws = np.linspace(-np.pi, np.pi, 13)
    result = motion.reach_down(arm, (0.16, y, 0.1), home, yaws)
    assert result is not None
    np.testing.assert_allclose(arm.fk(result.q)[:3, 3], (0.16, y, 0.1), atol=3e-3)
    assert motion.reach_down(arm, (0.6, y, 0.1), home, yaws) is None
