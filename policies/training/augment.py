"""Pictures that look otherwise and show the same."""

from __future__ import annotations

import torch
from torch import Tensor

_GRAY = (0.2989, 0.587, 0.114)
"""Weights of red, green and blue in torchvision's grey."""


def color_jitter(images: Tensor, brightness: float, contrast: float, saturation: float, hue: float) -> Tensor:
    """Torchvision's ColorJitter of ``images[..., 3, H, W]`` in 0..1: one draw for all of them.

    Factors are within 1 plus and minus what is given, the hue's shift within plus and minus it, in turns.
    """
    draws = torch.empty(4).uniform_(-1, 1).tolist()
    for which in torch.randperm(4).tolist():
        amount = draws[which]
        if which == 0:
            images = (images * (1 + amount * brightness)).clamp(0, 1)
        elif which == 1:
            images = _blended(images, _gray(images).mean((-3, -2, -1), keepdim=True), 1 + amount * contrast)
        elif which == 2:
            images = _blended(images, _gray(images), 1 + amount * saturation)
        else:
            images = turned(images, amount * hue)
    return images


def _gray(images: Tensor) -> Tensor:
    red, green, blue = images.unbind(-3)
    return (_GRAY[0] * red + _GRAY[1] * green + _GRAY[2] * blue).unsqueeze(-3)


def _blended(images: Tensor, other: Tensor, factor: float) -> Tensor:
    return (images * factor + other * (1 - factor)).clamp(0, 1)


def turned(images: Tensor, turn: float) -> Tensor:
    """``images[..., 3, H, W]`` with their hue turned by `turn`, of a whole turn."""
    high, low = images.amax(-3, keepdim=True), images.amin(-3, keepdim=True)
    span = (high - low).clamp(min=1e-8)
    red, green, blue = images.unbind(-3)
    top, wide = high.squeeze(-3), span.squeeze(-3)
    sixths = torch.where(
        top == red,
        (green - blue) / wide,
        torch.where(top == green, 2 + (blue - red) / wide, 4 + (red - green) / wide),
    )
    sixths = (sixths + 6 * turn).unsqueeze(-3)
    shift = torch.tensor((5.0, 3.0, 1.0), device=images.device).view(3, 1, 1)
    k = (shift + sixths) % 6
    return high - (high - low) * torch.minimum(k, 4 - k).clamp(0, 1)
