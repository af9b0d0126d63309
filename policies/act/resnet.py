"""ResNets up to their last stage, with frozen batch norm and torchvision's names, without torchvision.

For inference `Folded` computes the same as a ResNet-18 with every batch norm folded into its convolution,
and with the image's normalisation folded into the first one, so that camera bytes are read once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, cast

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own custom
from torch import Tensor, nn

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
EPS = 1e-5
GROUP = 16
"""Channels in a group of the group norm."""

BackboneNorm = Literal["frozen_batch", "group"]
"""Frozen batch norms are of weights that were trained with them; a network from nothing has group norms."""


class FrozenBatchNorm(nn.Module):
    """Batch norm whose statistics and affine parameters never change."""

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.ones(channels))
        self.register_buffer("bias", torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def scale_shift(self) -> tuple[Tensor, Tensor]:
        """``y = x * scale + shift``, per channel."""
        scale = self.weight * (self.running_var + EPS).rsqrt()
        return scale, self.bias - self.running_mean * scale

    def forward(self, x: Tensor) -> Tensor:
        scale, shift = self.scale_shift()
        return x * scale.view(1, -1, 1, 1) + shift.view(1, -1, 1, 1)


def _norm(kind: BackboneNorm, channels: int) -> nn.Module:
    if kind == "frozen_batch":
        return FrozenBatchNorm(channels)
    return nn.GroupNorm(max(1, channels // GROUP), channels)


def _normed(x: Tensor, conv: nn.Conv2d, norm: nn.Module) -> Tensor:
    """``norm(conv(x))``; a frozen batch norm goes into the weights, which are much fewer than the pixels.

    A 1x1 convolution takes the pixels that its stride meets: torch 2.13's oneDNN writes beyond its memory in
    the backward pass of one that strides itself, with few channels that are last in memory.
    """
    stride = conv.stride
    if conv.kernel_size == (1, 1):
        x, stride = x[:, :, :: stride[0], :: stride[1]], (1, 1)
    if isinstance(norm, FrozenBatchNorm):
        scale, shift = norm.scale_shift()
        return F.conv2d(x, conv.weight * scale.view(-1, 1, 1, 1), shift, stride, conv.padding)
    return cast("Tensor", norm(F.conv2d(x, conv.weight, None, stride, conv.padding)))


def _channels_last() -> bool:
    """Whether oneDNN has fast convolutions for channels that are last in memory: two thirds of the time of
    those for channels that are first, with AVX-512. Without, its gradients of weights take twice the time.
    For training alone: answers are to equal LeRobot's to 1e-5, and a diffusion adds up what differs.
    """
    return torch.is_grad_enabled() and torch.backends.cpu.get_cpu_capability() == "AVX512"


def _shortcut(inputs: int, outputs: int, stride: int, norm: BackboneNorm) -> nn.Sequential | None:
    """Beside a block that changes the size of what goes through it."""
    if stride == 1 and inputs == outputs:
        return None
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), _norm(norm, outputs))


def _added(x: Tensor, y: Tensor, shortcut: nn.Sequential | None) -> Tensor:
    """What comes out of a block: `y`, what it made of `x`, and `x` itself beside it."""
    if shortcut is not None:
        conv, norm = shortcut
        x = _normed(x, cast("nn.Conv2d", conv), norm)
    return F.relu(y + x, inplace=True)


class BasicBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int, norm: BackboneNorm = "frozen_batch") -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = _norm(norm, outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = _norm(norm, outputs)
        self.downsample = _shortcut(inputs, outputs, stride, norm)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(_normed(x, self.conv1, self.bn1), inplace=True)
        y = _normed(y, self.conv2, self.bn2)
        return _added(x, y, self.downsample)


class Bottleneck(nn.Module):
    """Of deeper ResNets: a narrow convolution between one that narrows and one that widens."""

    def __init__(self, inputs: int, outputs: int, stride: int, norm: BackboneNorm) -> None:
        super().__init__()
        inner = outputs // 4
        self.conv1 = nn.Conv2d(inputs, inner, 1, bias=False)
        self.bn1 = _norm(norm, inner)
        self.conv2 = nn.Conv2d(inner, inner, 3, stride, 1, bias=False)
        self.bn2 = _norm(norm, inner)
        self.conv3 = nn.Conv2d(inner, outputs, 1, bias=False)
        self.bn3 = _norm(norm, outputs)
        self.downsample = _shortcut(inputs, outputs, stride, norm)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(_normed(x, self.conv1, self.bn1), inplace=True)
        y = F.relu(_normed(y, self.conv2, self.bn2), inplace=True)
        y = _normed(y, self.conv3, self.bn3)
        return _added(x, y, self.downsample)


BLOCKS: Mapping[str, tuple[int, int, int, int]] = {
    "resnet18": (2, 2, 2, 2),
    "resnet34": (3, 4, 6, 3),
    "resnet50": (3, 4, 6, 3),
    "resnet101": (3, 4, 23, 3),
    "resnet152": (3, 8, 36, 3),
}
"""Residual blocks of each stage, by torchvision's name; from 50 layers on they are bottlenecks."""
_PLAIN = ("resnet18", "resnet34")


