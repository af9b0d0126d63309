"""Thoughts of random age: a policy that is trained on fresh ones alone is lost as soon as they are late.

On the robot a slow model's thought is of an earlier instant (`runtime.messages.Thought`), how much earlier
differs from answer to answer, and the policy is told. So each sample of a training is shown a thought of an
instant drawn from those before it, and its age.
"""

from __future__ import annotations

import torch
from torch import Tensor


def instants(longest_s: float, rate_hz: float) -> tuple[int, ...]:
    """Offsets in rows of a window whose thoughts are up to `longest_s` old; the last is the present."""
    return tuple(range(-round(longest_s * rate_hz), 1))


def drawn(thoughts: Tensor, is_pad: Tensor, rate_hz: float, *, random: bool) -> tuple[Tensor, Tensor]:
    """One thought of each sample's window, and its age.

    Args:
        thoughts: ``[B, n, L]``, oldest first, the last of the present.
        is_pad: ``[B, n]``, of rows before the episode's first, which are never drawn.
        rate_hz: rows per second.
        random: uniformly; otherwise the ages are spread evenly over the batch, so that two validations of
            the same samples agree.

    Returns:
        ``[B, L]``, and ``[B, 1]`` seconds.
    """
    count, rows = is_pad.shape
    there = (~is_pad).sum(dim=1)
    spread = torch.arange(count, device=is_pad.device) % rows / max(rows - 1, 1)
    share = torch.rand(count, device=is_pad.device) if random else spread.clamp(max=1 - 1e-6)
    back = (share * there).long().clamp(max=rows - 1)
    chosen = thoughts[torch.arange(count, device=thoughts.device), rows - 1 - back]
    return chosen, (back / (rate_hz or 1.0))[:, None].to(thoughts.dtype)
