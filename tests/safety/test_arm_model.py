"""Kinematics and clearance of the SO-100 model."""

from __future__ import annotations

import ctypes
import threading

import mujoco
import numpy as np
import pytest

from runtime import mujoco_calls
from runtime.arm_model import ArmModel, ModelError, ModelParts
from runtime.ik_options import IkOptions


def top_down(x: float, y: float, z: float, yaw: float) -> np.ndarray:
    pose = np.eye(4)
    jaw = np.array([np.cos(yaw), np.sin(yaw), 0.0])
    pose[:3, 0], pose[:3, 1], pose[:3, 2] = np.cross(jaw, [0, 0, -1]), jaw, [0, 0, -1]
    pose[:3, 3] = x, y, z
    return pose


def test_the_reference_pose_points_down(arm: ArmModel):
    pose = arm.fk(np.array([0.0, -1.57079, 1.57079, 1.57079, 0.0, 0.5]))
    np.testing.assert_allclose(pose[:3, 2], [0, 0, -1], atol=1e-4)
    np.testing.assert_allclose(pose[:3, :3] @ pose[:3, :3].T, np.eye(3), atol=1e-9)


def test_gripper_units(arm: ArmModel):
    np.testing.assert_array_equal(arm.ranges[-1], [0, 1])
    q = arm.middle()
    np.testing.assert_allclose(arm.from_native(arm.to_native(q)), q)
    assert arm.to_native(q)[-1] == pytest.approx(arm.model.joint("gripper").range.mean())


@pytest.mark.parametrize("x", [0.16, 0.2, 0.25])
@pytest.mark.parametrize("y", [-0.14, 0.0, 0.12])
@pytest.mark.parametrize("z", [0.02, 0.09])
def test_ik_reaches_straight_down(arm: ArmModel, home: np.ndarray, x: float, y: float, z: float):
    for yaw in (-0.5, 0.0, 0.6):
        results = [arm.ik(top_down(x, y, z, yaw + turn), home) for turn in (0.0, np.pi)]
        best = min(results, key=lambda r: r.position_error_m + 0.01 * r.yaw_error_rad + 0.01 * r.tilt_rad)
        assert best.position_error_m < 5e-4
        assert best.yaw_error_rad < 0.02
        assert best.tilt_rad < 0.15
        np.testing.assert_allclose(arm.fk(best.q)[:3, 3], [x, y, z], atol=5e-4)


def test_ik_stays_in_range_and_keeps_the_gripper(arm: ArmModel, home: np.ndarray):
    far = arm.ik(top_down(0.6, 0.3, 0.0, 1.0), home)
    assert far.position_error_m > 0.1
    assert (far.q >= arm.ranges[:, 0] - 1e-9).all()
    assert (far.q <= arm.ranges[:, 1] + 1e-9).all()
    assert far.q[5] == home[5]


@pytest.mark.parametrize("opening", [0.0, 1e-3, 1.0])
def test_ik_does_not_mind_a_gripper_at_its_end(arm: ArmModel, home: np.ndarray, opening: float):
    """Shut by a person at the leader it is at 0 exactly: nothing was in reach any more."""
    seed = home.copy()
    seed[-1] = opening
    found = arm.ik(top_down(0.2, 0.0, 0.05, 0.0), seed)
    assert found.position_error_m < 1e-4
    assert found.q[-1] == opening


def test_ik_tilts_rather_than_misses(arm: ArmModel, home: np.ndarray):
    stretched = arm.ik(top_down(0.33, 0.0, 0.1, np.pi / 2), home, IkOptions(iterations=200))
    assert stretched.position_error_m < 1e-3
    assert 0.02 < stretched.tilt_rad < 0.5


def test_clearance_of_the_fingers_over_the_table(arm: ArmModel, home: np.ndarray):
    heights = []
    for z in (0.02, 0.025, 0.03):
        result = arm.ik(top_down(0.2, 0.0, z, 0.0), home)
        heights.append(arm.clearances(result.q)[1])
    np.testing.assert_allclose(np.diff(heights), 0.005, atol=3e-4)
    assert arm.clearance(home) <= arm.reach_m


