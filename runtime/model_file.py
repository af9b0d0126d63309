"""A robot description out of a user's MJCF or URDF file, and a table for what such a file does not say."""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from runtime.arm_model import ModelError
from runtime.body import COLLISION_GROUP, VISUAL_GROUP, RobotDescription
from runtime.body_options import GRASP_SITE, BodyOptions
from runtime.messages import Floats
from runtime.urdf import urdf_spec

SUFFIXES = (".xml", ".mjcf", ".urdf")
_PROBES = 40
_OVERLAP_M = 0.0005
_SHOWN_GROUP = 1
_LARGEST = 64 << 20


def is_model_file(name: str) -> bool:
    """Whether `name` is a file's rather than a known model's."""
    return Path(name).suffix.lower() in SUFFIXES


def model_path(name: str) -> Path:
    """Where the model file `name` is: a path, or ``PACKAGE:FILE`` inside an installed package.

    The package is located and not imported. A recording's model is found by such a name wherever the package
    is installed.

    Raises:
        ModelError: there is no such package.
    """
    package, colon, file = name.partition(":")
    if not colon or not package.isidentifier() or Path(name).exists():
        return Path(name)
    found = importlib.util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        raise ModelError(f"arm model {name}: no package {package!r} is installed")
    return Path(found.submodule_search_locations[0]) / file


def describe_file(name: str, options: BodyOptions) -> RobotDescription:
    """The robot of the MJCF or URDF file `name`.

    Raises:
        ModelError: one line: what is missing, and what the file has.
    """
    digest = fingerprint(name)
    known = _ModelFile(model_path(name), options)
    return RobotDescription(
        name=name,
        joints=known.joints,
        ranges=known.ranges(),
        grippers=known.grippers(),
        hand=dict(options.hand),
        build=known.spec,
        home=known.home(),
        reach_m=known.reach_m(),
        sites={"": known.site},
        fingerprint=digest,
    )


def fingerprint(name: str) -> str:
    """SHA-256 of the model file `name`, in hexadecimal.

    Raises:
        ModelError: it cannot be read, or is no file of a model's size.
    """
    path = model_path(name)
    try:
        if path.exists() and not path.is_file():
            raise ModelError(f"arm model {name}: not a file")
        with path.open("rb") as file:
            content = file.read(_LARGEST + 1)
    except OSError as error:
        raise ModelError(f"arm model {name}: {error.strerror or error}") from None
    if len(content) > _LARGEST:
        raise ModelError(f"arm model {name}: more than {_LARGEST >> 20} MiB, which no model has")
    return hashlib.sha256(content).hexdigest()


