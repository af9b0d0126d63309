"""ResNet-18 up to its last stage, with frozen batch norm and torchvision's names, without torchvision.

For inference `Folded` computes the same with every batch norm folded into its convolution, and with the
image's normalisation folded into the first one, so that camera bytes are read once.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own custom
from torch import Tensor, nn

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
EPS = 1e-5


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


class BasicBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = FrozenBatchNorm(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = FrozenBatchNorm(outputs)
        self.downsample: nn.Sequential | None = None
        if stride != 1 or inputs != outputs:
            conv = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.downsample = nn.Sequential(conv, FrozenBatchNorm(outputs))

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)))


class ResNet18(nn.Module):
    """``[B, 3, H, W]``, ImageNet-normalised, to ``[B, 8*width, H/32, W/32]``."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.channels = width * 8
        self.conv1 = nn.Conv2d(3, width, 7, 2, 3, bias=False)
        self.bn1 = FrozenBatchNorm(width)
        inputs = width
        for stage in range(4):
            outputs = width * 2**stage
            blocks = (BasicBlock(inputs, outputs, 2 if stage else 1), BasicBlock(outputs, outputs, 1))
            self.add_module(f"layer{stage + 1}", nn.Sequential(*blocks))
            inputs = outputs

    def blocks(self) -> list[BasicBlock]:
        """All residual blocks in order."""
        stages = [cast("nn.Sequential", getattr(self, f"layer{n}")) for n in range(1, 5)]
        return [cast("BasicBlock", block) for stage in stages for block in stage]

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 3, 2, 1)
        for block in self.blocks():
            x = block(x)
        return x


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
        self.conv1 = _fold(block.conv1, block.bn1)
        self.conv2 = _fold(block.conv2, block.bn2)
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
        first = _fold(net.conv1, net.bn1)
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
