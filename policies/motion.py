"""Smooth moves as rows of joint targets at the control rate: through joint space, or along a straight line.

Every function returns ``[T, D]`` with the start left out and the goal as the last row, within the limits
given: neighbouring rows differ by at most ``velocity / rate_hz``, and those differences by at most
``acceleration / rate_hz**2``. Profiles are quintic polynomials (zero speed and acceleration at the ends).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from runtime.arm_model import ArmModel, IkResult
from runtime.ik_options import IkOptions
from runtime.messages import Floats
from runtime.rotations import rotation_matrix, rotation_vector

_QUINTIC_VELOCITY = 1.875
_QUINTIC_ACCELERATION = 5.7735
"""Peak speed and acceleration of the unit quintic: 15/8 and 10/sqrt(3)."""
_GROWTH = 1.08
_LONGEST_ROWS = 3000
_TOLERANCE = 1e-9


class MotionError(Exception):
    """No such move exists. One line: where to, and what is in the way."""


@dataclass(frozen=True, slots=True)
class MotionLimits:
    """How fast moves may be: ``velocity[D]`` and ``acceleration[D]`` in the robot's units, and the rate."""

    velocity: Floats
    acceleration: Floats
    rate_hz: float = 30.0

    @classmethod
    def uniform(
        cls,
        arm: ArmModel,
        velocity_rad_s: float = 1.2,
        acceleration_rad_s2: float = 6.0,
        gripper_velocity_s: float = 1.0,
        gripper_acceleration_s2: float = 10.0,
        rate_hz: float = 30.0,
    ) -> MotionLimits:
        """The same limit for every joint of `arm`, grippers' apart (full travels and seconds)."""
        velocity = np.full(arm.joints, velocity_rad_s)
        acceleration = np.full(arm.joints, acceleration_rad_s2)
        grippers = list(arm.grippers)
        velocity[grippers], acceleration[grippers] = gripper_velocity_s, gripper_acceleration_s2
        return cls(velocity, acceleration, rate_hz)


def plan_joint_move(
    start: Floats, goal: Floats, limits: MotionLimits, start_velocity: Floats | None = None
) -> Floats:
    """From `start` to rest at `goal`, all joints arriving together; rows ``[T, D]``, T >= 1.

    With a `start_velocity` (per second) the move takes over a motion under way.
    """
    velocity = np.zeros_like(start) if start_velocity is None else start_velocity
    rows_needed = _rows_from_rest(start, goal, limits)
    while True:
        rows = _quintic(start, goal, velocity, rows_needed, limits.rate_hz)
        if rows_needed >= _LONGEST_ROWS or _within(start, rows, velocity, limits):
            return rows
        rows_needed = math.ceil(rows_needed * _GROWTH) + 1


def plan_path(waypoints: Floats, limits: MotionLimits) -> Floats:
    """Along the polyline through `waypoints` ``[M, D]`` (densely spaced), from rest to rest."""
    steps = np.abs(np.diff(waypoints, axis=0))
    pieces = len(waypoints) - 1
    if pieces < 1 or not (steps > _TOLERANCE).any():
        return waypoints[-1:].copy()
    slope = steps.max(axis=0) * pieces
    seconds = _QUINTIC_VELOCITY * float((slope / limits.velocity).max())
    rows_needed = max(2, math.ceil(seconds * limits.rate_hz))
    still = np.zeros(waypoints.shape[1])
    while True:
        share = _smooth_step(np.arange(1, rows_needed + 1) / rows_needed) * pieces
        rows = _interpolate(waypoints, share)
        if rows_needed >= _LONGEST_ROWS or _within(waypoints[0], rows, still, limits):
            return rows
        rows_needed = math.ceil(rows_needed * _GROWTH) + 1


def plan_cartesian_move(
    arm: ArmModel,
    start: Floats,
    goal: Floats,
    limits: MotionLimits,
    *,
    gripper: float | None = None,
    ik: IkOptions | None = None,
    step_m: float = 0.002,
    tolerance_m: float = 0.003,
) -> Floats:
    """The grasp point in a straight line from where it is at `start` to pose `goal` (4x4).

    Orientation turns evenly on the way. `gripper` is the grippers' opening at the end (default: unchanged).

    Raises:
        MotionError: the arm leaves the line by more than `tolerance_m`.
    """
    waypoints = [start]
    for pose in straight_poses(arm.fk(start), goal, step_m):
        result = arm.ik(pose, waypoints[-1], ik)
        if result.position_error_m > tolerance_m:
            at = ", ".join(f"{x:.3f}" for x in pose[:3, 3])
            raise MotionError(
                f"the arm misses ({at}) m by {result.position_error_m * 1e3:.1f} mm on the way to its goal"
            )
        waypoints.append(result.q)
    path = np.array(waypoints)
    if gripper is not None:
        for g in arm.grippers:
            path[:, g] = np.linspace(start[g], gripper, len(path))
    return plan_path(path, limits)


