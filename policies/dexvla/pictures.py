"""From a camera's picture to the patches that Qwen2-VL sees, as DexVLA's own code brings it there."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own custom
from torch import Tensor

from policies.training.augment import color_jitter

MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
CROP = 0.95
"""Of the picture's sides: what is looked at, somewhere in training, in the middle in a run."""
TURN_DEGREES = 5.0
JITTER = {"brightness": 0.3, "contrast": 0.4, "saturation": 0.5, "hue": 0.0}


@dataclass(frozen=True, slots=True)
class PictureSize:
    """How large pictures become.

    Attributes:
        width, height: before the language model's own resizing.
        patch, merge, time: of its vision network: a patch's side, how many patches make a token in either
            direction, and how often a still picture is repeated.
    """

    width: int
    height: int
    patch: int = 14
    merge: int = 2
    time: int = 2

    @property
    def seen(self) -> tuple[int, int]:
        """Height and width in whole tokens: the language model's own rule within its bounds of size."""
        side = self.patch * self.merge
        return round(self.height / side) * side, round(self.width / side) * side

    @property
    def grid(self) -> tuple[int, int, int]:
        """Patches in time, height and width."""
        height, width = self.seen
        return 1, height // self.patch, width // self.patch

    @property
    def tokens(self) -> int:
        """Of one picture."""
        return math.prod(self.grid) // self.merge**2


def cropped(images: Tensor, size: PictureSize, *, middle: bool) -> Tensor:
    """``images[N, H, W, 3]``, 0 to 255, at `size` with a rim cut off: ``[N, 3, h, w]`` in 0..1, float32."""
    wanted = (size.height, size.width)
    pixels = images.permute(0, 3, 1, 2).float() / 255
    if pixels.shape[2:] != wanted:
        pixels = F.interpolate(pixels, size=wanted, mode="bilinear", align_corners=False)
    if middle:
        top, bottom = (int(size.height * (1 + sign * CROP) / 2) for sign in (-1, 1))
        left, right = (int(size.width * (1 + sign * CROP) / 2) for sign in (-1, 1))
    else:
        high, wide = int(size.height * CROP), int(size.width * CROP)
        top = int(torch.randint(0, size.height - high + 1, ()))
        left = int(torch.randint(0, size.width - wide + 1, ()))
        bottom, right = top + high, left + wide
    part = pixels[:, :, top:bottom, left:right]
    return F.interpolate(part, size=wanted, mode="bilinear", align_corners=False, antialias=True)


def varied(pixels: Tensor) -> Tensor:
    """``[N, 3, H, W]`` in 0..1, turned a little and otherwise coloured: one draw for all of them."""
    angle = math.radians(float(torch.empty(()).uniform_(-TURN_DEGREES, TURN_DEGREES)))
    height, width = pixels.shape[2:]
    sine, cosine, shape = math.sin(angle), math.cos(angle), height / width
    turn = torch.tensor([[cosine, -sine * shape, 0.0], [sine / shape, cosine, 0.0]], device=pixels.device)
    grid = F.affine_grid(turn.expand(len(pixels), 2, 3), list(pixels.shape), align_corners=False)
    turned = F.grid_sample(pixels, grid, mode="nearest", padding_mode="zeros", align_corners=False)
    return color_jitter(turned, **JITTER)


def patches(pixels: Tensor, size: PictureSize) -> Tensor:
    """``pixels[N, 3, H, W]`` in 0..1 to ``[N, P, C]``, normalised, in the order of the model's tokens."""
    x = (pixels * 255).round().clamp(0, 255)
    for wanted in ((x.shape[2], size.seen[1]), size.seen):  # whole grey levels in between, as Pillow's
        if tuple(x.shape[2:]) != wanted:
            x = F.interpolate(x, size=wanted, mode="bicubic", align_corners=False, antialias=True)
            x = x.round().clamp(0, 255)
    mean, std = (torch.tensor(each, device=pixels.device).view(1, 3, 1, 1) for each in (MEAN, STD))
    x = (x / 255 - mean) / std
    _, high, wide = size.grid
    merge, patch = size.merge, size.patch
    x = x.reshape(len(x), 3, high // merge, merge, patch, wide // merge, merge, patch)
    x = x.permute(0, 2, 5, 3, 6, 1, 4, 7)[:, :, :, :, :, :, None]
    return x.expand(*x.shape[:6], size.time, *x.shape[7:]).reshape(len(x), high * wide, -1)
