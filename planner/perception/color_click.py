"""What a click on an object, or beside it, says where there is nothing but colour to go by."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from runtime.interfaces import Point
from runtime.messages import ColorImage

Bits = NDArray[np.uint8]
_RADIUS_PX = 2
"""A click means so many pixels around it, too."""
_TOLERANCES = (28, 20, 14, 10, 7, 5, 3)
"""How far (of 255, per Lab channel) a pixel may be from the clicked one: the widest that does not leak."""
_LEAKED = 0.25
"""Share of the picture that no object on a table fills."""


def discs(shape: tuple[int, ...], points: Sequence[Point]) -> Bits:
    """1 around every point, ``[H, W]``."""
    import cv2

    drawn = np.zeros(shape[:2], np.uint8)
    for point in points:
        cv2.circle(drawn, (int(point.x), int(point.y)), _RADIUS_PX, 1, cv2.FILLED)
    return drawn


def grown(image: ColorImage, points: Sequence[Point], outside: Bits) -> Bits | None:
    """What is connected to any of `points`, and of its colour; ``None`` if for one nothing stands out.

    What grows into `outside`, over a quarter of the picture, or from one of its sides to the other, is the
    table and no object.
    """
    import cv2

    lab = np.asarray(cv2.cvtColor(cv2.medianBlur(image, 3), cv2.COLOR_RGB2LAB), dtype=np.uint8)
    found = np.zeros(image.shape[:2], np.uint8)
    for point in points:
        one = _grown(lab, point, outside)
        if one is None:
            return None
        found |= one
    return found


def _grown(lab: ColorImage, point: Point, outside: Bits) -> Bits | None:
    import cv2

    height, width = lab.shape[:2]
    for tolerance in _TOLERANCES:
        flood = np.zeros((height + 2, width + 2), np.uint8)
        near = (2 * tolerance, tolerance, tolerance)  # a face in the shade differs in lightness alone
        flags = 4 | cv2.FLOODFILL_MASK_ONLY | cv2.FLOODFILL_FIXED_RANGE | (1 << 8)
        cv2.floodFill(lab, flood, (int(point.x), int(point.y)), 0, near, near, flags)
        found: Bits = flood[1:-1, 1:-1]
        if not _leaks(found, outside):
            return found
    return None


def _leaks(found: Bits, outside: Bits) -> bool:
    across = (found[:, 0].any() and found[:, -1].any()) or (found[0].any() and found[-1].any())
    return bool(across or (found & outside).any() or found.mean() > _LEAKED)


def parted(image: ColorImage, found: Bits, inside: Bits, outside: Bits) -> Bits:
    """What of `found` belongs to `inside` rather than to `outside`: parted at the edges in the picture."""
    import cv2

    markers = np.zeros(found.shape, np.int32)
    markers[found == 0] = 3
    markers[inside > 0] = 1
    markers[outside > 0] = 2
    shown = image.copy()
    shown[found == 0] = 255 - shown[found == 0]  # so that nothing comes in from there
    cv2.watershed(shown, markers)
    ours = (markers == 1).astype(np.uint8)
    rim = np.asarray(cv2.dilate(ours, np.ones((3, 3), np.uint8)), dtype=np.uint8)
    kept: Bits = (((ours > 0) | ((rim > 0) & (markers == -1))) & (found > 0) & (outside == 0)).astype(
        np.uint8
    )
    return kept
