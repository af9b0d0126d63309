"""Tracking without weights: the object's colours, near where it was last seen.

The object may be carried (it moves and grows), turned (its faces change brightness) and partly covered (by
jaws: it then falls into pieces, which are taken together as long as they lie where it can be). Once it is
covered altogether, the whole picture is searched at half resolution until enough of it shows up again.
Meanwhile what little of it shows near where it was last is still its mask, if nothing else in the picture has
had its colours (`planner.perception.color_sliver`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from planner.perception.color_model import ColorModel, color_bins
from planner.perception.color_sliver import Elsewhere, sliver
from planner.perception.options import ColorTrackerOptions
from runtime.interfaces import PerceptionError
from runtime.messages import ColorImage, Frame, Mask, TrackedMask

Bits = NDArray[np.uint8]
_SURE = 0.5
_MIN_PIECE_PX = 6
_GROWTH = 0.1
"""How fast the expected size follows a larger one (an object that comes nearer)."""
_WELL_SEEN = 0.5
"""Share of its size in view, or confidence, above which what else has its colours is none of it."""
_GLIMPSED = 1.5
"""How far from its last box a sliver of it may be, as a fraction of the box's longer side."""
_MAX_STRETCH = 2.5
"""Times its size above which what was found is something else of that colour as well."""


@dataclass
class _Target:
    """What is known of the object.

    Attributes:
        model: its colours. elsewhere: what else has them. size: in pixels.
        center, extent: where it was, x and y. unseen: frames since it was seen, slivers not counted.
        well_seen: whether most of it was in view in the last frame.
    """

    model: ColorModel
    size: float
    center: NDArray[np.float64]
    extent: NDArray[np.float64]
    elsewhere: Elsewhere
    unseen: int = 0
    well_seen: bool = True


