"""Whole moves for the modes: put down what is held, go home. Prepared trajectories, no feedback needed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from policies import motion
from policies.motion import MotionError, MotionLimits
from runtime.arm_model import ArmModel
from runtime.messages import Floats

_YAWS = tuple(float(yaw) for yaw in np.linspace(-math.pi, math.pi, 17)[:-1])
_CLEAR_M = 0.003
_CHECKED_ROWS = 24


@dataclass(frozen=True, slots=True)
class PlaceOptions:
    """How an object is put down; heights are of the grasp point above the table.

    Attributes:
        carry_height_m: at which it is carried: above everything it passes over.
        release_height_m: at which the jaws open.
        open_by: how far the jaws open beyond what they held, as a fraction of their travel; a hand opens
            wholly.
        wait_s: between opening and going up again.
    """

    carry_height_m: float = 0.10
    release_height_m: float = 0.075
    open_by: float = 0.15
    wait_s: float = 0.3


@dataclass(frozen=True, slots=True)
class PlaceMove:
    """``rows[T, D]``, one a tick; the jaws begin to open at row `release_row`."""

    rows: Floats
    release_row: int


def plan_place(
    arm: ArmModel,
    start: Floats,
    spot: Sequence[float],
    limits: MotionLimits,
    options: PlaceOptions | None = None,
    held_opening: Floats | float | None = None,
) -> PlaceMove:
    """Carry what is held to `spot` (x, y in the base frame), open, and rise again.

    Args:
        arm: its model, not in use by another thread.
        start: joints ``[D]`` asked for at present, the jaws' target included (it stays while carrying).
        spot: where the grasp point is to be when the jaws open.
        limits: of the whole move.
        options: heights and waits.
        held_opening: ``[F]`` measured openings of the fingers around the object (default: the targets').

    Raises:
        MotionError: the spot is out of reach, or the way there is not free.
    """
    options = options or PlaceOptions()
    fingers = arm.fingers
    grip = fingers.openings(start)
    parts = [start[None]]
    parts.append(rise(arm, start, options.carry_height_m, limits))
    carried = parts[-1][-1]
    above = _above(arm, carried, spot, options.carry_height_m)
    parts.append(_through(arm, carried, above, limits))
    over = parts[-1][-1]
    release_pose = arm.fk(over)
    release_pose[2, 3] = options.release_height_m
    parts.append(motion.plan_cartesian_move(arm, over, release_pose, limits))
    down = parts[-1][-1]
    release_row = sum(len(p) for p in parts) - 1
    held = grip if held_opening is None else np.maximum(grip, held_opening)
    open_by = np.where(fingers.of_hand, 1.0, options.open_by)
    opened = fingers.opened_to(down, np.minimum(1.0, held + open_by))
    parts.append(motion.plan_joint_move(down, opened, limits))
    parts.append(np.repeat(opened[None], max(1, round(options.wait_s * limits.rate_hz)), axis=0))
    parts.append(rise(arm, opened, options.carry_height_m, limits))
    return PlaceMove(np.concatenate(parts[1:]), release_row)


def plan_home(
    arm: ArmModel,
    start: Floats,
    home: Floats,
    limits: MotionLimits,
    height_m: float,
    start_velocity: Floats | None = None,
) -> Floats:
    """Rows from `start` to `home`: up to `height_m` first where a direct way would sweep the table.

    Raises:
        MotionError: no free way was found.
    """
    direct = motion.plan_joint_move(start, home, limits, start_velocity)
    lowest = min(arm.grasp_height(start), arm.grasp_height(home), height_m)
    if arm.grasp_height(start) >= height_m and free_way(arm, direct, lowest):
        return direct
    lift = rise(arm, start, height_m, limits)
    onward = motion.plan_joint_move(lift[-1], home, limits)
    if free_way(arm, onward, min(lowest, arm.grasp_height(lift[-1]))):
        return np.concatenate([lift, onward])
    if free_way(arm, direct, lowest):
        return direct
    raise MotionError("no free way home was found")


def free_way(arm: ArmModel, rows: Floats, lowest_m: float, dip_m: float = 0.02) -> bool:
    """Whether the arm keeps off itself and the table along `rows`, and its grasp point stays up.

    A start that is too close already (a folded arm) may be left, as long as it comes no closer.
    """
    floor = min(_CLEAR_M, arm.clearance(rows[0]) - 1e-4)
    for row in rows[:: max(1, len(rows) // _CHECKED_ROWS)]:
        if arm.clearance(row) < floor or arm.grasp_height(row) < lowest_m - dip_m:
            return False
    return True


def rise(arm: ArmModel, start: Floats, height_m: float, limits: MotionLimits) -> Floats:
    """Rows straight up from `start` to `height_m`, or as high above `start` as the arm reaches."""
    goal = arm.fk(start)
    base, top = float(goal[2, 3]), height_m
    while top > base:
        goal[2, 3] = top
        try:
            return motion.plan_cartesian_move(arm, start, goal, limits)
        except MotionError:
            top -= max(0.01, 0.25 * (top - base))
    return start[None].copy()


def _above(arm: ArmModel, start: Floats, spot: Sequence[float], height_m: float) -> Floats:
    position = (float(spot[0]), float(spot[1]), height_m)
    result = motion.reach_down(arm, position, start, _YAWS)
    if result is None:
        raise MotionError(f"the place at ({position[0]:.3f}, {position[1]:.3f}) m is out of reach")
    return result.q


def _through(arm: ArmModel, start: Floats, goal: Floats, limits: MotionLimits) -> Floats:
    rows = motion.plan_joint_move(start, goal, limits)
    lowest = min(arm.grasp_height(start), arm.grasp_height(goal))
    if not free_way(arm, rows, lowest):
        raise MotionError("the way to the place is not free")
    return rows
