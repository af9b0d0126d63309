"""What the numbers of a joint vector are: names in order, ranges, and which of them are grippers.

A robot has one joint vector, however many arms it has. The joints of one of several arms are called
``<arm>.<joint>`` (``left.shoulder_pan``); a single arm's joints have no such prefix.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from runtime.messages import Floats

SEPARATOR = "."
"""Between the name of an arm and that of its joint."""
GRIPPER_UNIT = "0..1"
"""How a recording says that a joint is a gripper."""


@dataclass(frozen=True, slots=True)
class CalibratedJoint:
    """What an arm's own calibration says of a joint that is no gripper.

    Attributes:
        low, high: the joint's angles at the ends of its calibrated range.
        against: whether the servo counts down where the angle goes up.
    """

    low: float
    high: float
    against: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Permitted:
    """What the safety stage lets through as it is.

    Attributes:
        ranges: ``[D, 2]``, how much of its range each joint may use.
        velocity, acceleration: ``[D]`` of targets, a second.
        table_m: how near to the table, and to what stands on it, the arm may be asked to be.
        force_n: above it the arm gives way, and may only lift.
    """

    ranges: Floats
    velocity: Floats
    acceleration: Floats
    table_m: float = 0.0
    force_n: float = math.inf

    def part(self, joints: Sequence[int]) -> Permitted:
        """Of some of the joints."""
        which = list(joints)
        return replace(
            self,
            ranges=self.ranges[which],
            velocity=self.velocity[which],
            acceleration=self.acceleration[which],
        )


@dataclass(frozen=True, slots=True, eq=False)
class JointLayout:
    """The joints of a robot, in the order of every joint vector ``[D]``.

    Attributes:
        names: `D` different names.
        ranges: ``[D, 2]``, in radians (metres for a joint that slides); 0 to 1 for a gripper.
        grippers: indices of the joints that are grippers, ascending; there may be none.
        calibration: by joint, as far as this very arm's servos are calibrated.
        permitted: what the safety stage lets through, if that is known.
        others: indices of the joints that are not grippers.
    """

    names: tuple[str, ...]
    ranges: Floats
    grippers: tuple[int, ...] = ()
    calibration: Mapping[str, CalibratedJoint] = field(default_factory=dict)
    permitted: Permitted | None = None
    others: tuple[int, ...] = field(init=False)

    def __post_init__(self) -> None:
        count = len(self.names)
        if len(set(self.names)) != count or np.shape(self.ranges) != (count, 2):
            raise ValueError(
                f"{count} joints ({', '.join(self.names)}), ranges of shape {np.shape(self.ranges)}"
            )
        if list(self.grippers) != sorted({g for g in self.grippers if 0 <= g < count}):
            raise ValueError(f"grippers {self.grippers} of {count} joints")
        others = tuple(i for i in range(count) if i not in self.grippers)
        object.__setattr__(self, "others", others)

    @property
    def joints(self) -> int:
        """Number of joints `D`."""
        return len(self.names)

    @property
    def gripper_names(self) -> tuple[str, ...]:
        """The joints that are grippers, by name."""
        return tuple(self.names[index] for index in self.grippers)

    @property
    def units(self) -> list[str]:
        """Of each joint, as recordings say them."""
        return [GRIPPER_UNIT if i in self.grippers else "rad" for i in range(self.joints)]

    def range_of(self, name: str) -> tuple[float, float]:
        """The range of one joint."""
        low, high = self.ranges[self.names.index(name)].tolist()
        return low, high

    def with_calibration(self, calibration: Mapping[str, CalibratedJoint]) -> JointLayout:
        """The same joints of an arm that is calibrated so."""
        return replace(self, calibration=dict(calibration))

    def within(self, permitted: Permitted) -> JointLayout:
        """The same joints, of which the safety stage lets no more through than this."""
        return replace(self, permitted=permitted)

    @property
    def usable(self) -> Floats:
        """``[D, 2]``: what may be asked for without being cut, as far as it is known."""
        return self.ranges if self.permitted is None else self.permitted.ranges

    def of(self, arm: str) -> tuple[int, ...]:
        """Where the joints of the arm called `arm` are; all of them for ``""``."""
        prefix = f"{arm}{SEPARATOR}" if arm else ""
        return tuple(i for i, name in enumerate(self.names) if name.startswith(prefix))

    def part(self, arm: str) -> JointLayout:
        """The joints of one arm, without its prefix.

        Raises:
            KeyError: no joint belongs to an arm of that name.
        """
        where = self.of(arm)
        if not where:
            raise KeyError(arm)
        names = tuple(self.names[i].removeprefix(f"{arm}{SEPARATOR}") for i in where)
        grippers = tuple(k for k, i in enumerate(where) if i in self.grippers)
        known = {short: prefixed(arm, short) for short in names}
        own = {s: self.calibration[name] for s, name in known.items() if name in self.calibration}
        permitted = None if self.permitted is None else self.permitted.part(where)
        return JointLayout(names, self.ranges[list(where)], grippers, own, permitted)


def prefixed(arm: str, name: str) -> str:
    """How a robot of several arms calls the part `name` of `arm`; ``""`` is the only arm."""
    return f"{arm}{SEPARATOR}{name}" if arm else name


def posed(values: int, joints: int, grippers: Sequence[int]) -> list[int]:
    """Which of `joints` joints a configured pose of so many `values` is for.

    All of them, if it has one for each; otherwise the first of those that are not grippers.
    """
    if values == joints:
        return list(range(joints))
    return [joint for joint in range(joints) if joint not in grippers][:values]


def side_by_side(arms: Mapping[str, JointLayout]) -> JointLayout:
    """One vector for several arms, in order, each joint called ``<arm>.<joint>``."""
    names: list[str] = []
    grippers: list[int] = []
    known: dict[str, CalibratedJoint] = {}
    for arm, layout in arms.items():
        known |= {f"{arm}{SEPARATOR}{name}": joint for name, joint in layout.calibration.items()}
        grippers += [len(names) + index for index in layout.grippers]
        names += [f"{arm}{SEPARATOR}{name}" for name in layout.names]
    ranges = np.concatenate([layout.ranges for layout in arms.values()])
    return JointLayout(tuple(names), ranges, tuple(grippers), known)