class ColorTracker:
    """Implements `Tracker`; an update takes about a millisecond."""

    def __init__(self, config: ColorTrackerOptions) -> None:
        self._config = config
        self._target: _Target | None = None
        self._shape = (0, 0)

    def init(self, frame: Frame, mask: Mask) -> TrackedMask:
        """See `Tracker.init`."""
        height, width = frame.color.shape[:2]
        if mask.shape != (height, width):
            raise PerceptionError(f"a mask of {mask.shape} does not belong to a frame of {(height, width)}")
        if not mask.any():
            raise PerceptionError("the mask is empty")
        self._shape = (height, width)
        bins = color_bins(frame.color)
        model = ColorModel.learn(bins, mask, _surroundings(mask))
        center, extent, size = _placed(mask)
        self._target = _Target(model, size, center, extent, Elsewhere(model.probability(bins), mask))
        return TrackedMask(frame.camera, frame.stamp_ns, mask, 1.0)

    def update(self, frame: Frame) -> TrackedMask:
        """See `Tracker.update`."""
        target = self._target
        if target is None:
            raise PerceptionError("there is nothing to follow yet: call init first")
        if frame.color.shape[:2] != self._shape:
            raise PerceptionError(f"the frame is {frame.color.shape[:2]}, the first one was {self._shape}")
        mask = np.zeros(self._shape, np.uint8)
        if target.unseen > self._config.lost_frames:
            confidence = self._search(frame.color, target, mask)
        else:
            confidence = self._follow(frame.color, target, mask, self._reach(target))
        target.unseen = 0 if confidence > 0 else target.unseen + 1
        if confidence == 0:
            confidence = self._glimpse(frame.color, target, mask)
        target.well_seen = confidence > _WELL_SEEN
        if target.well_seen:
            target.elsewhere.far(frame.color, target.model, mask)
        return TrackedMask(frame.camera, frame.stamp_ns, mask, confidence)

    def _reach(self, target: _Target) -> float:
        """Pixels around the last box; more for each frame without a sight of it."""
        return self._config.reach * float(target.extent.max()) * (1 + target.unseen)

    def _follow(self, image: ColorImage, target: _Target, mask: Mask, reach: float) -> float:
        """Look around the last place; fills in `mask`."""
        low, high = self._window(target, reach)
        crop = np.ascontiguousarray(image[low[1] : high[1], low[0] : high[0]])
        probability = target.model.probability(color_bins(crop))
        rough = _opened((probability > _SURE).astype(np.uint8))
        most = _WELL_SEEN * target.size
        found = self._pieces(rough, target, low) if target.well_seen else None
        if found is None or found.sum() <= most:  # it may not be the object that is seen
            rough[target.elsewhere.still(low, high)] = 0
            found = self._pieces(rough, target, low)
        if found is None:
            return 0.0
        sure = float(probability[found > 0].mean())
        mask[low[1] : high[1], low[0] : high[0]] = found
        if found.sum() > most:
            target.elsewhere.near(probability, found)
        return self._learn(mask, target, sure)

    def _search(self, image: ColorImage, target: _Target, mask: Mask) -> float:
        """Look everywhere, coarsely, then closely around the best place."""
        import cv2

        small = np.ascontiguousarray(image[::2, ::2])
        rough = _opened((target.model.probability(color_bins(small)) > _SURE).astype(np.uint8))
        rough[target.elsewhere.still_coarsely()] = 0
        count, _, stats, centers = cv2.connectedComponentsWithStats(rough)
        areas = 4.0 * np.asarray(stats[1:count, cv2.CC_STAT_AREA], dtype=np.float64)
        fits = (areas >= self._visible(target)) & (areas <= _MAX_STRETCH * target.size)
        if not fits.any():
            return 0.0
        places = 2.0 * np.asarray(centers[1:count], dtype=np.float64)
        away = np.linalg.norm(places - target.center, axis=1)
        away[~fits] = np.inf
        target.center = places[int(away.argmin())]
        return self._follow(image, target, mask, 0.3 * float(target.extent.max()))

    def _glimpse(self, image: ColorImage, target: _Target, mask: Mask) -> float:
        """Look for what is too little to be sure of by its size; fills in `mask`."""
        least = target.elsewhere.exceeded_px
        if least >= self._visible(target):
            return 0.0
        low, high = self._window(target, _GLIMPSED * float(target.extent.max()))
        crop = np.ascontiguousarray(image[low[1] : high[1], low[0] : high[0]])
        probability = target.model.probability(color_bins(crop))
        probability[target.elsewhere.still(low, high)] = 0
        found = sliver(probability, least, target.center - low, 0.6 * target.extent + 2)
        if found is None or found.sum() > _MAX_STRETCH * target.size:
            return 0.0
        mask[low[1] : high[1], low[0] : high[0]] = found
        return self._learn(mask, target, float(probability[found > 0].mean()))

    def _window(self, target: _Target, reach: float) -> tuple[Any, Any]:
        """The upper left corner of the surroundings of the last place, and the lower right, x and y."""
        height, width = self._shape
        low = np.clip(target.center - target.extent / 2 - reach, 0, (width - 1, height - 1)).astype(int)
        high = np.clip(target.center + target.extent / 2 + reach + 1, low + 1, (width, height)).astype(int)
        return low, high

    def _pieces(self, rough: Bits, target: _Target, low: Any) -> Bits | None:
        """The piece that fits best, and those beside it that lie where the rest of it would be."""
        import cv2

        count, labels, stats, centers = cv2.connectedComponentsWithStats(rough)
        keep = [i for i in range(1, count) if stats[i, cv2.CC_STAT_AREA] >= _MIN_PIECE_PX]
        if not keep:
            return None
        expected = target.center - low
        scale = float(target.extent.max())

        def merit(i: int) -> float:
            share = min(1.0, float(stats[i, cv2.CC_STAT_AREA]) / target.size)
            return share - 0.5 * float(np.linalg.norm(centers[i] - expected)) / scale

        best = max(keep, key=merit)
        reach = 0.6 * target.extent + 2
        middle = centers[best] if stats[best, cv2.CC_STAT_AREA] > target.size / 2 else expected
        wanted = [i for i in keep if i == best or (np.abs(centers[i] - middle) <= reach).all()]
        found: Bits = np.isin(labels, wanted).astype(np.uint8)
        size = float(found.sum())
        if size > _MAX_STRETCH * target.size:
            found = np.equal(labels, best).astype(np.uint8)
            size = float(found.sum())
        return found if self._visible(target) <= size <= _MAX_STRETCH * target.size else None

    def _visible(self, target: _Target) -> float:
        return max(_MIN_PIECE_PX, self._config.min_visible * target.size)

    def _learn(self, mask: Mask, target: _Target, sure: float) -> float:
        """Move the target to where the mask is; returns the confidence."""
        center, extent, size = _placed(mask)
        share = size / target.size
        if share > 0.7:
            target.center, target.extent = center, extent
            target.size += _GROWTH * max(0.0, size - target.size)
        else:
            # a part is seen: it drags the whole along only as far as it sticks out of it
            room = np.maximum(target.extent - extent, 0) / 2
            target.center = np.clip(target.center, center - room, center + room)
        return min(1.0, share) * sure


def _opened(mask: Bits) -> Bits:
    """Without what is thinner than two pixels.

    OpenCV's own opening has one anchor for both steps: with an even kernel all of it moves by a pixel.
    """
    import cv2

    kernel = np.ones((2, 2), np.uint8)
    left = cv2.erode(mask, kernel, anchor=(0, 0))
    return np.asarray(cv2.dilate(left, kernel, anchor=(1, 1)), dtype=np.uint8)


def _placed(mask: Mask) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
    """Centre of the bounding box, its extent (both x, y), and the number of pixels."""
    import cv2

    x, y, w, h = cv2.boundingRect(mask)
    return np.array([x + w / 2, y + h / 2]), np.array([w, h], dtype=np.float64), float(np.count_nonzero(mask))


def _surroundings(mask: Mask) -> Bits:
    """A coarse sample of all that is not the object, dense around it."""
    import cv2

    near = np.asarray(cv2.dilate(mask, np.ones((31, 31), np.uint8)), dtype=np.uint8)
    near[::4, ::4] = 1
    rim = np.asarray(cv2.dilate(mask, np.ones((5, 5), np.uint8)))
    found: Bits = ((near > 0) & (rim == 0)).astype(np.uint8)
    return found
