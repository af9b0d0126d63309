"""Putting down and going home."""

from __future__ import annotations

import numpy as np
import pytest

from policies.handling import PlaceOptions, free_way, plan_home, plan_place, rise
from policies.motion import MotionError, MotionLimits, pointing_down
from runtime.arm_model import ArmModel
from tests.geometric.synthetic import LOOK

TRAY = (0.125, 0.205)


@pytest.fixture
def limits(arm: ArmModel) -> MotionLimits:
    return MotionLimits.uniform(arm)


@pytest.fixture
def lifted(arm: ArmModel, home: np.ndarray) -> np.ndarray:
    q = arm.ik(pointing_down((0.22, -0.1, 0.1), 0.3), home).q
    q[5] = 0.1
    return q


def smooth(start: np.ndarray, rows: np.ndarray, limits: MotionLimits) -> None:
    steps = np.abs(np.diff(np.vstack([start, rows]), axis=0)) * limits.rate_hz
    assert (steps <= limits.velocity + 1e-6).all()


def test_what_is_held_stays_held_until_it_is_over_the_spot(
    arm: ArmModel, lifted: np.ndarray, limits: MotionLimits
):
    move = plan_place(arm, lifted, TRAY, limits, held_opening=0.16)
    smooth(lifted, move.rows, limits)
    np.testing.assert_array_equal(move.rows[: move.release_row, 5], 0.1)
    place = arm.fk(move.rows[move.release_row - 1])[:3, 3]
    np.testing.assert_allclose(place, (*TRAY, PlaceOptions().release_height_m), atol=0.004)
    assert move.rows[-1, 5] == pytest.approx(0.16 + PlaceOptions().open_by)
    heights = [arm.grasp_height(row) for row in move.rows]
    assert min(heights) > PlaceOptions().release_height_m - 0.01
    assert heights[-1] > PlaceOptions().release_height_m + 0.005
    assert free_way(arm, move.rows, 0.07)


def test_a_spot_out_of_reach_is_refused(arm: ArmModel, lifted: np.ndarray, limits: MotionLimits):
    with pytest.raises(MotionError, match=r"the place at \(0\.700, 0\.000\) m is out of reach"):
        plan_place(arm, lifted, (0.7, 0.0), limits)


def test_home_from_low_goes_up_first(arm: ArmModel, home: np.ndarray, limits: MotionLimits):
    low = arm.ik(pointing_down((0.2, 0.0, 0.025), 0.0), home).q
    rows = plan_home(arm, low, LOOK, limits, 0.1)
    smooth(low, rows, limits)
    np.testing.assert_allclose(rows[-1], LOOK, atol=1e-12)
    places = np.array([arm.fk(row)[:3, 3] for row in rows])
    still_low = places[:, 2] < 0.07
    assert np.linalg.norm(places[still_low][:, :2] - (0.2, 0.0), axis=1).max() < 0.005


def test_home_from_home_is_short(arm: ArmModel, limits: MotionLimits):
    assert len(plan_home(arm, LOOK, LOOK, limits, 0.05)) <= 2


def test_rising_goes_as_far_as_it_can(arm: ArmModel, home: np.ndarray, limits: MotionLimits):
    far = arm.ik(pointing_down((0.3, 0.0, 0.03), 0.0), home).q
    rows = rise(arm, far, 2.0, limits)
    top = arm.fk(rows[-1])[:3, 3]
    assert top[2] > 0.06
    np.testing.assert_allclose(top[:2], arm.fk(far)[:2, 3], atol=0.005)


def test_a_way_through_the_table_is_not_free(arm: ArmModel, home: np.ndarray):
    down = home + np.array([0, 1.0, 0.3, 0, 0, 0])
    assert not free_way(arm, np.linspace(home, down, 30), -1.0)
    assert free_way(arm, np.repeat(home[None], 5, axis=0), 0.0)
