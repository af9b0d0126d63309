"""Rows as the safety stage will let them through: what is asked for beyond that would be cut, tick by tick.

The nearest rows (least squares) whose speed and change of speed are permitted. Both are linear in the rows,
so what is permitted is a convex set: a blend of two chunks that are, and begin alike, is permitted, too.
"""

from __future__ import annotations

import daqp
import numpy as np

from runtime.arm_model import ArmModel
from runtime.messages import Floats
from runtime.rotations import rotation_vector

_ROUNDING = 1e-6
_TRIES, _ENOUGH_M, _GAINED = 3, 1e-5, 0.3
_STEP_RAD = 1e-4
_ARM_M, _SINGULAR = 0.1, 1e-3
"""A radian of tilt is as bad as so many metres; directions in which the arm hardly moves are none."""
_SOFT, _GIVES = 8, 1e-9
"""DAQP's mark of a constraint that gives way where no rows fulfil all, and how easily."""


def within_limits(
    rows: Floats, before: Floats, ranges: Floats, velocity: Floats, acceleration: Floats
) -> Floats:
    """Those nearest to ``rows[T, D]`` that go on from ``before[2, D]`` within the limits.

    Args:
        rows: wanted.
        before: the two rows before them, which stay.
        ranges: ``[D, 2]``, in which all of them are to be.
        velocity: ``[D]`` the largest difference of two rows that follow each other.
        acceleration: ``[D]`` the largest difference of two such differences.
    """
    out = np.clip(rows, *ranges.T)
    steps = np.diff(np.concatenate([before, out]), axis=0)
    bends = np.abs(np.diff(steps, axis=0)) > acceleration + _ROUNDING
    too_much = bends.any(axis=0) | (np.abs(steps[1:]) > velocity + _ROUNDING).any(axis=0)
    for joint in np.flatnonzero(too_much):
        out[:, joint] = _nearest(
            out[:, joint], before[:, joint], ranges[joint], velocity[joint], acceleration[joint]
        )
    return np.clip(out, *ranges.T)


def _nearest(wanted: Floats, before: Floats, ends: Floats, fastest: float, hardest: float) -> Floats:
    """`within_limits` of one joint."""
    count = len(wanted)
    once = np.eye(count) - np.eye(count, k=-1)
    twice = once @ once
    known, known_bend = np.zeros(count), np.zeros(count)
    known[0] = before[1]
    known_bend[:2] = (2.0 * before[1] - before[0], -before[1])[:count]
    rows = np.concatenate([once, twice])
    middle = np.concatenate([known, known_bend])
    most = np.repeat([fastest, hardest], count)
    lower, upper = (
        np.concatenate([np.full(count, end), each])
        for end, each in zip(ends, (middle - most, middle + most), strict=True)
    )
    sense = np.full(3 * count, _SOFT, np.int32)
    found, _, flag, _ = daqp.solve(np.eye(count), -wanted, rows, upper, lower, sense, rho_soft=_GIVES)
    return np.asarray(found) if flag > 0 else wanted


def raised(arm: ArmModel, rows: Floats, least_m: float) -> Floats:
    """``rows[T, D]`` of one arm, those nearer than `least_m` to the table, or to what stands on it, raised.

    Straight up, by as much as is missing, and turned as they were, as far as the arm's joints can do both.
    What that does not bring away (something is above it, or it is another arm that is near) stays as it is.
    """
    out, up = rows.copy(), None
    for number, row in enumerate(rows):
        gap = arm.clearances(row)[1]
        for _ in range(_TRIES):
            missing = least_m - gap
            if missing <= _ENOUGH_M:
                break
            up = _upwards(arm, row) if up is None else up
            higher = out[number] + up * missing
            gap, before = arm.clearances(higher)[1], gap
            if gap < before + _GAINED * missing:
                break
            out[number] = higher
    return out


def _upwards(arm: ArmModel, q: Floats) -> Floats:
    """``[D]``, by how much each joint turns for a metre up, at `q`; grippers stay."""
    pose, columns = arm.fk(q), []
    for joint in arm.layout.others:
        moved = q.copy()
        moved[joint] += _STEP_RAD
        there = arm.fk(moved)
        turn = rotation_vector(there[:3, :3] @ pose[:3, :3].T)
        columns.append(np.concatenate([there[:3, 3] - pose[:3, 3], _ARM_M * turn]) / _STEP_RAD)
    found = np.linalg.lstsq(np.array(columns).T, np.eye(6)[2], rcond=_SINGULAR)[0]
    up = np.zeros(arm.joints)
    up[list(arm.layout.others)] = found
    return up
