"""When a gripper held something, from what was measured: pure functions over an episode's rows."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from runtime.messages import Floats

SQUEEZE = 0.02
"""Of the gripper's travel, by which it is asked to close further than it does: something is in between."""
_EMPTY = 0.015
"""Of the travel: jaws that are as close as this have nothing between them."""
_FORCE_N = 0.25
"""Above what the sensor reads while nothing is touched."""
_SHORTEST_S = 0.2
_GAP_S = 0.15
"""What is let go for no longer than this was not let go: an object that slips, a sample that is missing."""


def held_rows(
    times_ns: NDArray[np.int64], position: Floats, target: Floats, force_n: Floats | None = None
) -> list[tuple[int, int]]:
    """The stretches ``(first, end)`` of rows in which one gripper held something, in order.

    `times_ns` ``[T]`` are the rows' times; `position` and `target` ``[T]`` where the gripper was and where it
    was told to be, 0 closed to 1; `force_n` ``[T]`` or ``[T, K]`` is what the sensor at the fingers read.
    Without one, position alone tells.
    """
    if len(times_ns) == 0:
        return []
    tight = (position - target > SQUEEZE) & (position > _EMPTY)
    if force_n is not None:
        size = np.abs(force_n) if force_n.ndim == 1 else np.linalg.norm(force_n, axis=1)
        felt = size > float(np.percentile(size, 10)) + _FORCE_N
        if (felt & tight).any():  # else the sensor is not at the fingers, or is not wired
            tight &= felt
    return [
        (first, end)
        for first, end in _joined(_stretches(tight), times_ns)
        if times_ns[end - 1] - times_ns[first] >= _SHORTEST_S * 1e9
    ]


def longest_hold(times_ns: NDArray[np.int64], holds: list[tuple[int, int]]) -> tuple[int, int] | None:
    """The stretch that lasted longest; ``None`` if there is none."""
    return max(holds, key=lambda each: int(times_ns[each[1] - 1] - times_ns[each[0]]), default=None)


def _stretches(which: NDArray[np.bool_]) -> list[tuple[int, int]]:
    edges = np.flatnonzero(np.diff(np.concatenate([[False], which, [False]]).astype(np.int8)))
    return [(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True)]


def _joined(stretches: list[tuple[int, int]], times_ns: NDArray[np.int64]) -> list[tuple[int, int]]:
    """With what lies within `_GAP_S` of each other taken as one."""
    if not stretches:
        return []
    cuts = [
        place
        for place, (one, other) in enumerate(pairwise(stretches), 1)
        if times_ns[other[0]] - times_ns[one[1] - 1] > _GAP_S * 1e9
    ]
    groups = [stretches[a:b] for a, b in pairwise([0, *cuts, len(stretches)])]
    return [(group[0][0], group[-1][1]) for group in groups]
