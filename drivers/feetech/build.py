"""From an arm's table to its driver: the calibration is found, and fitted to the model's joints."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

from drivers.feetech.calibration import (
    Calibration,
    CalibrationError,
    JointCalibration,
    JointMap,
    load_calibration,
)
from drivers.feetech.driver import FeetechArm
from drivers.feetech.options import FeetechOptions
from drivers.feetech.plausible import load_plausible
from runtime.joints import JointLayout
from runtime.messages import DeviceError, FaultKind
from runtime.part_context import ArmContext
from runtime.units import MIDDLE


def build_arm(config: FeetechOptions, context: ArmContext) -> FeetechArm:
    """The arm of `config`; a calibration that is lent is used where the configuration names no file.

    Raises:
        DeviceError: there is no calibration, or it does not fit the arm.
    """
    try:
        calibration, middles = _calibration(config, context)
        ranges = dict(zip(context.joints.names, context.joints.ranges.tolist(), strict=True))
        grippers = context.joints.gripper_names
        joints = JointMap.build(
            calibration, ranges, zero_rad={**middles, **config.zero_rad}, grippers=grippers
        )
    except CalibrationError as error:
        raise DeviceError(context.name, FaultKind.WRONG_CALIBRATION, config.port, str(error)) from None
    gentle, others = _gentle(config, grippers), _others(context)
    return FeetechArm(context.name, gentle, joints, context.clock, others=others, beat=context.beat)


def _others(context: ArmContext) -> dict[str, Calibration]:
    """The other arms' calibrations, as far as they have files that can be read: theirs is not this arm's."""
    found = {}
    for key, table in context.others.items():
        if isinstance(table, FeetechOptions) and table.calibration is not None:
            with contextlib.suppress(CalibrationError):
                found[f"{key}.calibration"] = load_calibration(table.calibration, context.joints.names)
    return found


def described(config: FeetechOptions, joints: JointLayout) -> dict[str, dict[str, Any]]:
    """What `FeetechArm.calibration` will say, of the file that `config` names; nothing without one.

    Raises:
        CalibrationError: it cannot be used.
    """
    if config.calibration is None:
        return {}
    ranges = dict(zip(joints.names, joints.ranges.tolist(), strict=True))
    found = load_calibration(config.calibration, joints.names)
    return JointMap.build(found, ranges, zero_rad=config.zero_rad, grippers=joints.gripper_names).described()


def _gentle(config: FeetechOptions, grippers: Sequence[str]) -> FeetechOptions:
    """With ``gripper``'s torque limit for every gripper that has none of its own, whatever it is called."""
    given = config.joint_torque_limit_fraction
    limits = {**dict.fromkeys(grippers, given["gripper"]), **given}
    return config.model_copy(update={"joint_torque_limit_fraction": limits})


def _calibration(config: FeetechOptions, context: ArmContext) -> tuple[Calibration, dict[str, float]]:
    """The calibration, and which angles the middles of its ranges are, as far as it is known."""
    if config.calibration is not None:
        return load_plausible(config.calibration, context.joints), {}
    if context.lent is None:
        raise CalibrationError("no calibration: give calibration = FILE, made by dexrun calibrate")
    middles = {name: entry[MIDDLE] for name, entry in context.lent.items() if MIDDLE in entry}
    plain = {name: {k: v for k, v in entry.items() if k != MIDDLE} for name, entry in context.lent.items()}
    return {name: JointCalibration(**entry) for name, entry in plain.items()}, middles
