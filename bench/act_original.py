"""ACT's chunk computed the way the original does, for comparison: everything it computes, used or not.

Float images divided and normalised per camera, batch norms as separate operations, attention with averaged
weights, and seven decoder layers of which the first one's output is read.
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own custom
from torch import Tensor, nn

from policies.act.model import ActModel, DecoderLayer, EncoderLayer
from policies.act.resnet import MEAN, STD, ResNet18
from policies.linear import MultiHead

DECODER_LAYERS = 7


def _attention(of: MultiHead) -> nn.MultiheadAttention:
    made = nn.MultiheadAttention(of.out_proj.in_features, of.heads)
    made.load_state_dict(of.state_dict())
    return made.eval()


class _EncoderLayer(nn.Module):
    def __init__(self, layer: EncoderLayer) -> None:
        super().__init__()
        self.attention, self.layer = _attention(layer.self_attn), layer

    def forward(self, x: Tensor, pos: Tensor) -> Tensor:
        at = x + pos
        x = self.layer.norm1(x + self.attention(at, at, x)[0])
        hidden = F.relu(F.linear(x, self.layer.linear1.weight, self.layer.linear1.bias))
        y = F.linear(hidden, self.layer.linear2.weight, self.layer.linear2.bias)
        return self.layer.norm2(x + y)  # type: ignore[no-any-return]


class _DecoderLayer(nn.Module):
    def __init__(self, layer: DecoderLayer) -> None:
        super().__init__()
        self.own, self.cross = _attention(layer.self_attn), _attention(layer.multihead_attn)
        self.layer = layer

    def forward(self, x: Tensor, memory: Tensor, pos: Tensor, query_pos: Tensor) -> Tensor:
        at = x + query_pos
        x = self.layer.norm1(x + self.own(at, at, x)[0])
        x = self.layer.norm2(x + self.cross(x + query_pos, memory + pos, memory)[0])
        hidden = F.relu(F.linear(x, self.layer.linear1.weight, self.layer.linear1.bias))
        y = F.linear(hidden, self.layer.linear2.weight, self.layer.linear2.bias)
        return self.layer.norm3(x + y)  # type: ignore[no-any-return]


class OriginalWay(nn.Module):
    """``state[1, S]`` and ``images[1, cameras, H, W, 3]`` uint8 to ``[1, chunk, A]``."""

    def __init__(self, model: ActModel) -> None:
        super().__init__()
        self.model = copy.deepcopy(model)
        layers = self.model.transformer.encoder.layers
        self.encoder = nn.ModuleList(_EncoderLayer(layer) for layer in layers)  # type: ignore[arg-type]
        first = self.model.transformer.decoder.first
        self.decoder = nn.ModuleList(_DecoderLayer(copy.deepcopy(first)) for _ in range(DECODER_LAYERS))

    @torch.inference_mode()
    def forward(self, state: Tensor, images: Tensor) -> Tensor:
        model = self.model
        floats = images.permute(0, 1, 4, 2, 3).float() / 255.0
        mean = torch.tensor(MEAN, device=images.device).view(3, 1, 1)
        std = torch.tensor(STD, device=images.device).view(3, 1, 1)
        floats = (floats - mean) / std
        maps = torch.stack([_backbone(model.resnet, floats[:, n]) for n in range(floats.shape[1])], dim=1)
        latent = state.new_zeros(1, model.shape.latent)
        tokens = model._tokens(state, maps, latent).transpose(0, 1)  # noqa: SLF001 - a comparison looks inside
        pos = model._positions(maps).transpose(0, 1)  # noqa: SLF001 - a comparison looks inside
        for layer in self.encoder:
            tokens = layer(tokens, pos)
        query_pos = model.query_embed.weight[:, None]
        x, outputs = torch.zeros_like(query_pos), []
        for layer in self.decoder:
            x = layer(x, tokens, pos, query_pos)
            outputs.append(model.transformer.decoder.norm(x))
        hs = torch.stack(outputs).transpose(1, 2)[0]
        model.is_pad_head(hs)
        return model.action_head(hs)  # type: ignore[no-any-return]


def _backbone(net: ResNet18, x: Tensor) -> Tensor:
    """Every norm after its convolution, as the original has them."""
    x = F.max_pool2d(F.relu(net.bn1(net.conv1(x))), 3, 2, 1)
    for block in net.blocks():
        y = F.relu(block.bn1(block.conv1(x)))
        y = block.bn2(block.conv2(y))
        x = F.relu(y + (x if block.downsample is None else block.downsample(x)))
    return x
