"""The diffusion transformer over action chunks, with its condition projected once per chunk.

Every layer is self-attention over the chunk, cross-attention to the observation tokens plus one time
token, and a feed-forward network, each behind a norm (as in RDT, arXiv 2410.07864). Names and shapes as in
the public DexGraspVLA controller.

The observation does not change between denoising steps, and neither do the time tokens from chunk to
chunk. `prepare` therefore projects the keys and values of both once; a step only computes what depends on
the noisy chunk.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own custom
from torch import Tensor, nn

from policies.dexgrasp.options import ControllerShape
from policies.linear import Linear

EPS = 1e-6
HIDING_PROBABILITIES = (0.1, 0.1, 0.1, 0.7)
"""Of hiding head, wrist, both, neither from cross-attention in training."""


class ScaleNorm(nn.Module):
    """Divides by the standard deviation over the last axis, or by the root mean square.

    ``timm==1.0.12``, which the public controller pins, computes the former under the name RmsNorm.
    """

    def __init__(self, dim: int, kind: str) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.kind = kind

    def forward(self, x: Tensor) -> Tensor:
        if self.kind == "rms":
            return F.rms_norm(x, x.shape[-1:], self.weight, EPS)
        return x * torch.rsqrt(torch.var(x, dim=-1, keepdim=True) + EPS) * self.weight


class ChunkAttention(nn.Module):
    """Self-attention over the steps of the chunk."""

    def __init__(self, dim: int, heads: int, norm: str, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.qkv = Linear(dim, dim * 3)
        self.q_norm = ScaleNorm(dim // heads, norm)
        self.k_norm = ScaleNorm(dim // heads, norm)
        self.proj = Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        b, n, c = x.shape
        q, k, v = self.qkv(x).view(b, n, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
        drop = self.dropout if self.training else 0.0
        x = F.scaled_dot_product_attention(self.q_norm(q), self.k_norm(k), v, dropout_p=drop)
        x = self.proj(x.transpose(1, 2).reshape(b, n, c))
        return F.dropout(x, drop, self.training)


class CrossAttention(nn.Module):
    """From the chunk to the condition."""

    masks: Tensor
    probs: Tensor

    def __init__(self, dim: int, shape: ControllerShape) -> None:
        super().__init__()
        self.heads = shape.heads
        self.dropout = shape.dropout
        self.q = Linear(dim, dim)
        self.kv = Linear(dim, dim * 2)
        self.q_norm = ScaleNorm(dim // shape.heads, shape.norm)
        self.k_norm = ScaleNorm(dim // shape.heads, shape.norm)
        self.proj = Linear(dim, dim)
        self.hides = shape.attention_mask
        if shape.attention_mask:
            self.register_buffer("masks", _hiding_masks(shape))
            self.register_buffer("probs", torch.tensor(HIDING_PROBABILITIES))

    def queries(self, x: Tensor) -> Tensor:
        """``[B, T, C]`` to ``[B, heads, T, C/heads]``."""
        b, n, c = x.shape
        return self.q_norm(self.q(x).view(b, n, self.heads, c // self.heads).transpose(1, 2))  # type: ignore[no-any-return]

    def keys_values(self, condition: Tensor) -> tuple[Tensor, Tensor]:
        """``[B, N, C]`` to keys and values ``[B, heads, N, C/heads]`` each."""
        b, n, c = condition.shape
        kv = self.kv(condition).view(b, n, 2, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        k, v = kv.unbind(0)
        return self.k_norm(k), v

    def attend(self, x: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None = None) -> Tensor:
        """``[B, T, C]`` attending to projected keys and values."""
        drop = self.dropout if self.training else 0.0
        out = F.scaled_dot_product_attention(self.queries(x), keys, values, mask, dropout_p=drop)
        out = self.proj(out.transpose(1, 2).reshape(x.shape))
        return F.dropout(out, drop, self.training)

    def weights(self, x: Tensor, keys: Tensor) -> Tensor:
        """The first step's attention ``[B, heads, N]``, for looking at."""
        q = self.queries(x[:, :1])
        scores: Tensor = (q @ keys.transpose(-2, -1)) * q.shape[-1] ** -0.5
        return scores.softmax(dim=-1)[:, :, 0]

    def training_mask(self) -> Tensor | None:
        """A mask drawn anew, in training and where configured."""
        if not (self.hides and self.training):
            return None
        return self.masks[torch.multinomial(self.probs, 1).squeeze()]


def _hiding_masks(shape: ControllerShape) -> Tensor:
    head, wrist, _ = shape.part_lengths
    masks = torch.ones((4, shape.horizon, shape.condition_tokens + 1), dtype=torch.bool)
    masks[0, :, :head] = False
    masks[1, :, head : head + wrist] = False
    masks[2, :, : head + wrist] = False
    return masks


class FeedForward(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.fc1 = Linear(dim, dim)
        self.fc2 = Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.fc1(x, "gelu_tanh"))  # type: ignore[no-any-return]


class DenoiserBlock(nn.Module):
    def __init__(self, dim: int, shape: ControllerShape) -> None:
        super().__init__()
        self.norm1 = ScaleNorm(dim, shape.norm)
        self.attn = ChunkAttention(dim, shape.heads, shape.norm, shape.dropout)
        self.cross_attn = CrossAttention(dim, shape)
        self.norm2 = ScaleNorm(dim, shape.norm)
        self.ffn = FeedForward(dim)
        self.norm3 = ScaleNorm(dim, shape.norm)

    def forward(self, x: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None = None) -> Tensor:
        x = x + self.attn(self.norm1(x))
        x = x + self.cross_attn.attend(self.norm2(x), keys, values, mask)
        return x + self.ffn(self.norm3(x))  # type: ignore[no-any-return]


