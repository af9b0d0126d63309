"""What cameras take of a USB bus, and on which they are."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path

STEP_MBIT_S = 1024 * 8 * 8000 / 1e6
"""A camera reserves one, two or three packets of 1024 bytes in each of 8000 microframes a second."""
PERIODIC = 0.8
"""Of a USB 2 bus, for what is reserved."""
_BYTES_PER_PIXEL = {"MJPG": 0.2, "NV12": 1.5, "YU12": 1.5}
"""MJPG's as measured of ordinary scenes; what is not here has two, as YUYV has."""


@dataclass(frozen=True, slots=True)
class UsbBus:
    """One bus of the machine: its name (``usb1``) and the speed of the camera on it in Mbit/s."""

    name: str
    mbit_s: float

    @property
    def room_mbit_s(self) -> float:
        """What may be reserved."""
        return PERIODIC * self.mbit_s


def stream_mb_s(width: int, height: int, fps: float, fourcc: str) -> float:
    """What a stream takes, in megabytes a second: 640x480 in YUYV at 30 fps are 18.4."""
    return width * height * fps * _BYTES_PER_PIXEL.get(fourcc, 2.0) / 1e6


def reserved_mbit_s(mb_s: float) -> float:
    """What a USB 2 camera reserves for so many megabytes a second, in Mbit/s: whole steps."""
    return max(1, math.ceil(mb_s * 8 / STEP_MBIT_S)) * STEP_MBIT_S


def bus_of(source: int | str, root: Path = Path("/")) -> UsbBus | None:
    """The bus of the camera at `source` (an index or a path); ``None`` if it is on none."""
    device = f"dev/video{source}" if isinstance(source, int) else source.lstrip("/")
    name = Path(os.path.realpath(root / device)).name
    place = Path(os.path.realpath(root / "sys/class/video4linux" / name / "device"))
    speed = bus = ""
    for folder in (place, *place.parents):
        if not speed and (folder / "speed").is_file() and not folder.name.startswith("usb"):
            speed = (folder / "speed").read_text().strip()
        if folder.name.startswith("usb") and folder.name[3:].isdigit():
            bus = folder.name
            break
    try:
        return UsbBus(bus, float(speed)) if bus and speed else None
    except ValueError:
        return None
