"""From what the network says to what the arm can follow, and the safety stage lets through as it is."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from policies.lift.options import LiftOptions
from policies.permitted import raised, within_limits
from runtime.arm_model import ArmModel
from runtime.joints import JointLayout
from runtime.messages import Floats, Observation

_KERNEL = (0.25, 0.5, 0.25)
_OF_VELOCITY, _OF_ACCELERATION = 0.9, 0.4
"""What rows may use of the permitted. Between them the arm is asked for points on cubic pieces. With two
ticks a row, half of a piece is faster than the whole by up to a sixteenth of two changes of speed; and the
change of speed from tick to tick is up to five eighths of that from row to row: a quarter where it is even.
"""
_KEPT = 1
"""Rows kept of what is committed behind those that are executed meanwhile: towards the last of these the arm
is already on a piece that goes on to the row behind it."""


class RowShaping:
    """Makes rows that can be followed.

    Args:
        options: of the policy.
        robot: joints and what is permitted of them.
        arm_model: makes a model of the arm's body; only asked where something is permitted.
    """

    def __init__(self, options: LiftOptions, robot: JointLayout, arm_model: Callable[[], ArmModel]) -> None:
        self._options = options
        self._permitted = robot.permitted
        self._arm = arm_model() if self._permitted is not None else None
        self._usable = robot.usable

    def rows(self, rows: Floats, observation: Observation) -> Floats:
        """``rows[T, D]`` of the network, smoothed, that begin with what is executed before they arrive."""
        committed = observation.committed
        if not np.isfinite(committed).all():
            committed = committed[:0]
        kept = min(max(observation.frozen_steps, 1) + _KEPT, len(committed), len(rows))
        out = np.clip(eased(rows, committed, kept, self._options.ease_rows), *self._usable.T)
        known = self._permitted
        if known is None or self._arm is None or kept == len(out):
            return out
        if not kept:  # the first row is there with the first tick
            held = self._options.shape.gripper
            out[0], out[0, held] = np.clip(observation.arm.position, *self._usable.T), out[0, held]
            kept = 1
        before = np.concatenate([out[:1], out[:kept]])[-2:]
        row_s = 1.0 / self._options.rate_hz
        wanted = raised(self._arm, out[kept:], known.table_m + self._options.table_margin_m)
        out[kept:] = within_limits(
            wanted,
            before,
            known.ranges,
            _OF_VELOCITY * known.velocity * row_s,
            _OF_ACCELERATION * known.acceleration * row_s**2,
        )
        return out


def eased(rows: Floats, committed: Floats, kept: int, over: int) -> Floats:
    """``rows[T, D]``, smoothed along time, that go over from those committed.

    Args:
        rows: of a chunk.
        committed: ``[n, D]`` what would be executed without it, from the same row on; none after a cold
            start.
        kept: the first so many are as they are committed.
        over: rows of the fade behind those; fewer are committed: those.
    """
    out = _smoothed(rows)
    kept = min(kept, len(committed), len(rows))
    out[:kept] = committed[:kept]
    last = min(kept + over, len(committed), len(rows))
    count = last - kept
    if count > 0:
        share = ((1.0 + np.arange(count)) / (count + 1.0))[:, None]
        out[kept:last] = committed[kept:last] + share * (out[kept:last] - committed[kept:last])
    return out


def _smoothed(rows: Floats) -> Floats:
    padded = np.concatenate([rows[:1], rows, rows[-1:]])
    first, middle, last = _KERNEL
    return np.asarray(first * padded[:-2] + middle * padded[1:-1] + last * padded[2:])
