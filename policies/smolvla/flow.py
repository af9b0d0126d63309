"""SmolVLA's loss: flow matching (Lipman et al., arXiv 2210.02747) as LeRobot has it."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own custom
from torch import Tensor

from policies.lerobot.smolvla_network import Reading, SmolVla

_LATE = 1.5
"""Of the flow's times, Beta(1.5, 1): more of them are near the noise."""
_SPAN, _FIRST = 0.999, 0.001


def drawn_times(count: int, device: torch.device) -> Tensor:
    """``[count]`` in 0.001..1: 0 would be a chunk, 1 is noise."""
    return torch.rand(count, device=device) ** (1 / _LATE) * _SPAN + _FIRST


def flow_error(
    network: SmolVla, reading: Reading, actions: Tensor, noise: Tensor, times: Tensor, given: Tensor | None
) -> Tensor:
    """Squared errors ``[B, chunk, action_size]`` of the velocity from a chunk to noise.

    Args:
        network: that is trained.
        reading: of the observations.
        actions: ``[B, chunk, action_size]``, normalised, filled up with zeros.
        noise: as many numbers.
        times: ``[B]``.
        given: ``[B, chunk]``, rows that are shown as they are; ``None``: none.
    """
    part = network.time_part(times)
    each = times[:, None, None]
    if given is not None:
        clean = network.time_part(torch.zeros_like(times[:1]))
        part = torch.where(given[..., None], clean, part[:, None])
        each = torch.where(given[..., None], 0.0, each)
    noised = each * noise + (1 - each) * actions
    return (noise - actions - network.velocity(noised, part, reading)) ** 2


def mean_of_real(error: Tensor, actions: int, real: Tensor) -> Tensor:
    """The mean of ``error[B, chunk, action_size]`` over the `actions` that there are and ``real[B, chunk]``
    rows: LeRobot's of 0.6; in 0.4 it was over all rows, and all that they were filled up to.
    """
    return (error[..., :actions] * real[..., None]).sum() / (real.sum() * actions).clamp(min=1)


def filled(values: Tensor, size: int) -> Tensor:
    """``[..., n]`` with zeros up to `size`."""
    return F.pad(values, (0, size - values.shape[-1]))
