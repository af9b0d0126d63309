"""Linear layers that can be packed for inference on a CPU.

Plain ``F.linear`` in float32 goes to MKL, which on processors of other makers does not use their widest
instructions; oneDNN does, and keeps the weight in its own blocked layout. The two agree to rounding. The
operators are those that torch's own compiler uses for frozen weights; where they are missing, on another
device, or in another dtype, nothing changes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own custom
from torch import Tensor, nn

from policies.int8 import Activation, Int8Weight

_APPLY: dict[Activation, Callable[[Tensor], Tensor]] = {
    "none": lambda x: x,
    "relu": torch.relu,
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
}
_FUSED: dict[Activation, tuple[str, str]] = {
    "none": ("none", ""),
    "relu": ("relu", ""),
    "gelu": ("gelu", "none"),
    "gelu_tanh": ("gelu", "tanh"),
}
BATCH_HINT = 1024
"""Rows that packed layouts are chosen for."""


def can_pack(weight: Tensor) -> bool:
    """Whether packing would do anything for this weight."""
    return (
        weight.device.type == "cpu"
        and weight.dtype is torch.float32
        and bool(torch._C._has_mkldnn)  # noqa: SLF001 - what torch.backends.mkldnn asks
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
        and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")
    )


class Packed:
    """A weight ``[outputs, inputs]`` in oneDNN's layout, and its bias."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        reorder: Any = torch.ops.mkldnn._reorder_linear_weight  # noqa: SLF001 - the operator's own name
        self._call: Any = torch.ops.mkldnn._linear_pointwise  # noqa: SLF001 - the operator's own name
        self._weight = reorder(weight.detach().contiguous(), BATCH_HINT)
        self._bias = bias.detach() if bias is not None else None

    def __call__(self, x: Tensor, activation: Activation = "none") -> Tensor:
        """``x[..., inputs]`` to ``[..., outputs]``."""
        name, algorithm = _FUSED[activation]
        return self._call(x, self._weight, self._bias, name, [], algorithm)  # type: ignore[no-any-return]


class Linear(nn.Linear):
    """`torch.nn.Linear` that can be packed, with an activation that can be fused."""

    packed: Packed | Int8Weight | None = None

    def forward(self, x: Tensor, activation: Activation = "none") -> Tensor:
        """``activation(x @ weight.T + bias)``."""
        if self.packed is not None:
            return self.packed(x, activation)
        return _APPLY[activation](F.linear(x, self.weight, self.bias))

    def pack(self, *, int8: bool = False) -> None:
        """Pack, for inference only; with `int8` rounded, wherever it is. The plain weight is given up."""
        if self.packed is None and (int8 or can_pack(self.weight)):
            self.packed = (Int8Weight if int8 else Packed)(self.weight, self.bias)
            self.weight = nn.Parameter(self.weight.detach().new_empty(0), requires_grad=False)


class MultiHead(nn.Module):
    """Multi-head attention with `torch.nn.MultiheadAttention`'s weights and names, batch first."""

    packed: tuple[Packed, ...] | None = None

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * dim, dim))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * dim))
        self.out_proj = Linear(dim, dim)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.zeros_(self.out_proj.bias)

    def project(self, part: int, x: Tensor) -> Tensor:
        """Queries (0), keys (1) or values (2) ``[B, heads, N, dim/heads]`` of ``x[B, N, dim]``."""
        if self.packed is not None:
            out = self.packed[part](x)
        else:
            dim = x.shape[-1]
            rows = slice(part * dim, (part + 1) * dim)
            out = F.linear(x, self.in_proj_weight[rows], self.in_proj_bias[rows])
        return self._by_head(out)

    def forward(self, query: Tensor, key: Tensor, value: Tensor, padding: Tensor | None = None) -> Tensor:
        """``[B, N, dim]`` each; `padding` is ``[B, N]``, true where there is no key."""
        if self.packed is None and query is key:
            q, k, v = self._projected(query, value)
        else:
            q, k, v = (self.project(part, x) for part, x in enumerate((query, key, value)))
        mask = None if padding is None else ~padding[:, None, None]
        out = F.scaled_dot_product_attention(q, k, v, mask)
        return cast("Tensor", self.out_proj(out.transpose(1, 2).flatten(2)))

    def _projected(self, asking: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries and keys of the same in one product, and values; so their gradients are made once."""
        sizes = [2 * asking.shape[-1], asking.shape[-1]]
        weights = self.in_proj_weight.split(sizes)  # type: ignore[no-untyped-call]
        biases = self.in_proj_bias.split(sizes)  # type: ignore[no-untyped-call]
        both, v = (F.linear(x, w, b) for x, w, b in zip((asking, value), weights, biases, strict=True))
        q, k = both.chunk(2, dim=-1)
        return self._by_head(q), self._by_head(k), self._by_head(v)

    def _by_head(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # type: ignore[no-untyped-call, no-any-return]

    def pack(self) -> None:
        """Pack, for inference only. The plain weights are given up."""
        if self.packed is None and can_pack(self.in_proj_weight):
            pairs = zip(self.in_proj_weight.chunk(3), self.in_proj_bias.chunk(3), strict=True)
            self.packed = tuple(Packed(weight, bias) for weight, bias in pairs)
            empty = self.in_proj_weight.detach().new_empty(0)
            self.in_proj_weight = nn.Parameter(empty, requires_grad=False)


def make_packable(module: nn.Module) -> None:
    """Replace torch's own linear layers in `module`, another library's, by such as can be packed.

    Names and weights, also those that layers share, stay; hooks of a layer do not.
    """
    for part in list(module.modules()):
        for name, layer in list(part.named_children()):
            if type(layer) is nn.Linear:
                made = Linear(layer.in_features, layer.out_features, device="meta")
                made.weight, made.bias = layer.weight, layer.bias
                setattr(part, name, made.train(layer.training))


def pack_all(module: nn.Module, *, int8: bool = False) -> None:
    """Pack every layer of `module` that can be, with `int8` rounded to 8 bits where it is a `Linear`. Its
    weights can no longer be saved afterwards.
    """
    for part in module.modules():
        if isinstance(part, Linear):
            part.pack(int8=int8)
        elif isinstance(part, MultiHead):
            part.pack()
