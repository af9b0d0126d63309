"""What the runtime knows of an arm's body: where the grasp point is, what would collide, how to get there.

One MuJoCo model answers all three, so that the safety stage, the motions and the policies agree. An
instance owns scratch memory: each thread makes its own (`ArmModel.copy` is cheap).

Joint vectors are ``[D]`` in the robot's units: radians, and 0 to 1 for the gripper, which is last.
Poses are 4x4 in the arm's base frame, metres; the grasp frame's z axis is the approach direction and its
y axis the direction in which the jaw opens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from runtime.messages import Floats
from runtime.mujoco_calls import query
from runtime.so100 import GRASP_SITE, JOINT_NAMES, so100_spec

DEFAULT_REACH_M = 0.02
_TABLE = "table plane"
_PROBES = 16
_ONE_DOF = (2, 3)
"""MuJoCo's slide and hinge joints."""


@dataclass(frozen=True, slots=True)
class IkOptions:
    """How inverse kinematics weighs what an arm of few joints cannot have all at once.

    Attributes:
        position_cost: of a metre of distance; the position always comes first.
        approach_cost: of a radian between the approach direction and the wanted one.
        yaw_cost: of a radian of rotation about the approach direction.
        posture_cost: of a radian away from the seed; keeps redundant joints still.
        iterations: Gauss-Newton steps at most.
        tolerance_m: position error at which the search ends.
    """

    position_cost: float = 100.0
    approach_cost: float = 0.6
    yaw_cost: float = 0.6
    posture_cost: float = 1e-4
    iterations: int = 80
    tolerance_m: float = 5e-5


@dataclass(frozen=True, slots=True)
class IkResult:
    """A configuration ``q[D]`` and how far its grasp pose is from the one asked for.

    Attributes:
        position_error_m: distance of the grasp points.
        tilt_rad: angle between the approach directions.
        yaw_error_rad: what remains of the rotation about the approach direction.
    """

    q: Floats
    position_error_m: float
    tilt_rad: float
    yaw_error_rad: float


class ModelError(Exception):
    """A model file does not describe an arm as configured. One line: what, where, what is there."""


