"""What SmolVLA's network is made of: attention with rotary positions, and what looks at pictures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own custom
from torch import Tensor

from policies.int8 import Activation
from policies.linear import Linear

_LONGEST_WAVE = 10_000.0
"""Of the rotary positions: SmolVLA's own, whatever the language model was trained with."""
_FUSED: Mapping[str, Activation] = {"gelu_pytorch_tanh": "gelu_tanh", "gelu": "gelu"}
"""What transformers calls activations that a packed layer computes along with its product."""


@dataclass(frozen=True, slots=True)
class Rotation:
    """Cosines and sines of positions, ``[B, 1, N, H/2]``."""

    cos: Tensor
    sin: Tensor

    @classmethod
    def at(cls, positions: Tensor, head_size: int) -> Rotation:
        """For ``positions[B, N]``."""
        half = head_size // 2
        exponents = torch.arange(half, device=positions.device, dtype=torch.float32) * (2.0 / head_size)
        angles = positions[:, None, :, None].float() / _LONGEST_WAVE**exponents
        return cls(angles.cos(), angles.sin())

    def split(self, first: int) -> list[Rotation]:
        """Of the first positions, and of those after."""
        cos, sin = ((x[:, :, :first], x[:, :, first:]) for x in (self.cos, self.sin))
        return [Rotation(*each) for each in zip(cos, sin, strict=True)]

    def __call__(self, x: Tensor) -> Tensor:
        """``x[B, heads, N, H]``, turned."""
        first, second = x.float().chunk(2, dim=-1)
        turned = torch.cat(
            [first * self.cos - second * self.sin, second * self.cos + first * self.sin], dim=-1
        )
        return turned.to(x.dtype)


def looked(vision: Any, pixels: Tensor) -> Tensor:
    """What transformers' `vision` makes of pictures ``[N, 3, side, side]``: ``[N, patches, width]``."""
    embed = vision.embeddings.patch_embedding
    patches = F.pixel_unshuffle(pixels.to(embed.weight.dtype), embed.stride[0]).flatten(2).transpose(1, 2)
    x = F.linear(patches, embed.weight.flatten(1), embed.bias)
    x = x + vision.embeddings.position_embedding.weight
    for layer in vision.encoder.layers:
        attention = layer.self_attn
        h = layer.layer_norm1(x)
        q, k, v = (
            heads(project(h), attention.head_dim)
            for project in (attention.q_proj, attention.k_proj, attention.v_proj)
        )
        x = x + attention.out_proj(joined(F.scaled_dot_product_attention(q, k, v)))
        x = x + _fed(layer.mlp, layer.layer_norm2(x), vision.config.hidden_act)
    seen: Tensor = vision.post_layernorm(x)
    return seen


def _fed(mlp: Any, x: Tensor, activation: str) -> Tensor:
    """Through a vision layer's feed-forward part, its activation fused where the first layer is packed."""
    first, fused = mlp.fc1, _FUSED.get(activation)
    if isinstance(first, Linear) and first.packed is not None and fused is not None:
        return mlp.fc2(first(x, fused))  # type: ignore[no-any-return]
    return mlp(x)  # type: ignore[no-any-return]


def heads(x: Tensor, size: int) -> Tensor:
    """``[B, N, heads * H]`` to ``[B, heads, N, H]``."""
    return x.view(*x.shape[:2], -1, size).transpose(1, 2)


def joined(x: Tensor) -> Tensor:
    """And back."""
    return x.transpose(1, 2).flatten(2)


def attended(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """``[B, heads, N, H]``, of keys and values that several heads may share."""
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=True)
