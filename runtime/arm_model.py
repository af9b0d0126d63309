"""What the runtime knows of a robot's body: where the grasp point is, what would collide, how to get there.

One MuJoCo model answers all three, so that the safety stage, the motions and the policies agree. An
instance owns scratch memory: each thread makes its own (`ArmModel.copy` is cheap).

Joint vectors are ``[D]`` in the robot's units: radians, and 0 to 1 for grippers. Poses are 4x4 in the frame
that the arms stand in (a single arm's: its base), metres; the grasp frame's z axis is the approach direction
and its y axis the direction in which the jaw opens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.clearance import Gaps
from runtime.fingers import Fingers
from runtime.ik_options import IkOptions
from runtime.joints import JointLayout
from runtime.messages import Floats
from runtime.mujoco_calls import query
from runtime.table_model import FIXED, TABLE, FixedBox, compiled

DEFAULT_REACH_M = 0.02
_SIGHT_M = 10.0
_ONE_DOF = (2, 3)
"""MuJoCo's slide and hinge joints."""


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


@dataclass(frozen=True, slots=True)
class NativeUnits:
    """Where a joint vector ``[D]`` is in a model's ``qpos``: ``qpos[where] = offset + q * scale``."""

    where: NDArray[np.int64]
    offset: Floats
    scale: Floats

    def to_native(self, q: Floats) -> Floats:
        """The model's own positions."""
        return np.asarray(self.offset + q * self.scale)

    def from_native(self, qpos: Floats) -> Floats:
        """The inverse."""
        return np.asarray((qpos - self.offset) / self.scale)


@dataclass(frozen=True, slots=True)
class ModelParts:
    """Which of a MuJoCo model's parts are the robot's.

    Attributes:
        names: the joints in order.
        sites: of each arm, by name, the site at its grasp point. The joints of one of several arms are
            those whose names begin with ``<arm>.``; a single arm is called ``""``.
        grippers: indices of the joints that are grippers, given as 0 (closed) to 1 (open) of their travel.
        ends: the model's own positions where a gripper is closed and open, by its index; where nothing is
            said, the lower and the upper end of its joint's range.
        home: joint vector ``[D]`` at which the robot hides nothing of the table; empty: unknown.
        whole: for one of several arms by itself, the joint vector of all.
        hand: of a hand's joints that open and close, by index, the angles where they are closed and open.
    """

    names: tuple[str, ...]
    sites: Mapping[str, str]
    grippers: tuple[int, ...] = ()
    ends: Mapping[int, tuple[float, float]] = field(default_factory=dict)
    home: tuple[float, ...] = ()
    whole: NativeUnits | None = None
    hand: Mapping[int, tuple[float, float]] = field(default_factory=dict)


