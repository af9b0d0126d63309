"""Rows as the safety stage lets them through: nearest to what is wanted, and never beyond."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from drivers.arms.choice import describe
from policies.permitted import raised, within_limits

RANGES = np.array([[-3.0, 3.0], [-3.0, 3.0]])
VELOCITY, ACCELERATION = np.array([0.15, 0.1]), np.array([0.04, 0.02])
ROUNDING = 1e-4
ARM = describe().model()
LOW = np.array([-0.31, -2.04, 2.59, 1.12, -1.38, 0.4])
"""A millimetre in the table."""


def bends(before: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    steps = np.diff(np.concatenate([before, rows]), axis=0)
    return np.abs(steps[1:]).max(axis=0), np.abs(np.diff(steps, axis=0)).max(axis=0)


def test_rows_within_the_limits_stay_as_they_are() -> None:
    rows = np.cumsum(np.full((8, 2), 0.01), axis=0)
    np.testing.assert_array_equal(within_limits(rows, np.zeros((2, 2)), RANGES, VELOCITY, ACCELERATION), rows)


@given(
    arrays(np.float64, (12, 2), elements=st.floats(-3, 3)),
    arrays(np.float64, 2, elements=st.floats(-1, 1)),
)
def test_no_rows_are_beyond_the_limits(wanted: np.ndarray, speed: np.ndarray) -> None:
    before = np.stack([-speed * VELOCITY, np.zeros(2)])
    rows = within_limits(wanted, before, RANGES, VELOCITY, ACCELERATION)
    fastest, hardest = bends(before, rows)
    assert np.abs(rows).max() <= 3.0
    assert (fastest <= VELOCITY + ROUNDING).all()
    assert (hardest <= ACCELERATION + ROUNDING).all()


def test_a_jump_is_spread_over_the_rows_beside_it() -> None:
    """It is begun before it is due, and the rows far from it are as wanted."""
    wanted = np.zeros((20, 2))
    wanted[10:] = 0.1
    rows = within_limits(wanted, np.zeros((2, 2)), RANGES, VELOCITY, ACCELERATION)
    assert (rows[9] > 0.01).all()
    assert (rows[10] < 0.09).all()
    assert np.abs(rows[-1] - 0.1).max() < 0.01
    assert np.abs(rows[4]).max() < 0.01


def test_the_end_of_a_range_is_braked_for() -> None:
    """What goes on beyond it at the highest speed stops in front of it, without a jolt there."""
    before = np.array([[0.7, 0.8], [0.85, 0.9]])
    wanted = before[1] + np.cumsum(np.tile(before[1] - before[0], (12, 1)), axis=0)
    ranges = np.array([[-3.0, 1.3], [-3.0, 1.3]])
    rows = within_limits(wanted, before, ranges, VELOCITY, ACCELERATION)
    np.testing.assert_allclose(rows[-1], 1.3, atol=1e-4)
    assert rows.max() <= 1.3
    assert (bends(before, rows)[1] <= ACCELERATION + ROUNDING).all()


def test_a_speed_that_is_too_high_is_braked_and_not_broken_off() -> None:
    before = np.array([[-0.4, 0.0], [0.0, 0.0]])
    rows = within_limits(np.zeros((12, 2)), before, RANGES, VELOCITY, ACCELERATION)
    assert 0.0 < rows[0, 0] < 0.4
    assert bends(rows[:2], rows[2:])[0][0] < 0.4
    np.testing.assert_allclose(rows[:, 1], 0.0)


@pytest.mark.parametrize("margin_m", [0.004, 0.006, 0.012])
def test_what_is_too_near_to_the_table_is_raised_straight_up(margin_m: float) -> None:
    far = ARM.home
    rows = raised(ARM, np.stack([far, LOW]), margin_m)
    np.testing.assert_array_equal(rows[0], far)
    assert ARM.clearances(LOW)[1] < 0.0
    assert margin_m - 2e-5 < ARM.clearances(rows[1])[1] < margin_m + 2e-4
    before, after = ARM.fk(LOW), ARM.fk(rows[1])
    assert np.abs(after[:2, 3] - before[:2, 3]).max() < 1e-3
    np.testing.assert_allclose(after[:3, :3], before[:3, :3], atol=0.01)
    assert rows[1, 5] == LOW[5]


def test_what_raising_does_not_bring_away_stays_as_it_is() -> None:
    """It is near to the table with another arm, say."""

    class Unmoved:
        layout, joints, fk = ARM.layout, ARM.joints, ARM.fk

        def clearances(self, q: np.ndarray) -> tuple[float, float]:
            return 0.02, 0.001

    np.testing.assert_array_equal(raised(Unmoved(), LOW[None], 0.006), LOW[None])
