"""From librealsense's timestamps to the host's monotonic clock."""

from __future__ import annotations

from typing import Any

from drivers.realsense.options import HOST_CLOCK_PORT
from runtime.clock import Clock

_DRIFT = 100e-6
"""Crystal drift that the offset between two clocks is allowed to follow upwards."""


class FrameStamps:
    """Acquisition stamps of one opened device's frames, in the clock's nanoseconds.

    * A device whose physical port is `HOST_CLOCK_PORT` stamps in the host's clock already: exact.
    * Global time (the default of D400 cameras) and system time are wall-clock milliseconds: how long ago
      that was is subtracted from now, so a step of the wall clock disturbs no later frame.
    * A bare hardware clock counts from the camera's power-up: the smallest difference between arrival and
      stamp seen so far is its offset, creeping up by 100 ppm so that drift cannot make it stick.
      The shortest transfer time stays in it; ``latency_s`` takes it off.
    """

    def __init__(self, clock: Clock, port: str, latency_s: float) -> None:
        self._clock = clock
        self._host = port == HOST_CLOCK_PORT
        self._latency_ns = round(latency_s * 1e9)
        self._offset_ns: int | None = None
        self._last_ns = 0

    def of(self, frame: Any) -> int:
        """The stamp of an ``rs2::frame``."""
        device_ns = round(float(frame.get_timestamp()) * 1e6)
        if self._host:
            return device_ns
        now = self._clock.now_ns()
        domain = frame.get_frame_timestamp_domain().name
        if domain == "global_time":
            return min(now, now - (self._clock.wall_ns() - device_ns))
        if domain == "system_time":
            return min(now, now - (self._clock.wall_ns() - device_ns)) - self._latency_ns
        return self.of_hardware_ns(device_ns, now) - self._latency_ns

    def of_hardware_ns(self, device_ns: int, now_ns: int) -> int:
        """The arrival time `device_ns` would have had on the shortest way."""
        offset = now_ns - device_ns
        if self._offset_ns is not None:
            creep = round(max(0, device_ns - self._last_ns) * _DRIFT)
            # One stream's frames come in order: a clock that went back was set again, with another offset.
            if device_ns >= self._last_ns:
                offset = min(offset, self._offset_ns + creep)
        self._offset_ns, self._last_ns = offset, device_ns
        return device_ns + offset
