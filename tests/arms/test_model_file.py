"""Arms out of users' files: MJCF and URDF, and what is said where something is missing."""

from __future__ import annotations

from pathlib import Path

import mujoco
import numpy as np
import pytest

from drivers.arms import describe
from runtime.arm_model import ModelError
from runtime.body_options import BodyOptions

MJCF = """
<mujoco model="crane"><compiler angle="radian"/>
<worldbody><light pos="0 0 2"/><geom type="plane" size="1 1 0.1"/>
<body name="column" pos="0 0 0.2"><joint name="pan" axis="0 0 1" range="-2 2" limited="true"/>
<geom type="capsule" fromto="0 0 0 0 0 0.05" size="0.02"/>
<body name="boom"><joint name="lift" axis="0 -1 0" range="0.1 1" limited="true"/>
<geom type="capsule" fromto="0.06 0 0 0.25 0 0" size="0.015"/>
<site name="grasp" pos="0.28 0 0"/>
<body name="left_finger" pos="0.27 0 0">
<joint name="jaw" type="slide" axis="0 1 0" range="0 0.04" limited="true"/>
<geom type="box" size="0.02 0.005 0.01"/></body>
<body name="right_finger" pos="0.27 0 0">
<joint name="twin" type="slide" axis="0 1 0" range="-0.04 0" limited="true"/>
<geom type="box" size="0.02 0.005 0.01"/></body>
</body></body></worldbody>
<equality><joint joint1="twin" joint2="jaw" polycoef="0 -1 0 0 0"/></equality>
<actuator><position joint="pan"/></actuator>
<keyframe><key name="home" qpos="0.5 0.3 0.02 -0.02"/></keyframe></mujoco>
"""

URDF = """<robot name="crane">
<link name="base"/>
<link name="column"><inertial><mass value="1"/>
<inertia ixx="0.01" iyy="0.01" izz="0.01" ixy="0" ixz="0" iyz="0"/>
</inertial><collision><geometry><cylinder radius="0.02" length="0.1"/></geometry></collision></link>
<link name="boom"><inertial><mass value="1"/>
<inertia ixx="0.01" iyy="0.01" izz="0.01" ixy="0" ixz="0" iyz="0"/>
</inertial><visual><geometry>VISUAL</geometry></visual>
<collision><origin xyz="0.15 0 0"/><geometry>COLLISION</geometry></collision></link>
<joint name="pan" type="revolute"><parent link="base"/><child link="column"/><origin xyz="0 0 0.2"/>
<axis xyz="0 0 1"/><limit lower="-2" upper="2" effort="1" velocity="1"/></joint>
<joint name="lift" type="revolute"><parent link="column"/><child link="boom"/><axis xyz="0 -1 0"/>
<limit lower="-1" upper="1" effort="1" velocity="1"/></joint></robot>
"""
BOX = '<box size="0.1 0.02 0.02"/>'
JAW = {"jaw": (0.0, 0.04)}
TIP = {"grasp_body": "boom", "grasp_m": (0.28, 0.0, 0.0), "approach": (1, 0, 0), "opening": (0, 1, 0)}


@pytest.fixture
def mjcf(tmp_path: Path) -> str:
    path = tmp_path / "crane.xml"
    path.write_text(MJCF)
    return str(path)


def urdf(folder: Path, visual: str = BOX, collision: str = BOX) -> str:
    path = folder / "crane.urdf"
    path.write_text(URDF.replace("VISUAL", visual).replace("COLLISION", collision))
    return str(path)


def body(**options: object) -> BodyOptions:
    return BodyOptions.model_validate(options)


def stl(path: Path) -> None:
    """A tetrahedron of some centimetres."""
    corners = np.array([[0, 0, 0], [0.1, 0, 0], [0, 0.02, 0], [0, 0, 0.02]])
    faces = [(0, 2, 1), (0, 1, 3), (0, 3, 2), (1, 2, 3)]
    records = np.zeros(len(faces), np.dtype([("n", "<f4", 3), ("p", "<f4", (3, 3)), ("a", "<u2")]))
    records["p"] = corners[np.array(faces)]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(80) + np.uint32(len(faces)).tobytes() + records.tobytes())


def test_an_mjcf_s_own_joints_in_its_order(mjcf: str):
    robot = describe(mjcf, body(grippers=JAW))
    assert robot.joints == ("pan", "lift", "jaw")  # the twin follows the jaw by itself
    assert robot.layout.grippers == (2,)
    np.testing.assert_allclose(robot.layout.ranges, [[-2, 2], [0.1, 1], [0, 1]])
    assert robot.home == (0.5, 0.3, 0.5)
    assert robot.reach_m == pytest.approx(0.48, abs=0.09)  # with what its fingers slide
    assert len(robot.fingerprint) == 64


