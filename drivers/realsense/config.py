"""The part: its table, and how it is built."""

from __future__ import annotations

from typing import TYPE_CHECKING

from drivers.realsense.options import RealSenseOptions
from runtime.part_context import DeviceContext

if TYPE_CHECKING:
    from drivers.realsense.driver import RealSenseCamera


class RealSenseConfig(RealSenseOptions):
    """``[cameras.<name>]`` with ``driver = "realsense"``."""

    def build(self, context: DeviceContext) -> RealSenseCamera:
        from drivers.realsense.driver import RealSenseCamera

        return RealSenseCamera(context.name, self, context.clock, context=context.lent)
