"""The robot as data: what an arm's model does not say by itself, or what several arms side by side are.

A `RobotDescription` is of one arm, or of several that stand around one table (`together`); the application
treats both alike. Known arms' are in ``drivers.arms``; `runtime.model_file` makes one of a user's file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from runtime.arm_model import DEFAULT_REACH_M, ArmModel, ModelParts
from runtime.body_options import GRASP_SITE
from runtime.fingers import Fingers
from runtime.jaws import JawGeometry
from runtime.joints import JointLayout, prefixed
from runtime.messages import Floats
from runtime.table_model import FixedBox, standing

COLLISION_GROUP = 3
VISUAL_GROUP = 2
"""MuJoCo's geom groups in every description's model: what collides, and what is only looked at."""


@dataclass(frozen=True, slots=True)
class CameraMount:
    """Where a camera sits on a body, in that body's frame, metres; `up` is upwards in its picture."""

    body: str
    position_m: tuple[float, float, float]
    aim_m: tuple[float, float, float]
    up: tuple[float, float, float]


@dataclass(frozen=True, slots=True, eq=False)
class RobotDescription:
    """A robot: its model and what is what in it.

    Attributes:
        name: of the model, as configured and recorded.
        joints: names in the order of every joint vector ``[D]``.
        ranges: of each, in the model's own units (radians, metres).
        grippers: by joint, the model's own positions where it is closed and where it is open.
        hand: by joint of a hand that opens and closes, its angles where it is closed and where it is open.
        build: makes the ``mujoco.MjSpec`` of the arm alone, with its looks or without, in its base's frame:
            x forward over the table, z up, the table at ``z = 0``. Collision geoms are in
            `COLLISION_GROUP`, the others in `VISUAL_GROUP`. It has no actuators.
        home: joint vector ``[D]`` in the robot's units at which the arm hides nothing of the table.
        ready: the same for pointing down ahead; where searches for a pose begin. Empty: `home`.
        reach_m: no pose brings the grasp point further from the base.
        place_m: where objects are let go unless configured: in the tray of the simulated tabletop.
        sites: of each arm, by name, the site at its grasp point; one arm is called ``""``.
        jaws: what is known of the gripper's jaws; without it they are measured where needed.
        camera: where a wrist camera is; without it, behind the grasp point.
        fingerprint: of the file that the model comes from, so that a recording knows its robot again.
        arms: of several arms, each one's description and where its base stands, 4x4.
    """

    name: str
    joints: tuple[str, ...]
    ranges: tuple[tuple[float, float], ...]
    grippers: Mapping[str, tuple[float, float]]
    build: Callable[[bool], Any]
    home: tuple[float, ...]
    reach_m: float
    ready: tuple[float, ...] = ()
    place_m: tuple[float, float, float] = (0.11, 0.188, 0.075)
    sites: Mapping[str, str] = field(default_factory=lambda: {"": GRASP_SITE})
    jaws: JawGeometry | None = None
    camera: CameraMount | None = None
    fingerprint: str = ""
    arms: Mapping[str, tuple[RobotDescription, Floats]] = field(default_factory=dict)
    hand: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    @property
    def singles(self) -> Mapping[str, RobotDescription]:
        """Each arm by itself, by its name; the only one is called ``""``."""
        return {name: arm for name, (arm, _) in self.arms.items()} or {"": self}

    @property
    def bases(self) -> Mapping[str, Floats]:
        """Where each arm's base stands, 4x4 in the common frame, by its name."""
        return {name: pose for name, (_, pose) in self.arms.items()} or {"": np.eye(4)}

    @property
    def layout(self) -> JointLayout:
        """What the numbers of a joint vector are."""
        grippers = tuple(i for i, name in enumerate(self.joints) if name in self.grippers)
        ranges = np.array(
            [(0.0, 1.0) if i in grippers else pair for i, pair in enumerate(self.ranges)], dtype=np.float64
        )
        return JointLayout(self.joints, ranges, grippers)

    @property
    def parts(self) -> ModelParts:
        """What the joints and grasp points are called in the model."""
        grippers = self.layout.grippers
        ends = {index: self.grippers[self.joints[index]] for index in grippers}
        hand = {self.joints.index(name): angles for name, angles in self.hand.items()}
        return ModelParts(self.joints, dict(self.sites), grippers, ends, self.home, hand=hand)

    @property
    def fingers(self) -> Fingers:
        """What opens and closes: grippers, and a hand's joints."""
        parts = self.parts
        return Fingers.of(parts.grippers, parts.hand)

    @property
    def carrying(self) -> tuple[int, ...]:
        """Indices of the joints that carry the fingers: all others."""
        fingers = set(self.fingers.joints.tolist())
        return tuple(index for index in range(len(self.joints)) if index not in fingers)

    @property
    def home_pose(self) -> tuple[float, ...]:
        """`home` without the grippers."""
        return tuple(self.home[index] for index in self.layout.others)

    def to_native(self, q: Floats) -> Floats:
        """A joint vector ``[D]`` in the model's own units."""
        ends = [self.grippers.get(name, (0.0, 1.0)) for name in self.joints]
        return np.array([low + value * (high - low) for value, (low, high) in zip(q, ends, strict=True)])

    def model(
        self,
        table_height_m: float | None = 0.0,
        reach_m: float = DEFAULT_REACH_M,
        boxes: Sequence[FixedBox] = (),
    ) -> ArmModel:
        """Kinematics and clearances, from `boxes` that stand there, too; each thread makes its own, or copies
        one.

        Raises:
            ModelError: the model does not have what this says. MeshesMissingError: a mesh is missing.
        """
        spec = self.build(False)
        return ArmModel(spec, self.parts, table_height_m=table_height_m, reach_m=reach_m, boxes=boxes)


def together(arms: Mapping[str, tuple[RobotDescription, Floats]]) -> RobotDescription:
    """Several arms as one robot: by name, each with the pose 4x4 of its base in the common frame.

    Everything of an arm is called ``<arm>.<name>``: joints, sites, bodies.
    """

    def build(visual: bool) -> Any:
        return standing({name: (each.build(visual), pose) for name, (each, pose) in arms.items()})

    one_by_one = [(name, each) for name, (each, _) in arms.items()]
    first = one_by_one[0][1]
    return RobotDescription(
        name="+".join(each.name for _, each in one_by_one),
        joints=tuple(prefixed(name, joint) for name, each in one_by_one for joint in each.joints),
        ranges=tuple(pair for _, each in one_by_one for pair in each.ranges),
        grippers={prefixed(name, j): ends for name, each in one_by_one for j, ends in each.grippers.items()},
        hand={prefixed(name, j): pair for name, each in one_by_one for j, pair in each.hand.items()},
        build=build,
        home=tuple(value for _, each in one_by_one for value in each.home),
        ready=tuple(value for _, each in one_by_one for value in (each.ready or each.home)),
        reach_m=max(each.reach_m + float(np.linalg.norm(pose[:3, 3])) for each, pose in arms.values()),
        place_m=first.place_m,
        sites={name: prefixed(name, each.sites[""]) for name, each in one_by_one},
        fingerprint="+".join(each.fingerprint for _, each in one_by_one).strip("+"),
        arms=dict(arms),
    )