class TimestepEmbedder(nn.Module):
    FREQUENCIES = 256

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(Linear(self.FREQUENCIES, dim), nn.SiLU(), Linear(dim, dim))

    def forward(self, timesteps: Tensor) -> Tensor:
        half = self.FREQUENCIES // 2
        steps = torch.arange(half, dtype=torch.float32, device=timesteps.device)
        angles = timesteps[:, None].float() * torch.exp(-math.log(10000) * steps / half)[None]
        waves = torch.cat((angles.cos(), angles.sin()), dim=-1)
        return self.mlp(waves.to(next(self.mlp.parameters()).dtype))  # type: ignore[no-any-return]


@dataclass(frozen=True, slots=True)
class TimeTokens:
    """Projected time tokens of a schedule, per layer ``[S, heads, 1, C/heads]``."""

    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]


@dataclass(frozen=True, slots=True)
class Condition:
    """Projected keys and values of one observation, per layer ``[B, heads, N+1, C/heads]``.

    The last position is the time token's; `Denoiser.cached` overwrites it step by step.
    """

    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]


class Denoiser(nn.Module):
    """Predicts the noise (or the clean chunk) of a noisy chunk ``[B, T, action_size]``."""

    def __init__(self, dim: int, shape: ControllerShape) -> None:
        super().__init__()
        self._dummy_variable = nn.Parameter(torch.empty(0), requires_grad=False)  # in the public files
        self.input_emb = Linear(shape.action_size, dim)
        self.pos_emb = nn.Parameter(torch.randn(1, shape.horizon, dim) * 0.02)
        self.time_emb = TimestepEmbedder(dim)
        self.cond_pos_emb = nn.Parameter(torch.randn(1, shape.condition_tokens + 1, dim) * 0.02)
        self.blocks = nn.ModuleList(DenoiserBlock(dim, shape) for _ in range(shape.layers))
        self.ln_f = ScaleNorm(dim, shape.norm)
        self.head = Linear(dim, shape.action_size)

    def forward(
        self, sample: Tensor, timesteps: Tensor, condition: Tensor, maps: list[Tensor] | None = None
    ) -> Tensor:
        """The straightforward computation, as training needs it.

        Args:
            sample: ``[B, T, action_size]``.
            timesteps: ``[B]`` or ``[1]``, integers.
            condition: observation tokens ``[B, N, C]``.
            maps: each layer's attention of the first action step is appended, if given.
        """
        time = self.time_emb(timesteps.expand(sample.shape[0])).unsqueeze(1)
        tokens = torch.cat((condition, time), dim=1)
        tokens = tokens + self.cond_pos_emb[:, : tokens.shape[1]]
        x = self._embed(sample)
        for block in self._layers():
            keys, values = block.cross_attn.keys_values(tokens)
            if maps is not None:
                y = x + block.attn(block.norm1(x))
                maps.append(block.cross_attn.weights(block.norm2(y), keys))
            x = block(x, keys, values, block.cross_attn.training_mask())
        return self.head(self.ln_f(x))  # type: ignore[no-any-return]

    def _layers(self) -> list[DenoiserBlock]:
        return cast("list[DenoiserBlock]", list(self.blocks))

    def _embed(self, sample: Tensor) -> Tensor:
        return self.input_emb(sample) + self.pos_emb[:, : sample.shape[1]]  # type: ignore[no-any-return]

    def time_tokens(self, timesteps: Tensor, tokens: int) -> TimeTokens:
        """Keys and values of the time token at each of `timesteps` ``[S]``, after `tokens` others."""
        time = self.time_emb(timesteps).unsqueeze(1) + self.cond_pos_emb[:, tokens : tokens + 1]
        pairs = [block.cross_attn.keys_values(time) for block in self._layers()]
        return TimeTokens(tuple(k for k, _ in pairs), tuple(v for _, v in pairs))

    def prepare(self, condition: Tensor) -> Condition:
        """Project observation tokens ``[B, N, C]`` once for all steps."""
        tokens = condition + self.cond_pos_emb[:, : condition.shape[1]]
        pairs = [block.cross_attn.keys_values(tokens) for block in self._layers()]
        return Condition(tuple(_with_room(k) for k, _ in pairs), tuple(_with_room(v) for _, v in pairs))

    def cached(self, sample: Tensor, step: int, time: TimeTokens, condition: Condition) -> Tensor:
        """As `forward`, from projected keys and values; `step` indexes the schedule of `time`."""
        x = self._embed(sample)
        for layer, block in enumerate(self._layers()):
            keys, values = condition.keys[layer], condition.values[layer]
            keys[:, :, -1:] = time.keys[layer][step]
            values[:, :, -1:] = time.values[layer][step]
            x = block(x, keys, values)
        return self.head(self.ln_f(x))  # type: ignore[no-any-return]


def _with_room(projected: Tensor) -> Tensor:
    b, h, n, c = projected.shape
    out = projected.new_empty((b, h, n + 1, c))
    out[:, :, :n] = projected
    return out
