"""Options of a RealSense camera."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field, model_validator

from runtime.parts import CameraTable
from runtime.patience import check_patience, patience_s

HOST_CLOCK_PORT = "software:CLOCK_MONOTONIC"
"""Physical port of a (software) device whose hardware timestamps are the host's ``CLOCK_MONOTONIC``."""


FRAME_TIMEOUT_S = 0.2


class RealSenseOptions(CameraTable):
    """``[cameras.<name>]`` with ``driver = "realsense"``.

    serial: the device's serial number, as printed on it and by ``rs-enumerate-devices``.
    width, height, fps: of the colour stream. depth_width, depth_height: of the depth stream, if other.
    color_format: what librealsense is asked for. ``rgb8`` is converted by librealsense; ``yuyv`` is taken
        as the camera sends it and converted here, which some boards do with less work.
    align: depth seen from the colour camera, so that pixel for pixel both show the same point. Off, depth
        keeps its own camera's view, and deprojection with the colour intrinsics would be wrong.
    timeout_s: longest wait for the next complete pair; by default 0.2, or the time of two and a half pairs.
        start_timeout_s: for the first one after opening.
    pair_gap_s: how far apart colour and depth of one pair may be stamped; default half a frame period.
    latency_s: taken off the stamp where a device only tells when a frame arrived (no metadata).
    depth_units_m: metres per depth unit to set on the device (0.001; D405 0.0001), where it can be set. The
        scale in use is always read back from the device.
    emitter, laser_power_mw: the infrared projector. exposure_us, gain: of the depth sensor, which turn its
        automatic exposure off. color_exposure_us: same for the colour sensor. Left out: as the device has it.
    """

    driver: Literal["realsense"] = "realsense"
    serial: str = Field(min_length=1)
    fps: int = Field(default=30, gt=0, le=300)
    depth_width: int | None = Field(default=None, gt=0)
    depth_height: int | None = Field(default=None, gt=0)
    color_format: Literal["rgb8", "yuyv"] = "rgb8"
    align: bool = True
    timeout_s: float | None = Field(default=None, gt=0)
    start_timeout_s: float = Field(default=5.0, gt=0)
    pair_gap_s: float | None = Field(default=None, gt=0)
    latency_s: float = Field(default=0.0, ge=0)
    depth_units_m: float | None = Field(default=None, gt=0)
    emitter: bool | None = None
    laser_power_mw: float | None = Field(default=None, ge=0)
    exposure_us: float | None = Field(default=None, gt=0)
    gain: float | None = Field(default=None, ge=0)
    color_exposure_us: float | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _waits_for_a_frame(self) -> RealSenseOptions:
        check_patience("timeout_s", self.timeout_s, "fps", self.fps)
        return self

    @property
    def frame_timeout_s(self) -> float:
        """`timeout_s`, or what stands for it."""
        return patience_s(self.timeout_s, self.fps, FRAME_TIMEOUT_S)

    def addresses(self) -> Mapping[str, str]:
        return {"serial": self.serial}

    def longest_start_s(self) -> float:
        return self.start_timeout_s

    @property
    def depth(self) -> bool:
        return True
