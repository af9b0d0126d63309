"""RealSense colour and depth as one synchronised, aligned pair.

The same code runs a camera on USB and a software device in the same context; which one it is depends on
the serial number alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from drivers.realsense import device
from drivers.realsense.options import RealSenseOptions
from drivers.realsense.stamps import FrameStamps
from runtime.clock import NS_PER_S, Clock
from runtime.geometry_options import base_from_camera
from runtime.messages import CameraInfo, DeviceError, FaultKind, Intrinsics
from runtime.ring import Ring, capacity_for

_READ_BUDGET_S = 0.5
_LONGEST_WAIT_NS = NS_PER_S // 4
"""Of one call, or a slow camera could not be let go of in time."""
_QUEUE = 8
_PARTNER_S = 0.2


class RealSenseCamera:
    """A `runtime.interfaces.CameraDriver` for librealsense devices.

    Args:
        context: the ``rs.context`` to look in; its own (everything on USB) by default.
    """

    def __init__(self, name: str, config: RealSenseOptions, clock: Clock, context: Any | None = None) -> None:
        self.name = name
        self._config = config
        self._clock = clock
        self._context = context
        width, height = config.width, config.height
        depth_shape = (height, width)
        if not config.align:
            depth_shape = (config.depth_height or height, config.depth_width or width)
        layout = {"color": ((height, width, 3), "uint8"), "depth": (depth_shape, "uint16")}
        self.frames = Ring(layout, capacity_for(config.fps, _READ_BUDGET_S))
        self.info = CameraInfo(
            name,
            Intrinsics(width, height, np.nan, np.nan, np.nan, np.nan),
            base_from_camera=None if config.extrinsics is None else base_from_camera(config.extrinsics),
        )
        self._wire = clock.wire(name)
        self._timeout_ns = round(config.frame_timeout_s * NS_PER_S)
        self._unpaired = 0
        self._last_good_ns: int | None = None
        self._deadline_ns = 0
        self._streams: device.Streams | None = None

    # --- CameraDriver

    def open(self) -> None:
        """Find the device by its serial number and start both streams; `info` is final afterwards.

        Raises:
            DeviceError: ``not_installed``, ``not_found``, ``no_stream``, ``bad_option``,
                ``bad_calibration``, or ``refused`` where librealsense says no (camera in use, no rights).
        """
        self.close()
        rs = self._library()
        config = self._config
        try:
            if self._context is None:
                self._context = rs.context()
            streams = device.choose(rs, device.find(rs, self._context, self.name, config), self.name, config)
            device.set_up(rs, streams, self.name, config)
            self.info = replace(
                self.info,
                intrinsics=device.intrinsics_of(streams.color, self.name, config.serial),
                depth_scale_m=streams.scale_m(),
            )
            self._stamps = FrameStamps(self._clock, streams.port(rs), config.latency_s)
            gap_s = config.pair_gap_s if config.pair_gap_s is not None else 0.5 / config.fps
            self._pairing = device.Pairing(rs.stream.depth, 1e3 * gap_s)
            self._queue = rs.frame_queue(_QUEUE)
            self._prepare(rs)
            # Aligning what is aligned would only smear depth over the edges of its holes.
            self._aligning = config.align and not streams.aligned()
            self._streams = streams
            streams.start(self._queue)
        except RuntimeError as error:
            self.close()
            raise self._error(FaultKind.REFUSED, f"librealsense: {error}") from error
        self._wire.reset()
        self._deadline_ns = self._clock.now_ns() + round(config.start_timeout_s * NS_PER_S)

    def poll(self) -> bool:
        """Wait for the next complete pair and publish it, colour's stamp on it; whether there was one.

        Raises:
            DeviceError: ``timeout``, no pair came in time; ``gone``, librealsense gave up on the device;
                ``not_granted``, a picture is not as large as was asked for.
        """
        left_ns = max(self._deadline_ns - self._clock.now_ns(), 0)
        try:
            pair = self._wire.receive(self._read, min(max(left_ns, 1_000_000), _LONGEST_WAIT_NS))
            if pair is not None:
                self._publish(*pair)
        except RuntimeError as error:
            raise self._error(FaultKind.GONE, f"librealsense: {error}") from error
        now = self._clock.now_ns()
        if pair is not None:
            self._deadline_ns = now + self._timeout_ns
        elif now >= self._deadline_ns:
            self._deadline_ns = now + self._timeout_ns
            detail = f"no complete pair of colour and depth came in time: {self._pairing.trouble()}"
            raise self._error(FaultKind.TIMEOUT, detail)
        return pair is not None

    def close(self) -> None:
        """Stop both streams. Idempotent, never raises."""
        if self._streams is not None:
            self._streams.stop()
            self._unpaired += self._pairing.dropped
            self._streams = None

    def statistics(self) -> Mapping[str, int]:
        """``unpaired``: frames whose other half never came."""
        current = self._pairing.dropped if self._streams is not None else 0
        return {"unpaired": self._unpaired + current}

    # --- frames

    def _read(self, units: int, timeout_s: float) -> tuple[Any, Any] | None:
        """One pair, or ``None`` if there was none in time. A half is only waited for briefly."""
        del units  # a framed wire: one pair
        for _ in range(_QUEUE):
            wait_s = min(timeout_s, _PARTNER_S) if self._pairing.half else timeout_s
            got, frame = self._queue.try_wait_for_frame(max(1, round(1e3 * wait_s)))
            if not got:
                return None
            pair = self._pairing.add(frame)
            if pair is not None:
                return pair
        return None  # one of the two streams is dead

    def _publish(self, color: Any, depth: Any) -> None:
        stamp_ns = self._stamps.of(color)
        if self._aligning:
            # Depth from where the colour camera is: librealsense's own alignment wants a composite frame.
            self._halves[:] = (color, depth)
            self._combine.invoke(color)
            self._halves.clear()
            depth = self._align.process(self._combined.wait_for_frame().as_frameset()).get_depth_frame()
        distances = np.asanyarray(depth.get_data())
        pixels = self._pixels(color)
        self._as_asked("colour", pixels, "color")
        self._as_asked("depth", distances, "depth")
        with self.frames.write(stamp_ns) as slot:
            self._copy_color(pixels, slot["color"])
            np.copyto(slot["depth"], distances)
        self._last_good_ns = stamp_ns

    def _pixels(self, color: Any) -> Any:
        """As they came: RGB ``[H, W, 3]``, or YUYV, two bytes of each pixel."""
        pixels = np.asanyarray(color.get_data())
        if self._config.color_format == "rgb8":
            return pixels
        return pixels.view(np.uint8).reshape(*pixels.shape[:2], 2)

    def _as_asked(self, what: str, picture: Any, field: str) -> None:
        height, width = self.frames.layout[field][0][:2]
        if picture.shape[:2] != (height, width):
            given = "x".join(str(count) for count in reversed(picture.shape[:2]))
            detail = f"asked for {width}x{height} {what}, the camera gives {given}"
            raise self._error(FaultKind.NOT_GRANTED, detail)

    def _copy_color(self, pixels: Any, slot: Any) -> None:
        if self._config.color_format == "rgb8":
            np.copyto(slot, pixels)
            return
        import cv2

        cv2.cvtColor(pixels, cv2.COLOR_YUV2RGB_YUY2, dst=slot)

    # --- librealsense

    def _library(self) -> Any:
        try:
            import pyrealsense2
        except ImportError as error:
            detail = f"pyrealsense2 cannot be imported ({error}); it needs Debian's libusb-1.0-0"
            raise self._error(FaultKind.NOT_INSTALLED, detail) from error
        return pyrealsense2

    def _prepare(self, rs: Any) -> None:
        halves: list[Any] = []

        def combine(_: Any, source: Any) -> None:
            source.frame_ready(source.allocate_composite_frame(halves))

        self._halves = halves
        self._combined = rs.frame_queue(1)
        self._combine = rs.processing_block(combine)
        self._combine.start(self._combined)
        self._align = rs.align(rs.stream.color)

    def _error(self, kind: FaultKind, detail: str) -> DeviceError:
        return DeviceError(self.name, kind, self._config.serial, detail, self._last_good_ns)
