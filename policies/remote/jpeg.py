"""JPEG frames, for links where both ends have said that they take them."""

from __future__ import annotations

from typing import Any

import numpy as np

from policies.encoding.limits import WireError
from runtime.messages import ColorImage

KEY = "__jpeg__"
MAX_PIXELS = 4096 * 4096
_WITHOUT_LENGTH = (0x01, *range(0xD0, 0xD8))
"""TEM and the restart markers."""


def encode(image: ColorImage, quality: int) -> bytes:
    """An image ``[H, W, 3]`` as JPEG; the channel order survives `decode`."""
    import cv2

    done, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not done:
        raise WireError(f"an image of shape {list(image.shape)} cannot be compressed", "shape")
    return bytes(data)


def size_of(data: bytes | memoryview) -> tuple[int, int]:
    """Height and width from the headers, before anything is allocated for the pixels.

    Markers are followed as decoders do: any number of 0xFF may stand before one, and some have no length.

    Raises:
        WireError: not a JPEG.
    """
    view = memoryview(data)
    at = 2
    if len(view) < 4 or bytes(view[:2]) != b"\xff\xd8":
        raise WireError("an image is not a JPEG")
    while at + 9 <= len(view) and view[at] == 0xFF:
        marker = view[at + 1]
        if marker == 0xFF or marker in _WITHOUT_LENGTH:
            at += 1 if marker == 0xFF else 2
            continue
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            return int.from_bytes(view[at + 5 : at + 7], "big"), int.from_bytes(view[at + 7 : at + 9], "big")
        at += 2 + int.from_bytes(view[at + 2 : at + 4], "big")
    raise WireError("a JPEG without a frame header")


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
