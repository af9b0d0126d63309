"""The network: a small convolutional encoder, a trunk, and a few ways to go on, of which one is chosen.

A square can be grasped from four sides and a disc from everywhere, so that the mean of all good chunks is a
bad one. The network makes several hypotheses; training holds each sample against the nearest alone, and
teaches which one that was (multiple choice learning, Guzman-Rivera et al. 2012; with the relaxation of
Rupprecht et al. 2017, arXiv 1612.00197).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from policies.lift.numbers import size
from policies.lift.options import LiftShape

_LEAST_STD = 0.02
_DROPPED = 0.1


class Modulated(nn.Module):
    """A residual block whose input is scaled and shifted by what the network is given."""

    def __init__(self, width: int, given: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.given = nn.Linear(given, 2 * width)
        self.one = nn.Linear(width, 2 * width)
        self.two = nn.Linear(2 * width, width)
        self.drop = nn.Dropout(_DROPPED)

    def forward(self, x: Tensor, given: Tensor) -> Tensor:
        scale, shift = self.given(given).chunk(2, dim=-1)
        inner = nn.functional.silu(self.one(self.norm(x) * (1 + scale) + shift))
        return x + self.two(self.drop(inner))  # type: ignore[no-any-return]


def _encoder(crop: int, width: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    channels, side = 2, crop
    for out in (16, 32, 64):
        layers += [nn.Conv2d(channels, out, 3, stride=2, padding=1), nn.GroupNorm(8, out), nn.SiLU()]
        channels, side = out, (side + 1) // 2
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels * side * side, width))


class LiftModel(nn.Module):
    """``numbers[B, size]`` and ``crop[B, 2, N, N]`` to ways to go on, relative to the state.

    The normaliser's mean and deviation are buffers: they are part of the weights.
    """

    numbers_mean: Tensor
    numbers_std: Tensor
    target_mean: Tensor
    target_std: Tensor

    def __init__(self, shape: LiftShape) -> None:
        super().__init__()
        self.shape = shape
        given, width = size(shape), shape.width
        self.crop = _encoder(shape.crop, width // 4)
        self.numbers = nn.Linear(given, width)
        self.trunk = nn.ModuleList(Modulated(width, given + width // 4) for _ in range(shape.blocks))
        self.norm = nn.LayerNorm(width)
        self.rows = nn.Linear(width, shape.hypotheses * shape.chunk * shape.joints)
        self.choice = nn.Linear(width, shape.hypotheses)
        self.end = nn.Linear(width, 1)
        self.register_buffer("numbers_mean", torch.zeros(given))
        self.register_buffer("numbers_std", torch.ones(given))
        self.register_buffer("target_mean", torch.zeros(shape.chunk, shape.joints))
        self.register_buffer("target_std", torch.ones(shape.chunk, shape.joints))

    def fit(self, numbers: Tensor, targets: Tensor) -> None:
        """Take the normaliser from ``numbers[K, size]`` and ``targets[K, chunk, joints]``."""
        self.numbers_mean.copy_(numbers.mean(0))
        self.numbers_std.copy_(numbers.std(0).clamp(min=_LEAST_STD))
        self.target_mean.copy_(targets.mean(0))
        self.target_std.copy_(targets.std(0).clamp(min=_LEAST_STD))

    def forward(self, numbers: Tensor, crop: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Chunks ``[B, hypotheses, chunk, joints]``, normalised; logits ``[B, hypotheses]`` of which to take;
        logits ``[B]`` of the attempt being done.
        """
        told = (numbers - self.numbers_mean) / self.numbers_std
        given = torch.cat([told, self.crop(crop)], dim=-1)
        x = self.numbers(told)
        for block in self.trunk:
            x = block(x, given)
        x, shape = self.norm(x), self.shape
        rows = self.rows(x).view(len(x), shape.hypotheses, shape.chunk, shape.joints)
        return rows, self.choice(x), self.end(x)[..., 0]

    def normalised(self, targets: Tensor) -> Tensor:
        """Targets ``[B, chunk, joints]`` as the network has them."""
        return (targets - self.target_mean) / self.target_std

    def restored(self, rows: Tensor) -> Tensor:
        """The inverse of `normalised`, of any leading shape."""
        return rows * self.target_std + self.target_mean
