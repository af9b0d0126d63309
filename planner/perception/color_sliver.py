"""What is left to be seen of an object that is nearly covered, by its colours.

A few pixels are no evidence by their number. They are by their colours, if nothing else has these: what of
them there is elsewhere in the picture is measured as long as the object is well in view, and only a larger
piece is taken for it. With another object of its colour on the table that is none.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from planner.perception.color_model import ColorModel, Probability, color_bins
from runtime.messages import ColorImage, Mask

Bits = NDArray[np.uint8]
_SURE = 0.5
_ALIKE = 0.25
"""Probability of a pixel in which the object's colour and its neighbour's may be mixed."""
_LEAST_PX = 2
_TIMES = 3
"""As many times the largest piece of its colours elsewhere is more than chance."""
_EDGE_PX = 7
"""Around the object, of which pictures that were compressed have its colours."""
_EVERY = 5
"""One frame in so many is looked at as a whole, at half resolution."""
_NEW, _STILL = 0.1, 0.5
"""How much a look counts against those before, and how much of them makes something that lies still: the arm
passes, and covers what it passes over for a while."""


class Elsewhere:
    """What there is of the object's colours where it is not, seen while the object itself is in view.

    Args:
        probability: of each pixel of the first picture, ``[H, W]``.
        mask: the object in it, ``[H, W]``.
    """

    def __init__(self, probability: Probability, mask: Mask) -> None:
        alike, self._largest_px = _alike(probability, mask)
        self._heat: Probability = _grown(alike[::2, ::2]).astype(np.float32)
        self._frames = 0

    def near(self, probability: Probability, mask: Mask) -> None:
        """Take in the surroundings of an object that is well in view."""
        self._largest_px = max(self._largest_px, _alike(probability, mask)[1])

    def far(self, image: ColorImage, model: ColorModel, mask: Mask) -> None:
        """Take in a frame in which the object is well in view; of one in a few, every fourth pixel."""
        self._frames += 1
        if self._frames % _EVERY == 0:
            bins = color_bins(np.ascontiguousarray(image[::2, ::2]))
            alike, largest = _alike(model.probability(bins), mask[::2, ::2])
            self._largest_px = max(self._largest_px, 4 * largest)
            self._heat += _NEW * (_grown(alike) - self._heat)

    def still(self, low: Any, high: Any) -> NDArray[np.bool_]:
        """Where something else of these colours lies still, in the window from `low` to `high`, x and y."""
        rows, columns = (np.arange(low[i], high[i]) // 2 for i in (1, 0))
        return np.asarray(self._heat[np.ix_(rows, columns)] > _STILL)

    def still_coarsely(self) -> NDArray[np.bool_]:
        """The same of every second row and column of the whole picture."""
        return np.asarray(self._heat > _STILL)

    @property
    def exceeded_px(self) -> float:
        """So many connected pixels are more than there are elsewhere."""
        return max(_LEAST_PX, _TIMES * self._largest_px)


def sliver(probability: Probability, least_px: float, expected: Any, reach: Any) -> Bits | None:
    """What is seen of the object, ``[H, W]``; ``None`` if there is none of it.

    Args:
        probability: of each pixel.
        least_px: of the piece that counts.
        expected: where the object is thought to be, x and y; of several pieces the nearest one is its own.
        reach: how far from there, in x and y, others are its own as well.
    """
    import cv2

    alike = (probability > _ALIKE).astype(np.uint8)
    count, labels, stats, centers = cv2.connectedComponentsWithStats(alike)
    sure = np.bincount(labels[probability > _SURE], minlength=count) > 0
    pieces = [i for i in range(1, count) if sure[i] and stats[i, cv2.CC_STAT_AREA] >= least_px]
    if not pieces:
        return None
    away = np.abs(centers - expected)
    nearest = min(pieces, key=lambda i: float(np.linalg.norm(away[i])))
    wanted = [i for i in pieces if i == nearest or (away[i] <= reach).all()]
    return np.isin(labels, wanted).astype(np.uint8)


def _alike(probability: Probability, mask: Mask) -> tuple[Bits, float]:
    """What has the object's colours and is not at its mask, 0 or 1, and the pixels of its largest piece."""
    import cv2

    near = np.asarray(cv2.dilate(mask, np.ones((2 * _EDGE_PX + 1,) * 2, np.uint8)))
    alike = ((probability > _ALIKE) & (near == 0)).astype(np.uint8)
    _, _, stats, _ = cv2.connectedComponentsWithStats(alike)
    return alike, float(stats[1:, cv2.CC_STAT_AREA].max(initial=0))


def _grown(alike: Bits) -> Bits:
    import cv2

    return np.asarray(cv2.dilate(alike, np.ones((3, 3), np.uint8)), dtype=np.uint8)
