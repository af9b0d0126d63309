"""UVC and network cameras on OpenCV, one thread each, stamped on arrival."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drivers.opencv_camera.capture import connect, is_network, lasting, library, to_rgb
from drivers.opencv_camera.options import OpenCvOptions
from runtime.clock import NS_PER_S, Clock
from runtime.geometry_options import base_from_camera
from runtime.messages import CameraInfo, DeviceError, FaultKind, Intrinsics
from runtime.ring import Ring, capacity_for

_READ_BUDGET_S = 0.5
_LONGEST_WAIT_NS = NS_PER_S // 4
"""Of one call, or a slow camera could not be let go of in time."""
_STEPPED_WAIT_S = 10.0
"""On a stepped clock OpenCV is asked for what has been sent, and its own timeouts are wall time."""


class _TornError(Exception):
    """The frame is no whole picture; its slot is not published."""


class OpenCvCamera:
    """A `runtime.interfaces.CameraDriver`; `frames` has field ``color`` only."""

    def __init__(self, name: str, config: OpenCvOptions, clock: Clock) -> None:
        self.name = name
        self._config = config
        self._clock = clock
        shape = (config.height, config.width, 3)
        self.frames = Ring({"color": (shape, "uint8")}, capacity_for(config.fps, _READ_BUDGET_S))
        self.info = CameraInfo(
            name,
            _intrinsics(config),
            base_from_camera=None if config.extrinsics is None else base_from_camera(config.extrinsics),
        )
        self._wire = clock.wire(name)
        self._timeout_ns = round(config.frame_timeout_s * NS_PER_S)
        self._latency_ns = round(config.latency_s * NS_PER_S)
        self._torn = self._torn_before = 0
        self._last_good_ns: int | None = None
        self._period_ns = round(NS_PER_S / config.fps)
        self._polled_ns: int | None = None
        self._behind = False
        self._stale = 0
        self._deadline_ns = 0
        self._ended = False
        self._cv2: Any = None
        self._capture: Any = None

    def open(self) -> None:
        """Connect, check what the camera grants, and take the first frame (which is not published).

        A UVC camera given by index is this one from then on, wherever it comes back after an unplug.

        Raises:
            DeviceError: ``not_found``, ``not_granted``, or ``timeout`` where no picture follows.
        """
        self.close()
        self._cv2 = library()
        least_wait_s = _STEPPED_WAIT_S if self._clock.stepped else 0.0
        self._capture = connect(self._cv2, self.name, self._config, least_wait_s)
        self._ended = False
        try:
            self._first()
        except DeviceError:
            self.close()
            raise
        self._config = self._config.model_copy(update={"source": lasting(self._config.source)})
        self._wire.reset()
        self._polled_ns = None
        self._deadline_ns = self._clock.now_ns() + self._timeout_ns

    def poll(self) -> bool:
        """Wait for the next frame and publish it; whether there was one.

        One that is torn is counted and left out; so is one that waited in the line while nobody polled: when
        it was taken is not known, and it would be stamped as if it had just been.

        Raises:
            DeviceError: ``timeout``, no whole picture in time; ``gone``, the connection ended;
                ``not_granted``, the pictures have another size now.
        """
        left_ns = min(max(self._deadline_ns - self._clock.now_ns(), 1_000_000), _LONGEST_WAIT_NS)
        began = self._clock.now_ns()
        data = self._wire.receive(self._read, left_ns)
        now = self._clock.now_ns()
        if data is not None and self._waited(began, now, left_ns):
            self._stale += 1
            self._deadline_ns = now + self._timeout_ns
            return False
        if data is not None and self._publish(data, now - self._latency_ns):
            self._deadline_ns = now + self._timeout_ns
            self._torn_before = self._torn
            return True
        if now >= self._deadline_ns:
            self._deadline_ns = now + self._timeout_ns
            torn, self._torn_before = self._torn - self._torn_before, self._torn
            came = f"{torn} came, and were cut short" if torn else "none came"
            detail = f"no whole picture within {self._config.frame_timeout_s:g} s: {came}"
            raise self._error(FaultKind.TIMEOUT, detail)
        if self._ended:
            raise self._error(FaultKind.GONE, "the connection ended")
        return False

    def _waited(self, began_ns: int, now_ns: int, left_ns: int) -> bool:
        """Whether the frame that came had been in the line while this thread, or the process, stood still.

        A wait that ended in time may be the camera's own: what comes quickly after it proves nothing.
        """
        took_ns, polled_ns, self._polled_ns = now_ns - began_ns, self._polled_ns, now_ns
        overslept = took_ns > left_ns + self._period_ns
        absent = polled_ns is not None and began_ns - polled_ns > 2 * self._period_ns
        waited = overslept or ((absent or self._behind) and took_ns < self._period_ns // 4)
        self._behind = waited
        return waited

    def close(self) -> None:
        """Let go of the camera. Idempotent, never raises."""
        if self._capture is not None:
            self._capture.release()
            self._capture = None

    def statistics(self) -> Mapping[str, int]:
        """Pictures that were left out: ``torn`` were incomplete, ``stale`` had waited while nobody polled."""
        return {"torn": self._torn, "stale": self._stale}

    def _read(self, units: int, timeout_s: float) -> NDArray[np.uint8] | None:
        """The next frame as OpenCV gives it; ``None`` if there was none in time, or none will come."""
        del units  # a framed wire: one frame
        if self._capture is None:
            self._ended = True
            return None
        if not is_network(self._config.source):
            # V4L2 would block for 10 s; FFmpeg was told its timeout when it was opened.
            ready, _ = self._cv2.VideoCapture.waitAny([self._capture], round(timeout_s * NS_PER_S))
            if not ready:
                return None
        got, data = self._capture.read()
        if not got:
            self._ended = True  # FFmpeg does not recover from a failed read
            return None
        return np.asarray(data)

    def _publish(self, data: NDArray[np.uint8], stamp_ns: int) -> bool:
        try:
            with self.frames.write(stamp_ns) as slot:
                self._decode(data, slot["color"])
        except _TornError:
            self._torn += 1
            return False
        self._last_good_ns = stamp_ns
        return True

    def _decode(self, data: NDArray[np.uint8], into: Any) -> None:
        size = to_rgb(self._cv2, data, into)
        if size is None:
            raise _TornError
        if size != (self._config.width, self._config.height):
            asked = f"{self._config.width}x{self._config.height}"
            raise self._error(
                FaultKind.NOT_GRANTED, f"asked for {asked}, the camera gives {size[0]}x{size[1]}"
            )

    def _first(self) -> None:
        data = self._read(1, self._config.open_timeout_s)
        if data is None:
            raise self._error(FaultKind.TIMEOUT, "connected, but no picture came")
        try:
            self._decode(data, np.empty((self._config.height, self._config.width, 3), np.uint8))
        except _TornError:
            self._torn += 1

    def _error(self, kind: FaultKind, detail: str) -> DeviceError:
        return DeviceError(self.name, kind, str(self._config.source), detail, self._last_good_ns)


def _intrinsics(config: OpenCvOptions) -> Intrinsics:
    known = config.calibration
    if known is None:
        nan = float("nan")
        return Intrinsics(config.width, config.height, nan, nan, nan, nan)
    return Intrinsics(
        config.width, config.height, known.fx_px, known.fy_px, known.cx_px, known.cy_px, known.distortion
    )
