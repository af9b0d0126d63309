"""Points and fits on made-up views."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.geometric.config import GeometricConfig
from policies.geometric.estimate import ObjectEstimate, fit_object
from policies.geometric.grasp import GraspPlanner
from policies.geometric.view import estimate_object
from policies.points import deproject
from runtime.arm_model import ArmModel
from runtime.geometry import rays
from runtime.limits import SafetyOptions
from runtime.mask_shape import dilated, eroded
from runtime.messages import Clip, Intrinsics
from runtime.safety import SafetyStage
from tests.geometric.synthetic import INFO, Box, observation, view

CONFIG = GeometricConfig()
boxes = st.builds(
    lambda x, y, yaw, short, aspect, height: Box(x, y, yaw, short * aspect, short, height),
    st.floats(0.14, 0.28),
    st.floats(-0.12, 0.12),
    st.floats(-1.5, 1.5),
    st.floats(0.02, 0.035),
    st.floats(1.0, 1.9),
    st.floats(0.015, 0.05),
)


@settings(deadline=None, max_examples=60)
@given(boxes)
def test_boxes_are_found_where_they_are(box: Box):
    found = estimate_object(observation(box), INFO, CONFIG)
    assert np.hypot(*(found.center - (box.x, box.y))) < 0.002
    assert found.height_m == pytest.approx(box.height, abs=0.001)
    assert found.short_m == pytest.approx(box.short, abs=0.005)
    assert found.long_m == pytest.approx(box.long, abs=0.005)
    if box.long > 1.35 * box.short:
        assert abs(math.remainder(found.yaw_rad - box.yaw, math.pi)) < 0.13


@pytest.mark.parametrize("diameter", [0.022, 0.026, 0.03, 0.036])
def test_discs_are_round(diameter: float):
    found = estimate_object(observation(Box(long=diameter, short=diameter, round=True)), INFO, CONFIG)
    assert found.round
    assert found.long_m == pytest.approx(diameter, abs=0.004)


def test_deprojection_inverts_projection():
    box = Box()
    depth, mask = view(box)
    points = deproject(depth, mask.astype(bool), INFO)
    np.testing.assert_allclose(points[:, 2], box.height, atol=0.0005)
    np.testing.assert_allclose(points[:, :2].mean(axis=0), (box.x, box.y), atol=0.001)
    everywhere = deproject(depth, np.ones_like(mask, bool), INFO)
    assert len(everywhere) == depth.size
    depth[0] = 0
    assert len(deproject(depth, np.ones_like(mask, bool), INFO)) == depth.size - depth.shape[1]


def test_distortion_is_taken_out():
    lens = Intrinsics(640, 480, 500, 500, 320, 240, (0.05, -0.02, 0.001, -0.0005, 0.003))
    k1, k2, p1, p2, k3 = lens.coefficients
    x, y = np.meshgrid(np.linspace(-0.5, 0.5, 7), np.linspace(-0.4, 0.4, 7))
    r2 = x * x + y * y
    radial = 1 + k1 * r2 + k2 * r2**2 + k3 * r2**3
    u = x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x)
    v = y * radial + 2 * p2 * x * y + p1 * (r2 + 2 * y * y)
    pixels = np.stack([(u * lens.fx + lens.cx).ravel(), (v * lens.fy + lens.cy).ravel()], axis=1)
    np.testing.assert_allclose(rays(lens, pixels), np.stack([x.ravel(), y.ravel()], axis=1), atol=1e-6)


def test_masks_shrink_and_grow():
    mask = np.zeros((9, 9), np.uint8)
    mask[3:6, 3:6] = 1
    assert eroded(mask, 1).sum() == 1
    assert eroded(mask, 2).sum() == 0
    assert dilated(mask, 1).sum() == 9 + 12
    assert dilated(np.zeros_like(mask), 2).sum() == 0


def test_turns_of_squares_and_discs():
    def made(yaw: float, aspect: float, is_round: bool = False) -> ObjectEstimate:
        return ObjectEstimate(np.zeros(2), yaw, 0.03 * aspect, 0.03, 0.03, is_round, 100)

    assert made(0.0, 1.0).turn_from(made(math.pi / 2, 1.0)) == pytest.approx(0.0, abs=1e-9)
    assert made(0.0, 1.6).turn_from(made(math.pi / 2, 1.6)) == pytest.approx(math.pi / 2)
    assert made(0.1, 1.0, True).turn_from(made(0.5, 1.0, True)) == 0.0


def test_fingers_keep_away_from_neighbours(arm: ArmModel, home: np.ndarray):
    planner = GraspPlanner(CONFIG, arm)
    cube = ObjectEstimate(np.array([0.21, 0.0]), 0.0, 0.026, 0.026, 0.026, False, 300)
    free = planner.plan(cube, np.zeros((0, 3)), home)[0]
    opens = free.pose[:2, 1]
    side = cube.center + np.outer((-0.026, 0.032), opens)
    wall = np.concatenate(
        [np.c_[p + np.outer(np.linspace(-0.01, 0.01, 9), free.pose[:2, 0]), np.full(9, 0.03)] for p in side]
    )
    blocked = planner.plan(cube, wall, home)[0]
    assert abs(opens @ blocked.pose[:2, 1]) < 0.1


def test_low_objects_are_grasped_off_the_table(arm: ArmModel, home: np.ndarray):
    planner = GraspPlanner(CONFIG, arm)
    flat = ObjectEstimate(np.array([0.2, 0.03]), 0.4, 0.03, 0.022, 0.012, False, 300)
    grasp = planner.plan(flat, np.zeros((0, 3)), home)[0]
    for opening in np.linspace(grasp.opening, grasp.contact - CONFIG.squeeze, 9):
        q = grasp.q_pose.copy()
        q[5] = opening
        assert arm.clearances(q)[1] > CONFIG.table_margin_m - 0.0001


@pytest.mark.parametrize("height", [0.012, 0.02])
def test_jaws_go_down_as_they_close_and_safety_lets_them(arm: ArmModel, home: np.ndarray, height: float):
    flat = ObjectEstimate(np.array([0.2, 0.03]), 0.4, 0.03, 0.022, height, False, 300)
    grasp = GraspPlanner(CONFIG, arm).plan(flat, np.zeros((0, 3)), home)[0]
    openings = np.linspace(grasp.opening, grasp.contact - CONFIG.squeeze, 9)
    closing = [np.append(grasp.q_pose[:5], opening) for opening in openings]
    over = [arm.clearances(q)[1] for q in closing]
    assert CONFIG.table_margin_m - 1e-5 < min(over) < over[0] - 5e-4
    closed = closing[-1]
    stage, target, seen = SafetyStage(SafetyOptions(), arm), grasp.q_pose, Clip.NONE
    for _ in range(60):
        result = stage.apply(closed, target, target, None, None, 1 / 30)
        target, seen = result.target, seen | result.clips
    assert not seen & Clip.COLLISION
    assert target[5] == pytest.approx(closed[5], abs=1e-3)


def test_a_lying_cylinder_is_as_long_as_it_is():
    rng = np.random.default_rng(0)
    along, turn = rng.uniform(-0.03, 0.03, 2000), rng.uniform(0.2, math.pi - 0.2, 2000)
    points = np.stack([along, 0.012 * np.cos(turn), 0.012 + 0.012 * np.sin(turn)], axis=1)
    found = fit_object(points, 0.0, 0.001)
    assert found.long_m == pytest.approx(0.06, abs=0.004)
    assert found.short_m < 0.026
    assert abs(math.remainder(found.yaw_rad, math.pi)) < 0.1
