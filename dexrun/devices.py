"""Builds drivers from the configuration. Addresses are real by now; nothing here knows about simulation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from drivers.feetech.calibration import Calibration, CalibrationError, JointMap, load_calibration
from drivers.feetech.config import FeetechConfig
from drivers.feetech.driver import FeetechArm
from drivers.opencv_camera.config import OpenCvConfig
from drivers.opencv_camera.driver import OpenCvCamera
from drivers.realsense.config import RealSenseConfig
from drivers.realsense.driver import RealSenseCamera
from runtime.clock import Clock
from runtime.interfaces import CameraDriver
from runtime.messages import DeviceError, FaultKind
from runtime.so100 import JOINT_NAMES, JOINT_RANGES_RAD


def build_arm(name: str, config: FeetechConfig, clock: Clock, calibration: Calibration | None) -> FeetechArm:
    """The arm `name`; `calibration` is used where the configuration names no file.

    Raises:
        DeviceError: there is no calibration, or it does not fit the arm.
    """
    try:
        if config.calibration is not None:
            calibration = load_calibration(config.calibration, JOINT_NAMES)
        if calibration is None:
            raise CalibrationError("no calibration: give calibration = FILE, made by dexrun calibrate")
        ranges = dict(zip(JOINT_NAMES, JOINT_RANGES_RAD, strict=True))
        joints = JointMap.build(calibration, ranges, zero_rad=config.zero_rad)
    except CalibrationError as error:
        raise DeviceError(name, FaultKind.WRONG_CALIBRATION, config.port, str(error)) from None
    return FeetechArm(name, config, joints, clock)


def build_cameras(
    configs: Mapping[str, RealSenseConfig | OpenCvConfig], clock: Clock, contexts: Mapping[str, Any]
) -> dict[str, CameraDriver]:
    """Every camera; `contexts` holds the librealsense context of those that need one of their own."""
    cameras: dict[str, CameraDriver] = {}
    for name, config in configs.items():
        if isinstance(config, RealSenseConfig):
            cameras[name] = RealSenseCamera(name, config, clock, context=contexts.get(name))
        else:
            cameras[name] = OpenCvCamera(name, config, clock)
    return cameras
