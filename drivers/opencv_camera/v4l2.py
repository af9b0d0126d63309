"""What a UVC camera offers: its formats, sizes and rates, as the kernel's V4L2 interface lists them.

Source: ``linux/videodev2.h`` (v4l2_capability, v4l2_fmtdesc, v4l2_frmsizeenum, v4l2_frmivalenum).
"""

from __future__ import annotations

import fcntl
import os
import struct
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass

_QUERYCAP, _ENUM_FMT, _ENUM_SIZES, _ENUM_INTERVALS = 0x80685600, 0xC0405602, 0xC02C564A, 0xC034564B
_CAPTURE, _DISCRETE, _MOST = 1, 1, 200
_WANTED = ("MJPG", "YUYV")
"""What the driver can read."""
_SIZES, _RATES = ((320, 240), (640, 480), (1280, 720), (1920, 1080)), (5, 10, 15, 20, 25, 30, 60)
"""Of a camera that takes any within bounds, these are offered, and its most."""

Ioctl = Callable[[int, int, bytearray], object]


@dataclass(frozen=True, slots=True)
class CameraMode:
    """One way of a camera to stream: pixel format, size in pixels, pictures a second."""

    fourcc: str
    width: int
    height: int
    fps: int

    def __str__(self) -> str:
        return f"{self.width}x{self.height} {self.fourcc} at {self.fps} fps"


def offers(path: str, ioctl: Ioctl = fcntl.ioctl) -> tuple[str, tuple[CameraMode, ...]]:
    """The camera's name and its modes at `path`; no modes, if it is no camera or offers nothing readable.

    Raises:
        OSError: it cannot be opened.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK)
    try:
        about = bytearray(104)
        try:
            ioctl(descriptor, _QUERYCAP, about)
        except OSError:
            return "", ()
        (capabilities,) = struct.unpack_from("<I", about, 88)
        name = bytes(about[16:48]).split(b"\0")[0].decode(errors="replace")
        return name, tuple(_modes(descriptor, ioctl)) if capabilities & _CAPTURE else ()
    finally:
        os.close(descriptor)


def _modes(descriptor: int, ioctl: Ioctl) -> Iterator[CameraMode]:
    for entry in _listed(descriptor, ioctl, _ENUM_FMT, lambda i: struct.pack("<II56x", i, _CAPTURE)):
        code = entry[44:48]
        fourcc = bytes(code).decode("latin-1")
        if fourcc not in _WANTED:
            continue
        for size in _listed(descriptor, ioctl, _ENUM_SIZES, _asking("<I4s36x", bytes(code))):
            for width, height in _sizes(*struct.unpack_from("<7I", size, 8)):
                asking = _asking("<I4sII36x", bytes(code), width, height)
                for interval in _listed(descriptor, ioctl, _ENUM_INTERVALS, asking):
                    for fps in _rates(*struct.unpack_from("<5I", interval, 16)):
                        yield CameraMode(fourcc, width, height, fps)


def _sizes(
    kind: int, low: int, high: int, step: int, lowest: int, highest: int, step_down: int
) -> Iterator[tuple[int, int]]:
    """Those of a v4l2_frmsizeenum: one; or any of `low` to `high` by `lowest` to `highest` pixels."""
    if kind == _DISCRETE:
        yield low, high
        return
    widths, heights = range(low, high + 1, step or 1), range(lowest, highest + 1, step_down or 1)
    fitting = (size for size in _SIZES if size[0] in widths and size[1] in heights)
    yield from dict.fromkeys((*fitting, (high, highest)))


def _rates(kind: int, over: int, under: int, most_over: int, most_under: int) -> Iterator[int]:
    """Those of a v4l2_frmivalenum: one, of an interval; or any from the shortest interval to the longest."""
    if not over:
        return
    if kind != _DISCRETE and most_under:
        yield from (fps for fps in _RATES if most_under <= fps * most_over and fps * over < under)
    yield round(under / over)


def _asking(layout: str, *values: object) -> Callable[[int], bytes]:
    return lambda index: struct.pack(layout, index, *values)


def _listed(
    descriptor: int, ioctl: Ioctl, request: int, asking: Callable[[int], bytes]
) -> Iterator[bytearray]:
    """The entries of a list that the driver gives one by one, until it says that there are no more."""
    with suppress(OSError):
        for index in range(_MOST):
            entry = bytearray(asking(index))
            ioctl(descriptor, request, entry)
            yield entry


def best_of(
    modes: tuple[CameraMode, ...], width: int = 640, height: int = 480, fps: int = 30
) -> CameraMode | None:
    """The mode nearest to what is asked for; of two alike the one in MJPG, which takes a tenth of the bus."""

    def distance(mode: CameraMode) -> tuple[float, int, int]:
        size = abs(mode.width - width) + abs(mode.height - height)
        return size, abs(mode.fps - fps), _WANTED.index(mode.fourcc)

    return min(modes, key=distance, default=None)
