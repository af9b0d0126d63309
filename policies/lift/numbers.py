"""The vector that the network sees, in the object's own frame.

The frame has its origin at the object, and its first axis away from the axis about which the arm's first
joint turns. Seen so, grasping an object to the left is the same as grasping one to the right, and the network
has to learn it once.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from policies.lift.options import LiftShape
from policies.lift.sight import SIGHT
from runtime.messages import Floats

FORCE_UNIT_N = 10.0
_MOST_FORCE = 2.0
_CM = 100.0
SIGHT_NUMBERS = 17
FORCE_NUMBERS = 2
"""The last ones: whether force is felt at all, and how large it is."""


def size(shape: LiftShape) -> int:
    """Entries of the vector."""
    return shape.joints + SIGHT_NUMBERS


def azimuth(shape: LiftShape, place: NDArray[Any]) -> NDArray[Any]:
    """Which way ``place[..., 2]`` lies from the axis of the arm's first joint, radians."""
    x, y = shape.pan_axis_m
    return np.arctan2(place[..., 1] - y, place[..., 0] - x)


def vectors(
    shape: LiftShape, state: Floats, first: Floats, now: Floats, force: Floats
) -> NDArray[np.float32]:
    """``[N, size]`` of N moments.

    Args:
        shape: of the network.
        state: ``[N, D]`` joints, radians, the gripper 0 to 1.
        first: ``[N, SIGHT]`` the object as the attempt saw it first.
        now: ``[N, SIGHT]`` as it is seen now, if it is.
        force: ``[N]`` the largest force felt, newtons; NaN without a sensor.
    """
    turn = azimuth(shape, first[:, 1:3])
    joints = state.copy()
    joints[:, 0] = _wrapped(state[:, 0] - shape.pan_sign * turn)
    felt = np.isfinite(force)
    pressed = np.where(felt, np.minimum(np.nan_to_num(force) / FORCE_UNIT_N, _MOST_FORCE), 0.0)
    away = np.hypot(*(first[:, 1:3] - np.array(shape.pan_axis_m)).T)
    parts = [joints, np.column_stack([10.0 * away, np.sin(turn), np.cos(turn)])]
    parts += [_shape(first, turn), _shift(first, now, turn), np.column_stack([felt, pressed])]
    return np.concatenate(parts, axis=1).astype(np.float32)


def _wrapped(angle: Floats) -> Floats:
    return np.asarray((angle + np.pi) % (2 * np.pi) - np.pi)


def _shape(sight: Floats, turn: Floats) -> Floats:
    """``[N, 7]``: height and area, the moments turned into the object's frame."""
    xx, xy, yy = sight[:, 5], sight[:, 6], sight[:, 7]
    second = (0.5 * (xx - yy) + 1j * xy) * np.exp(-2j * turn)
    fourth = (sight[:, 8] + 1j * sight[:, 9]) * np.exp(-4j * turn)
    columns = [20.0 * sight[:, 3], 0.2 * sight[:, 4], 0.5 * (xx + yy), second.real, second.imag]
    return np.column_stack([*columns, fourth.real, fourth.imag])


def _shift(first: Floats, now: Floats, turn: Floats) -> Floats:
    """``[N, 5]``: whether it is seen now, where to it has moved, how much higher, how much of it."""
    seen = now[:, 0] > 0
    moved = (now[:, 1] - first[:, 1]) + 1j * (now[:, 2] - first[:, 2])
    moved = _CM * moved * np.exp(-1j * turn)
    share = now[:, 4] / np.maximum(first[:, 4], 1e-6)
    columns = [moved.real, moved.imag, 20.0 * (now[:, 3] - first[:, 3]), np.minimum(share, 2.0)]
    return np.column_stack([seen, *(np.where(seen, np.clip(each, -5.0, 5.0), 0.0) for each in columns)])


def targets(shape: LiftShape, rows: Floats, state: Floats) -> NDArray[np.float32]:
    """Rows ``[N, T, D]`` of joint targets as the network has them: relative to ``state[N, D]``, the gripper
    as it is.
    """
    out = rows - state[:, None]
    out[..., shape.gripper] = rows[..., shape.gripper]
    return np.asarray(out, dtype=np.float32)


def rows_of(shape: LiftShape, made: Floats, state: Floats) -> Floats:
    """The inverse of `targets`, of one moment: ``made[T, D]``, ``state[D]``; the gripper within its range."""
    out = made + state
    out[:, shape.gripper] = np.clip(made[:, shape.gripper], 0.0, 1.0)
    return np.asarray(out)


def no_sight(count: int) -> Floats:
    """``[count, SIGHT]`` of nothing seen."""
    return np.zeros((count, SIGHT))
