"""Random weights that follow from their names: two programs have the same without a file between them.

NumPy's old generator is used, whose numbers never change.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np

KEPT = ("pos_grid", "pos_enc", "num_batches_tracked")
"""At the end of a name: no weights, but numbers that the network makes itself."""


def drawn(name: str, shape: Sequence[int]) -> Any:
    """Float32 numbers of `shape`, of a size that keeps activations around 1."""
    values = np.random.RandomState(zlib.crc32(name.encode())).uniform(-1, 1, tuple(shape))
    if name.endswith("running_var"):
        values = 1 + 0.5 * values
    elif len(shape) == 1:
        is_scale = name.endswith(("weight", "logit_scale"))
        values = 1 + 0.2 * values if is_scale else 0.1 * values
    elif len(shape) > 1:
        values = values * np.sqrt(3 / max(1, np.prod(shape[1:])))
    return values.astype(np.float32)


def pictures(seed: int, count: int, height: int, width: int) -> Any:
    """``[count, height, width, 3]`` uint8, blotches that move a little from one to the next."""
    rng = np.random.RandomState(seed)
    coarse = rng.uniform(0, 255, (count + 3, height // 8 + 2, width // 8 + 2, 3))
    smooth = (coarse[:-3] + coarse[1:-2] + coarse[2:-1] + coarse[3:]) / 4
    return smooth.repeat(8, 1).repeat(8, 2)[:, :height, :width].astype(np.uint8)


def states(seed: int, count: int, size: int) -> Any:
    """``[count, size]`` float32, as a robot that moves slowly, in degrees; a gripper last, of 0 to 100."""
    rng = np.random.RandomState(seed)
    begin = rng.uniform(-20, 20, size)
    begin[-1] = 50
    return (begin + np.cumsum(rng.uniform(-4, 4, (count, size)), axis=0)).astype(np.float32)


def statistics(seed: int, size: int) -> dict[str, Any]:
    """Of a vector, float32: as a data set's in degrees, its last entry a gripper's of 0 to 100."""
    rng = np.random.RandomState(seed)
    mean, std = rng.uniform(-20, 20, size), rng.uniform(8, 25, size)
    mean[-1], std[-1] = 40, 20
    low, high = mean - 2 * std, mean + 2 * std
    low[-1], high[-1] = 0, 100
    found = {"mean": mean, "std": std, "min": low, "max": high, "q01": low + 1, "q99": high - 1}
    return {name: values.astype(np.float32) for name, values in found.items()}
