"""Rows of a chunk that are given, in training as on the robot (Black et al., arXiv 2512.05964).

While a chunk is computed, the rows before it go on being executed. A policy that is trained to go on from
rows that are given needs no guidance then: of each sample's chunk it is shown as many as chance says, as they
are, and is asked for the rest.
"""

from __future__ import annotations

import torch
from torch import Tensor


def given_rows(count: int, rows: int, longest: int, device: torch.device) -> Tensor | None:
    """Which of a chunk's `rows` each of `count` samples is given, ``[count, rows]``.

    The first 0 to `longest`, each number as often; ``None`` where `longest` is 0.
    """
    if not longest:
        return None
    given = torch.randint(0, longest + 1, (count, 1), device=device)
    return torch.arange(rows, device=device)[None] < given
