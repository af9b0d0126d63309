"""The DETR-VAE of ACT (Zhao et al., arXiv 2304.13705), with the original's names and numbers.

The original reads the *first* decoder layer's output and computes the others for nothing; here there is
only that layer, and the weights of the others in a checkpoint are left out. Its self-attention sees only
learned queries, so that part is a constant and computed once.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own custom
from torch import Tensor, nn

from policies.act.options import ActShape
from policies.act.resnet import MEAN, STD, Folded, OnPixels, ResNet18
from policies.linear import Linear, MultiHead

UNUSED = ("transformer.decoder.layers.",)
"""Weights of an original checkpoint that the output does not depend on, except layer 0's."""


def sinusoid_table(positions: int, dim: int) -> Tensor:
    """The CVAE encoder's fixed position table ``[1, positions, dim]``."""
    place = torch.arange(positions, dtype=torch.float64)[:, None]
    index = torch.arange(dim, dtype=torch.float64)[None]
    angle = place / torch.pow(torch.tensor(10000.0, dtype=torch.float64), 2 * (index // 2) / dim)
    angle[:, 0::2] = angle[:, 0::2].sin()
    angle[:, 1::2] = angle[:, 1::2].cos()
    return angle.float()[None]


def image_positions(height: int, width: int, dim: int, device: torch.device) -> Tensor:
    """DETR's normalised sine embedding of a feature map, ``[height, width, dim]``."""
    half = dim // 2
    index = torch.arange(half, dtype=torch.float32, device=device)
    wave = 10000 ** (2 * (index // 2) / half)

    def axis(n: int) -> Tensor:
        place = torch.arange(1, n + 1, dtype=torch.float32, device=device)
        angle = (place / (n + 1e-6) * 2 * math.pi)[:, None] / wave
        return torch.stack((angle[:, 0::2].sin(), angle[:, 1::2].cos()), dim=2).flatten(1)

    rows = axis(height)[:, None].expand(height, width, half)
    columns = axis(width)[None].expand(height, width, half)
    return torch.cat((rows, columns), dim=2)


def dropped(x: Tensor, rate: float) -> Tensor:
    """`x` with a share of its entries 0 and the others larger by as much. On a CPU the share is `rate` to a
    256th, and eight entries share a random number: those are drawn one after the other by one thread.
    """
    if x.device.type != "cpu":
        return F.dropout(x, rate)
    least = round(rate * 256)
    numbers = torch.empty((x.numel() + 7) // 8, dtype=torch.int64).random_(-(1 << 63), None)
    kept = numbers.view(torch.uint8)[: x.numel()].view(x.shape) >= least
    return x * (kept * (256 / (256 - least)))


class _Layer(nn.Module):
    """What both kinds have: dropout in training, as `ActModel.set_dropout` says; else none."""

    dropout = 0.0

    def drop(self, x: Tensor) -> Tensor:
        """Of what comes back from attention or the feed-forward network."""
        return dropped(x, self.dropout) if self.dropout and self.training else x


class EncoderLayer(_Layer):
    def __init__(self, shape: ActShape) -> None:
        super().__init__()
        self.self_attn = MultiHead(shape.hidden, shape.heads)
        self.linear1 = Linear(shape.hidden, shape.feedforward)
        self.linear2 = Linear(shape.feedforward, shape.hidden)
        self.norm1 = nn.LayerNorm(shape.hidden)
        self.norm2 = nn.LayerNorm(shape.hidden)

    def forward(
        self, x: Tensor, pos: Tensor, padding: Tensor | None = None, *, first: bool = False
    ) -> Tensor:
        """``x[B, S, C]``; `padding` is ``[B, S]``, true where there is nothing. With `first`, the first place
        of the result alone, ``[B, 1, C]``.
        """
        at = x + pos
        mine, asking = (x[:, :1], at[:, :1]) if first else (x, at)
        x = self.norm1(mine + self.drop(self.self_attn(asking, at, x, padding)))
        return self.norm2(x + self.drop(self.linear2(self.drop(self.linear1(x, "relu")))))  # type: ignore[no-any-return]


class Encoder(nn.Module):
    def __init__(self, shape: ActShape) -> None:
        super().__init__()
        self.layers = nn.ModuleList(EncoderLayer(shape) for _ in range(shape.encoder_layers))

    def forward(
        self, x: Tensor, pos: Tensor, padding: Tensor | None = None, *, first: bool = False
    ) -> Tensor:
        """As each layer; with `first`, what the last one says of the first place alone."""
        *before, last = self.layers
        for layer in before:
            x = layer(x, pos, padding)
        return last(x, pos, padding, first=first)  # type: ignore[no-any-return]


class DecoderLayer(_Layer):
    def __init__(self, shape: ActShape) -> None:
        super().__init__()
        self.self_attn = MultiHead(shape.hidden, shape.heads)
        self.multihead_attn = MultiHead(shape.hidden, shape.heads)
        self.linear1 = Linear(shape.hidden, shape.feedforward)
        self.linear2 = Linear(shape.feedforward, shape.hidden)
        self.norm1 = nn.LayerNorm(shape.hidden)
        self.norm2 = nn.LayerNorm(shape.hidden)
        self.norm3 = nn.LayerNorm(shape.hidden)

    def queries(self, query_pos: Tensor) -> Tensor:
        """What the layer's own self-attention makes of nothing: ``[1, T, C]``."""
        nothing = torch.zeros_like(query_pos)
        return self.norm1(self.drop(self.self_attn(query_pos, query_pos, nothing)))  # type: ignore[no-any-return]

    def forward(self, target: Tensor, query_pos: Tensor, memory: Tensor, pos: Tensor) -> Tensor:
        x = self.norm2(target + self.drop(self.multihead_attn(target + query_pos, memory + pos, memory)))
        return self.norm3(x + self.drop(self.linear2(self.drop(self.linear1(x, "relu")))))  # type: ignore[no-any-return]


class Decoder(nn.Module):
    def __init__(self, shape: ActShape) -> None:
        super().__init__()
        self.layers = nn.ModuleList([DecoderLayer(shape)])
        self.norm = nn.LayerNorm(shape.hidden)

    @property
    def first(self) -> DecoderLayer:
        """The layer that counts."""
        return cast("DecoderLayer", self.layers[0])


class _Transformer(nn.Module):
    def __init__(self, shape: ActShape) -> None:
        super().__init__()
        self.encoder = Encoder(shape)
        self.decoder = Decoder(shape)


class _Backbone(nn.Module):
    def __init__(self, shape: ActShape) -> None:
        super().__init__()
        self.body = ResNet18(shape.base_width, shape.norm)


@dataclass(frozen=True, slots=True)
class ActLoss:
    """The training loss and its parts."""

    loss: Tensor
    l1: Tensor
    kl: Tensor


class ActModel(nn.Module):
    """State ``[B, S]`` and images to ``[B, chunk, action_size]``, all normalised."""

    pos_table: Tensor

    def __init__(self, shape: ActShape) -> None:
        super().__init__()
        self.shape = shape
        hidden = shape.hidden
        self.transformer = _Transformer(shape)
        self.encoder = Encoder(shape)
        self.action_head = Linear(hidden, shape.action_size)
        self.is_pad_head = Linear(hidden, 1)
        self.query_embed = nn.Embedding(shape.chunk, hidden)
        self.backbones = nn.ModuleList([nn.ModuleList([_Backbone(shape)])])
        self.input_proj = nn.Conv2d(self.resnet.channels, hidden, 1)
        self.input_proj_robot_state = Linear(shape.state_size, hidden)
        self.cls_embed = nn.Embedding(1, hidden)
        self.encoder_action_proj = Linear(shape.action_size, hidden)
        self.encoder_joint_proj = Linear(shape.state_size, hidden)
        self.latent_proj = Linear(hidden, shape.latent * 2)
        self.latent_out_proj = Linear(shape.latent, hidden)
        self.additional_pos_embed = nn.Embedding(2, hidden)
        self.register_buffer("pos_table", sinusoid_table(2 + shape.chunk, hidden))

    @property
    def resnet(self) -> ResNet18:
        """The backbone."""
        backbone = cast("nn.ModuleList", self.backbones[0])[0]
        return cast("_Backbone", backbone).body

    def set_dropout(self, rate: float) -> None:
        """Of all layers, in training mode. Not of attention's weights: see docs/decisions/0152."""
        for module in self.modules():
            if isinstance(module, _Layer):
                module.dropout = rate

    def on_pixels(self) -> Folded | OnPixels:
        """The backbone for inference; folded, weights are copied."""
        return Folded(self.resnet) if self.shape.norm == "frozen_batch" else OnPixels(self.resnet)

    def features(self, images: Tensor) -> Tensor:
        """``[B, cameras, 3, H, W]``, RGB in 0..1, to ``[B, cameras, C, h, w]``."""
        batch, cameras = images.shape[:2]
        mean = torch.tensor(MEAN, device=images.device).view(1, 3, 1, 1)
        std = torch.tensor(STD, device=images.device).view(1, 3, 1, 1)
        maps: Tensor = self.resnet((images.flatten(0, 1) - mean) / std)
        return maps.view(batch, cameras, *maps.shape[1:])

    def decode(
        self,
        state: Tensor,
        maps: Tensor,
        latent: Tensor | None = None,
        constant_queries: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Actions and padding logits.

        Args:
            state: ``[B, state_size]``, normalised.
            maps: ``[B, cameras, C, h, w]`` from the backbone.
            latent: ``[B, latent]``; zeros if absent, as at inference.
            constant_queries: `Decoder` layer 0's ``queries``, if they were computed before.
        """
        batch = state.shape[0]
        if latent is None:
            latent = state.new_zeros(batch, self.shape.latent)
        tokens = self._tokens(state, maps, latent)
        pos = self._positions(maps)
        memory = self.transformer.encoder(tokens, pos)
        query_pos = self.query_embed.weight[None]
        layer = self.transformer.decoder.first
        target = layer.queries(query_pos) if constant_queries is None else constant_queries
        wide = (batch, self.shape.chunk, self.shape.hidden)
        out = self.transformer.decoder.norm(layer(target.expand(wide), query_pos, memory, pos))
        return self.action_head(out), self.is_pad_head(out)

    def _tokens(self, state: Tensor, maps: Tensor, latent: Tensor) -> Tensor:
        projected: Tensor = self.input_proj(maps.flatten(0, 1))
        projected = projected.view(*maps.shape[:2], *projected.shape[1:])
        wide = projected.permute(0, 3, 1, 4, 2).flatten(1, 3)  # rows, cameras, columns
        extra = torch.stack((self.latent_out_proj(latent), self.input_proj_robot_state(state)), dim=1)
        return torch.cat((extra, wide), dim=1)

    def _positions(self, maps: Tensor) -> Tensor:
        cameras, _, height, width = maps.shape[1:]
        grid = image_positions(height, width, self.shape.hidden, maps.device).to(maps.dtype)
        wide = grid[:, None].expand(-1, cameras, -1, -1).flatten(0, 2)
        return torch.cat((self.additional_pos_embed.weight, wide))[None]

    def posterior(self, state: Tensor, actions: Tensor, is_pad: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance of the latent ``[B, latent]`` given ``actions[B, chunk, A]``."""
        batch = state.shape[0]
        cls = self.cls_embed.weight[None].expand(batch, -1, -1)
        joint = self.encoder_joint_proj(state)[:, None]
        tokens = torch.cat((cls, joint, self.encoder_action_proj(actions)), dim=1)
        pad = torch.cat((is_pad.new_zeros(batch, 2), is_pad), dim=1)
        out = self.encoder(tokens, self.pos_table, pad, first=True)[:, 0]
        mean, log_variance = self.latent_proj(out).chunk(2, dim=1)
        return mean, log_variance

    def loss(
        self,
        state: Tensor,
        images: Tensor,
        actions: Tensor,
        is_pad: Tensor,
        kl_weight: float,
        noise: Tensor | None = None,
    ) -> ActLoss:
        """The original's training loss; ``images[B, cameras, 3, H, W]`` in 0..1, the rest normalised.

        `noise` ``[B, latent]`` is drawn unless given.
        """
        actions, is_pad = actions[:, : self.shape.chunk], is_pad[:, : self.shape.chunk]
        mean, log_variance = self.posterior(state, actions, is_pad)
        noise = torch.randn_like(mean) if noise is None else noise
        latent = mean + log_variance.div(2).exp() * noise
        predicted, _ = self.decode(state, self.features(images), latent)
        l1 = (F.l1_loss(predicted, actions, reduction="none") * ~is_pad[..., None]).mean()
        kl = (-0.5 * (1 + log_variance - mean**2 - log_variance.exp())).sum(1).mean()
        return ActLoss(l1 + kl * kl_weight, l1, kl)

    def load(self, state: Mapping[str, Tensor]) -> tuple[list[str], list[str]]:
        """Load weights by their original names, with or without the leading ``model.``.

        Returns missing and unexpected keys; decoder layers that nothing depends on are neither.
        """
        plain = {key.removeprefix("model."): value for key, value in state.items()}
        used = {key: value for key, value in plain.items() if not is_unused(key)}
        result = self.load_state_dict(used, strict=False)
        return list(result.missing_keys), list(result.unexpected_keys)


def is_unused(key: str) -> bool:
    """Whether the output does not depend on this weight of an original checkpoint."""
    prefix = UNUSED[0]
    if key.startswith(prefix):
        return not key.startswith(prefix + "0.")
    return key.endswith("num_batches_tracked")
