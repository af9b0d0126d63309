"""How an arriving chunk is merged with what the horizon still holds: pure functions on arrays.

A blend is called with the rows that both have an opinion on: `old` and `new`, float64 ``[n, D]``, and
`count`, int64 ``[n]``, how many predictions `old` is made of. It returns the merged rows ``[n, D]``. The row
before the first is executed, or begun; behind the last come the new rows alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from runtime.messages import Floats
from runtime.options import Options

RowCounts = NDArray[np.int64]
Blend = Callable[[Floats, Floats, RowCounts], Floats]
BlendName = Literal[
    "crossfade", "latest", "average", "weighted_average", "conservative", "temporal_ensemble", "rtc"
]


class BlendOptions(Options):
    """Which blend, and its constants.

    Attributes:
        blend: a key of `BLENDS`.
        crossfade_steps: within how many rows ``crossfade`` has gone over to the new ones, at most; 0: within
            all that the old chunk still has.
        new_weight: weight of the new rows for ``weighted_average`` (LeRobot's async client: 0.7).
        ensemble_decay: ``m`` of ``temporal_ensemble``'s ``w_i = exp(-m * i)``, oldest first (ACT: 0.01);
            negative values favour the newest prediction.
    """

    blend: BlendName = "crossfade"
    crossfade_steps: int = Field(default=10, ge=0, le=10_000)
    new_weight: float = Field(default=0.7, ge=0, le=1)
    ensemble_decay: float = 0.01


class SplicingOptions(BlendOptions):
    """When a chunk is asked for, and how much of it is used.

    Attributes:
        request_below: a new chunk is asked for once no more than this share of the last one is left
            (LeRobot's ``chunk_size_threshold``); 1 asks at every tick, as ACT's temporal ensemble wants
            (at every step, of a policy slower than the loop).
            It is asked for earlier where the last inferences took longer than that leaves, and at once where
            the force limit begins to hold the arm back.
        execute_steps: of each chunk at most so many rows are executed from its arrival on; 0 for all.
        stretch: play the rows left slower, with points in between, where the next chunk is expected later
            than they would last; otherwise the arm stops there and waits.
    """

    request_below: float = Field(default=0.5, ge=0, le=1)
    execute_steps: int = Field(default=0, ge=0, le=10_000)
    stretch: bool = False


def latest(old: Floats, new: Floats, count: RowCounts) -> Floats:
    """The new rows."""
    del old, count
    return new


def average(old: Floats, new: Floats, count: RowCounts) -> Floats:
    """Half and half."""
    del count
    return 0.5 * old + 0.5 * new


def weighted_average(old: Floats, new: Floats, count: RowCounts, *, new_weight: float = 0.7) -> Floats:
    """``(1 - new_weight) * old + new_weight * new``."""
    del count
    return (1.0 - new_weight) * old + new_weight * new


def conservative(old: Floats, new: Floats, count: RowCounts) -> Floats:
    """0.7 old + 0.3 new."""
    return weighted_average(old, new, count, new_weight=0.3)


def crossfade(old: Floats, new: Floats, count: RowCounts, *, steps: int = 10) -> Floats:
    """From the old rows over to the new ones within `steps`, or as many as both have (0: all that they have).

    The new rows' weight is ``3 t^2 - 2 t^3`` ("smoothstep"): nothing at the row before the first, which is
    executed or begun, one at the row behind the last. So position and speed go on at both ends. A fade that
    begins before the former one has ended leaves from where that one is.
    """
    del count
    span = min(steps or len(old), len(old))
    share = np.arange(1.0, span + 1.0)[:, None] / (span + 1.0)
    merged = new.copy()
    merged[:span] = old[:span] + share**2 * (3.0 - 2.0 * share) * (new[:span] - old[:span])
    return merged


def temporal_ensemble(old: Floats, new: Floats, count: RowCounts, *, decay: float = 0.01) -> Floats:
    """ACT's exponentially weighted mean of all predictions for a row, ``w_i = exp(-decay * i)``, ``w_0`` the
    oldest (Zhao et al. 2023, "Learning Fine-Grained Bimanual Manipulation with Low-Cost Hardware").

    The mean is updated in place of keeping all predictions: memory is one chunk.
    """
    weight = np.exp(-decay * count)[:, None]
    total = _geometric_sum(decay, count)[:, None]
    merged: Floats = (old * total + new * weight) / (total + weight)
    return merged


def _geometric_sum(decay: float, count: RowCounts) -> Floats:
    """Sum of ``exp(-decay * i)`` for i in [0, count)."""
    if decay == 0.0:
        return count.astype(np.float64)
    total: Floats = np.expm1(-decay * count) / np.expm1(-decay)
    return total


BLENDS: dict[str, Callable[..., Floats]] = {
    "crossfade": crossfade,
    "latest": latest,
    "average": average,
    "weighted_average": weighted_average,
    "conservative": conservative,
    "temporal_ensemble": temporal_ensemble,
    "rtc": latest,  # the policy was given the committed rows and continues them itself
}


def blend_from(options: BlendOptions) -> Blend:
    """The configured blend with its constants bound."""
    constants: dict[str, Any] = {}
    if options.blend == "weighted_average":
        constants["new_weight"] = options.new_weight
    elif options.blend == "crossfade":
        constants["steps"] = options.crossfade_steps
    elif options.blend == "temporal_ensemble":
        constants["decay"] = options.ensemble_decay
    function = BLENDS[options.blend]
    return lambda old, new, count: function(old, new, count, **constants)
