"""Which episodes are held back to validate with, as Diffusion Policy, DexGraspVLA and UMI draw them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

SEED = 42


def held_back(episodes: int, ratio: float, seed: int = SEED) -> NDArray[np.bool_]:
    """``[episodes]``: at least one and never all of them, drawn by `seed`; none if `ratio` is 0 or less."""
    held = np.zeros(episodes, bool)
    if ratio > 0:
        count = min(max(1, round(episodes * ratio)), episodes - 1)
        held[np.random.default_rng(seed).choice(episodes, size=count, replace=False)] = True
    return held


def at_most(chosen: NDArray[np.bool_], most: int | None, seed: int = SEED) -> NDArray[np.bool_]:
    """`most` of the `chosen` ones, drawn by `seed`; all if there are no more."""
    if most is None or chosen.sum() <= most:
        return chosen
    numbers = np.flatnonzero(chosen)
    kept = np.zeros_like(chosen)
    kept[numbers[np.random.default_rng(seed).choice(len(numbers), size=int(most), replace=False)]] = True
    return kept