class _ModelFile:
    """One file, looked through once; `spec` reads it anew, because a spec is used up."""

    def __init__(self, path: Path, options: BodyOptions) -> None:
        self._path = path
        self._options = options
        self.site = GRASP_SITE if options.grasp_body else options.site
        spec = self._read()
        self._home_key = _home_key(spec)
        _strip(spec)
        _name_bodies(spec)
        self.joints = self._chosen(spec)
        self._check_parts(spec)
        self._model = self._compiled(spec)
        self._touching = _always_touching(self._model)

    def spec(self, visual: bool) -> Any:
        """The arm alone, ready for use, with its looks or without."""
        spec = self._read()
        _strip(spec)
        _name_bodies(spec)
        _sort_geoms(spec, visual)
        self._add_grasp_point(spec)
        for one, other in (*self._options.touch, *self._touching):
            spec.add_exclude(bodyname1=one, bodyname2=other)
        return spec

    def _read(self) -> Any:
        import mujoco

        try:
            if self._path.suffix.lower() == ".urdf":
                return urdf_spec(self._path, self._options.meshes)
            if self._options.meshes is not None:
                raise self._error("body.meshes is for a URDF; an MJCF says itself where its meshes are")
            spec = mujoco.MjSpec.from_file(str(self._path))
        except (ValueError, OSError) as error:
            raise self._error(_one_line(error)) from None
        folder = self._path.resolve().parent / spec.meshdir
        for mesh in spec.meshes:
            if mesh.file:
                mesh.file = str(folder / mesh.file)
        spec.meshdir = ""
        return spec

    def _compiled(self, spec: Any) -> Any:
        try:
            return spec.compile()
        except ValueError as error:
            raise self._error(_one_line(error)) from None

    def _error(self, text: str) -> ModelError:
        return ModelError(f"arm model {self._path}: {text}")

    def _chosen(self, spec: Any) -> tuple[str, ...]:
        """The joints: as named, or all that move within a range by themselves."""
        there = {joint.name: joint for joint in spec.joints}
        usable = [name for name, joint in there.items() if name and _is_usable(joint)]
        followers = {each.name1 for each in spec.equalities if each.name2 in there}
        if not self._options.joints:
            found = [name for name in usable if name not in followers]
            if not found:
                raise self._error(f"no joint turns or slides within a range; it has {_list(there)}")
            return tuple(found)
        for name in self._options.joints:
            if name not in there:
                raise self._error(f"no joint is called {name!r}; it has {_list(there)}")
            if name not in usable:
                raise self._error(f"joint {name!r} must be a hinge or slide with a range")
        if len(set(self._options.joints)) < len(self._options.joints):
            raise self._error(f"body.joints names a joint twice: {_list(self._options.joints)}")
        return self._options.joints

    def _check_parts(self, spec: Any) -> None:
        options = self._options
        for name in options.grippers:
            if name not in self.joints:
                raise self._error(f"gripper {name!r} is no joint; there are {_list(self.joints)}")
        for name, angles in options.hand.items():
            if name not in self.joints or name in options.grippers or name == "gripper":
                arm = [joint for joint in self.joints if joint not in options.grippers]
                raise self._error(f"body.hand: {name!r} is no joint of a hand; there are {_list(arm)}")
            low, high = spec.joint(name).range
            if not (low <= min(angles) and max(angles) <= high):
                raise self._error(
                    f"body.hand: {name!r} is closed at {angles[0]:g} and open at {angles[1]:g}; "
                    f"its joint goes from {low:g} to {high:g}"
                )
        if options.home_rad and len(options.home_rad) != len(self.joints):
            raise self._error(f"body.home_rad: give {len(self.joints)} values, for {_list(self.joints)}")
        self._check_grasp_point(spec)

    def _check_grasp_point(self, spec: Any) -> None:
        options, bodies = self._options, [body.name for body in spec.bodies]
        sites = [site.name for site in spec.sites if site.name]
        if options.grasp_body:
            if options.grasp_body not in bodies:
                raise self._error(f"no body is called {options.grasp_body!r}; it has {_list(bodies)}")
        elif options.site not in sites:
            raise self._error(
                f"no site is called {options.site!r}; it has {_list(sites)}: give body.site, or "
                f"body.grasp_body and body.grasp_m; bodies are {_list(bodies)}"
            )
        for name in (name for pair in options.touch for name in pair):
            if name not in bodies:
                raise self._error(f"body.touch: no body is called {name!r}; it has {_list(bodies)}")
        if options.grasp_body:
            grasp_axes(options.approach, options.opening)

    def _add_grasp_point(self, spec: Any) -> None:
        import mujoco

        options = self._options
        if not options.grasp_body:
            return
        quaternion = np.zeros(4)
        mujoco.mju_mat2Quat(quaternion, grasp_axes(options.approach, options.opening).reshape(9))
        spec.body(options.grasp_body).add_site(
            name=self.site, pos=options.grasp_m, quat=quaternion, size=[0.003] * 3, group=5
        )

    def ranges(self) -> tuple[tuple[float, float], ...]:
        """Of each joint."""
        pairs = [self._model.joint(name).range for name in self.joints]
        return tuple((float(low), float(high)) for low, high in pairs)

    def grippers(self) -> dict[str, tuple[float, float]]:
        """Where each is closed and open."""
        if self._options.grippers or "gripper" not in self.joints:
            for name, (closed, opened) in self._options.grippers.items():
                low, high = self._model.joint(name).range
                if closed == opened or not (low <= min(closed, opened) and max(closed, opened) <= high):
                    raise self._error(
                        f"gripper {name!r} is closed at {closed:g} and open at {opened:g}; "
                        f"its joint goes from {low:g} to {high:g}"
                    )
            return dict(self._options.grippers)
        return {"gripper": self.ranges()[self.joints.index("gripper")]}

    def home(self) -> tuple[float, ...]:
        """Joints in the robot's units."""
        if self._options.home_rad:
            return self._options.home_rad
        grippers, found = self.grippers(), []
        for name, (low, high) in zip(self.joints, self.ranges(), strict=True):
            at = self._model.joint(name).qposadr[0]
            rest = 0.0 if low <= 0.0 <= high else (low + high) / 2
            native = float(self._home_key[at]) if len(self._home_key) > at else rest
            closed, opened = grippers.get(name, (0.0, 1.0))
            found.append((min(max(native, low), high) - closed) / (opened - closed))
        return tuple(found)

    def reach_m(self) -> float:
        """The way from the base's origin along all links to the grasp point: no pose gets further."""
        model = self._model
        if self._options.grasp_body:
            at = int(model.body(self._options.grasp_body).id)
            length = float(np.linalg.norm(self._options.grasp_m))
        else:
            site = model.site(self.site)
            at, length = int(site.bodyid[0]), float(np.linalg.norm(site.pos))
        while at:
            length += float(np.linalg.norm(model.body_pos[at]))
            at = int(model.body_parentid[at])
        slides = [max(map(abs, model.jnt_range[j])) for j in range(model.njnt) if model.jnt_type[j] == 2]
        return length + float(sum(slides))


