"""LeRobot's ACT (Zhao et al., arXiv 2304.13705) at inference, under the names of its files.

The latent is 0 then, so that of the CVAE nothing is needed but one bias.
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import BeforeValidator, Field
from torch import Tensor, nn

from policies import accelerate
from policies.act.model import image_positions
from policies.act.resnet import BLOCKS, ResNet
from policies.lerobot.folder import ENVIRONMENT, STATE, Folder
from policies.lerobot.network import FileSaid, NetworkInput, said
from policies.lerobot.weights import first_width, loaded
from policies.linear import Linear, MultiHead, pack_all


def _backbone(name: object) -> object:
    if name not in BLOCKS:
        raise ValueError(f"those that run here are {', '.join(BLOCKS)}")
    return name


Backbone = Annotated[str, BeforeValidator(_backbone)]


class ActSaid(FileSaid):
    """What LeRobot's ``config.json`` says of the network, with LeRobot's defaults.

    Attributes:
        chunk_size: rows of a chunk. dim_model: width of the transformers, dim_feedforward inside their
            feed-forward networks. vision_backbone: torchvision's name of it.
    """

    n_obs_steps: Literal[1] = 1
    chunk_size: int = Field(default=100, ge=1, le=1000)
    vision_backbone: Backbone = "resnet18"
    replace_final_stride_with_dilation: Literal[0, False] = False
    pre_norm: bool = False
    dim_model: int = Field(default=512, ge=4, le=8192, multiple_of=4)
    n_heads: int = Field(default=8, ge=1, le=256)
    dim_feedforward: int = Field(default=3200, ge=1, le=65536)
    feedforward_activation: Literal["relu", "gelu"] = "relu"
    n_encoder_layers: int = Field(default=4, ge=1, le=64)
    n_decoder_layers: int = Field(default=1, ge=1, le=64)
    latent_dim: int = Field(default=32, ge=1, le=8192)


class _FeedForward(nn.Module):
    """What encoder's and decoder's layers have in common: attention to themselves, and the last part."""

    def __init__(self, said: ActSaid) -> None:
        super().__init__()
        self.pre_norm, self.activation = said.pre_norm, said.feedforward_activation
        self.self_attn = MultiHead(said.dim_model, said.n_heads)
        self.linear1 = Linear(said.dim_model, said.dim_feedforward)
        self.linear2 = Linear(said.dim_feedforward, said.dim_model)
        self.norm1 = nn.LayerNorm(said.dim_model)
        self.norm2 = nn.LayerNorm(said.dim_model)

    def attended(self, x: Tensor, pos: Tensor) -> Tensor:
        """After attention to itself, normed unless the norms come first."""
        h = self.norm1(x) if self.pre_norm else x
        x = x + self.self_attn(h + pos, h + pos, h)
        return x if self.pre_norm else self.norm1(x)

    def fed(self, x: Tensor, norm: nn.Module) -> Tensor:
        """After the feed-forward network."""
        h = norm(x) if self.pre_norm else x
        x = x + self.linear2(self.linear1(h, self.activation))
        return x if self.pre_norm else norm(x)


class _ActEncoderLayer(_FeedForward):
    def forward(self, x: Tensor, pos: Tensor) -> Tensor:
        return self.fed(self.attended(x, pos), self.norm2)


class _ActDecoderLayer(_FeedForward):
    def __init__(self, said: ActSaid) -> None:
        super().__init__(said)
        self.multihead_attn = MultiHead(said.dim_model, said.n_heads)
        self.norm3 = nn.LayerNorm(said.dim_model)

    def forward(self, x: Tensor, own: Tensor, memory: Tensor, pos: Tensor) -> Tensor:
        """`own` are the positions of `x`, `pos` those of `memory`."""
        x = self.attended(x, own)
        h = self.norm2(x) if self.pre_norm else x
        x = x + self.multihead_attn(h + own, memory + pos, memory)
        x = x if self.pre_norm else self.norm2(x)
        return self.fed(x, self.norm3)


class _Layers(nn.Module):
    def __init__(self, layers: list[nn.Module], norm: nn.Module) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.norm = norm


class LerobotAct(nn.Module):
    """`policies.lerobot.network.ChunkNetwork`."""

    history = 1
    takes_prefix = False

    def __init__(self, folder: Folder, said: ActSaid, width: int) -> None:
        super().__init__()
        self.rows = said.chunk_size
        self._vectors = [name for name in (STATE, ENVIRONMENT) if name in folder.vectors]
        dim, sizes = said.dim_model, folder.vectors
        if folder.cameras:
            self.backbone = ResNet(said.vision_backbone, width)
            self.encoder_img_feat_input_proj = nn.Conv2d(self.backbone.channels, dim, 1)
        encoder: list[nn.Module] = [_ActEncoderLayer(said) for _ in range(said.n_encoder_layers)]
        decoder: list[nn.Module] = [_ActDecoderLayer(said) for _ in range(said.n_decoder_layers)]
        self.encoder = _Layers(encoder, nn.LayerNorm(dim) if said.pre_norm else nn.Identity())
        self.decoder = _Layers(decoder, nn.LayerNorm(dim))
        if STATE in sizes:
            self.encoder_robot_state_input_proj = Linear(sizes[STATE], dim)
        if ENVIRONMENT in sizes:
            self.encoder_env_state_input_proj = Linear(sizes[ENVIRONMENT], dim)
        self.encoder_latent_input_proj = Linear(said.latent_dim, dim)
        self.encoder_1d_feature_pos_embed = nn.Embedding(1 + len(self._vectors), dim)
        self.decoder_pos_embed = nn.Embedding(said.chunk_size, dim)
        self.action_head = Linear(dim, folder.action.shape[0])

    def place(self, device: torch.device, precision: str) -> None:
        """Move there."""
        accelerate.place(self, device, precision)

    def pack(self, *, guided: bool, int8: bool) -> None:
        """Pack all its layers; nothing guides it, and none is rounded."""
        del guided, int8
        pack_all(self)

    @torch.no_grad()
    def chunk(self, seen: NetworkInput) -> Tensor:
        """``[B, chunk, action]``, normalised, float32."""
        tokens, positions = self._tokens(seen)
        x, pos = torch.cat(tokens, dim=1), torch.cat(positions)[None]
        for layer in self.encoder.layers:
            x = layer(x, pos)
        memory = self.encoder.norm(x)
        own = self.decoder_pos_embed.weight[None]
        out = torch.zeros_like(own).expand(x.shape[0], -1, -1)
        for layer in self.decoder.layers:
            out = layer(out, own, memory, pos)
        return self.action_head(self.decoder.norm(out)).float()  # type: ignore[no-any-return]

    def _tokens(self, seen: NetworkInput) -> tuple[list[Tensor], list[Tensor]]:
        """``[B, n, width]`` each, and their positions ``[n, width]``."""
        weights = self.decoder_pos_embed.weight
        project = {STATE: "encoder_robot_state_input_proj", ENVIRONMENT: "encoder_env_state_input_proj"}
        felt = [
            getattr(self, project[name])(seen.vectors[name][:, -1].to(weights.dtype))
            for name in self._vectors
        ]
        batch = next(iter((*seen.vectors.values(), *seen.pictures.values()))).shape[0]
        latent = self.encoder_latent_input_proj(weights.new_zeros(batch, self._latent))
        tokens = [torch.stack([latent, *felt], dim=1)]
        positions = [self.encoder_1d_feature_pos_embed.weight]
        for view in seen.pictures.values():
            maps = self.backbone(view[:, -1].to(weights.dtype))
            height, across = maps.shape[2:]
            grid = image_positions(height, across, weights.shape[1], maps.device).to(maps.dtype)
            positions.append(grid.flatten(0, 1))
            tokens.append(self.encoder_img_feat_input_proj(maps).flatten(2).transpose(1, 2))
        return tokens, positions

    @property
    def _latent(self) -> int:
        return self.encoder_latent_input_proj.in_features


def load_lerobot_act(folder: Folder, device: torch.device, precision: str) -> LerobotAct:
    """The folder's network.

    Raises:
        FolderError: it does not run here, or does not fit its weights.
    """
    told = said(folder, ActSaid)
    if told.dim_model % told.n_heads:
        raise folder.error(
            f"config.json: dim_model {told.dim_model} is no multiple of n_heads {told.n_heads}"
        )
    if not (folder.cameras or ENVIRONMENT in folder.vectors):
        raise folder.error("config.json: no picture and no environment state among its input_features")
    width = first_width(folder, "backbone.conv1.weight") if folder.cameras else 64
    return loaded(folder, lambda: LerobotAct(folder, told, width), device, precision, renamed=_name)


_ELSEWHERE = ("model.vae_encoder", "normalize_", "unnormalize_")
"""Of training alone, or statistics."""


def _name(name: str) -> str | None:
    return None if name.startswith(_ELSEWHERE) else name.removeprefix("model.")
