"""The cameras that are there: by names that last, what they offer, and what they deliver."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from dexrun.setup.findings import PreflightFinding
from dexrun.setup.preflight import bandwidth
from drivers.opencv_camera.config import OpenCvConfig
from drivers.opencv_camera.measure import measure
from drivers.opencv_camera.usb import UsbBus, bus_of, stream_mb_s
from drivers.opencv_camera.v4l2 import CameraMode, Ioctl, best_of, offers
from runtime.clock import Clock
from runtime.messages import ColorImage, DeviceError

_LINKS = ("dev/v4l/by-id", "dev/v4l/by-path")


@dataclass(frozen=True, slots=True)
class FoundCamera:
    """One camera.

    Attributes:
        source: for ``cameras.NAME.source``: a link that lasts, ``/dev/videoN``, or a URL.
        device: what it leads to now. name: what the camera calls itself.
        modes: what it offers; none of a network camera.
        mode: what it is opened with, or turned out to deliver.
        bus: the USB bus that it is on.
        fps: as measured; 0 if it was not. picture: where one was saved.
        trouble: why there is no picture.
    """

    source: str
    device: str = ""
    name: str = ""
    modes: tuple[CameraMode, ...] = ()
    mode: CameraMode | None = None
    bus: UsbBus | None = None
    fps: float = 0.0
    picture: str = ""
    trouble: str = ""

    @property
    def delivers(self) -> CameraMode | None:
        """What may be configured: of the rates that are offered the one nearest to what was measured.

        No other is granted when a run asks for it.
        """
        mode = self.mode
        if mode is None or not self.fps or self.trouble:
            return None
        alike = [each for each in self.modes if replace(each, fps=mode.fps) == mode]
        return min(alike, key=lambda each: abs(each.fps - self.fps), default=mode)


def local_cameras(root: Path = Path("/"), ioctl: Ioctl = fcntl.ioctl) -> list[FoundCamera]:
    """The UVC cameras of the machine whose files are below `root`, each with the mode that suits best."""
    return list(_local(root, ioctl))


def _local(root: Path, ioctl: Ioctl) -> Iterator[FoundCamera]:
    named: dict[str, str] = {}
    for folder in _LINKS:
        for link in sorted((root / folder).glob("*")):
            named.setdefault(os.path.realpath(link), f"/{link.relative_to(root)}")
    for device in sorted((root / "dev").glob("video[0-9]*"), key=lambda path: int(path.name[5:])):
        path = f"/dev/{device.name}"
        source = named.get(os.path.realpath(device), path)
        try:
            name, modes = offers(str(device), ioctl)
        except OSError as error:
            yield FoundCamera(source, path, trouble=error.strerror or str(error))
            continue
        if modes:
            yield FoundCamera(source, path, name, modes, best_of(modes), bus_of(path, root))


def looked_at(camera: FoundCamera, picture: Path, clock: Clock, pictures: int = 40) -> FoundCamera:
    """`camera` with what it delivers, and its last picture saved as `picture` (a JPEG).

    Raises:
        OSError: the picture cannot be written. ValueError: the source is none that a camera can have.
    """
    mode = camera.mode or CameraMode("MJPG", 640, 480, 30)
    config = OpenCvConfig(
        source=camera.source, width=mode.width, height=mode.height, fps=mode.fps, fourcc=mode.fourcc
    )
    try:
        seen = measure("camera", config, clock, pictures)
    except DeviceError as error:
        return replace(camera, trouble=error.detail or str(error))
    _save(seen.picture, picture)
    if camera.mode is None:  # a network camera decides itself
        mode = CameraMode("MJPG", *seen.size, max(1, round(seen.fps)))
    return replace(camera, mode=mode, fps=seen.fps, picture=str(picture))


def _save(rgb: ColorImage, target: Path) -> None:
    import cv2

    ok, data = cv2.imencode(".jpg", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))
    if not ok:
        raise OSError(0, "the picture cannot be encoded")
    target.write_bytes(data.tobytes())


def buses(cameras: Sequence[FoundCamera], fourcc: str = "") -> list[PreflightFinding]:
    """What the cameras on each bus take; all in `fourcc`, if it is given."""
    on_bus: dict[str, list[FoundCamera]] = {}
    for camera in cameras:
        if camera.bus is not None and camera.mode is not None:
            on_bus.setdefault(camera.bus.name, []).append(camera)
    return [
        bandwidth([_stream(each, fourcc) for each in together], _bus(together))
        for together in on_bus.values()
    ]


def _stream(camera: FoundCamera, fourcc: str) -> tuple[str, float]:
    mode = camera.mode
    if mode is None:
        return camera.source, 0.0
    mb_s = stream_mb_s(mode.width, mode.height, mode.fps, fourcc or mode.fourcc)
    return f"{Path(camera.device).name} in {fourcc or mode.fourcc}", mb_s


def _bus(together: Sequence[FoundCamera]) -> UsbBus:
    return min((each.bus for each in together if each.bus is not None), key=lambda bus: bus.mbit_s)


def realsense_serials() -> list[str]:
    """RealSense cameras, ``name (serial number)``; none where librealsense is not installed."""
    with suppress(ImportError, RuntimeError):
        import pyrealsense2 as rs

        return [
            f"{device.get_info(rs.camera_info.name)} ({device.get_info(rs.camera_info.serial_number)})"
            for device in rs.context().query_devices()
        ]
    return []