class ArmModel:
    """Forward and inverse kinematics and collision clearance of one arm standing on a table.

    Attributes:
        names: the joints' names.
        ranges: ``[D, 2]``, in the robot's units.
    """

    def __init__(
        self,
        spec: Any = None,
        *,
        names: Sequence[str] = JOINT_NAMES,
        site: str = GRASP_SITE,
        gripper: bool = True,
        table_height_m: float | None = 0.0,
        reach_m: float = DEFAULT_REACH_M,
    ) -> None:
        """Set up the model and its scratch memory.

        Args:
            spec: a ``mujoco.MjSpec`` of the arm alone; ``None`` for the SO-100. (Also a model that
                another `ArmModel` compiled, as `copy` does.)
            names: the arm's joints in order, gripper last.
            site: the site at the grasp point.
            gripper: whether the last joint is a gripper, given as 0 to 1 of its range.
            table_height_m: height of the table's plane in the base frame; ``None`` for no table.
            reach_m: up to which distance `clearance` looks.

        Raises:
            ModelError: a joint or the site is missing, or a joint is not a hinge or slide with a range.
        """
        import mujoco

        self._mujoco = mujoco
        self.names = tuple(names)
        self.reach_m = reach_m
        self.table_height_m = table_height_m
        self.has_gripper = gripper
        self._site_name = site
        if isinstance(spec, mujoco.MjModel):
            self.model: Any = spec
        else:
            self.model = _compile(spec or so100_spec(visual=False), table_height_m, reach_m)
        self.data = mujoco.MjData(self.model)
        self._kinematics = query("mj_kinematics", self.model, self.data)
        self._collision = query("mj_collision", self.model, self.data)
        self._site = _identifier(self.model, mujoco.mjtObj.mjOBJ_SITE, site, "site")
        self._table = int(mujoco.mj_name2id(self.model, mujoco.mjtObj.mjOBJ_GEOM, _TABLE))
        self._ik: Any = None
        self._find_joints()
        self._place(self.middle())

    @classmethod
    def from_mjcf(cls, path: str | Path, **options: Any) -> ArmModel:
        """The arm of an MJCF or URDF file; `options` as for the constructor.

        Raises:
            ModelError: the file cannot be read, or does not hold the arm described.
        """
        import mujoco

        try:
            spec = mujoco.MjSpec.from_file(str(path))
        except (ValueError, OSError) as error:
            raise ModelError(f"arm model {path}: {str(error).splitlines()[0]}") from None
        return cls(spec, **options)

    def copy(self) -> ArmModel:
        """The same model with scratch memory of its own, for another thread."""
        return ArmModel(
            self.model,
            names=self.names,
            site=self._site_name,
            gripper=self.has_gripper,
            table_height_m=self.table_height_m,
            reach_m=self.reach_m,
        )

    def _find_joints(self) -> None:
        mujoco, model, names = self._mujoco, self.model, self.names
        joints = [_identifier(model, mujoco.mjtObj.mjOBJ_JOINT, name, "joint") for name in names]
        for name, joint in zip(names, joints, strict=True):
            if model.jnt_type[joint] not in _ONE_DOF or not model.jnt_limited[joint]:
                raise ModelError(f"arm model: joint {name!r} must be a hinge or slide with a range")
        self._qpos = np.array([model.jnt_qposadr[joint] for joint in joints])
        self._dofs = np.array([model.jnt_dofadr[joint] for joint in joints])
        native = np.array([model.jnt_range[joint] for joint in joints], dtype=np.float64)
        self._scale = np.ones(len(names))
        self._offset = np.zeros(len(names))
        self.ranges = native.copy()
        if self.has_gripper:
            self._offset[-1], self._scale[-1] = native[-1, 0], native[-1, 1] - native[-1, 0]
            self.ranges[-1] = (0.0, 1.0)

    @property
    def joints(self) -> int:
        """Number of joints `D`."""
        return len(self.names)

    def middle(self) -> Floats:
        """The middle of every range, ``[D]``."""
        return np.asarray(self.ranges.mean(axis=1))

    def to_native(self, q: Floats) -> Floats:
        """The model's own ``qpos`` of these joints."""
        return np.asarray(self._offset + q * self._scale)

    def from_native(self, qpos: Floats) -> Floats:
        """The inverse of `to_native`."""
        return np.asarray((qpos - self._offset) / self._scale)

    def _place(self, q: Floats) -> None:
        self.data.qpos[self._qpos] = self._offset + q * self._scale
        self._kinematics()

    def fk(self, q: Floats) -> Floats:
        """Pose 4x4 of the grasp frame at `q`."""
        self._place(q)
        pose = np.eye(4)
        pose[:3, :3] = self.data.site_xmat[self._site].reshape(3, 3)
        pose[:3, 3] = self.data.site_xpos[self._site]
        return pose

    def grasp_height(self, q: Floats) -> float:
        """Height of the grasp point at `q` in the base frame, metres."""
        self._place(q)
        return float(self.data.site_xpos[self._site, 2])

    def clearance(self, q: Floats) -> float:
        """Least distance at `q` of the arm to the table and to itself, metres, at most ``reach_m``.

        Negative where bodies overlap. Bodies joined by one joint are not held against each other, nor are
        bodies that no joint can move apart; the jaws may therefore close on each other and on an object.
        """
        return min(self.clearances(q))

    def clearances(self, q: Floats) -> tuple[float, float]:
        """`clearance` told apart: to itself, and to the table."""
        self._place(q)
        data = self.data
        self._collision()
        count = data.ncon
        if count == 0:
            return self.reach_m, self.reach_m
        contacts = data.contact
        distances = contacts.dist[:count]
        on_table = (contacts.geom[:count] == self._table).any(axis=1)
        reach = self.reach_m
        own = float(np.where(on_table, reach, distances).min())
        table = float(np.where(on_table, distances, reach).min())
        return min(own, reach), min(table, reach)

    def ik(self, target: Floats, seed: Floats, options: IkOptions | None = None) -> IkResult:
        """The configuration whose grasp pose comes closest to `target` (4x4), starting from `seed`.

        Joint ranges hold; the gripper keeps the seed's opening. Solved by quadratic programs (mink).
        The caller judges the errors in the result: an arm of five joints cannot have every pose.
        """
        if self._ik is None:
            from runtime.arm_ik import IkSolver

            self._ik = IkSolver(self.model, self._site, self._qpos, self._dofs, self.has_gripper)
        native = self._ik.solve(target, self.to_native(seed), options or IkOptions())
        q = self.from_native(native)
        if self.has_gripper:
            q[-1] = seed[-1]
        return self._judge(q, target)

    def _judge(self, q: Floats, target: Floats) -> IkResult:
        pose = self.fk(q)
        approach, wanted = pose[:3, 2], target[:3, 2]
        tilt = float(np.arctan2(np.linalg.norm(np.cross(approach, wanted)), approach @ wanted))
        # What is left of the rotation once the approach directions are brought together.
        jaw = pose[:3, 1] - (pose[:3, 1] @ wanted) * wanted
        sine, cosine = np.cross(target[:3, 1], jaw) @ wanted, target[:3, 1] @ jaw
        error = float(np.linalg.norm(pose[:3, 3] - target[:3, 3]))
        return IkResult(q, error, tilt, abs(float(np.arctan2(sine, cosine))))


def _identifier(model: Any, kind: Any, name: str, word: str) -> int:
    import mujoco

    found = int(mujoco.mj_name2id(model, kind, name))
    if found < 0:
        raise ModelError(f"arm model: no {word} is called {name!r}")
    return found


def _compile(spec: Any, table_height_m: float | None, reach_m: float) -> Any:
    import mujoco

    if table_height_m is not None:
        spec.worldbody.add_geom(
            name=_TABLE, type=mujoco.mjtGeom.mjGEOM_PLANE, size=[1, 1, 0.1], pos=[0, 0, table_height_m]
        )
    for geom in spec.geoms:
        geom.margin = reach_m
        geom.gap = 0.0
    model = spec.compile()
    if table_height_m is None:
        return model
    for body in _bodies_fixed_to_table(model):
        spec.add_exclude(bodyname1="world", bodyname2=body)
    return spec.compile()


def _bodies_fixed_to_table(model: Any) -> list[str]:
    """Bodies whose distance to the table no joint changes (a turning base): nothing could avoid them."""
    import mujoco

    data = mujoco.MjData(model)
    table = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_GEOM, _TABLE)
    geoms = [g for g in range(model.ngeom) if model.geom_bodyid[g] != 0 and model.geom_contype[g]]
    generator = np.random.default_rng(0)
    rows = []
    for _ in range(_PROBES):
        data.qpos[:] = generator.uniform(model.jnt_range[:, 0], model.jnt_range[:, 1])
        mujoco.mj_kinematics(model, data)
        rows.append([mujoco.mj_geomDistance(model, data, table, g, 10.0, None) for g in geoms])
    fixed = np.ptp(np.array(rows), axis=0) < 1e-6
    return sorted(
        {model.body(model.geom_bodyid[g]).name for g, still in zip(geoms, fixed, strict=True) if still}
    )
