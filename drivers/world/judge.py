"""The score of a run, from the simulation's ground truth."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from drivers.world.layout import TRAY_CENTER_M, TRAY_HEIGHT_M, TRAY_INNER_M, ObjectSpec
from drivers.world.physics import Tabletop

_TABLE_HALF_M = 0.6


@dataclass(frozen=True, slots=True)
class ObjectReport:
    """Where one object is: centre in the base frame, metres."""

    name: str
    color: str
    shape: str
    position_m: tuple[float, float, float]
    in_tray: bool
    held: bool
    """Touched by the jaws."""
    fallen: bool
    """Off the table, or out of the arm's sight for good."""


@dataclass(frozen=True, slots=True)
class JudgeReport:
    """What `summary.json` says under ``judge``, and the details."""

    objects_total: int
    objects_in_tray: int
    success: bool
    objects: tuple[ObjectReport, ...] = ()
    arms_pressed_n: float = 0.0
    """The largest force with which two arms ever pressed on each other."""

    def summary(self) -> dict[str, Any]:
        """The three figures of the summary."""
        return {
            "objects_total": self.objects_total,
            "objects_in_tray": self.objects_in_tray,
            "success": self.success,
        }

    def as_json(self) -> dict[str, Any]:
        """For the control channel."""
        return asdict(self)

    @classmethod
    def from_json(cls, message: dict[str, Any]) -> JudgeReport:
        """What `as_json` was made of."""
        objects = tuple(
            ObjectReport(**{**o, "position_m": tuple(o["position_m"])}) for o in message["objects"]
        )
        return cls(**{**message, "objects": objects})


def judge(table: Tabletop) -> JudgeReport:
    """Look at every object that takes part."""
    held = table.held_objects()
    reports = tuple(
        _report(table, index, spec, index in held)
        for index, spec in enumerate(table.objects)
        if table.present[index]
    )
    inside = sum(1 for r in reports if r.in_tray)
    success = bool(reports) and inside == len(reports)
    return JudgeReport(len(reports), inside, success, reports, table.arms_pressed_n)


def _report(table: Tabletop, index: int, spec: ObjectSpec, held: bool) -> ObjectReport:
    position, _ = table.object_pose(index)
    x, y, z = (round(float(v), 5) for v in position)
    return ObjectReport(
        name=spec.name,
        color=spec.color,
        shape=spec.shape,
        position_m=(x, y, z),
        in_tray=not held and in_tray(position),
        held=held,
        fallen=bool(z < 0 or max(abs(x), abs(y)) > _TABLE_HALF_M),
    )


def in_tray(position: Any) -> bool:
    """Whether a centre is between the tray's walls and not above them by more than an object."""
    offset = np.abs(np.asarray(position[:2]) - TRAY_CENTER_M)
    inside = bool((offset <= np.asarray(TRAY_INNER_M) / 2).all())
    return inside and bool(0 < position[2] < TRAY_HEIGHT_M + 0.03)
