"""Binary STL files: an arm's meshes, to simplify them or to cut them into convex pieces."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from runtime.messages import Floats

_HEADER = 84
_RECORD = 50
_NORMAL = 12
_POINTS = 48
_STRIDE = 1 << 20


def read_triangles(path: Path) -> NDArray[np.float32]:
    """Corner points ``[N, 3, 3]`` of a binary STL file.

    Raises:
        ValueError: it is none.
    """
    raw = np.frombuffer(path.read_bytes(), np.uint8)
    if len(raw) < _HEADER or (len(raw) - _HEADER) % _RECORD:
        raise ValueError(f"{path} is no binary STL file")
    records = raw[_HEADER:].reshape(-1, _RECORD)
    return records[:, _NORMAL:_POINTS].copy().view("<f4").reshape(-1, 3, 3)


def slabs(triangles: NDArray[np.float32], axis: int, cuts: Sequence[float]) -> list[Floats]:
    """The points ``[V, 3]`` of each slab between neighbouring `cuts`, for a convex hull of each.

    One hull around a curved finger fills the space that it curves around; hulls of slabs do not.
    """
    points = triangles.astype(np.float64)
    edges = np.concatenate([points[:, [0, 1]], points[:, [1, 2]], points[:, [2, 0]]])
    start, end = edges[:, 0], edges[:, 1]
    corners = points.reshape(-1, 3)
    crossings = {}
    for cut in cuts:
        low, high = start[:, axis] - cut, end[:, axis] - cut
        across = low * high < 0
        share = (low[across] / (low[across] - high[across]))[:, None]
        crossings[cut] = start[across] + share * (end[across] - start[across])
    found = []
    for low_cut, high_cut in pairwise(cuts):
        inside = corners[(corners[:, axis] >= low_cut) & (corners[:, axis] <= high_cut)]
        found.append(np.concatenate([inside, crossings[low_cut], crossings[high_cut]]))
    return found


def thinned(points: Floats, grid_m: float) -> Floats:
    """`points` ``[V, 3]`` moved to the nearest of a grid's, each once."""
    cells = np.round(points / grid_m).astype(np.int64) + _STRIDE // 2
    keys = np.unique((cells[:, 0] * _STRIDE + cells[:, 1]) * _STRIDE + cells[:, 2])
    apart = np.stack([keys // _STRIDE // _STRIDE, keys // _STRIDE % _STRIDE, keys % _STRIDE], axis=1)
    return np.asarray((apart - _STRIDE // 2) * grid_m)
