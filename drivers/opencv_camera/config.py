"""The part: its table, and how it is built."""

from __future__ import annotations

from typing import TYPE_CHECKING

from drivers.opencv_camera.options import OpenCvOptions, PinholeCalibration
from runtime.messages import Intrinsics
from runtime.part_context import DeviceContext

if TYPE_CHECKING:
    from drivers.opencv_camera.driver import OpenCvCamera


class OpenCvConfig(OpenCvOptions):
    """``[cameras.<name>]`` with ``driver = "opencv"``."""

    def build(self, context: DeviceContext) -> OpenCvCamera:
        from drivers.opencv_camera.driver import OpenCvCamera

        config = self if self.calibration or context.lent is None else self._measured(context.lent)
        return OpenCvCamera(context.name, config, context.clock)

    def _measured(self, pinhole: Intrinsics) -> OpenCvConfig:
        """With intrinsics as a lab would have measured them."""
        calibration = PinholeCalibration(
            fx_px=pinhole.fx,
            fy_px=pinhole.fy,
            cx_px=pinhole.cx,
            cy_px=pinhole.cy,
            distortion=pinhole.coefficients,
        )
        return self.model_copy(update={"calibration": calibration})