def grasp_axes(approach: Iterable[float], opening: Iterable[float]) -> Floats:
    """The grasp frame's rotation ``[3, 3]`` from two directions.

    Raises:
        ModelError: they are not at right angles, or one is nothing.
    """
    z, y = np.array([*approach], np.float64), np.array([*opening], np.float64)
    lengths = np.linalg.norm(z), np.linalg.norm(y)
    if min(lengths) < 1e-6 or abs(float(z @ y)) > 1e-3 * float(lengths[0] * lengths[1]):
        raise ModelError(f"body.approach {z.tolist()} and body.opening {y.tolist()} must be at right angles")
    z, y = z / lengths[0], y / lengths[1]
    return np.stack([np.cross(y, z), y, z], axis=1)


def _is_usable(joint: Any) -> bool:
    import mujoco

    turns = joint.type in (mujoco.mjtJoint.mjJNT_HINGE, mujoco.mjtJoint.mjJNT_SLIDE)
    return bool(turns and joint.range[0] < joint.range[1])


def _strip(spec: Any) -> None:
    """Only the arm: no actuators, sensors, lights, key frames, and no floor of its own."""
    import mujoco

    parts = (spec.keys, spec.sensors, spec.actuators, spec.worldbody.lights)
    for part in [each for group in parts for each in group]:
        spec.delete(part)
    for geom in list(spec.worldbody.geoms):
        if geom.type == mujoco.mjtGeom.mjGEOM_PLANE:
            spec.delete(geom)


def _home_key(spec: Any) -> list[float]:
    return next((list(key.qpos) for key in spec.keys if key.name == "home"), [])


def _name_bodies(spec: Any) -> None:
    for number, body in enumerate(spec.bodies):
        if not body.name:
            body.name = f"body_{number}"


def _sort_geoms(spec: Any, visual: bool) -> None:
    """What collides and what is looked at in their groups; what does both is looked at in a third."""
    solid = [geom for geom in spec.geoms if geom.contype or geom.conaffinity]
    looks = [geom for geom in spec.geoms if not (geom.contype or geom.conaffinity)]
    for geom in looks:
        geom.group = VISUAL_GROUP
        if not visual:
            spec.delete(geom)
    for geom in solid:
        geom.group = COLLISION_GROUP if looks else _SHOWN_GROUP


def _always_touching(model: Any) -> list[tuple[str, str]]:
    """Pairs of bodies that overlap in every pose tried: nothing could keep them apart."""
    import mujoco

    data = mujoco.MjData(model)
    generator = np.random.default_rng(0)
    common: set[tuple[int, int]] | None = None
    for _ in range(_PROBES):
        for joint in range(model.njnt):
            low, high = model.jnt_range[joint] if model.jnt_limited[joint] else (0.0, 0.0)
            data.qpos[model.jnt_qposadr[joint]] = generator.uniform(low, high)
        mujoco.mj_kinematics(model, data)
        mujoco.mj_comPos(model, data)
        mujoco.mj_collision(model, data)
        contacts = [data.contact[i] for i in range(data.ncon)]
        pairs = [
            tuple(sorted(int(model.geom_bodyid[g]) for g in (each.geom1, each.geom2)))
            for each in contacts
            if each.dist < -_OVERLAP_M
        ]
        common = set(pairs) if common is None else common & set(pairs)  # type: ignore[arg-type]
    return [(model.body(one).name, model.body(other).name) for one, other in sorted(common or ())]


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _list(names: Iterable[str] | Mapping[str, Any]) -> str:
    return ", ".join(name for name in names if name) or "none"
