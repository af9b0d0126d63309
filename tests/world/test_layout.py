"""Scenes are a function of the seed, and every object can be reached and grasped."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from drivers.arms import describe
from drivers.world import layout
from drivers.world.config import HeadCameraOptions, ObjectOptions, WorldConfig
from drivers.world.grasping import plan_grasp, plan_release, tray_slot
from drivers.world.reach import TopDown, UnreachableError, top_down_rotation
from tests.world.rig import present

ROBOT = describe()


@given(st.integers(0, 10_000))
@settings(deadline=None, max_examples=60)
def test_random_scenes(seed: int) -> None:
    config = WorldConfig(seed=seed)
    objects = layout.draw_objects(config)
    assert objects == layout.draw_objects(config)
    assert len({o.name for o in objects}) == len(objects)
    assert [o.present for o in objects] == [True] * (len(objects) - 1) + [False]
    assert 3 <= len(objects) - 1 <= 5
    for one in objects[:-1]:
        assert layout.reachable(one)
    for one, other in itertools.combinations(objects[:-1], 2):
        apart = math.hypot(one.x_m - other.x_m, one.y_m - other.y_m)
        assert apart >= one.radius_m + other.radius_m + layout.GAP_M


@pytest.mark.parametrize("count", range(1, 9))
def test_the_number_of_objects_can_be_set(count: int) -> None:
    assert len(present(WorldConfig(seed=3, objects=count))) == count


def test_every_shape_and_color_comes_up() -> None:
    drawn = [o for seed in range(40) for o in present(WorldConfig(seed=seed))]
    assert {o.shape for o in drawn} == {"cube", "cuboid", "cylinder"}
    assert {o.color for o in drawn} == set(layout.COLORS)


def test_a_person_can_grasp_every_object_and_reach_every_tray_slot() -> None:
    reach = TopDown(ROBOT)
    for seed in range(25):
        objects = present(WorldConfig(seed=seed))
        for spec in objects:
            others = [np.array([o.x_m, o.y_m, 0.0]) for o in objects if o is not spec]
            plan = plan_grasp(
                reach, spec, np.array([spec.x_m, spec.y_m, spec.size_m[2] / 2]), spec.yaw_rad, others
            )
            assert 0 < plan.opening < 0.5
    occupied: list[np.ndarray] = []
    for _ in range(9):
        slot = tray_slot(occupied)
        plan_release(reach, slot)
        occupied.append(np.array([*slot, 0.02]))
    assert len({tuple(s.round(4)) for s in occupied}) == 9


@example(0.17, 0.4, 0.04, math.pi / 2 + 0.4 - 0.003)  # the roll comes out just beyond the end of its turn
@given(st.floats(0.12, 0.23), st.floats(-1.2, 1.2), st.floats(0.02, 0.07), st.floats(-math.pi, math.pi))
@settings(deadline=None, max_examples=60)
def test_top_down_solutions_are_where_they_should_be(
    radius: float, angle: float, height: float, yaw: float
) -> None:
    reach = TopDown(ROBOT)
    target = np.array([layout.PAN_AXIS_X_M + radius * math.cos(angle), radius * math.sin(angle), height])
    joints = reach.solve(target, yaw)
    place, frame = reach.site_pose(joints)
    assert np.linalg.norm(place - target) < 1e-3
    assert np.allclose(frame, top_down_rotation(yaw), atol=0.03)


def test_what_is_out_of_reach_is_said_to_be() -> None:
    with pytest.raises(UnreachableError, match="no top-down pose"):
        TopDown(ROBOT).solve(np.array([0.5, 0.0, 0.02]), 0.0)


def test_placed_objects_need_their_own_names() -> None:
    with pytest.raises(ValidationError, match="two objects are called 'red cube'"):
        WorldConfig(placed=(ObjectOptions(), ObjectOptions(x_m=0.25)))
    assert layout.draw_objects(WorldConfig(placed=(ObjectOptions(), ObjectOptions(name="second"))))


def test_depth_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ValidationError, match="16 bits"):
        WorldConfig(head=HeadCameraOptions(depth_scale_m=0.00002))
