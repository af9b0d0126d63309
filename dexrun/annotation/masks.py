"""From a tracked mask to what is kept of it, and back."""

from __future__ import annotations

from typing import Any

import numpy as np

from runtime.messages import Mask
from runtime.recording.annotations import FrameMask
from runtime.recording.config import RecorderOptions
from runtime.recording.pictures import unfolded
from runtime.recording.tracks import encode_color

_OPTIONS = RecorderOptions()


def kept(frame: int, mask: Mask, confidence: float, anchor: int) -> FrameMask:
    """What is kept of a frame's mask ``[H, W]``, 1 on the object."""
    png = bytes(encode_color(mask * np.uint8(255), _OPTIONS))
    box, point = _placed(mask)
    return FrameMask(frame, png, confidence if box else 0.0, anchor, box, point)


def unpacked(png: bytes) -> Mask:
    """The mask ``[H, W]`` again.

    Raises:
        ValueError: it is no mask.
    """
    import cv2

    return (unfolded(png, cv2.IMREAD_GRAYSCALE) > 127).astype(np.uint8)


def _placed(mask: Mask) -> tuple[tuple[float, ...] | None, tuple[float, ...] | None]:
    """Its bounding box, the far corner exclusive, and its middle, in pixels."""
    import cv2

    x, y, width, height = cv2.boundingRect(mask)
    if not width:
        return None, None
    part: Any = mask[y : y + height, x : x + width]
    rows, columns = np.nonzero(part)
    box = (float(x), float(y), float(x + width), float(y + height))
    return box, (x + float(columns.mean()), y + float(rows.mean()))
