"""How likely a colour belongs to an object, learnt from the object's pixels and those around it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from runtime.messages import ColorImage

_HUES, _SATURATIONS, _VALUES = 30, 8, 4
_BINS = _HUES * _SATURATIONS * _VALUES
_COLORFUL = 96
_UNSEEN = 2e-3
"""Share of pixels below which a colour counts as unseen."""

Indices = NDArray[np.uint16]
Probability = NDArray[np.float32]
Bits = NDArray[np.uint8]


def color_bins(image: ColorImage) -> Indices:
    """The bin of each pixel's hue and saturation and, where it has little colour, its brightness, ``[H, W]``.

    The faces of a coloured object differ in nothing but brightness, and change it as the object turns.
    """
    import cv2

    hsv = np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2HSV), dtype=np.uint8)
    bins: Indices = _HUE_BIN[hsv[..., 0]]
    bins += _SATURATION_BIN[hsv[..., 1]]
    bins += np.where(hsv[..., 1] < _COLORFUL, hsv[..., 2] >> 6, 0)
    return bins


_HUE_BIN = (np.minimum(np.arange(256) // 6, _HUES - 1) * _SATURATIONS * _VALUES).astype(np.uint16)
_SATURATION_BIN = ((np.arange(256) >> 5) * _VALUES).astype(np.uint16)


@dataclass(frozen=True)
class ColorModel:
    """``table[bin]`` is the probability that a pixel of that colour is the object's."""

    table: Probability

    @classmethod
    def learn(cls, bins: Indices, inside: Bits, outside: Bits) -> ColorModel:
        """From the bins of an image and the pixels known to be in and out of the object (both ``[H, W]``)."""
        ours = _histogram(bins[inside > 0])
        theirs = _histogram(bins[outside > 0])
        return cls((ours / (ours + theirs + _UNSEEN)).astype(np.float32))

    def probability(self, bins: Indices) -> Probability:
        """Of each pixel."""
        return self.table[bins]


def _histogram(bins: Indices) -> NDArray[np.float64]:
    """Smoothed shares: colours change a little as an object turns under its light."""
    counts = np.bincount(bins, minlength=_BINS).astype(np.float64)
    cube = counts.reshape(_HUES, _SATURATIONS, _VALUES) / max(1, bins.size)
    around = 0.25 * (np.roll(cube, 1, axis=0) + np.roll(cube, -1, axis=0))
    cube = 0.5 * cube + around
    for axis in (1, 2):
        cube = _smooth(cube, axis)
    return cube.ravel()


def _smooth(cube: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
    moved = np.moveaxis(cube, axis, 0)
    result = 0.5 * moved
    result[1:] += 0.25 * moved[:-1]
    result[:-1] += 0.25 * moved[1:]
    return np.moveaxis(result, 0, axis)
