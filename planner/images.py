"""Pictures on their way to a model."""

from __future__ import annotations

import base64
from dataclasses import dataclass

import numpy as np

from runtime.messages import ColorImage


@dataclass(frozen=True, slots=True)
class Picture:
    """A JPEG and its size in pixels, which may be smaller than the frame it was made from."""

    jpeg: bytes
    width: int
    height: int

    def data_url(self) -> str:
        """``data:image/jpeg;base64,...``."""
        return "data:image/jpeg;base64," + base64.b64encode(self.jpeg).decode("ascii")


def encode(image: ColorImage, quality: int, max_px: int) -> Picture:
    """Compress an RGB uint8 ``[H, W, 3]`` frame, scaled down so that neither side exceeds `max_px`.

    Raises:
        ValueError: it is not such a frame.
    """
    import cv2

    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise ValueError(f"an RGB uint8 [H, W, 3] picture was expected, not {image.dtype} {image.shape}")
    height, width = image.shape[:2]
    if (scale := max_px / max(height, width)) < 1:
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA).astype(np.uint8)
        height, width = image.shape[:2]
    done, data = cv2.imencode(
        ".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality]
    )
    if not done:
        raise ValueError("the picture could not be compressed")
    return Picture(data.tobytes(), width, height)
