"""How joints are expressed outside this runtime: named conventions, from an arm's own calibration.

Inside there is one: radians in the model's frame, a gripper 0 (closed) to 1 (open). A data set, a policy's
file or a wire has one of these, by name (`Convention`):

* ``rad``: the same as inside.
* ``lerobot_degrees``: what LeRobot's SO arms say by default since February 2026 (0.4.4). A joint in degrees
  about the middle of its *calibrated* range: ``(ticks - (min + max) / 2) * 360 / 4095``. A gripper 0 to 100
  of its calibrated range.
* ``lerobot_percent``: LeRobot's before that. A joint -100 to 100 over its *calibrated* range, a gripper 0 to
  100, both turned over for a joint of ``drive_mode`` 1.
* ``symmetric``: every joint -1 to 1 over the *model's* range, a gripper -1 to 1.

The formulas are those of LeRobot 0.4.4's ``MotorsBus._normalize``: degrees leave ``drive_mode`` out, and
observed percentages end at the calibrated ends. LeRobot cuts a goal down to a whole tick, the driver here
rounds to the nearest one, so that a goal may differ by one tick. A joint without calibration in ticks
(another maker's arm) has the range of its model instead, and its degrees are true ones.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from pydantic import Field, model_validator

from runtime.joints import CalibratedJoint, JointLayout
from runtime.messages import Floats
from runtime.options import Options

Convention = Literal["rad", "lerobot_degrees", "lerobot_percent", "symmetric"]
CONVENTIONS: tuple[Convention, ...] = get_args(Convention)
LEROBOT: tuple[Convention, ...] = ("lerobot_degrees", "lerobot_percent")
DEFAULT_LEROBOT: Convention = "lerobot_degrees"
"""Of data sets in LeRobot's formats, and of the peers that are trained on them."""

TICKS_PER_TURN = 4096
_DEGREES_PER_RAD = TICKS_PER_TURN / math.tau * 360 / (TICKS_PER_TURN - 1)
"""LeRobot counts 4095 ticks to a turn, the servo 4096."""
MIDDLE = "middle_rad"
"""In a joint's calibration, beside what LeRobot has: its angle in the middle of the calibrated range."""
_OLD_KEYS = ("joint_unit", "gripper_unit")
_TRANSLATED: Mapping[tuple[Any, ...], Convention] = {
    ("rad", "fraction"): "rad",
    ("percent", "percent"): "lerobot_percent",
    ("symmetric", "symmetric"): "symmetric",
}


class UnitError(ValueError):
    """Units do not fit the robot, or numbers do not fit their units; one line."""


class UnitMap(Options):
    """How joints are expressed; a convention's name alone is one, too (``units = "lerobot_degrees"``).

    Attributes:
        convention: ``rad``; ``lerobot_degrees`` and ``lerobot_percent``, from the arm's calibration;
            ``symmetric``, -1 to 1 over the model's range.
        gripper_open_high: whether the larger gripper value means open.
        zero_rad: per joint, the robot's angle at which ``rad`` is 0.
        reversed: joints whose axis runs the other way.
        range_rad: per joint, ``(low, high)`` in the robot's radians, that ``symmetric`` spans instead of the
            model's range.
    """

    convention: Convention = "rad"
    gripper_open_high: bool = True
    zero_rad: dict[str, float] = Field(default_factory=dict)
    reversed: tuple[str, ...] = ()
    range_rad: dict[str, tuple[float, float]] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _by_name(cls, given: Any) -> Any:
        if isinstance(given, str):
            return {"convention": given}
        if isinstance(given, Mapping) and (old := [key for key in _OLD_KEYS if key in given]):
            raise ValueError(
                f"{old[0]} is now part of convention: {', '.join(CONVENTIONS)} (percent is lerobot_percent; "
                "deg, about the model's zero, is no more: lerobot_degrees are about the calibrated middle)"
            )
        return given

    @model_validator(mode="after")
    def _has_effect(self) -> UnitMap:
        for key, of in (("zero_rad", "rad"), ("range_rad", "symmetric")):
            if getattr(self, key) and self.convention != of:
                raise ValueError(f"{key} has no effect: it is for {of}, and convention is {self.convention}")
        return self

    def said(self) -> dict[str, Any]:
        """What a data set says of its units: the convention, and what differs from it."""
        return {"convention": self.convention, **self.model_dump(mode="json", exclude_defaults=True)}

    def by_joint(self, table: str) -> Mapping[str, Iterable[str]]:
        """The joints that keys of this map name, the map being `table` of a part (`PartTable.by_joint`)."""
        given: dict[str, Iterable[str]] = {
            "zero_rad": self.zero_rad,
            "range_rad": self.range_rad,
            "reversed": self.reversed,
        }
        return {f"{table}.{key}": names for key, names in given.items()}


