"""Encoded pictures of recordings: how large they say they are, before they are decoded."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.jpeg_size import jpeg_size
from runtime.recording.bounds import PIXELS

_PNG = b"\x89PNG\r\n\x1a\n"


def picture_size(data: bytes | memoryview) -> tuple[int, int]:
    """Height and width of a JPEG or PNG by its header.

    Raises:
        ValueError: it is neither, or is larger than any camera's picture.
    """
    view = memoryview(data)
    try:
        size = _png_size(view) if view[:8] == _PNG else jpeg_size(view)
    except struct.error:
        raise ValueError("a PNG ends before its size is said") from None
    if not 0 < size[0] * size[1] <= PIXELS:
        raise ValueError(f"a picture says that it is {size[1]}x{size[0]}")
    return size


def _png_size(data: memoryview) -> tuple[int, int]:
    width, height = struct.unpack_from(">II", data, 16)
    return height, width


def unfolded(data: bytes | memoryview, kind: int) -> NDArray[Any]:
    """What OpenCV's ``imdecode`` of that `kind` gives of a JPEG or PNG.

    Raises:
        ValueError: it is neither, is larger than any camera's picture, or is damaged.
    """
    import cv2

    picture_size(data)
    try:
        image: Any = cv2.imdecode(np.frombuffer(data, np.uint8), kind)
    except cv2.error as error:
        raise ValueError(f"it cannot be decoded: {error.err}") from None
    if image is None:
        raise ValueError("it cannot be decoded")
    return np.asarray(image)


def decoded(data: bytes | memoryview, size: tuple[int, int], *, color: bool) -> NDArray[np.uint8]:
    """RGB ``[H, W, 3]`` or grey ``[H, W]`` of a picture that must be of this `size`.

    Raises:
        ValueError: it cannot be decoded, or is of another size.
    """
    import cv2

    if (there := picture_size(data)) != size:
        raise ValueError(f"it is {there[1]}x{there[0]}, the first one {size[1]}x{size[0]}")
    kind = cv2.IMREAD_COLOR if color else cv2.IMREAD_GRAYSCALE
    image = unfolded(data, kind | cv2.IMREAD_IGNORE_ORIENTATION)
    if image.shape[:2] != size:
        raise ValueError("it cannot be decoded")
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB) if color else image, np.uint8)
