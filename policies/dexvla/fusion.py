"""How what DexVLA reads and what it says become one vector for the head, under the public code's names."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn

from policies.linear import Linear


def mean_of(states: Tensor, there: Tensor) -> Tensor:
    """Of ``states[B, N, C]`` where ``there[B, N]`` is true, ``[B, C]``; each row has at least one."""
    share = there.to(states.dtype)
    return (states * share[..., None]).sum(1) / share.sum(1, keepdim=True)


class ActionProjector(nn.Module):
    """The mean of a model's hidden states, projected: ``[B, N, C]`` to ``[B, C]``."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mlps = nn.ModuleList((Linear(width, width), nn.GELU(), Linear(width, width)))

    def forward(self, states: Tensor, there: Tensor) -> Tensor:
        """`there` ``[B, N]``: which of them."""
        first, activation, last = self.mlps
        return cast("Tensor", last(activation(first(mean_of(states, there)))))


class ReasoningFilm(nn.Module):
    """FiLM (arXiv 1709.07871): scales and shifts by what was said; in the beginning by nothing."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale_fc, self.shift_fc = Linear(width, width), Linear(width, width)
        self.begin()

    def begin(self) -> None:
        """Weights with which it changes nothing."""
        for layer in (self.scale_fc, self.shift_fc):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor, said: Tensor) -> Tensor:
        """``[B, C]`` each."""
        return cast("Tensor", x * (1 + self.scale_fc(said)) + self.shift_fc(said))