def translated(table: Mapping[str, Any]) -> dict[str, Any]:
    """A `UnitMap` as data sets and recordings of before 2026-11-27 hold it, in today's keys.

    What has no name today stays as it is.
    """
    rest = {key: value for key, value in table.items() if key not in _OLD_KEYS and value not in ({}, [], ())}
    old = tuple(table.get(key, default) for key, default in zip(_OLD_KEYS, ("rad", "fraction"), strict=True))
    if not set(_OLD_KEYS) & set(table) or old not in _TRANSLATED:
        return dict(table)
    return {"convention": _TRANSLATED[old], **rest}


@dataclass(frozen=True, slots=True)
class JointUnits:
    """``outside = (robot - offset) * scale``, per joint of the robot, shapes ``[D]``.

    Attributes:
        low, high: ends at which observed values stop, ``[D]``; infinite where they do not.
    """

    names: tuple[str, ...]
    offset: Floats
    scale: Floats
    low: Floats
    high: Floats

    def to_policy(self, robot: Floats) -> Floats:
        """``[..., D]`` in the robot's units to the same joints outside."""
        return np.asarray((robot - self.offset) * self.scale)

    def observed(self, robot: Floats) -> Floats:
        """`to_policy` of measured positions, which may be a little beyond the calibrated ends."""
        return np.asarray(np.clip(self.to_policy(robot), self.low, self.high))

    def to_robot(self, policy: Floats) -> Floats:
        """The other way."""
        return np.asarray(policy / self.scale + self.offset)

    def rate_to_policy(self, robot: Floats) -> Floats:
        """Velocities ``[..., D]``: scaled, not shifted."""
        return np.asarray(robot * self.scale)


def calibrated(layout: JointLayout, entries: Mapping[str, Any]) -> JointLayout:
    """`layout` with what an arm's calibration says of its joints.

    `entries` are by joint, as LeRobot's calibration files have them; ``middle_rad`` besides is the joint's
    angle in the middle of its calibrated range, without it the middle of the model's. What has no
    ``range_min`` and ``range_max`` is no calibration in ticks, and left out.
    """
    found: dict[str, CalibratedJoint] = {}
    for index, (name, ends) in enumerate(zip(layout.names, layout.ranges.tolist(), strict=True)):
        entry = entries.get(name)
        if (
            index in layout.grippers
            or not isinstance(entry, Mapping)
            or not {"range_min", "range_max"} <= entry.keys()
        ):
            continue
        half = (entry["range_max"] - entry["range_min"]) / TICKS_PER_TURN * math.pi
        middle = float(entry.get(MIDDLE, sum(ends) / 2))
        found[name] = CalibratedJoint(middle - half, middle + half, bool(entry.get("drive_mode", 0)))
    return layout.with_calibration(found)


def joint_units(robot: JointLayout, units: UnitMap) -> JointUnits:
    """The affine map of every joint.

    Raises:
        UnitError: a name in `units` is not a joint, or a range is empty.
    """
    for name in (*units.zero_rad, *units.reversed, *units.range_rad):
        if name not in robot.names:
            raise UnitError(f"unit map names joint {name!r}; the robot has {', '.join(robot.names)}")
    rows = [
        _gripper(units) if index in robot.grippers else _joint(robot, name, units)
        for index, name in enumerate(robot.names)
    ]
    return JointUnits(robot.names, *(np.array(column) for column in zip(*rows, strict=True)))


_Row = tuple[float, float, float, float]
"""Offset, scale, and between which ends observed values stay."""


def _gripper(units: UnitMap) -> _Row:
    if units.convention == "symmetric":
        return 0.5, 2.0 if units.gripper_open_high else -2.0, -1.0, 1.0
    full = 100.0 if units.convention in LEROBOT else 1.0
    return (0.0, full, 0.0, full) if units.gripper_open_high else (1.0, -full, 0.0, full)