class ResNet(nn.Module):
    """``[B, 3, H, W]``, ImageNet-normalised, to ``[B, channels, H/32, W/32]``; `name` is one of `BLOCKS`."""

    def __init__(self, name: str, width: int = 64, norm: BackboneNorm = "frozen_batch") -> None:
        super().__init__()
        block, wider = (BasicBlock, 1) if name in _PLAIN else (Bottleneck, 4)
        self.channels = width * 8 * wider
        self.conv1 = nn.Conv2d(3, width, 7, 2, 3, bias=False)
        self.bn1 = _norm(norm, width)
        inputs = width
        for stage, count in enumerate(BLOCKS[name]):
            outputs = width * wider * 2**stage
            first = block(inputs, outputs, 2 if stage else 1, norm)
            rest = [block(outputs, outputs, 1, norm) for _ in range(count - 1)]
            self.add_module(f"layer{stage + 1}", nn.Sequential(first, *rest))
            inputs = outputs

    def blocks(self) -> list[BasicBlock]:
        """All residual blocks in order."""
        stages = [cast("nn.Sequential", getattr(self, f"layer{n}")) for n in range(1, 5)]
        return [cast("BasicBlock", block) for stage in stages for block in stage]

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(_normed(x, self.conv1, self.bn1), inplace=True), 3, 2, 1)
        if x.device.type == "cpu" and not _channels_last():
            x = x.contiguous()
        for block in self.blocks():
            x = block(x)
        return x


class ResNet18(ResNet):
    """The one that ACT has: ``[B, 8*width, H/32, W/32]``."""

    def __init__(self, width: int = 64, norm: BackboneNorm = "frozen_batch") -> None:
        super().__init__("resnet18", width, norm)


class OnPixels(nn.Module):
    """A `ResNet18` that cannot be folded, on images as they come from the camera."""

    mean: Tensor
    std: Tensor

    def __init__(self, net: ResNet18) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(STD).view(1, 3, 1, 1))
        self.net = net

    def forward(self, images: Tensor) -> Tensor:
        """Features of ``images[B, H, W, 3]``, RGB uint8."""
        pixels = images.permute(0, 3, 1, 2).to(self.mean.dtype) / 255
        return cast("Tensor", self.net((pixels - self.mean) / self.std))


def _fold(conv: nn.Conv2d, norm: FrozenBatchNorm) -> nn.Conv2d:
    scale, shift = norm.scale_shift()
    size, stride, padding = conv.kernel_size[0], conv.stride[0], int(conv.padding[0])
    made = nn.Conv2d(conv.in_channels, conv.out_channels, size, stride, padding)
    made.weight.data = conv.weight.detach() * scale.view(-1, 1, 1, 1)
    assert made.bias is not None  # noqa: S101 - for the type checker
    made.bias.data = shift.clone()
    return made


class _FoldedBlock(nn.Module):
    def __init__(self, block: BasicBlock) -> None:
        super().__init__()
        self.conv1 = _fold(block.conv1, cast("FrozenBatchNorm", block.bn1))
        self.conv2 = _fold(block.conv2, cast("FrozenBatchNorm", block.bn2))
        self.down: nn.Conv2d | None = None
        if block.downsample is not None:
            conv, norm = block.downsample
            self.down = _fold(cast("nn.Conv2d", conv), cast("FrozenBatchNorm", norm))

    def forward(self, x: Tensor) -> Tensor:
        skip = x if self.down is None else self.down(x)
        return (self.conv2(self.conv1(x).relu_()) + skip).relu_()  # type: ignore[no-any-return]


class Folded(nn.Module):
    """A `ResNet18` for inference on images as they come from the camera.

    The first convolution pads with zeros *after* normalisation; here the image is padded with the mean
    colour before it, which is the same.
    """

    mean: Tensor

    def __init__(self, net: ResNet18) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1) * 255)
        std = torch.tensor(STD).view(1, 3, 1, 1).to(net.conv1.weight) * 255
        first = _fold(net.conv1, cast("FrozenBatchNorm", net.bn1))
        first.weight.data /= std
        first.padding = (0, 0)
        assert first.bias is not None  # noqa: S101 - for the type checker
        mean = self.mean.to(net.conv1.weight)
        first.bias.data -= (first.weight.data * mean).sum((1, 2, 3))
        self.first = first
        self.rest = nn.ModuleList(_FoldedBlock(block) for block in net.blocks())
        self.requires_grad_(False)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, images: Tensor) -> Tensor:
        """Features of ``images[B, H, W, 3]``, RGB uint8."""
        batch, height, width, _ = images.shape
        padded = self.mean.to(self.first.weight.dtype).expand(batch, 3, height + 6, width + 6)
        x = padded.contiguous(memory_format=torch.channels_last)
        x[:, :, 3:-3, 3:-3] = images.permute(0, 3, 1, 2)
        x = F.max_pool2d(self.first(x).relu_(), 3, 2, 1)
        for block in self.rest:
            x = block(x)
        return x
