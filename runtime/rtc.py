"""Real-time chunking: how much each step of a new chunk must agree with what is already committed.

Source: Black, Galliker, Levine, "Real-Time Execution of Action Chunking Flow Policies", arXiv 2506.07339:
steps that will be executed while the new chunk is computed are frozen (weight 1), steps that neither chunk
will reach are free (weight 0), and in between the weight falls exponentially.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np

from runtime.messages import Floats

Schedule = Literal["exponential", "linear", "hard"]


def prefix_weights(
    horizon: int, frozen_steps: int, committed_steps: int, schedule: Schedule = "exponential"
) -> Floats:
    """Weights ``[horizon]`` in 0..1 of the committed actions.

    Args:
        horizon: steps `H` of a chunk.
        frozen_steps: steps `d` that will have been executed when the chunk arrives.
        committed_steps: steps for which a committed action exists (``H - s`` in the paper, where `s` is
            how many steps lie between two requests); the rest is free.
        schedule: of the steps from `frozen_steps` to `committed_steps`: the paper's exponential decay, a
            linear one, or 0 at once.
    """
    end = min(committed_steps, horizon)
    frozen = min(max(frozen_steps, 0), end)
    weights = np.zeros(horizon)
    weights[:frozen] = 1.0
    if schedule != "hard" and end > frozen:
        steps = np.arange(frozen, end)
        fall = (end - steps) / (end - frozen + 1)
        weights[frozen:end] = fall if schedule == "linear" else fall * np.expm1(fall) / (math.e - 1)
    return weights


def pad_committed(committed: Floats, horizon: int) -> Floats:
    """``[n, D]`` to ``[horizon, D]``: cut, or the last row repeated (its weight is 0 there)."""
    rows = committed[:horizon]
    if rows.shape[0] == 0:
        return np.zeros((horizon, committed.shape[1]))
    return np.concatenate((rows, np.repeat(rows[-1:], horizon - rows.shape[0], axis=0)))
