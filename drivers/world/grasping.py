"""How a person would take each object with this gripper, from its true pose."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from drivers.world.layout import TRAY_CENTER_M, TRAY_INNER_M, ObjectSpec
from drivers.world.reach import TopDown, UnreachableError
from runtime.messages import Floats

LIFT_M = 0.06
RELEASE_HEIGHT_M = 0.075
MIN_HEIGHT_M = 0.018
"""Of the grasp site: the fingertip is then 1.5 mm above the table."""
_FIXED_SIDE_M = 0.005
_MOVING_SIDE_M = 0.008
_FINGER_M = 0.013
"""From a jaw's inner face to where a neighbour must not be."""


@dataclass(frozen=True, slots=True)
class ScriptedGrasp:
    """Joints ``[N]`` above the object and at it, and the opening (0 to 1) to come with."""

    above: Floats
    at: Floats
    opening: float


def plan_grasp(
    reach: TopDown, spec: ObjectSpec, position: Floats, yaw_rad: float, neighbours: Sequence[Floats] = ()
) -> ScriptedGrasp:
    """Take the object at `position` ``[3]`` from above, across its narrower side.

    `neighbours` are the centres ``[3]`` of objects that the fingers must not push.

    Raises:
        UnreachableError: from no side.
    """
    best: tuple[float, ScriptedGrasp] | None = None
    for yaw in _yaws(reach, spec, position, yaw_rad):
        try:
            plan = _from_yaw(reach, spec, position, yaw)
        except UnreachableError:
            continue
        cost = abs(float(plan.at[-1])) + 10 * _crowding(spec, position, yaw, neighbours)
        if best is None or cost < best[0]:
            best = cost, plan
    if best is None:
        raise UnreachableError(f"{spec.name} at {np.round(position, 3).tolist()}")
    return best[1]


def _yaws(reach: TopDown, spec: ObjectSpec, position: Floats, yaw_rad: float) -> list[float]:
    if spec.shape == "cylinder":
        radial = _across(reach, position)
        return [radial + k * math.pi / 8 for k in range(-7, 9)]
    turns = (0, 1, 2, 3) if spec.size_m[1] < 0.031 else (0, 2)
    return [yaw_rad + k * math.pi / 2 for k in turns]


def _from_yaw(reach: TopDown, spec: ObjectSpec, position: Floats, yaw: float) -> ScriptedGrasp:
    width = _width(spec)
    direction = np.array([math.cos(yaw), math.sin(yaw), 0.0])
    place = np.array([position[0], position[1], max(MIN_HEIGHT_M, spec.size_m[2] / 2)])
    place += (reach.jaws.fixed_face_m - width / 2 - _FIXED_SIDE_M) * direction
    above = reach.solve(place + np.array([0.0, 0.0, LIFT_M]), yaw)
    at = reach.solve(place, yaw, above)
    return ScriptedGrasp(above, at, reach.jaws.opening_for(width + _FIXED_SIDE_M + _MOVING_SIDE_M))


def _width(spec: ObjectSpec) -> float:
    """The larger of both sides where the shape is nearly square: safe for every quarter turn."""
    return max(spec.size_m[:2]) if spec.size_m[1] < 0.031 else spec.size_m[0]


def _crowding(spec: ObjectSpec, position: Floats, yaw: float, neighbours: Sequence[Floats]) -> float:
    """How far (m) neighbours reach into where the fingers will be, counting from a finger's width."""
    reach = _width(spec) / 2 + _FINGER_M
    direction = np.array([math.cos(yaw), math.sin(yaw)])
    overlap = 0.0
    for side in (-reach, reach):
        finger = position[:2] + side * direction
        for other in neighbours:
            overlap += max(0.0, 0.035 - float(np.linalg.norm(other[:2] - finger)))
    return overlap


def tray_slot(occupied: Sequence[Floats]) -> Floats:
    """The spot in the tray ``[2]`` farthest from what already lies there."""
    dx, dy = TRAY_INNER_M[0] / 4, TRAY_INNER_M[1] / 4
    spots = [np.add(TRAY_CENTER_M, (i * dx, j * dy)) for i in (0, 1, -1) for j in (0, -1, 1)]
    if not occupied:
        return np.asarray(spots[0])
    free = [min(float(np.linalg.norm(s - o[:2])) for o in occupied) for s in spots]
    return np.asarray(spots[int(np.argmax(free))])


def plan_release(reach: TopDown, slot: Floats, guess: Floats | None = None) -> Floats:
    """Joints ``[N]`` over `slot` ``[2]`` of the tray."""
    return reach.solve(np.array([slot[0], slot[1], RELEASE_HEIGHT_M]), _across(reach, slot), guess)


def _across(reach: TopDown, place: Floats) -> float:
    """The yaw at a right angle to the direction from the arm's first axis."""
    return math.atan2(place[1] - reach.axis_m[1], place[0] - reach.axis_m[0]) - math.pi / 2
