"""Recordings of a drawn table: a red square that moves, an arm that passes over it, and the true masks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from tests.export.synthetic import Made, write_run

SIZE = (96, 128)
SIDE = 14
COVERED = range(12, 15)
"""Frames in which the arm hides all of it."""


def place(row: int) -> tuple[int, int]:
    """Its upper left corner, row and column: it goes to and fro."""
    there = abs((row + 40) % 80 - 40)
    return 30 + there // 2, 20 + 2 * there


def table(rng: Any, size: tuple[int, int], row: int) -> Any:
    """A picture of it; other sizes are the wrist camera's, which sees nothing of it."""
    image = np.full((*size, 3), 150, np.uint8)
    if size != SIZE:
        return image
    y, x = place(row)
    image[y : y + SIDE, x : x + SIDE] = (200, 20, 20)
    if row in COVERED:
        image[y - 4 : y + SIDE + 4, x - 4 : x + SIDE + 4] = (225, 225, 222)
    return image


def truth(row: int) -> Any:
    """The mask of what is seen of it."""
    mask = np.zeros(SIZE, np.uint8)
    y, x = place(row)
    mask[y : y + SIDE, x : x + SIDE] = row not in COVERED
    return mask


def drawn(**options: Any) -> Made:
    """What an episode of it has; a second, unless `options` say otherwise."""
    given = {"seconds": 1.0, "head": SIZE, "wrist": (32, 40), "head_depth": False, "picture": table}
    return Made(**{**given, "task": "pick up the red cube", **options})


def run_of(folder: Path, *episodes: Made) -> Path:
    """A run's folder with these."""
    write_run(folder, *episodes)
    return folder


def overlap(one: Any, other: Any) -> float:
    """Intersection over union; 1 where both are empty."""
    union = int((one | other).sum())
    return int((one & other).sum()) / union if union else 1.0