class ArmModel:
    """Forward and inverse kinematics and collision clearance of arms that stand on a table: one or several.

    `clearance` and `clearances` are of everything that stands there. `fk`, `ik` and `grasp_height` are of
    one arm; where there are several, of one of the views that `arm` gives.

    Attributes:
        layout: the joints' names, ranges and grippers; `names`, `ranges` and `grippers` are its.
        fingers: those that open and close on an object, grippers and a hand's.
        arms: of each arm, the indices of its joints.
        parts: what they are called in the model.
    """

    def __init__(
        self,
        spec: Any,
        parts: ModelParts,
        *,
        table_height_m: float | None = 0.0,
        reach_m: float = DEFAULT_REACH_M,
        boxes: Sequence[FixedBox] = (),
    ) -> None:
        """Set up the model and its scratch memory.

        Args:
            spec: a ``mujoco.MjSpec`` of the arms alone (`runtime.table_model.standing` makes one of
                several). (Also a model that another `ArmModel` compiled, as `copy` does.)
            parts: what the robot's joints and grasp points are called in it.
            table_height_m: height of the table's plane in the common frame; ``None`` for no table.
            reach_m: up to which distance `clearance` looks.
            boxes: what else stands there, in the common frame: it counts as the table does.

        Raises:
            ModelError: a joint or a site is missing, or a joint is not a hinge or slide with a range.
        """
        import mujoco

        self._mujoco = mujoco
        self.parts = parts
        self.reach_m = reach_m
        self.table_height_m = table_height_m
        if isinstance(spec, mujoco.MjModel):
            self.model: Any = spec
        else:
            self.model = compiled(spec, table_height_m, reach_m, boxes)
        self.data = mujoco.MjData(self.model)
        self._kinematics = query("mj_kinematics", self.model, self.data)
        self._collision = query("mj_collision", self.model, self.data)
        self._fixed = _fixed(self.model)
        self._is_fixed: list[bool] = self._fixed.tolist()
        self._ik: Any = None
        self._find_joints()
        self._find_arms()
        self._followers = _followers(self.model, set(parts.names))
        self._place(self.middle())

    def copy(self) -> ArmModel:
        """The same model with scratch memory of its own, for another thread."""
        return self._with(self.parts)

    def arm(self, name: str, at: Floats | None = None) -> ArmModel:
        """One of several arms by itself: joint vectors, `fk` and `ik` are its own; its joints have no prefix.

        The others stand in its way where they are at `at` (the whole joint vector ``[D]``; default: where
        this model last looked), until `stand` says otherwise. ``""`` is the only arm of a robot of one.

        Raises:
            ModelError: there is no such arm.
        """
        parts = self.parts
        if name not in parts.sites:
            raise ModelError(f"arm model: no arm is called {name!r}; there is {', '.join(parts.sites)}")
        joints = self.layout.of(name)
        own = ModelParts(
            tuple(self.names[i] for i in joints),
            {name: parts.sites[name]},
            tuple(k for k, i in enumerate(joints) if i in self.grippers),
            {k: parts.ends[i] for k, i in enumerate(joints) if i in parts.ends},
            tuple(parts.home[i] for i in joints) if parts.home else (),
            parts.whole or self._units,
            {k: parts.hand[i] for k, i in enumerate(joints) if i in parts.hand},
        )
        view = self._with(own)
        view.layout = self.layout.part(name)
        if at is not None:
            view.stand(at)
        return view

    def stand(self, whole: Floats) -> None:
        """For a view of one arm: the robot is at `whole`, the joint vector ``[D]`` of all its arms."""
        units = self.parts.whole or self._units
        self.data.qpos[units.where] = units.to_native(whole)

    def _with(self, parts: ModelParts) -> ArmModel:
        made = ArmModel(self.model, parts, table_height_m=self.table_height_m, reach_m=self.reach_m)
        made.layout = self.layout
        made.data.qpos[:] = self.data.qpos
        return made

    def save(self, path: Path) -> dict[str, Any]:
        """Write the compiled model of a whole robot to `path`; returns what `load` needs besides, as JSON."""
        self._mujoco.mj_saveModel(self.model, str(path))
        parts = self.parts
        return {
            "names": list(parts.names),
            "sites": dict(parts.sites),
            "grippers": list(parts.grippers),
            "ends": [[joint, list(ends)] for joint, ends in parts.ends.items()],
            "home": list(parts.home),
            "hand": [[joint, list(angles)] for joint, angles in parts.hand.items()],
            "table_height_m": self.table_height_m,
            "reach_m": self.reach_m,
        }

    @classmethod
    def load(cls, path: Path, saved: Mapping[str, Any]) -> ArmModel:
        """The model that `save` wrote and told of."""
        import mujoco

        ends, hand = (
            {joint: (closed, opened) for joint, (closed, opened) in saved[key]} for key in ("ends", "hand")
        )
        return cls(
            mujoco.MjModel.from_binary_path(str(path)),
            ModelParts(
                tuple(saved["names"]),
                saved["sites"],
                tuple(saved["grippers"]),
                ends,
                tuple(saved["home"]),
                hand=hand,
            ),
            table_height_m=saved["table_height_m"],
            reach_m=saved["reach_m"],
        )

    def _find_joints(self) -> None:
        mujoco, model, names = self._mujoco, self.model, self.parts.names
        joints = [_identifier(model, mujoco.mjtObj.mjOBJ_JOINT, name, "joint") for name in names]
        for name, joint in zip(names, joints, strict=True):
            if model.jnt_type[joint] not in _ONE_DOF or not model.jnt_limited[joint]:
                raise ModelError(f"arm model: joint {name!r} must be a hinge or slide with a range")
        self._dofs = [int(model.jnt_dofadr[joint]) for joint in joints]
        native = np.array([model.jnt_range[joint] for joint in joints], dtype=np.float64)
        offset, scale, ranges = np.zeros(len(names)), np.ones(len(names)), native.copy()
        for g in self.parts.grippers:
            closed, opened = self.parts.ends.get(g, native[g])
            offset[g], scale[g] = closed, opened - closed
            ranges[g] = (0.0, 1.0)
        where = np.array([model.jnt_qposadr[joint] for joint in joints], dtype=np.int64)
        self._units = NativeUnits(where, offset, scale)
        self.layout = JointLayout(names, ranges, self.parts.grippers)
        self.fingers = Fingers.of(self.parts.grippers, self.parts.hand)

    def _find_arms(self) -> None:
        kind, sites = self._mujoco.mjtObj.mjOBJ_SITE, self.parts.sites
        self._sites = [_identifier(self.model, kind, site, "site") for site in sites.values()]
        self.arms = tuple(self.layout.of(name) for name in sites)
        if sorted(joint for joints in self.arms for joint in joints) != list(range(self.joints)):
            raise ModelError(
                f"arm model: joints {', '.join(self.names)} are not those of arms {', '.join(sites)}; "
                "each is called <arm>.<joint>"
            )
        self._find_owners()

    def _find_owners(self) -> None:
        """Whose each geom is: an arm's, by number; something else's that stands there; the table's."""
        model, arms = self.model, len(self.arms)
        roots = {
            int(model.body_rootid[model.dof_bodyid[self._dofs[joints[0]]]]): arm
            for arm, joints in enumerate(self.arms)
        }
        self._owners = np.array([roots.get(int(model.body_rootid[body]), arms) for body in model.geom_bodyid])
        self._owners[self._fixed] = arms + 1
        self._pairs = np.triu_indices(arms + 1)
        alone = arms == 1
        self._far: Gaps = (
            (self.reach_m,) * (1 if alone else len(self._pairs[0])),
            (self.reach_m,) * (1 if alone else arms + 1),
        )

    @property
    def names(self) -> tuple[str, ...]:
        """The joints' names, in order."""
        return self.layout.names

    @property
    def ranges(self) -> Floats:
        """``[D, 2]``, in the robot's units."""
        return self.layout.ranges

    @property
    def grippers(self) -> tuple[int, ...]:
        """Indices of the joints that are grippers."""
        return self.layout.grippers

    @property
    def home(self) -> Floats:
        """``[D]``, where the robot hides nothing of the table; the middle of its ranges if nobody said."""
        return np.array(self.parts.home, dtype=np.float64) if self.parts.home else self.middle()

    @property
    def _site(self) -> int:
        """The grasp point of the one arm."""
        if len(self._sites) > 1:
            raise ModelError(f"arm model: of which arm? There is {', '.join(self.parts.sites)}")
        return self._sites[0]

    @property
    def joints(self) -> int:
        """Number of joints `D`."""
        return len(self.names)

    def middle(self) -> Floats:
        """The middle of every range, ``[D]``."""
        return np.asarray(self.ranges.mean(axis=1))

    def to_native(self, q: Floats) -> Floats:
        """The model's own ``qpos`` of these joints."""
        return self._units.to_native(q)

    def from_native(self, qpos: Floats) -> Floats:
        """The inverse of `to_native`."""
        return self._units.from_native(qpos)

    def _place(self, q: Floats) -> None:
        units = self._units
        qpos = self.data.qpos
        qpos[units.where] = units.offset + q * units.scale
        for follower, leader, polynomial in self._followers:
            qpos[follower] = np.polyval(polynomial, qpos[leader])
        self._kinematics()

    def fk(self, q: Floats) -> Floats:
        """Pose 4x4 of the grasp frame at `q`."""
        self._place(q)
        pose = np.eye(4)
        pose[:3, :3] = self.data.site_xmat[self._site].reshape(3, 3)
        pose[:3, 3] = self.data.site_xpos[self._site]
        return pose

    def poses(self, q: Floats) -> dict[str, Floats]:
        """Of each arm, by name, the 4x4 pose of its grasp point in the base frame."""
        self._place(q)
        poses = {name: np.eye(4) for name in self.parts.sites}
        for pose, site in zip(poses.values(), self._sites, strict=True):
            pose[:3, :3] = self.data.site_xmat[site].reshape(3, 3)
            pose[:3, 3] = self.data.site_xpos[site]
        return poses

    def grasp_height(self, q: Floats) -> float:
        """Height of the grasp point at `q` in the base frame, metres."""
        self._place(q)
        return float(self.data.site_xpos[self._site, 2])

    def grasp_heights(self, q: Floats) -> Floats:
        """``[A]``, the same of each arm."""
        self._place(q)
        return np.asarray(self.data.site_xpos[self._sites, 2])

    def met(self, q: Floats, origin_m: Floats, towards: Floats) -> tuple[Floats, NDArray[np.bool_]]:
        """What the robot at `q`, or the table, shows to somebody at `origin_m` ``[3]``, in the base frame.

        What else stands there is looked through.

        Returns:
            How many times ``towards[N, 3]`` it is to the first surface, NaN where there is none; and whether
            that is the robot's, ``[N]``.
        """
        self._place(q)
        mujoco, count = self._mujoco, len(towards)
        times, geoms = np.full(count, -1.0), np.full(count, -1, np.int32)
        through = mujoco.mj_name2id(self.model, mujoco.mjtObj.mjOBJ_BODY, FIXED)
        along = np.ascontiguousarray(towards, np.float64).reshape(-1)
        origin = np.array(origin_m, np.float64)
        mujoco.mj_multiRay(
            self.model, self.data, origin, along, None, True, through, geoms, times, None, count, _SIGHT_M
        )
        hit = geoms >= 0
        return np.where(hit, times, np.nan), hit & ~self._fixed[geoms]

    def clearance(self, q: Floats) -> float:
        """Least distance at `q` of the arm to the table and to itself, metres, at most ``reach_m``.

        Negative where bodies overlap. Bodies joined by one joint are not held against each other, nor are
        bodies that no joint can move apart; the jaws may therefore close on each other and on an object.
        """
        return min(self.clearances(q))

    def clearances(self, q: Floats) -> tuple[float, float]:
        """`clearance` told apart: to itself, and to the table."""
        own, table = self.gaps(q)
        return min(own), min(table)

    def gaps(self, q: Floats) -> Gaps:
        """`clearances` of every arm by itself: of each to itself and to each other, and of each to the table.

        What stands there and is no arm's counts as one arm more.
        """
        self._place(q)
        data = self.data
        self._collision()
        count = data.ncon
        if count == 0:
            return self._far
        contacts = data.contact
        distances = contacts.dist[:count]
        if len(self.arms) > 1:
            return self._gaps_between(contacts.geom[:count], distances)
        # Few as they are, they are sooner looked through than made arrays of.
        own = table = self.reach_m
        fixed = self._is_fixed
        for (one, other), gap in zip(contacts.geom[:count].tolist(), distances.tolist(), strict=True):
            if fixed[one] or fixed[other]:
                table = min(table, gap)
            else:
                own = min(own, gap)
        return (own,), (table,)

    def _gaps_between(self, geoms: NDArray[np.int32], distances: Floats) -> Gaps:
        owners = self._owners[geoms]
        least = np.full((len(self.arms) + 2,) * 2, self.reach_m)
        np.minimum.at(least, (owners.min(axis=1), owners.max(axis=1)), distances)
        return tuple(least[self._pairs].tolist()), tuple(least[:-1, -1].tolist())

    def ik(self, target: Floats, seed: Floats, options: IkOptions | None = None) -> IkResult:
        """The configuration whose grasp pose comes closest to `target` (4x4), starting from `seed`.

        Joint ranges hold; fingers keep the seed's opening. Solved by quadratic programs (mink).
        The caller judges the errors in the result: an arm of five joints cannot have every pose.
        """
        if self._ik is None:
            from runtime.arm_ik import IkSolver

            moving = [dof for i, dof in enumerate(self._dofs) if i not in set(self.fingers.joints.tolist())]
            self._ik = IkSolver(self.model, self._site, self._units.where, moving)
        self._place(seed)
        native = self._ik.solve(target, self.data.qpos, options or IkOptions())
        q = self.from_native(native)
        q[self.fingers.joints] = seed[self.fingers.joints]
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


