"""Inputs that LeRobot's SmolVLA has not, as tokens beside the state: depth, force, where the object is.

Their weights are in a file of their own, so that ``model.safetensors`` has LeRobot's names alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import cast

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own custom
from torch import Tensor, nn

from policies.checkpoint import CheckpointError, State, check_fit, read_safetensors, write_safetensors
from policies.data.dataset import DEPTH, FORCE, TIP
from policies.smolvla.options import SmolVlaInputs

FILE = "extras.safetensors"
_GROUP = 8
_CHANNELS = (16, 32, 64, 128, 128)
"""Of a depth encoder's convolutions, each of which halves the picture: 96x128 become 3x4 tokens."""


class DepthEncoder(nn.Module):
    """Metres ``[B, height, width]``, 0 where there is no reading, to ``[B, N, width]``.

    One channel, and the numbers as they are: how far things are is not stretched by what else is in sight.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = 1
        for channels in _CHANNELS:
            layers.append(nn.Conv2d(before, channels, 3, stride=2, padding=1))
            layers += [nn.GroupNorm(channels // _GROUP, channels), nn.SiLU()]
            before = channels
        self.layers = nn.Sequential(*layers)
        self.out = nn.Linear(before, width)

    def forward(self, metres: Tensor) -> Tensor:
        maps = self.layers(metres[:, None].to(self.out.weight.dtype))
        return cast("Tensor", self.out(maps.flatten(2).transpose(1, 2)))


class ExtraInputs(nn.Module):
    """`SmolVlaInputs` as tokens of a language model of `width`.

    Attributes:
        inputs: which there are.
    """

    def __init__(self, inputs: SmolVlaInputs, width: int) -> None:
        super().__init__()
        self.inputs = inputs
        self.depth = nn.ModuleList(DepthEncoder(width) for _ in inputs.depth)
        if inputs.force:
            self.force = nn.Linear(inputs.force, width)
            self._scaled("force", inputs.force)
        if inputs.tip_camera:
            self.tip = nn.Linear(4, width)
            self._scaled("tip", 3)

    def _scaled(self, name: str, size: int) -> None:
        self.register_buffer(f"{name}_mean", torch.zeros(size))
        self.register_buffer(f"{name}_std", torch.ones(size))

    def fit(self, name: str, mean: Tensor, std: Tensor) -> None:
        """Scale the force or the tip by the data set's mean and deviation ``[n]``."""
        cast("Tensor", getattr(self, f"{name}_mean")).copy_(mean)
        cast("Tensor", getattr(self, f"{name}_std")).copy_(std)

    def forward(self, measured: Mapping[str, Tensor]) -> Tensor:
        """``[B, N, width]``.

        Args:
            measured: by the data set's names: depth ``[B, H, W]`` metres, 0 without a reading; force
                ``[B, K]`` newtons; the tip ``[B, 3]`` metres, NaN before the object was seen.
        """
        size = (self.inputs.depth_height, self.inputs.depth_width)
        tokens = [
            encoder(sized(measured[DEPTH + camera], size))
            for camera, encoder in zip(self.inputs.depth, self.depth, strict=True)
        ]
        if self.inputs.force:
            tokens.append(self.force(self._normalised("force", measured[FORCE]))[:, None])
        if self.inputs.tip_camera:
            point = self._normalised("tip", measured[TIP])
            seen = torch.isfinite(point).all(dim=1, keepdim=True)
            known = torch.cat([point.masked_fill(~seen, 0.0), seen.to(point.dtype)], dim=1)
            tokens.append(self.tip(known)[:, None])
        return torch.cat(tokens, dim=1)

    def _normalised(self, name: str, values: Tensor) -> Tensor:
        layer: nn.Linear = getattr(self, name)
        mean, std = (cast("Tensor", getattr(self, f"{name}_{each}")) for each in ("mean", "std"))
        return ((values.float() - mean.float()) / std.float()).to(layer.weight.dtype)


def sized(metres: Tensor, size: tuple[int, int]) -> Tensor:
    """``[B, H, W]`` in `size`: the nearest reading, none is invented."""
    if metres.shape[1:] == size:
        return metres
    return F.interpolate(metres[:, None], size=size, mode="nearest-exact")[:, 0]


def save_extras(extras: ExtraInputs, folder: Path) -> None:
    """Write `FILE`."""
    write_safetensors(folder / FILE, extras.state_dict(), {"format": "pt", "kind": "smolvla extras"})


def load_extras(folder: Path, inputs: SmolVlaInputs, width: int) -> ExtraInputs:
    """Those of a folder.

    Raises:
        CheckpointError: there are none in it, or others.
    """
    path = folder / FILE
    if not path.is_file():
        raise CheckpointError(f"{path}: not there, and the folder has inputs {', '.join(inputs.names)}")
    state: State = read_safetensors(path)[0]
    extras = ExtraInputs(inputs, width)
    check_fit(str(path), state, extras.state_dict())
    extras.load_state_dict(state)
    return extras.requires_grad_(False)
