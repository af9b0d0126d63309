"""Linear layers in 8-bit integers, for inference on a CPU that multiplies them fast (VNNI).

Weights are rounded once, with one scale for each output; what comes in is rounded when it comes, with one
scale for each row, so that a row of large numbers does not coarsen the others. Sums are exact, and the rest
stays in float32. The product is torch's own, ``_int_mm``.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

Activation = Literal["none", "relu", "gelu", "gelu_tanh"]
_LARGEST = 127.0
_TINY = 1e-30
"""What a row of zeros is divided by."""
_ROWS = 128
"""Rows at a time: what is made of them stays in the processor's cache."""
_TWICE = 2.0 * math.sqrt(2.0 / math.pi)


def is_fast() -> bool:
    """Whether this processor has instructions for it."""
    return bool(torch.cpu._is_vnni_supported())  # noqa: SLF001 - torch has no public question


class Int8Weight:
    """A weight ``[outputs, inputs]``, rounded, and its bias."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        weight = weight.detach().float()
        self._scale = _scale_of(weight)[:, 0]
        self._weight = (weight / self._scale[:, None]).round_().to(torch.int8).t().contiguous()
        self._bias = weight.new_zeros(len(weight)) if bias is None else bias.detach().float()

    def __call__(self, x: Tensor, activation: Activation = "none") -> Tensor:
        """``x[..., inputs]`` to ``[..., outputs]``; a row with a number that is none becomes such a row."""
        rows = x.reshape(-1, x.shape[-1])
        out = x.new_empty(len(rows), self._weight.shape[1])
        sums = torch.empty(min(_ROWS, len(rows)), out.shape[1], dtype=torch.int32)
        for first in range(0, len(rows), _ROWS):
            some, to = rows[first : first + _ROWS], out[first : first + _ROWS]
            scale = _scale_of(some)
            whole = (some / scale).round_().to(torch.int8)
            to.copy_(torch._int_mm(whole, self._weight, out=sums[: len(some)]))  # noqa: SLF001
            torch.addcmul(self._bias, to.mul_(scale), self._scale, out=to)
            _apply(activation, to)
        return out.view(*x.shape[:-1], -1)


def _scale_of(rows: Tensor) -> Tensor:
    """``[N, 1]``, by which the largest of each becomes 127."""
    return rows.abs().amax(dim=1, keepdim=True).clamp_min_(_TINY).div_(_LARGEST)


def _apply(activation: Activation, x: Tensor) -> None:
    """In place; the Gaussian's are those of `torch.nn.functional.gelu`."""
    if activation == "gelu_tanh":  # with half the sum of 1 and tanh(u) written as a sigmoid, which is faster
        gate = torch.addcmul(x.new_tensor(_TWICE), x, x, value=_TWICE * 0.044715)
        x.mul_(gate.mul_(x).sigmoid_())
    elif activation == "gelu":
        x.copy_(torch.nn.functional.gelu(x))
    elif activation == "relu":
        x.relu_()