def _joint(robot: JointLayout, name: str, units: UnitMap) -> _Row:
    sign = -1.0 if name in units.reversed else 1.0
    if units.convention == "rad":
        return units.zero_rad.get(name, 0.0), sign, -math.inf, math.inf
    joint = robot.calibration.get(name) if units.convention in LEROBOT else None
    low, high = units.range_rad.get(name, robot.range_of(name)) if joint is None else (joint.low, joint.high)
    if not high > low:
        raise UnitError(f"joint {name}: range {low} to {high} rad is empty; give range_rad low < high")
    middle = (low + high) / 2
    if units.convention == "lerobot_percent":
        return middle, sign * 200 / (high - low), -100.0, 100.0
    if units.convention == "symmetric":
        return middle, sign * 2 / (high - low), -math.inf, math.inf
    if joint is None:
        return middle, sign * math.degrees(1), -math.inf, math.inf
    return middle, (-sign if joint.against else sign) * _DEGREES_PER_RAD, -math.inf, math.inf


class Plausibility:
    """Whether numbers can be of a robot's joints in some units at all."""

    def __init__(self, layout: JointLayout, units: UnitMap) -> None:
        self._layout, self._units = layout, units
        self._ends = _ends(layout, units)

    def doubt(self, low: Floats, high: Floats, *, spans: bool = False) -> str:
        """Why numbers from `low` to `high` ``[D]`` (NaN: not known) are not; empty if they may be.

        Far outside what the arm can do they are not. With `spans`, where they are a whole data set's, an arm
        that would hardly have moved is none, either, if they fit radians. The line has both readings.
        """
        convention = self._units.convention
        first, last = self._ends.T
        beyond = np.fmax(first - low, high - last) / (last - first)
        if float(np.fmax.reduce(beyond)) > _SLACK:
            worst = int(np.nanargmax(beyond))
            below = first[worst] - low[worst] > high[worst] - last[worst]
            given = low[worst] if below else high[worst]
            return (
                f"{self._layout.names[worst]} is {given:.4g}, which as {convention} is impossible (the arm "
                f"does {first[worst]:.4g} to {last[worst]:.4g}); {self._instead(low, high)}"
            )
        known = np.isfinite(low) & np.isfinite(high)
        if not (spans and known.all() and convention in LEROBOT and _fits(self._layout, "rad", low, high)):
            return ""
        if float(np.abs([low, high]).max()) > _AS_RADIANS:
            return ""
        return (
            f"all joints stay within {float((high - low).max()):.3g}, which as {convention} is hardly a "
            "motion; as rad it would be one"
        )

    def doubt_of_changes(self, low: Floats, high: Floats) -> str:
        """Why differences from `low` to `high` ``[D]`` (NaN: not known) are none of these joints.

        Empty if they may be: none is more than a joint's whole range. The line has both readings.
        """
        convention, most = self._units.convention, np.fmax(np.abs(low), np.abs(high))
        spans = _spans(self._layout, self._units)
        over = most / spans
        if not float(np.fmax.reduce(over)) > 1.0:
            return ""
        worst = int(np.nanargmax(over))
        others = [
            each for each in CONVENTIONS if not (most > _spans(self._layout, UnitMap(convention=each))).any()
        ]
        instead = f"as {others[0]} it would be possible" if others else "no convention makes it possible"
        return (
            f"{self._layout.names[worst]} changes by {most[worst]:.4g}, which as {convention} is more than "
            f"its whole range ({spans[worst]:.4g}); {instead}"
        )

    def _instead(self, low: Floats, high: Floats) -> str:
        others = [each for each in CONVENTIONS if _fits(self._layout, each, low, high)]
        return f"as {others[0]} it would be possible" if others else "no convention makes it possible"


_SLACK = 0.25
"""By how much of its range a number may be outside: other arms, other models, a mean and its deviation."""
_AS_RADIANS = 3.6
"""Beyond it no number is an angle in radians of a joint with stops."""


def _ends(layout: JointLayout, units: UnitMap) -> Floats:
    """``[D, 2]``: between which values each joint can be, of the model's range and the calibrated one."""
    wide = layout.ranges.copy()
    for index, name in enumerate(layout.names):
        if (joint := layout.calibration.get(name)) is not None:
            wide[index] = min(wide[index, 0], joint.low), max(wide[index, 1], joint.high)
    return np.sort(joint_units(layout, units).to_policy(wide.T).T, axis=1)


def _spans(layout: JointLayout, units: UnitMap) -> Floats:
    """``[D]`` from one end of each joint to the other."""
    ends = _ends(layout, units)
    return np.asarray(ends[:, 1] - ends[:, 0])


def _fits(layout: JointLayout, convention: Convention, low: Floats, high: Floats) -> bool:
    ends = _ends(layout, UnitMap(convention=convention))
    slack = _SLACK * (ends[:, 1] - ends[:, 0])
    return not ((low < ends[:, 0] - slack).any() or (high > ends[:, 1] + slack).any())
