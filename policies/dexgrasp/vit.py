"""DINOv2 vision transformers with the public weight files' names, for inference.

Source: Oquab et al., "DINOv2", arXiv 2304.07193; names, shapes and the position-embedding interpolation
as in ``facebookresearch/dinov2``, so that its ``*_pretrain.pth`` files load unchanged.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own custom
from torch import Tensor, nn

from policies.linear import Linear

PATCH = 14
"""Side of a patch in pixels."""

PRETRAINED_GRID = 37
"""Patches per side that the public weights' position embedding covers (518 pixels)."""

INTERPOLATION_OFFSET = 0.1
"""Added to the target grid before it is divided by the source grid, as the public models do; the scale
factor that results is what the interpolation uses, so it changes the numbers."""


@dataclass(frozen=True, slots=True)
class VitShape:
    """What makes one backbone."""

    dim: int
    depth: int
    heads: int
    swiglu: bool = False
    registers: int = 0

    @property
    def mlp_hidden(self) -> int:
        """Width inside the feed-forward network."""
        return (int(self.dim * 4 * 2 / 3) + 7) // 8 * 8 if self.swiglu else self.dim * 4


BACKBONES = {
    "vits14": VitShape(384, 12, 6),
    "vitb14": VitShape(768, 12, 12),
    "vitl14": VitShape(1024, 24, 16),
    "vitg14": VitShape(1536, 40, 24, swiglu=True),
    "tiny14": VitShape(32, 2, 4),
    "tinyg14": VitShape(48, 2, 4, swiglu=True),
}
"""The public sizes, and two tiny ones that only tests use."""


class PatchEmbed(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, dim, PATCH, PATCH)

    def forward(self, image: Tensor) -> Tensor:
        return self.proj(image).flatten(2).transpose(1, 2)  # type: ignore[no-any-return]


class SelfAttention(nn.Module):
    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = Linear(dim, dim * 3)
        self.proj = Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        b, n, c = x.shape
        qkv = self.qkv(x).view(b, n, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)
        x = F.scaled_dot_product_attention(q, k, v)
        return self.proj(x.transpose(1, 2).reshape(b, n, c))  # type: ignore[no-any-return]


class Mlp(nn.Module):
    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = Linear(dim, hidden)
        self.fc2 = Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.fc1(x, "gelu"))  # type: ignore[no-any-return]


class SwiGlu(nn.Module):
    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.w12 = Linear(dim, 2 * hidden)
        self.w3 = Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        gate, value = self.w12(x).chunk(2, dim=-1)
        return self.w3(F.silu(gate) * value)  # type: ignore[no-any-return]


class LayerScale(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma


class VitBlock(nn.Module):
    def __init__(self, shape: VitShape) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(shape.dim, eps=1e-6)
        self.attn = SelfAttention(shape.dim, shape.heads)
        self.ls1 = LayerScale(shape.dim)
        self.norm2 = nn.LayerNorm(shape.dim, eps=1e-6)
        feed_forward = SwiGlu if shape.swiglu else Mlp
        self.mlp = feed_forward(shape.dim, shape.mlp_hidden)
        self.ls2 = LayerScale(shape.dim)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.ls1(self.attn(self.norm1(x)))
        return x + self.ls2(self.mlp(self.norm2(x)))  # type: ignore[no-any-return]


class DinoVit(nn.Module):
    """Patch features of an RGB image. `grid` is the side of the stored position embedding, in patches."""

    def __init__(self, shape: VitShape, grid: int = PRETRAINED_GRID) -> None:
        super().__init__()
        self.shape = shape
        self.cls_token = nn.Parameter(torch.zeros(1, 1, shape.dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, grid * grid + 1, shape.dim))
        if shape.registers:
            self.register_tokens = nn.Parameter(torch.zeros(1, shape.registers, shape.dim))
        self.patch_embed = PatchEmbed(shape.dim)
        self.blocks = nn.ModuleList(VitBlock(shape) for _ in range(shape.depth))
        self.norm = nn.LayerNorm(shape.dim, eps=1e-6)
        self.mask_token = nn.Parameter(torch.zeros(1, shape.dim))  # in the files; training only
        self._positions: dict[tuple[int, int], Tensor] = {}
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        self.requires_grad_(False)

    def positions(self, height: int, width: int) -> Tensor:
        """The position embedding ``[1, 1 + h*w, dim]`` for an image of this size in pixels."""
        stored = math.isqrt(self.pos_embed.shape[1] - 1)
        rows, columns = height // PATCH, width // PATCH
        if rows == columns == stored:
            return self.pos_embed
        table = self.pos_embed.float()
        grid = table[:, 1:].reshape(1, stored, stored, -1).permute(0, 3, 1, 2)
        scale = tuple(float(n + INTERPOLATION_OFFSET) / stored for n in (rows, columns))
        grid = F.interpolate(grid, mode="bicubic", scale_factor=scale)
        patches = grid.permute(0, 2, 3, 1).reshape(1, rows * columns, -1)
        return torch.cat((table[:, :1], patches), dim=1).to(self.pos_embed.dtype)

    def _cached_positions(self, height: int, width: int) -> Tensor:
        key = (height, width)
        held = self._positions.get(key)
        if held is None or held.device != self.pos_embed.device or held.dtype != self.pos_embed.dtype:
            held = self._positions[key] = self.positions(height, width).detach().clone()
        return held

    def forward(self, image: Tensor) -> Tensor:
        """Normalised features of the patches.

        Args:
            image: ``[B, 3, H, W]``, RGB, ImageNet-normalised; sides are multiples of 14.

        Returns:
            ``[B, (H/14)*(W/14), dim]``, row by row, without class and register tokens.
        """
        x = self.patch_embed(image)
        x = torch.cat((self.cls_token.expand(x.shape[0], -1, -1), x), dim=1)
        x = x + self._cached_positions(image.shape[2], image.shape[3])
        if self.shape.registers:
            registers = self.register_tokens.expand(x.shape[0], -1, -1)
            x = torch.cat((x[:, :1], registers, x[:, 1:]), dim=1)
        for block in self.blocks:
            x = block(x)
        return self.norm(x)[:, 1 + self.shape.registers :]  # type: ignore[no-any-return]
