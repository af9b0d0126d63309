"""A data set's pictures as the controller was trained on them."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own custom
from torch import Tensor

from policies.dexgrasp.encoder import MEAN, STD


def resized(pixels: Tensor, side: int, *, normalised: bool = False) -> Tensor:
    """``[N, 3, side, side]`` in 0..1 of ``pixels[N, H, W, 3]`` uint8: bilinear, no antialiasing.

    With `normalised`, by ImageNet's mean and deviation, as the backbones take them.
    """
    images = pixels.permute(0, 3, 1, 2).float() / 255.0
    images = F.interpolate(images, size=(side, side), mode="bilinear", align_corners=False)
    if not normalised:
        return images
    mean, std = (torch.tensor(v, device=images.device).view(1, 3, 1, 1) for v in (MEAN, STD))
    return (images - mean) / std


def resized_mask(mask: Tensor, side: int) -> Tensor:
    """``[N, 1, side, side]`` in {0, 1} of ``mask[N, H, W]``: nearest neighbour."""
    return (F.interpolate(mask[:, None].float(), size=(side, side)) > 0.5).float()
