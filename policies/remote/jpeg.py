"""JPEG frames, for links where both ends have said that they take them."""

from __future__ import annotations

from typing import Any

import numpy as np

from policies.encoding.limits import WireError
from runtime.jpeg_size import jpeg_size
from runtime.messages import ColorImage

KEY = "__jpeg__"
MAX_PIXELS = 4096 * 4096


def encode(image: ColorImage, quality: int) -> bytes:
    """An image ``[H, W, 3]`` as JPEG; the channel order survives `decode`."""
    import cv2

    done, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not done:
        raise WireError(f"an image of shape {list(image.shape)} cannot be compressed", "shape")
    return bytes(data)


def size_of(data: bytes | memoryview) -> tuple[int, int]:
    """Height and width from the headers, before anything is allocated for the pixels.

    Raises:
        WireError: not a JPEG.
    """
    try:
        return jpeg_size(data)
    except ValueError as error:
        raise WireError(f"an image: {error}") from None


def decode(data: Any) -> ColorImage:
    """The image ``[H, W, 3]`` of `encode`.

    Raises:
        WireError: not a JPEG, or too large.
    """
    import cv2

    as_it_is = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    if not isinstance(data, bytes | memoryview):
        raise WireError("a JPEG is not bytes")
    height, width = size_of(data)
    if height * width > MAX_PIXELS:
        raise WireError(f"a JPEG of {width}x{height} pixels; at most {MAX_PIXELS} are taken", "too_large")
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), as_it_is)
    except cv2.error:
        raise WireError("a JPEG cannot be decoded") from None
    if image is None or image.shape != (height, width, 3):
        raise WireError("a JPEG cannot be decoded")
    return np.asarray(image, np.uint8)
