"""What a camera really delivers: a picture, its size, and how many come in a second."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from drivers.opencv_camera.capture import connect, library, to_rgb
from drivers.opencv_camera.options import OpenCvOptions
from runtime.clock import NS_PER_S, Clock
from runtime.messages import ColorImage, DeviceError, FaultKind

SETTLE = 5
"""The first pictures come late, or in a burst; a camera's exposure has settled after these."""
PATIENCE_S = 2.0
"""A network camera that pauses for less is slow, which the rate says."""


@dataclass(frozen=True, slots=True)
class MeasuredStream:
    """The last picture, RGB uint8 ``[H, W, 3]``, and the rate in pictures a second."""

    picture: ColorImage
    fps: float

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return self.picture.shape[1], self.picture.shape[0]


def measure(name: str, config: OpenCvOptions, clock: Clock, pictures: int = 40) -> MeasuredStream:
    """Open the camera of `config`, take so many pictures, and let go of it.

    A network camera may give another size than `config` says.

    Raises:
        DeviceError: ``not_found``, ``not_granted``; ``timeout``: too few pictures come.
    """
    cv2 = library()
    capture = connect(cv2, name, config, PATIENCE_S)
    into: ColorImage = np.zeros((config.height, config.width, 3), np.uint8)
    first_ns = last_ns = 0
    try:
        for number in range(SETTLE + pictures):
            ok, data = capture.read()
            size = to_rgb(cv2, data, into) if ok else None
            if size is None:
                detail = f"{number} pictures came, then none that is whole"
                raise DeviceError(name, FaultKind.TIMEOUT, str(config.source), detail)
            if size != (into.shape[1], into.shape[0]):
                into = np.zeros((size[1], size[0], 3), np.uint8)
                to_rgb(cv2, data, into)
            last_ns = clock.now_ns()
            if number == SETTLE:
                first_ns = last_ns
    finally:
        capture.release()
    return MeasuredStream(into, (pictures - 1) * NS_PER_S / max(1, last_ns - first_ns))
