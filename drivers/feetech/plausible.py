"""Whether a calibrated range can be that of a joint: what a sweep over the encoder's end, or none, leaves."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from drivers.feetech import registers as reg
from drivers.feetech.calibration import Calibration, CalibrationError, JointCalibration, load_calibration
from runtime.joints import JointLayout

LEAST_RANGE_TICKS = 100
"""A joint that moved less than this (9 degrees) was forgotten."""
FULL_TURN_TICKS = round(0.97 * reg.TICKS_PER_TURN)
"""A sweep over the encoder's end, recorded without following it, is as wide as this: 0 to 4095 or nearly."""
_LEAST, _MOST = 0.25, 1.5
"""Of the model's range: what a joint that was moved from stop to stop can have."""


def problem(low: int, high: int, model_rad: float | None) -> str:
    """Why `low` to `high`, in ticks, is no joint's range, in words; empty if it may be.

    `model_rad` is how far the joint goes in the robot's model, ``None`` if that is not known (a gripper).
    """
    ticks = high - low
    said = f"its range is {low} to {high}, {ticks} ticks"
    if ticks < LEAST_RANGE_TICKS:
        return f"{said}: it was not moved from stop to stop"
    if model_rad is None:
        return f"{said}, a full turn: it was moved over its encoder's end" if ticks >= FULL_TURN_TICKS else ""
    whole = model_rad / (2 * math.pi) * reg.TICKS_PER_TURN
    if ticks < _LEAST * whole:
        return f"{said}, of some {whole:.0f} that the joint has: it was not moved from stop to stop"
    if ticks >= FULL_TURN_TICKS and whole < 0.85 * reg.TICKS_PER_TURN:
        return f"{said}, a full turn, and the joint has stops: it was moved over its encoder's end"
    if ticks > _MOST * whole:
        return f"{said}, and the joint has some {whole:.0f}: it was moved over its encoder's end"
    return ""


def check_plausible(
    calibration: Mapping[str, JointCalibration],
    ranges: Mapping[str, Sequence[float]],
    grippers: Collection[str],
    where: str,
) -> None:
    """Refuse a calibration that no arm of this model has.

    `ranges` are the model's, in radians, by joint; `where` is what the message begins with.

    Raises:
        CalibrationError: names the joint, its range, and what to do.
    """
    for name, joint in calibration.items():
        known = name in ranges and name not in grippers
        span = max(ranges[name]) - min(ranges[name]) if known else None
        if why := problem(joint.range_min, joint.range_max, span):
            raise CalibrationError(f"{where}: {name}: {why}; calibrate it again (dexrun calibrate)")


def load_plausible(file: str | Path, joints: JointLayout) -> Calibration:
    """The calibration of an arm with these joints, read and checked.

    Raises:
        CalibrationError: one line on what is wrong.
    """
    calibration = load_calibration(file, joints.names)
    ranges = dict(zip(joints.names, joints.ranges.tolist(), strict=True))
    check_plausible(calibration, ranges, joints.gripper_names, f"calibration {file}")
    return calibration