def test_clearance_agrees_with_pairwise_distances(arm: ArmModel):
    rng = np.random.default_rng(3)
    other = arm.copy()
    model, data = other.model, other.data
    fixed = {("base", "shoulder")}
    for _ in range(40):
        q = rng.uniform(arm.ranges[:, 0], arm.ranges[:, 1])
        own, _ = other.clearances(q)
        best = arm.reach_m
        for a in range(model.ngeom):
            for b in range(a + 1, model.ngeom):
                body_a, body_b = model.geom_bodyid[a], model.geom_bodyid[b]
                names = (model.body(body_a).name, model.body(body_b).name)
                related = body_b == body_a or model.body_parentid[body_b] == body_a
                if 0 in (body_a, body_b) or related or names in fixed:
                    continue
                best = min(best, mujoco.mj_geomDistance(model, data, a, b, 0.05, None))
        assert own == pytest.approx(best, abs=1.5e-3)


def test_a_copy_serves_another_thread(arm: ArmModel):
    rng = np.random.default_rng(4)
    configurations = rng.uniform(arm.ranges[:, 0], arm.ranges[:, 1], (200, 6))
    expected = [arm.clearance(q) for q in configurations]
    found: list[list[float]] = []

    def work(model: ArmModel) -> None:
        found.append([model.clearance(q) for q in configurations])

    threads = [threading.Thread(target=work, args=(arm.copy(),)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [expected] * 3


def test_any_mjcf_can_be_an_arm():
    mjcf = """<mujoco><worldbody><body name="a" pos="0 0 0.3">
        <joint name="turn" axis="0 1 0" range="-1 1" limited="true"/>
        <geom type="capsule" fromto="0 0 0 0.2 0 0" size="0.01"/>
        <site name="tip" pos="0.2 0 0"/></body></worldbody>
        <compiler angle="radian"/></mujoco>"""

    def made(joint: str, site: str) -> ArmModel:
        return ArmModel(mujoco.MjSpec.from_string(mjcf), ModelParts((joint,), {"": site}))

    arm = made("turn", "tip")
    assert arm.grasp_height(np.array([0.0])) == pytest.approx(0.3)
    assert arm.grasp_height(np.array([1.0])) == pytest.approx(0.3 - 0.2 * np.sin(1.0))
    assert arm.clearance(np.array([0.0])) == arm.reach_m
    with pytest.raises(ModelError, match="no joint is called 'bend'"):
        made("bend", "tip")
    with pytest.raises(ModelError, match="no site is called 'grasp'"):
        made("turn", "grasp")


def test_the_queries_answer_as_the_bindings_do(arm: ArmModel) -> None:
    generator = np.random.default_rng(0)
    data = mujoco.MjData(arm.model)
    for q in generator.uniform(arm.ranges[:, 0], arm.ranges[:, 1], (200, 6)):
        clearance = arm.clearance(q)
        data.qpos[:] = arm.data.qpos
        mujoco.mj_kinematics(arm.model, data)
        mujoco.mj_collision(arm.model, data)
        expected = min([arm.reach_m, *data.contact.dist.tolist()])
        assert clearance == expected
        assert (arm.fk(q)[:3, 3] == data.site_xpos[arm.model.site("grasp").id]).all()


def test_on_linux_the_queries_keep_the_gil() -> None:
    assert isinstance(mujoco_calls._library(), ctypes.PyDLL)


def test_without_the_library_the_bindings_are_called(arm: ArmModel, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> ctypes.PyDLL:
        raise OSError("no such file")

    monkeypatch.setattr(mujoco_calls, "_library", missing)
    copy, q = arm.copy(), arm.middle()
    assert copy.clearances(q) == arm.clearances(q)
