"""Segmentation without weights: colour against surroundings, then GrabCut."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from planner.perception.color_model import ColorModel, color_bins
from planner.perception.options import ColorSegmenterOptions
from runtime.interfaces import Box, PerceptionError
from runtime.messages import ColorImage, Mask

Bits = NDArray[np.uint8]
_MARGIN_PX = 3
_MARGIN = 0.2
"""How far beyond its box an object may reach: pixels, and besides a fraction of the box's shorter side."""
_CORE = 0.5
"""Middle part of the box, in each direction, that is taken to be the object."""
_SURE = 0.5


class ColorSegmenter:
    """Implements `Segmenter`. Stateless; some tens of milliseconds at worst, on a crop."""

    def __init__(self, config: ColorSegmenterOptions) -> None:
        self._config = config

    def segment(self, image: ColorImage, box: Box) -> Mask:
        """See `Segmenter.segment`."""
        height, width = image.shape[:2]
        x1, y1, x2, y2 = _whole(box, width, height)
        ring = _margin((x1, y1, x2, y2)) + max(3, round(self._config.ring * max(x2 - x1, y2 - y1)))
        left, top = max(0, x1 - ring), max(0, y1 - ring)
        crop = np.ascontiguousarray(image[top : y2 + ring, left : x2 + ring])
        inner = (x1 - left, y1 - top, x2 - left, y2 - top)
        found = self._by_color(crop, inner)
        if found is None and self._config.grabcut_iterations > 0:
            found = self._by_grabcut(crop, inner)
        if found is None:
            raise PerceptionError(f"nothing in the box {_shown(box)} stands out from what surrounds it")
        mask = np.zeros((height, width), np.uint8)
        mask[top : top + crop.shape[0], left : left + crop.shape[1]] = found
        return mask

    def _by_color(self, crop: ColorImage, inner: tuple[int, int, int, int]) -> Bits | None:
        bins = color_bins(crop)
        core, outside = _core(crop, inner), np.ones(crop.shape[:2], np.uint8)
        x1, y1, x2, y2 = inner
        margin = _margin(inner)
        outside[max(0, y1 - margin) : y2 + margin, max(0, x1 - margin) : x2 + margin] = 0
        found: Bits | None = core
        for _ in range(2):  # the second time from all that the first one found
            if found is None or not outside.any():
                return None
            model = ColorModel.learn(bins, found, outside)
            found = self._accepted((model.probability(bins) > _SURE).astype(np.uint8), inner)
        return found

    def _by_grabcut(self, crop: ColorImage, inner: tuple[int, int, int, int]) -> Bits | None:
        import cv2

        x1, y1, x2, y2 = inner
        trimap = np.full(crop.shape[:2], cv2.GC_BGD, np.uint8)
        trimap[y1:y2, x1:x2] = cv2.GC_PR_FGD
        if np.all(trimap != cv2.GC_BGD):
            return None
        models = np.zeros((1, 65)), np.zeros((1, 65))
        cv2.setRNGSeed(0)
        try:
            rounds = self._config.grabcut_iterations
            cv2.grabCut(crop, trimap, (0, 0, 1, 1), *models, rounds, cv2.GC_INIT_WITH_MASK)
        except cv2.error:  # too few different pixels for its mixtures
            return None
        sure = (trimap == cv2.GC_FGD) | (trimap == cv2.GC_PR_FGD)
        return self._accepted(sure.astype(np.uint8), inner)

    def _accepted(self, rough: Bits, inner: tuple[int, int, int, int]) -> Bits | None:
        """The connected part that covers most of the box's middle, smoothed; ``None`` if implausible."""
        import cv2

        x1, y1, x2, y2 = inner
        margin = _margin(inner)
        allowed = np.zeros_like(rough)
        allowed[max(0, y1 - margin) : y2 + margin, max(0, x1 - margin) : x2 + margin] = 1
        rough = np.asarray(cv2.morphologyEx(rough & allowed, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8)))
        _, labels = cv2.connectedComponents(rough)
        votes = np.bincount(labels[_core(rough, inner) > 0].ravel())
        if votes.size < 2 or votes[1:].max() == 0:
            return None
        part = (labels == 1 + int(votes[1:].argmax())).astype(np.uint8)
        outlines, _ = cv2.findContours(part, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(part, outlines, -1, 1, cv2.FILLED)
        fill = int(part.sum()) / ((x2 - x1) * (y2 - y1))
        return part if fill >= self._config.min_fill else None


def _core(image: NDArray[np.uint8], inner: tuple[int, int, int, int]) -> Bits:
    """1 in the middle of the box."""
    x1, y1, x2, y2 = inner
    core = np.zeros(image.shape[:2], np.uint8)
    dx, dy = int((x2 - x1) * (1 - _CORE) / 2), int((y2 - y1) * (1 - _CORE) / 2)
    core[y1 + dy : max(y2 - dy, y1 + dy + 1), x1 + dx : max(x2 - dx, x1 + dx + 1)] = 1
    return core


def _margin(inner: tuple[int, int, int, int]) -> int:
    x1, y1, x2, y2 = inner
    return _MARGIN_PX + round(_MARGIN * min(x2 - x1, y2 - y1))


def _whole(box: Box, width: int, height: int) -> tuple[int, int, int, int]:
    x1, y1, x2, y2 = box
    corners = int(np.floor(x1)), int(np.floor(y1)), int(np.ceil(x2)), int(np.ceil(y2))
    if not (0 <= corners[0] < corners[2] <= width and 0 <= corners[1] < corners[3] <= height):
        raise PerceptionError(f"the box {_shown(box)} is not inside the picture of {width} by {height}")
    return corners


def _shown(box: Box) -> str:
    return "[" + ", ".join(f"{each:g}" for each in box) + "]"
