"""From what the network says to what an arm can follow: smooth rows that go on from those committed."""

from __future__ import annotations

import numpy as np

from runtime.messages import Floats

_KERNEL = (0.25, 0.5, 0.25)


def eased(rows: Floats, committed: Floats, over: int) -> Floats:
    """``rows[T, D]``, smoothed along time, and faded in over `over` rows from those that are committed.

    Args:
        rows: of a chunk.
        committed: ``[n, D]`` what would be executed without it, from the same row on; none
            after a cold start.
        over: rows of the fade; fewer are committed: those.
    """
    out = _smoothed(rows)
    count = min(over, len(committed), len(rows))
    if count and np.isfinite(committed[:count]).all():
        share = ((1.0 + np.arange(count)) / (count + 1.0))[:, None]
        out[:count] = committed[:count] + share * (out[:count] - committed[:count])
    return out


def _smoothed(rows: Floats) -> Floats:
    padded = np.concatenate([rows[:1], rows, rows[-1:]])
    first, middle, last = _KERNEL
    return np.asarray(first * padded[:-2] + middle * padded[1:-1] + last * padded[2:])
