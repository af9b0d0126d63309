"""A RealSense camera without the camera: frames from shared memory pushed into an rs2 software device.

It runs in the process of the driver, because a software device is only visible there. The process that
makes the pictures publishes them in a shared `runtime.ring.Ring` (fields ``color`` uint8 ``[H, W, 3]``
and ``depth`` uint16 ``[h, w]``, 0 meaning no reading) and then rings the doorbell.

Doorbell: on the real clock, a byte stream on which the other process writes one byte per published
sample, given as an open file descriptor (this object closes it) or as the path of an ``AF_UNIX`` stream
socket to connect to. On a stepped clock there is none: whoever advances the simulation calls `deliver`.

Frames carry the sample's index as frame number and its stamp, in milliseconds, as hardware timestamp.
The device says through its physical port that its hardware clock is the host's ``CLOCK_MONOTONIC``, so
the driver needs no clock conversion (a double holds milliseconds to the nanosecond for 99 days of uptime).
"""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import threading
from typing import Any, Literal

import numpy as np

from drivers.realsense.options import HOST_CLOCK_PORT
from runtime.messages import CameraInfo, Floats, Intrinsics
from runtime.ring import Ring, Sample

FAULTS = ("freeze", "gone", "back", "torn")


class RealSenseEmulator:
    """A colour and a depth sensor in `context`, fed from the shared ring `ring_name`.

    Args:
        doorbell: see above; ``None`` if `deliver` is called instead.
        info: name, colour intrinsics and depth scale of the simulated camera.
        depth_intrinsics: where the depth sensor differs from the colour sensor.
        color_from_depth: 4x4, depth sensor's optical frame to the colour sensor's, metres.
        color_format: ``rgb8``, or ``yuyv`` as most of these cameras have it on the wire.
        one_sensor: both streams from one sensor, as on a D405.

    Raises:
        FileNotFoundError: there is no ring of that name, or no doorbell at that path.
    """

    def __init__(
        self,
        ring_name: str,
        doorbell: int | str | None,
        info: CameraInfo,
        *,
        serial: str = "SIM00000001",
        model: str = "Intel RealSense D435 (simulated)",
        fps: int = 30,
        depth_intrinsics: Intrinsics | None = None,
        color_from_depth: Floats | None = None,
        color_format: Literal["rgb8", "yuyv"] = "rgb8",
        one_sensor: bool = False,
    ) -> None:
        import pyrealsense2 as rs

        self.serial = serial
        self._rs = rs
        self._info = info
        self._model = model
        self._fps = fps
        self._depth_intrinsics = depth_intrinsics or info.intrinsics
        self._color_from_depth = np.eye(4) if color_from_depth is None else color_from_depth
        self._color_format = color_format
        self._one_sensor = one_sensor
        self._scale_m = info.depth_scale_m or 0.001
        self._lock = threading.Lock()
        self._moved = threading.Condition(self._lock)
        self._closed = False
        self._frozen = False
        self._torn = False
        self.domains = {"color": "hardware_clock", "depth": "hardware_clock"}
        """What each stream's frames say they are stamped by; a camera without metadata says another."""
        self._pushed = 0
        self._reached = 0
        self._answered = 0
        self.lost = 0
        self._listed: list[Any] = []
        self._sensors: list[Any] = []
        self._ring = Ring.attach(ring_name)
        self._reader = self._ring.reader()
        self._sample: Sample | None = None
        self.context = rs.context()
        """The librealsense context in which the device is found."""
        self._keep_listed()
        self._appear()
        self._thread: threading.Thread | None = None
        if doorbell is not None:
            self._answer(doorbell)

    def _keep_listed(self) -> None:
        # A context only holds weak references to software devices; whoever keeps the announcement keeps
        # the device in its list. Letting go of it is how a software device is unplugged. (No reference to
        # this object in there: the context would keep it, and it the context, for ever.)
        listed = self._listed
        self.context.set_devices_changed_callback(lambda event: listed.append(event.get_new_devices()))

    def _answer(self, doorbell: int | str) -> None:
        self._bell = _connect(doorbell)
        self._stop_out, self._stop_in = os.pipe()
        self._thread = threading.Thread(target=self._listen, name=f"realsense-{self.serial}", daemon=True)
        self._thread.start()

    def deliver(self, count: int, timeout_s: float = 10.0) -> int:
        """See `count` more samples through to the device; returns how many reached a streaming device.

        Without a doorbell this call pushes them itself; with one it waits until its thread has.

        Raises:
            TimeoutError: the samples did not come.
        """
        if self._thread is None:
            for _ in range(count):
                self._push_next()
        with self._moved:
            target = self._answered + count
            if not self._moved.wait_for(lambda: self._pushed >= target, timeout_s):
                raise TimeoutError(f"camera {self.serial}: {target - self._pushed} frame(s) did not arrive")
            self._answered = self._pushed
            reached, self._reached = self._reached, 0
        return reached

    def inject(self, fault: str) -> None:
        """Do what `fault` says from now on.

        ``freeze``: the device stays, no frame comes. ``gone``: unplugged. ``back``: ends both. ``torn``:
        the next frame comes without its depth.

        Raises:
            ValueError: an unknown fault.
        """
        if fault not in FAULTS:
            raise ValueError(f"RealSense fault {fault!r} is not one of {', '.join(FAULTS)}")
        with self._lock:
            if fault == "freeze":
                self._frozen = True
            elif fault == "torn":
                self._torn = True
            elif fault == "gone":
                self._vanish()
            else:
                self._frozen = False
                if not self._sensors:
                    self._appear()

    def close(self) -> None:
        """Unplug, stop the thread, let go of the ring. Idempotent."""
        if self._closed:
            return
        self._closed = True
        if self._thread is not None:
            os.write(self._stop_in, b"x")
            self._thread.join()
            for descriptor in (self._bell, self._stop_in, self._stop_out):
                os.close(descriptor)
        with self._lock:
            self._vanish()
            self._sample = None
            self._ring.close()

    # --- the device

    def _vanish(self) -> None:
        self._listed.clear()
        self._sensors = []

    def _appear(self) -> None:
        rs = self._rs
        device = rs.software_device()
        for key, value in (
            (rs.camera_info.name, self._model),
            (rs.camera_info.serial_number, self.serial),
            (rs.camera_info.physical_port, HOST_CLOCK_PORT),
        ):
            device.register_info(key, value)
        depth = device.add_sensor("Stereo Module")
        color = depth if self._one_sensor else device.add_sensor("RGB Camera")
        color_bytes = 3 if self._color_format == "rgb8" else 2
        depth.add_read_only_option(rs.option.depth_units, self._scale_m)
        depth_profile = depth.add_video_stream(
            self._stream(rs.stream.depth, 0, rs.format.z16, 2, self._depth_intrinsics), True
        )
        color_profile = color.add_video_stream(
            self._stream(
                rs.stream.color, 1, getattr(rs.format, self._color_format), color_bytes, self._info.intrinsics
            ),
            True,
        )
        depth_profile.register_extrinsics_to(color_profile, self._extrinsics())
        device.add_to(self.context)
        self._sensors = [
            (color, color_profile.as_video_stream_profile(), "color", color_bytes),
            (depth, depth_profile.as_video_stream_profile(), "depth", 2),
        ]
        self._device = device

    def _stream(self, kind: Any, uid: int, fmt: Any, pixel_bytes: int, intrinsics: Intrinsics) -> Any:
        rs = self._rs
        pinhole = rs.intrinsics()
        pinhole.width, pinhole.height = intrinsics.width, intrinsics.height
        pinhole.fx, pinhole.fy = intrinsics.fx, intrinsics.fy
        pinhole.ppx, pinhole.ppy = intrinsics.cx, intrinsics.cy
        pinhole.coeffs = list(intrinsics.coefficients)
        pinhole.model = rs.distortion.inverse_brown_conrady if any(pinhole.coeffs) else rs.distortion.none
        stream = rs.video_stream()
        stream.type, stream.index, stream.uid, stream.fmt = kind, 0, uid, fmt
        stream.width, stream.height = intrinsics.width, intrinsics.height
        stream.fps, stream.bpp, stream.intrinsics = self._fps, pixel_bytes, pinhole
        return stream

    def _extrinsics(self) -> Any:
        extrinsics = self._rs.extrinsics()
        extrinsics.rotation = self._color_from_depth[:3, :3].T.reshape(9).tolist()  # column-major
        extrinsics.translation = self._color_from_depth[:3, 3].tolist()
        return extrinsics

    # --- frames

    def _listen(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._bell, selectors.EVENT_READ)
            selector.register(self._stop_out, selectors.EVENT_READ)
            while True:
                for key, _ in selector.select():
                    if key.fd == self._stop_out:
                        return
                    rings = _read(self._bell)
                    if not rings:
                        selector.unregister(self._bell)
                    for _ in rings:
                        self._push_next()

    def _push_next(self) -> None:
        with self._moved:
            self._sample = self._reader.next(self._sample)
            self.lost = self._reader.lost
            if self._sample is not None and self._push(self._sample):
                self._reached += 1
            self._pushed += 1
            self._moved.notify_all()

    def _push(self, sample: Sample) -> bool:
        if self._frozen or not self._sensors or not self._streaming():
            return False
        sensors, self._torn = self._sensors[: 1 if self._torn else 2], False
        for sensor, profile, field, pixel_bytes in sensors:
            frame = self._rs.software_video_frame()
            frame.pixels = self._on_the_wire(sample[field], pixel_bytes)  # copied by the binding
            frame.bpp = pixel_bytes
            frame.stride = sample[field].shape[1] * pixel_bytes
            frame.timestamp = sample.stamp_ns / 1e6
            frame.domain = getattr(self._rs.timestamp_domain, self.domains[field])
            frame.frame_number = sample.index
            frame.profile = profile
            frame.depth_units = self._scale_m
            try:
                sensor.on_video_frame(frame)
            except RuntimeError:  # being opened or closed right now
                return False
        return True

    def _on_the_wire(self, pixels: Any, pixel_bytes: int) -> Any:
        if pixels.ndim == 2 or pixel_bytes == 3:
            return pixels
        import cv2

        return cv2.cvtColor(pixels, cv2.COLOR_RGB2YUV_YUY2)

    def _streaming(self) -> bool:
        return all(sensor.get_active_streams() for sensor, *_ in self._sensors)


def _connect(doorbell: int | str) -> int:
    if isinstance(doorbell, int):
        return doorbell
    with socket.socket(socket.AF_UNIX) as bell:
        bell.connect(doorbell)
        return bell.detach()


def _read(descriptor: int) -> bytes:
    with contextlib.suppress(ConnectionResetError):
        return os.read(descriptor, 64)
    return b""
