"""Options of a camera read through OpenCV."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from runtime.options import Options
from runtime.parts import CameraTable
from runtime.patience import check_patience, patience_s

FRAME_TIMEOUT_S = 0.2
_SCHEMES = ("http", "https", "rtsp", "rtsps", "rtmp", "rtmps", "rtp", "srt", "tcp", "udp")


class PinholeCalibration(Options):
    """Intrinsics at the configured width and height, as OpenCV's ``calibrateCamera`` gives them.

    fx_px, fy_px: focal lengths. cx_px, cy_px: principal point. distortion: k1, k2, p1, p2, k3.
    """

    fx_px: float = Field(gt=0)
    fy_px: float = Field(gt=0)
    cx_px: float
    cy_px: float
    distortion: tuple[float, float, float, float, float] = (0.0, 0.0, 0.0, 0.0, 0.0)


class OpenCvOptions(CameraTable):
    """``[cameras.<name>]`` with ``driver = "opencv"``.

    source: index of a UVC camera (0), its stable path (``/dev/v4l/by-id/...``), or the URL of a network
        camera (``http://...`` MJPEG, ``rtsp://...``). An index or ``/dev/video0`` serves to find it: once
        open, the camera is known by its serial number, or by its USB port, and reopened as that.
    width, height: what the camera must give; nothing is scaled.
    fps: asked of a UVC camera and checked; of a network camera the expected rate.
    fourcc: pixel format asked of a UVC camera. MJPG by default: YUYV at 640x480 and 30 fps takes half of a
        USB 2 bus, so that a second camera on it does not start.
    timeout_s: longest wait for a frame; by default 0.2, or the time of two and a half frames.
    open_timeout_s: for connecting and for the first frame. It and `timeout_s` together are less than
        ``devices.join_timeout_s``, the longest that a run's end waits for it.
    latency_s: from exposure to arrival; taken off every stamp, which is the arrival otherwise.
    autofocus, exposure_us: of a UVC camera, left as it is by default; a fixed exposure turns automatic off.
    calibration: intrinsics; without them focal lengths are NaN, so that nothing is measured by accident.
    """

    driver: Literal["opencv"] = "opencv"
    source: int | str
    fourcc: str = Field(default="MJPG", min_length=4, max_length=4)
    timeout_s: float | None = Field(default=None, gt=0)
    open_timeout_s: float = Field(default=3.0, gt=0)
    latency_s: float = Field(default=0.0, ge=0, lt=1)
    autofocus: bool | None = None
    exposure_us: float | None = Field(default=None, gt=0)
    calibration: PinholeCalibration | None = None

    @field_validator("source", mode="before")
    @classmethod
    def _is_a_camera(cls, given: Any) -> Any:
        if isinstance(given, str) and re.fullmatch(r"-?\d+", given.strip()):
            given = int(given)  # as text, from a command line
        if isinstance(given, bool) or given == "" or (isinstance(given, int) and given < 0):
            raise ValueError("give an index, such as 0, a path, such as /dev/v4l/by-id/..., or a URL")
        scheme, found, rest = str(given).partition("://")
        if found and (scheme.lower() not in _SCHEMES or not rest.strip("/")):
            raise ValueError(f"give a URL of a camera: {', '.join(f'{each}://...' for each in _SCHEMES)}")
        return given

    @model_validator(mode="after")
    def _waits_for_a_frame(self) -> OpenCvOptions:
        check_patience("timeout_s", self.timeout_s, "fps", self.fps)
        return self

    @property
    def frame_timeout_s(self) -> float:
        """`timeout_s`, or what stands for it."""
        return patience_s(self.timeout_s, self.fps, FRAME_TIMEOUT_S)

    def addresses(self) -> Mapping[str, str]:
        # An index is one of the paths, so that two tables of one camera are seen to be.
        return {"source": f"/dev/video{self.source}" if isinstance(self.source, int) else self.source}

    def longest_call(self) -> tuple[str, float]:
        keys = f"open_timeout_s + timeout_s ({self.open_timeout_s:g} + {self.frame_timeout_s:.3g})"
        return keys, self.open_timeout_s + self.frame_timeout_s
