"""Windows over episodes: what one training sample is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class WindowSpec:
    """Which rows a sample has, relative to its own.

    Attributes:
        rows: by feature, offsets in rows, ascending: ``(-1, 0)`` two observations, ``range(0, 16)`` a chunk.
            An offset before the episode's first row or after its last is that row again, and marked as pad.
        first, last: samples begin at row `first` and end with row ``length - 1 + last`` of each episode;
            ``last`` is at most 0 (samples whose actions would pass the end are left out by it).
    """

    rows: Mapping[str, tuple[int, ...]]
    first: int = 0
    last: int = 0