def _fixed(model: Any) -> NDArray[np.bool_]:
    """Of every geom, whether it is the table's or one of what stands on it and does not move."""
    import mujoco

    fixed = model.geom_bodyid == mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_BODY, FIXED)
    table = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_GEOM, TABLE)
    if table >= 0:
        fixed[table] = True
    return np.asarray(fixed)


def _followers(model: Any, names: set[str]) -> list[tuple[int, int, Floats]]:
    """Joints that a constraint couples to another (a second finger): both in ``qpos``, and the polynomial."""
    import mujoco

    found = []
    for row in range(model.neq):
        if model.eq_type[row] != mujoco.mjtEq.mjEQ_JOINT or model.eq_obj2id[row] < 0:
            continue
        follower, leader = (model.joint(int(each[row])) for each in (model.eq_obj1id, model.eq_obj2id))
        if follower.name in names:
            continue
        polynomial = np.asarray(model.eq_data[row, :5][::-1], dtype=np.float64)
        found.append((int(follower.qposadr[0]), int(leader.qposadr[0]), polynomial))
    return found


def _identifier(model: Any, kind: Any, name: str, word: str) -> int:
    import mujoco

    found = int(mujoco.mj_name2id(model, kind, name))
    if found < 0:
        raise ModelError(f"arm model: no {word} is called {name!r}")
    return found
