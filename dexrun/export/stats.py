"""Statistics of features as LeRobot keeps them: min, max, mean, std, count and five quantiles.

Computed exactly, where LeRobot estimates quantiles from histograms. Images are looked at as LeRobot does: a
part of the frames, every n-th pixel, values divided by 255, shapes ``[C, 1, 1]``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.messages import Floats

QUANTILES = {"q01": 0.01, "q10": 0.1, "q50": 0.5, "q90": 0.9, "q99": 0.99}
Stats = dict[str, Floats]

_FEW, _MANY, _POWER = 100, 10_000, 0.75
_TARGET_PX, _SMALL_PX = 150, 300


def of_rows(values: NDArray[Any], *, quantiles: bool = True) -> Stats:
    """Of ``[T]`` or ``[T, D]``, per column: shapes ``[1]`` or ``[D]``."""
    rows = np.asarray(values, np.float64).reshape(len(values), -1)
    stats = {
        "min": rows.min(axis=0),
        "max": rows.max(axis=0),
        "mean": rows.mean(axis=0),
        "std": rows.std(axis=0),
        "count": np.array([len(rows)]),
    }
    if quantiles:
        found = np.quantile(rows, list(QUANTILES.values()), axis=0)
        stats.update(zip(QUANTILES, found, strict=True))
    return stats


def sampled_rows(length: int) -> NDArray[np.int64]:
    """Which of `length` frames are looked at: all of few, a shrinking part of many."""
    wanted = max(min(_FEW, length), min(int(length**_POWER), _MANY))
    return np.unique(np.round(np.linspace(0, length - 1, wanted)).astype(np.int64))


class ImageStats:
    """Collects images ``[H, W, C]`` or ``[H, W]`` of one camera by counting values.

    `levels` is the number of values a pixel can have; `unit` is what statistics are multiplied by.

    Attributes:
        counts: ``[C, levels]``, how often each value was seen. images: how many were looked at.
    """

    def __init__(self, length: int, channels: int, levels: int = 256, unit: float = 1 / 255) -> None:
        self._wanted = set(sampled_rows(length).tolist())
        self.counts = np.zeros((channels, levels), np.int64)
        self.unit = unit
        self.images = 0

    @classmethod
    def of(cls, counts: NDArray[np.int64], unit: float, images: int) -> ImageStats:
        """What was counted earlier."""
        made = cls(1, counts.shape[0], counts.shape[1], float(unit))
        made.counts, made.images = counts, images
        return made

    @classmethod
    def merged(cls, parts: Sequence[ImageStats]) -> ImageStats:
        """What was seen in all of `parts`, of one camera."""
        counts = np.sum([part.counts for part in parts], axis=0)
        return cls.of(counts, parts[0].unit, sum(part.images for part in parts))

    def add(self, row: int, image: NDArray[Any]) -> None:
        """Look at the image of `row`, if it is one of those looked at."""
        if row not in self._wanted:
            return
        height, width = image.shape[:2]
        step = max(1, max(height, width) // _TARGET_PX) if max(height, width) >= _SMALL_PX else 1
        part = image[::step, ::step].reshape(-1, self.counts.shape[0])
        for channel, counts in enumerate(self.counts):
            counts += np.bincount(part[:, channel], minlength=len(counts))
        self.images += 1

    def result(self, *, quantiles: bool = True) -> Stats:
        """Shapes ``[C, 1, 1]``; the count is of images."""
        rows = [_of_counts(counts, quantiles=quantiles) for counts in self.counts]
        stats = {key: np.array([row[key] for row in rows]) * self.unit for key in rows[0]}
        out = {key: value.reshape(-1, 1, 1) for key, value in stats.items()}
        return {**out, "count": np.array([self.images])}


def _of_counts(counts: NDArray[np.int64], *, quantiles: bool) -> dict[str, float]:
    present = np.flatnonzero(counts)
    weights = counts[present] / counts.sum()
    mean = float(present @ weights)
    stats = {
        "min": float(present[0]),
        "max": float(present[-1]),
        "mean": mean,
        "std": float(np.sqrt(((present - mean) ** 2) @ weights)),
    }
    if quantiles:
        reached = np.cumsum(weights)
        for name, share in QUANTILES.items():
            place = min(int(np.searchsorted(reached, share)), len(present) - 1)
            stats[name] = float(present[place])
    return stats


def aggregate(parts: Sequence[Mapping[str, Stats]]) -> dict[str, Stats]:
    """The statistics of everything from those of its parts, feature by feature.

    Quantiles are the parts' weighted means, as LeRobot has it.
    """
    keys = dict.fromkeys(key for part in parts for key in part)
    return {key: _aggregate([part[key] for part in parts if key in part]) for key in keys}


def _aggregate(parts: Sequence[Stats]) -> Stats:
    counts = np.array([float(part["count"][0]) for part in parts])
    weights = counts / counts.sum()

    def mix(values: list[Floats]) -> Floats:
        return np.asarray(np.tensordot(weights, np.stack(values), axes=1))

    mean = mix([part["mean"] for part in parts])
    variance = mix([part["std"] ** 2 + (part["mean"] - mean) ** 2 for part in parts])
    out = {
        "min": np.min(np.stack([part["min"] for part in parts]), axis=0),
        "max": np.max(np.stack([part["max"] for part in parts]), axis=0),
        "mean": mean,
        "std": np.sqrt(variance),
        "count": np.array([int(counts.sum())]),
    }
    for name in QUANTILES:
        if all(name in part for part in parts):
            out[name] = mix([part[name] for part in parts])
    return out


def as_json(stats: Mapping[str, Stats]) -> dict[str, dict[str, Any]]:
    """Nested lists of plain numbers."""
    return {key: {name: value.tolist() for name, value in one.items()} for key, one in stats.items()}
