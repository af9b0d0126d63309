"""Prompts in the form that a network reads them in, for training and for a run."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from policies.dexvla.network import DexVla, DexVlaPrompt
from policies.dexvla.pictures import PictureSize
from policies.dexvla.words import DexVlaWords


def normalised(actions: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """``[..., A]``: from `low` to `high`, ``[A]`` each, onto -1 to 1."""
    return (actions - low) / (high - low) * 2 - 1


class Prompts:
    """Puts pictures and words of one network together.

    Attributes:
        size: of its pictures.
    """

    def __init__(self, words: DexVlaWords, network: DexVla, cameras: int) -> None:
        vision = network.vlm.config.vision_config
        self.size = PictureSize(
            network.shape.image_width,
            network.shape.image_height,
            vision.patch_size,
            vision.spatial_merge_size,
            vision.temporal_patch_size,
        )
        self._words = words
        self._before = words.before(cameras, self.size.tokens)
        self._after = words.after()

    def batch(self, words: Sequence[Sequence[list[int]]], pixels: Tensor) -> tuple[DexVlaPrompt, Tensor]:
        """Of each row the instruction's tokens and those of what is to be said, and the patches
        ``[B, cameras, P, C]``: what is read, and ``[B, L]``, which of it is to be said.
        """
        rows = [(self._before + asked + self._after, said) for asked, said in words]
        longest = max(len(asked) + len(said) for asked, said in rows)
        filled = [longest - len(asked) - len(said) for asked, said in rows]
        tokens = [
            [self._words.fill] * fill + asked + said for fill, (asked, said) in zip(filled, rows, strict=True)
        ]
        device = pixels.device
        places = torch.arange(longest, device=device)[None]
        there = places >= torch.tensor(filled, device=device)[:, None]
        said_from = torch.tensor([longest - len(said) for _, said in rows], device=device)[:, None]
        return self._prompt(torch.tensor(tokens, device=device), there, pixels), places >= said_from

    def one(self, instruction: str, pixels: Tensor) -> DexVlaPrompt:
        """A single prompt of an instruction and patches ``[cameras, P, C]``."""
        asked = [*self._before, *self._words.instruction(instruction), *self._after]
        words = torch.tensor([asked], device=pixels.device)
        return self._prompt(words, torch.ones_like(words, dtype=torch.bool), pixels[None])

    def _prompt(self, words: Tensor, there: Tensor, pixels: Tensor) -> DexVlaPrompt:
        pictures = pixels.shape[0] * pixels.shape[1]
        grids = torch.tensor([self.size.grid] * pictures, device=pixels.device)
        return DexVlaPrompt(words, there, pixels.flatten(0, 2), grids)