def straight_poses(start: Floats, goal: Floats, step_m: float, step_rad: float = 0.05) -> list[Floats]:
    """Poses from `start` (left out) to `goal`, at most `step_m` and `step_rad` apart."""
    turn = rotation_vector(start[:3, :3].T @ goal[:3, :3])
    distance = float(np.linalg.norm(goal[:3, 3] - start[:3, 3]))
    count = max(1, math.ceil(distance / step_m), math.ceil(float(np.linalg.norm(turn)) / step_rad))
    poses = []
    for share in np.arange(1, count + 1) / count:
        pose = np.eye(4)
        pose[:3, :3] = start[:3, :3] @ rotation_matrix(turn * share)
        pose[:3, 3] = (1 - share) * start[:3, 3] + share * goal[:3, 3]
        poses.append(pose)
    return poses


def pointing_down(position: Sequence[float] | Floats, yaw_rad: float) -> Floats:
    """The pose 4x4 at `position` that approaches straight down, jaw opening towards `yaw_rad`."""
    opening = np.array([math.cos(yaw_rad), math.sin(yaw_rad), 0.0])
    down = np.array([0.0, 0.0, -1.0])
    pose = np.eye(4)
    pose[:3, 0], pose[:3, 1], pose[:3, 2] = np.cross(opening, down), opening, down
    pose[:3, 3] = position
    return pose


def reach_down(
    arm: ArmModel,
    position: Sequence[float] | Floats,
    seed: Floats,
    yaws_rad: Sequence[float],
    *,
    tolerance_m: float = 0.003,
    max_tilt_rad: float = 0.6,
    max_yaw_error_rad: float = 0.2,
    ik: IkOptions | None = None,
) -> IkResult | None:
    """Of the given yaws, the configuration at `position` closest to `seed`; ``None`` if none is reached."""
    found: list[tuple[float, IkResult]] = []
    for yaw in yaws_rad:
        result = arm.ik(pointing_down(position, yaw), aimed_seed(arm, seed, position), ik)
        if (
            result.position_error_m <= tolerance_m
            and result.tilt_rad <= max_tilt_rad
            and result.yaw_error_rad <= max_yaw_error_rad
        ):
            travel = float(np.abs(result.q - seed)[list(arm.layout.others)].max())
            found.append((travel + 2.0 * result.tilt_rad, result))
    return min(found, key=lambda pair: pair[0])[1] if found else None


def aimed_seed(arm: ArmModel, seed: Floats, position: Sequence[float] | Floats) -> Floats:
    """`seed` with its first joint turned so that the grasp point faces `position`, wrist rolled back.

    Solving from there keeps the search away from solutions that reach behind the arm.
    """
    present = arm.fk(seed)[:2, 3]
    q = seed.copy()
    step = 0.05
    q[0] = seed[0] + step
    moved = arm.fk(q)[:2, 3]
    # The pan axis, from two positions on the circle around it.
    chord = moved - present
    across = np.array([-chord[1], chord[0]]) / (2 * math.tan(step / 2))
    axis = present + 0.5 * chord + across
    angles = [math.atan2(point[1] - axis[1], point[0] - axis[0]) for point in (position, present)]
    turn = math.remainder(angles[0] - angles[1], 2 * math.pi)
    low, high = arm.ranges[0]
    q[0] = min(max(seed[0] + turn, low), high)
    return q


def _rows_from_rest(start: Floats, goal: Floats, limits: MotionLimits) -> int:
    distance = np.abs(goal - start)
    by_speed = _QUINTIC_VELOCITY * float((distance / limits.velocity).max())
    by_force = math.sqrt(_QUINTIC_ACCELERATION * float((distance / limits.acceleration).max()))
    return max(1, math.ceil(max(by_speed, by_force) * limits.rate_hz))


def _quintic(start: Floats, goal: Floats, velocity: Floats, rows: int, rate_hz: float) -> Floats:
    seconds = rows / rate_hz
    s = np.arange(1, rows + 1)[:, None] / rows
    run = velocity * seconds
    reach = goal - start
    return np.asarray(
        start
        + run * s
        + (10 * reach - 6 * run) * s**3
        + (8 * run - 15 * reach) * s**4
        + (6 * reach - 3 * run) * s**5
    )


def _smooth_step(s: Floats) -> Floats:
    return np.asarray(s**3 * (10 - 15 * s + 6 * s * s))


def _interpolate(waypoints: Floats, share: Floats) -> Floats:
    low = np.minimum(share.astype(np.int64), len(waypoints) - 2)
    weight = (share - low)[:, None]
    return np.asarray((1 - weight) * waypoints[low] + weight * waypoints[low + 1])


def _within(start: Floats, rows: Floats, velocity: Floats, limits: MotionLimits) -> bool:
    speed = np.diff(np.vstack([start, rows]), axis=0) * limits.rate_hz
    change = np.diff(np.vstack([velocity, speed, np.zeros_like(velocity)]), axis=0) * limits.rate_hz
    fastest = np.maximum(limits.velocity, np.abs(velocity))
    return bool(
        (np.abs(speed) <= fastest + _TOLERANCE).all()
        and (np.abs(change) <= limits.acceleration * (1 + 1e-6) + _TOLERANCE).all()
    )