def test_kinematics_are_mujoco_s_own(mjcf: str):
    model = mujoco.MjModel.from_xml_string(MJCF)
    data = mujoco.MjData(model)
    arm = describe(mjcf, body(grippers=JAW)).model()
    for q in np.random.default_rng(0).uniform(arm.ranges[:, 0], arm.ranges[:, 1], (20, 3)):
        data.qpos[:] = [q[0], q[1], 0.04 * q[2], -0.04 * q[2]]
        mujoco.mj_kinematics(model, data)
        np.testing.assert_allclose(arm.fk(q)[:3, 3], data.site("grasp").xpos, atol=1e-12)
        np.testing.assert_allclose(
            arm.data.body("right_finger").xpos, data.body("right_finger").xpos, atol=1e-12
        )


def test_the_arm_alone_is_taken_from_a_whole_scene(mjcf: str):
    spec = describe(mjcf, body(grippers=JAW)).build(True)
    assert not list(spec.actuators)
    assert not list(spec.keys)
    assert [geom.type for geom in spec.worldbody.geoms] == []


def test_order_and_grippers_as_said(mjcf: str):
    robot = describe(mjcf, body(joints=("jaw", "twin", "pan"), grippers={**JAW, "twin": (0.0, -0.04)}))
    assert robot.joints == ("jaw", "twin", "pan")
    assert robot.layout.grippers == (0, 1)
    arm = robot.model()
    np.testing.assert_allclose(arm.to_native(np.array([0.25, 0.75, 1.0])), [0.01, -0.03, 1.0])


def test_bodies_next_to_each_other_and_those_said_may_touch(mjcf: str):
    q = np.array([0.0, 0.3, 0.0])
    assert describe(mjcf, body(grippers=JAW)).model().clearances(q)[0] < 0.0  # the fingers overlap at 0
    touching = describe(mjcf, body(grippers=JAW, touch=[("left_finger", "right_finger")])).model()
    assert touching.clearances(q)[0] == touching.reach_m


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"joints": ["pan", "bend"]}, "no joint is called 'bend'; it has pan, lift, jaw, twin"),
        ({"joints": ["pan", "pan"]}, "names a joint twice"),
        ({"grippers": {"hand": [0, 1]}}, "gripper 'hand' is no joint; there are pan, lift, jaw"),
        ({"grippers": {"jaw": [0, 1]}}, "closed at 0 and open at 1; its joint goes from 0 to 0.04"),
        ({"grippers": {"jaw": [0.01, 0.01]}}, "closed at 0.01 and open at 0.01"),
        ({"site": "tip"}, "no site is called 'tip'; it has grasp: give body.site, or body.grasp_body"),
        ({"grasp_body": "hand"}, "no body is called 'hand'; it has world, column, boom"),
        ({"grasp_body": "boom", "approach": [0, 0, 1], "opening": [0, 0.1, 1]}, "must be at right angles"),
        ({"touch": [["column", "roof"]]}, "body.touch: no body is called 'roof'"),
        ({"home_rad": [0.0]}, "give 3 values, for pan, lift, jaw"),
        ({"meshes": "elsewhere"}, "body.meshes is for a URDF"),
    ],
)
def test_what_a_file_does_not_have_is_one_line(mjcf: str, options: dict, said: str):
    with pytest.raises(ModelError) as caught:
        describe(mjcf, body(**options))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"site": "tip", "grasp_body": "boom"}, "site and grasp_body both say"),
        ({"grasp_m": [0, 0, 0.1]}, "grasp_m is in the frame of a grasp_body"),
        ({"approach": [1, 0, 0]}, "approach is in the frame of a grasp_body"),
    ],
)
def test_a_key_without_effect_is_refused(options: dict, said: str):
    with pytest.raises(ValueError, match=said):
        body(**options)


def test_a_file_of_a_package_is_found_wherever_it_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    package = tmp_path / "crane_arm"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    (package / "arm.xml").write_text(MJCF)
    monkeypatch.syspath_prepend(tmp_path)
    robot = describe("crane_arm:arm.xml", body(grippers=JAW))
    assert (robot.name, robot.joints) == ("crane_arm:arm.xml", ("pan", "lift", "jaw"))
    assert robot.fingerprint == describe(str(package / "arm.xml"), body(grippers=JAW)).fingerprint
    with pytest.raises(ModelError, match="no package 'derrick_arm' is installed"):
        describe("derrick_arm:arm.xml")


