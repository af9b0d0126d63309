"""Where a mask's pixels are, and its shape a little smaller or larger."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from runtime.messages import Mask


def eroded(mask: Mask | NDArray[np.bool_], pixels: int) -> NDArray[np.bool_]:
    """`mask` without its outermost `pixels`, by four-neighbourhood."""
    inside = mask.astype(bool)
    for _ in range(pixels):
        padded = np.pad(inside, 1)
        inside = inside & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return inside


def dilated(mask: Mask, pixels: int) -> NDArray[np.bool_]:
    """`mask` grown by `pixels`, by four-neighbourhood."""
    inside = mask.astype(bool)
    for _ in range(pixels):
        padded = np.pad(inside, 1)
        inside = inside | padded[:-2, 1:-1] | padded[2:, 1:-1] | padded[1:-1, :-2] | padded[1:-1, 2:]
    return inside


def around(mask: Mask, pixels: int) -> tuple[slice, slice]:
    """The part of the image within `pixels` of the bounding box of `mask`, which is not empty."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    top, left = max(0, int(rows[0]) - pixels), max(0, int(columns[0]) - pixels)
    return slice(top, int(rows[-1]) + pixels + 1), slice(left, int(columns[-1]) + pixels + 1)
