"""The point that is moved: where it goes, where it stops, and that no joint leaps."""

from __future__ import annotations

import functools

import numpy as np
import pytest

from drivers.arms.choice import robot_of, robot_of_all
from drivers.jog.config import JogConfig
from drivers.jog.point import JoggedPoint
from runtime.body_options import ArmOptions, BaseOptions, StandingArmOptions
from runtime.messages import Floats
from runtime.rotations import rotation_vector

CONFIG = JogConfig()
STEP_M, STEP_RAD = CONFIG.linear_m_s / CONFIG.rate_hz, CONFIG.angular_rad_s / CONFIG.rate_hz
NONE = np.zeros(3)


@functools.cache
def made(model: str) -> tuple[JoggedPoint, Floats]:
    robot = robot_of(ArmOptions(model=model))
    return JoggedPoint(robot.model(), CONFIG), np.array(robot.ready)


def pose(point: JoggedPoint) -> Floats:
    return point._model.fk(point.q)


@pytest.mark.parametrize("model", ["so100", "so101"])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_motion_and_its_reverse_lead_back(model: str, axis: int) -> None:
    point, start = made(model)
    point.anchor(start)
    before = pose(point)
    for sign in (1.0, -1.0):
        move = sign * STEP_M * np.eye(3)[axis]
        for _ in range(8):
            assert point.advance(move, NONE, point.q)
        wanted = before[:3, 3] + (8 * move if sign > 0 else 0)
        assert np.linalg.norm(pose(point)[:3, 3] - wanted) < 0.001
    assert np.linalg.norm(rotation_vector(before[:3, :3].T @ pose(point)[:3, :3])) < 0.05


def test_the_edge_is_where_it_stops_and_no_joint_leaps() -> None:
    point, start = made("so100")
    point.anchor(start)
    moved, place = [], []
    for _ in range(130):
        before = point.q.copy()
        moved.append(point.advance(np.array([STEP_M, 0, 0]), NONE, point.q))
        assert np.abs(point.q - before).max() <= CONFIG.joint_rad_s / CONFIG.rate_hz
        place.append(pose(point)[0, 3])
    assert moved[0]
    assert not any(moved[-10:])
    assert np.ptp(place[-10:]) == 0.0
    assert np.linalg.norm(pose(point)[:3, 3] - point.point) < 0.003  # nothing is wound up
    assert point.advance(np.array([-STEP_M, 0, 0]), NONE, point.q)
    assert pose(point)[0, 3] < place[-1]


def test_turning_is_about_the_heading_and_what_an_arm_cannot_turn_stays() -> None:
    point, start = made("so100")
    point.anchor(start)
    before = pose(point)
    for _ in range(10):
        assert point.advance(NONE, np.array([0, 0, STEP_RAD]), point.q)
    turned = rotation_vector(pose(point)[:3, :3] @ before[:3, :3].T)
    np.testing.assert_allclose(turned, [0, 0, 10 * STEP_RAD], atol=0.03)
    assert np.linalg.norm(pose(point)[:3, 3] - before[:3, 3]) < 0.002
    joints = point.q.copy()
    assert not point.advance(NONE, np.array([STEP_RAD, 0, 0]), point.q)  # five joints: it points down
    np.testing.assert_array_equal(point.q, joints)


def test_it_is_never_farther_from_the_follower_than_the_leash() -> None:
    point, start = made("so100")
    point.anchor(start)
    follower = point.q.copy()
    assert not point.strays(follower)
    done = [point.advance(np.array([0, STEP_M, 0]), NONE, follower) for _ in range(60)]
    assert done[0]
    assert not done[-1]
    assert np.linalg.norm(pose(point)[:3, 3] - point._model.fk(follower)[:3, 3]) <= CONFIG.leash_m + 1e-6
    assert np.abs(point.q - follower)[:5].max() <= CONFIG.leash_rad + 1e-9
    assert point.advance(np.array([0, -STEP_M, 0]), NONE, follower)
    point.grip(0.0, follower)
    assert point.q[5] == pytest.approx(max(0.0, follower[5] - 0.35))


def test_at_the_edge_in_one_direction_the_others_are_open() -> None:
    """To come back to the orientation that was given up on the way there would take a leap of the wrist."""
    point, _ = made("so100")
    point.anchor(robot_of(ArmOptions(model="so100")).model().home)
    walked = {}
    for way, direction in {"up": [0, 0, 1], "left": [0, 1, 0], "forward": [1, 0, 0]}.items():
        walked[way] = sum(point.advance(0.0016 * np.array(direction), NONE, point.q) for _ in range(50))
    assert walked["left"] < 50
    assert walked["forward"] == 50


def test_one_of_two_arms_is_moved_in_the_frame_that_both_stand_in() -> None:
    turned = BaseOptions(position_m=(0.0, 0.4, 0.0), yaw_rad=np.pi / 2)
    arms = {
        "left": StandingArmOptions(model="so100", base=turned),
        "right": StandingArmOptions(model="so100", base=BaseOptions()),
    }
    point = JoggedPoint(robot_of_all(arms).model().arm("left"), CONFIG)
    point.anchor(made("so100")[1])
    before = pose(point)[:3, 3]
    for _ in range(8):
        assert point.advance(np.array([STEP_M, 0, 0]), NONE, point.q)
    np.testing.assert_allclose(pose(point)[:3, 3] - before, [8 * STEP_M, 0, 0], atol=1e-3)
    assert before[1] > 0.5
    assert point.q.shape == (6,)