def test_files_that_are_none(tmp_path: Path):
    with pytest.raises(ModelError, match="No such file"):
        describe(str(tmp_path / "missing.xml"))
    for name in ("a.xml", "a.urdf"):
        (tmp_path / name).write_text("<robot><oops")
        with pytest.raises(ModelError) as caught:
            describe(str(tmp_path / name))
        assert str(caught.value).startswith(f"arm model {tmp_path / name}: ")
    (tmp_path / "c.xml").write_text("arm")
    with pytest.raises(ModelError, match=r"XML parse error \d+: \S"):
        describe(str(tmp_path / "c.xml"))
    (tmp_path / "b.urdf").write_text("<mujoco/>")
    with pytest.raises(ModelError, match="not a URDF: it begins with <mujoco>"):
        describe(str(tmp_path / "b.urdf"))
    with pytest.raises(ModelError, match="there are so100, so101, or give a file"):
        describe("so102")
    with pytest.raises(ModelError, match=r"\[arm.body\] says is for model files"):
        describe("so100", body(site="tip"))


def test_a_urdf_without_meshes(tmp_path: Path):
    robot = describe(urdf(tmp_path), body(**TIP))
    assert robot.joints == ("pan", "lift")
    assert robot.layout.grippers == ()
    arm = robot.model()
    pose = arm.fk(np.array([0.0, 0.0]))
    np.testing.assert_allclose(pose[:3, 3], [0.28, 0, 0.2], atol=1e-9)
    np.testing.assert_allclose(pose[:3, 1:3], [[0, 1], [1, 0], [0, 0]], atol=1e-9)
    assert arm.grasp_height(np.array([0.0, 0.5])) == pytest.approx(0.2 + 0.28 * np.sin(0.5))


@pytest.mark.parametrize(
    ("given", "file", "options"),
    [
        ("meshes/boom.stl", "meshes/boom.stl", {}),
        ("package://crane/meshes/boom.stl", "meshes/boom.stl", {}),
        ("package://crane/meshes/boom.stl", "elsewhere/crane/meshes/boom.stl", {"meshes": "elsewhere"}),
    ],
)
def test_a_urdf_with_meshes(tmp_path: Path, given: str, file: str, options: dict):
    stl(tmp_path / file)
    mesh = f'<mesh filename="{given}"/>'
    where = {key: tmp_path / value for key, value in options.items()}
    spec = describe(urdf(tmp_path, mesh, mesh), body(**TIP, **where)).build(True)
    model = spec.compile()
    assert model.nmesh == 1
    assert sorted(model.geom_group[model.geom_type == mujoco.mjtGeom.mjGEOM_MESH]) == [2, 3]


def test_looks_that_mujoco_cannot_read_are_left_out_and_collisions_refused(tmp_path: Path):
    dae = '<mesh filename="boom.dae"/>'
    assert describe(urdf(tmp_path, visual=dae), body(**TIP)).joints == ("pan", "lift")
    with pytest.raises(ModelError, match=r"mesh boom.dae: collision meshes must be .stl, .obj, .msh"):
        describe(urdf(tmp_path, collision=dae), body(**TIP))


def test_a_mesh_that_is_not_there_is_one_line(tmp_path: Path):
    with pytest.raises(ModelError, match=r"give body\.meshes, the folder that holds other/boom"):
        describe(urdf(tmp_path, collision='<mesh filename="package://other/boom.stl"/>'), body(**TIP))
    with pytest.raises(ModelError, match=r"mesh boom.stl: no file .*boom\.stl"):
        describe(urdf(tmp_path, collision='<mesh filename="boom.stl"/>'), body(**TIP))


def test_a_urdf_s_mimicking_joint_follows(tmp_path: Path):
    text = URDF.replace("VISUAL", BOX).replace("COLLISION", BOX)
    limit = '<limit lower="-1" upper="1" effort="1" velocity="1"/>'
    mimic = limit + '<mimic joint="pan" multiplier="-0.5" offset="0.1"/>'
    path = tmp_path / "mimic.urdf"
    head, tail = text.split('<axis xyz="0 -1 0"/>')
    path.write_text(head + '<axis xyz="0 -1 0"/>' + mimic + tail.split("/>", 1)[1])
    arm = describe(str(path), body(**TIP)).model()
    assert arm.names == ("pan",)
    assert arm.grasp_height(np.array([1.0])) == pytest.approx(0.2 + 0.28 * np.sin(-0.4))
