"""A calibration file against the servos and against the arm's model: what agrees and what does not."""

from __future__ import annotations

from collections.abc import Mapping

from drivers.feetech import registers as reg
from drivers.feetech.bus import FeetechBus
from drivers.feetech.calibration import Calibration
from drivers.feetech.plausible import problem
from runtime.joints import JointLayout

OVER_TICKS = 30
"""A joint at its stop may read this much (2.6 degrees) beyond its calibrated range."""
_HELD = (
    (reg.HOMING_OFFSET, "homing_offset"),
    (reg.MIN_POSITION_LIMIT, "range_min"),
    (reg.MAX_POSITION_LIMIT, "range_max"),
)


def compare(bus: FeetechBus, calibration: Calibration, joints: JointLayout) -> Mapping[str, list[str]]:
    """By joint, what is wrong with its calibration, in words; an empty list where all fits.

    Raises:
        DeviceError: a servo does not answer.
    """
    ranges = dict(zip(joints.names, joints.ranges.tolist(), strict=True))
    found = {}
    for name, joint in calibration.items():
        span = None if name in joints.gripper_names else ranges[name][1] - ranges[name][0]
        against_model = problem(joint.range_min, joint.range_max, span)
        wrong = [against_model] if against_model else []
        for register, key in _HELD:
            held, given = bus.read(joint.id, register), int(getattr(joint, key))
            if held != given:
                wrong.append(f"{register.name} is {held} in the servo, {key} is {given} in the file")
        if not wrong:
            here = bus.read(joint.id, reg.PRESENT_POSITION)
            if not joint.range_min - OVER_TICKS <= here <= joint.range_max + OVER_TICKS:
                wrong.append(f"it stands at {here}, outside of {joint.range_min} to {joint.range_max}")
        found[name] = wrong
    return found
