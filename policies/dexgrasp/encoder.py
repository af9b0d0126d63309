"""Turns head image, mask, wrist image and state into the condition of the diffusion transformer.

Names and shapes as in the public controller (DexGraspVLA, arXiv 2502.20900): ``dino_head``,
``dino_wrist``, ``mask_process_net``, ``head_net``, ``wrist_net``, ``state_net``.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from policies.dexgrasp.options import ControllerShape
from policies.dexgrasp.vit import BACKBONES, PATCH, DinoVit
from policies.linear import Linear, MultiHead

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


class _ToTokens(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.transpose(1, 2)


class MaskLayer(nn.Module):
    """`torch.nn.TransformerEncoderLayer`, norm first, GELU, with its names."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.self_attn = MultiHead(dim, heads)
        self.linear1 = Linear(dim, dim * 4)
        self.linear2 = Linear(dim * 4, dim)
        self.norm1 = nn.LayerNorm(dim)
        self.norm2 = nn.LayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm1(x)
        x = x + self.self_attn(y, y, y)
        return x + self.linear2(self.linear1(self.norm2(x), "gelu"))  # type: ignore[no-any-return]


class MaskStack(nn.Module):
    def __init__(self, dim: int, layers: int, heads: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(MaskLayer(dim, heads) for _ in range(layers))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


def _mask_network(dim: int, layers: int, heads: int) -> nn.ModuleDict:
    embed = nn.Sequential(nn.Conv2d(1, dim, PATCH, PATCH), nn.Flatten(2), _ToTokens(), nn.LayerNorm(dim))
    return nn.ModuleDict({"patch_embed": embed, "transformer": MaskStack(dim, layers, heads)})


def _fuse(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        Linear(inputs, hidden),
        nn.LayerNorm(hidden),
        nn.GELU(),
        nn.Dropout(0.1),
        Linear(hidden, outputs),
        nn.LayerNorm(outputs),
    )


class ObservationEncoder(nn.Module):
    """Observation tokens ``[B, T*(2*patches)+T, dim]``: head, wrist, state, in this order."""

    def __init__(self, shape: ControllerShape) -> None:
        super().__init__()
        self.shape = shape
        dims = [BACKBONES[name].dim for name in (shape.head, shape.wrist) if name is not None]
        self.dim = max(dims)
        self._dummy_variable = nn.Parameter(torch.empty(0), requires_grad=False)  # in the public files
        if shape.head is not None:
            head = BACKBONES[shape.head]
            self.dino_head = DinoVit(head, shape.position_grid)
            self.mask_process_net = _mask_network(head.dim, shape.mask_layers, shape.mask_heads)
            self.head_net = _fuse(head.dim * 2, self.dim, self.dim)
        if shape.wrist is not None:
            wrist = BACKBONES[shape.wrist]
            self.dino_wrist = DinoVit(wrist, shape.position_grid)
            self.wrist_net = _fuse(wrist.dim, self.dim, self.dim)
        self.state_net = _fuse(shape.state_size, 256, self.dim)
        self._colors: dict[torch.device, tuple[Tensor, Tensor]] = {}
        self.one_pass = False

    def share_backbones(self) -> bool:
        """Use one backbone for both cameras, in one pass, if the two hold the same weights.

        The backbones are frozen in training, so two of the same size usually do.
        """
        if self.shape.head is None or self.shape.head != self.shape.wrist:
            return False
        pairs = zip(self.dino_head.parameters(), self.dino_wrist.parameters(), strict=True)
        self.one_pass = all(torch.equal(a, b) for a, b in pairs)
        return self.one_pass

    def forward(self, head: Tensor | None, wrist: Tensor | None, state: Tensor) -> Tensor:
        """Encode.

        Args:
            head: ``[B, T, 4, H, W]``, RGB in 0..1 and the mask in {0, 1}; ``None`` without head camera.
            wrist: ``[B, T, 3, H, W]``, RGB in 0..1; ``None`` without wrist camera.
            state: ``[B, T, state_size]``.
        """
        head_rgb, wrist_rgb = self._images(head, wrist)
        head_features, wrist_features = self._backbones(head_rgb, wrist_rgb)
        mask = None if head is None else head.flatten(0, 1)[:, 3:]
        return self.fuse(head_features, mask, wrist_features, state)

    def fuse(self, head: Tensor | None, mask: Tensor | None, wrist: Tensor | None, state: Tensor) -> Tensor:
        """`forward` from what the backbones said, which does not change in training.

        Args:
            head: features ``[B*T, patches, dim]``; ``None`` without that camera.
            wrist: the same of the other one.
            mask: ``[B*T, 1, H, W]`` in {0, 1}, with `head`.
            state: ``[B, T, state_size]``.
        """
        batch, steps = state.shape[:2]
        parts: list[Tensor] = []
        if head is not None and mask is not None:
            parts.append(self.head_net(torch.cat((head, self.mask_features(mask.to(state.dtype))), dim=-1)))
        if wrist is not None:
            parts.append(self.wrist_net(wrist))
        parts.append(self.state_net(state.flatten(0, 1)).unsqueeze(1))
        return torch.cat([p.reshape(batch, steps * p.shape[1], self.dim) for p in parts], dim=1)

    def mask_features(self, mask: Tensor) -> Tensor:
        """``[B, 1, H, W]`` in {0, 1} to ``[B, patches, head dim]``."""
        return self.mask_process_net["transformer"](  # type: ignore[no-any-return]
            self.mask_process_net["patch_embed"](mask)
        )

    def _images(self, head: Tensor | None, wrist: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
        head_rgb = None if head is None else self.normalized(head.flatten(0, 1)[:, :3])
        wrist_rgb = None if wrist is None else self.normalized(wrist.flatten(0, 1))
        return head_rgb, wrist_rgb

    def normalized(self, image: Tensor) -> Tensor:
        """``[B, 3, H, W]`` in 0..1 to ImageNet's mean and deviation, in float32, then the network's dtype."""
        if image.device not in self._colors:
            mean, std = (torch.tensor(v, device=image.device).view(1, 3, 1, 1) for v in (MEAN, STD))
            self._colors[image.device] = mean, std
        mean, std = self._colors[image.device]
        return ((image - mean) / std).to(next(self.state_net.parameters()).dtype)

    def _backbones(self, head: Tensor | None, wrist: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
        with torch.no_grad():
            if self.one_pass and head is not None and wrist is not None:
                both = self.dino_head(torch.cat((head, wrist)))
                return both[: head.shape[0]], both[head.shape[0] :]
            return (
                None if head is None else self.dino_head(head),
                None if wrist is None else self.dino_wrist(wrist),
            )
