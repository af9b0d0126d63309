"""ScaleDP (Zhu et al., arXiv 2409.14411), the diffusion head of DexVLA (Wen et al., arXiv 2502.05855).

A transformer over the rows of a chunk whose norms are scaled, shifted and gated (adaLN-Zero) by the time of
the noise and by one vector of what is seen, said and felt. Names and numbers as in the public code, whose
sines of time are computed in bfloat16, whatever the network computes in.

In sampling that vector is made once, and what its layers make of it and of each time, a third of the head's
weights, is computed for all denoising steps in one pass.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own custom
from torch import Tensor, nn

from policies.ddim import Prefix, Sampler
from policies.dexvla.shape import ScaleDpShape
from policies.linear import Linear

_EPS = 1e-6
_LONGEST_WAVE = 10_000.0


class NoiseTime(nn.Module):
    """Timesteps ``[N]`` to vectors ``[N, width]``."""

    FREQUENCIES = 256

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(Linear(self.FREQUENCIES, width), nn.SiLU(), Linear(width, width))

    def forward(self, timesteps: Tensor) -> Tensor:
        half = self.FREQUENCIES // 2
        steps = torch.arange(half, dtype=torch.bfloat16, device=timesteps.device)
        angles = timesteps[:, None].float() * torch.exp(-math.log(_LONGEST_WAVE) * steps / half)[None]
        waves = torch.cat((angles.cos(), angles.sin()), dim=-1).bfloat16()
        first = cast("nn.Linear", self.mlp[0])
        return cast("Tensor", self.mlp(waves.to(first.weight.dtype)))


class RowAttention(nn.Module):
    """Every row of the chunk attends to every row."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = Linear(width, width * 3)
        self.proj = Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


class RowMlp(nn.Module):
    def __init__(self, width: int, inside: int) -> None:
        super().__init__()
        self.fc1 = Linear(width, inside)
        self.fc2 = Linear(inside, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.fc1(x, "gelu_tanh"))  # type: ignore[no-any-return]


def _modulation(width: int, parts: int) -> nn.Sequential:
    return nn.Sequential(nn.SiLU(), Linear(width, parts * width))


def _modulated(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """`x` normalised over its last axis, then scaled and shifted by ``[B, 1, width]``."""
    return F.layer_norm(x, x.shape[-1:], eps=_EPS) * (1 + scale) + shift


class ScaleDpBlock(nn.Module):
    def __init__(self, width: int, heads: int, mlp_ratio: float) -> None:
        super().__init__()
        self.attn = RowAttention(width, heads)
        self.mlp = RowMlp(width, int(width * mlp_ratio))
        self.adaLN_modulation = _modulation(width, 6)

    def forward(self, x: Tensor, modulation: Tensor) -> Tensor:
        """``x[B, T, width]``; `modulation` ``[B, 6 * width]`` is what `adaLN_modulation` makes."""
        shift, scale, gate, mlp_shift, mlp_scale, mlp_gate = modulation[:, None].chunk(6, dim=-1)
        x = x + gate * self.attn(_modulated(x, shift, scale))
        return x + mlp_gate * self.mlp(_modulated(x, mlp_shift, mlp_scale))  # type: ignore[no-any-return]


class ScaleDpEnd(nn.Module):
    def __init__(self, width: int, outputs: int) -> None:
        super().__init__()
        self.linear = Linear(width, outputs)
        self.adaLN_modulation = _modulation(width, 2)

    def forward(self, x: Tensor, modulation: Tensor) -> Tensor:
        shift, scale = modulation[:, None].chunk(2, dim=-1)
        return self.linear(_modulated(x, shift, scale))  # type: ignore[no-any-return]


class ScaleDp(nn.Module):
    """The head: predicts the noise in a chunk of normalised actions, given a vector ``[B, condition]``."""

    def __init__(self, shape: ScaleDpShape, condition: int) -> None:
        super().__init__()
        self.shape = shape
        inside, width = shape.combine_width, shape.width
        self.combine = nn.Sequential(
            Linear(condition + shape.state_size, inside),
            nn.ReLU(),
            Linear(inside, inside),
            nn.ReLU(),
            Linear(inside, condition),
        )
        self.x_embedder = Linear(shape.action_size, width)
        self.t_embedder = NoiseTime(width)
        self.cond_obs_emb = Linear(condition, width)
        self.pos_embed = nn.Parameter(torch.zeros(1, shape.chunk, width))
        self.blocks = nn.ModuleList(
            ScaleDpBlock(width, shape.heads, shape.mlp_ratio) for _ in range(shape.layers)
        )
        self.final_layer = ScaleDpEnd(width, shape.action_size)
        self.sampler = Sampler(shape)
        self.begin()

    def begin(self) -> None:
        """As the public code's ``initialize_weights``: at first every block passes on what it gets."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        nn.init.normal_(self.pos_embed, std=0.02)
        nn.init.normal_(self.cond_obs_emb.weight, std=0.02)
        for layer in (self.t_embedder.mlp[0], self.t_embedder.mlp[2]):
            nn.init.normal_(cast("nn.Linear", layer).weight, std=0.02)
        ends = [self.final_layer.linear, *(part.adaLN_modulation[1] for part in self._modulated_parts())]
        for end in ends:
            nn.init.zeros_(cast("nn.Linear", end).weight)

    def _modulated_parts(self) -> list[ScaleDpBlock | ScaleDpEnd]:
        return [*(cast("ScaleDpBlock", block) for block in self.blocks), self.final_layer]

    @property
    def dtype(self) -> torch.dtype:
        """What it computes in."""
        return self.pos_embed.dtype

    def about(self, condition: Tensor, state: Tensor) -> Tensor:
        """One vector ``[B, width]`` of ``condition[B, C]`` and the normalised ``state[B, S]``."""
        both = torch.cat((condition.to(self.dtype), state.to(self.dtype)), dim=-1)
        return self.cond_obs_emb(self.combine(both))  # type: ignore[no-any-return]

    def _modulations(self, c: Tensor) -> list[Tensor]:
        """For each block and the end, of ``c[..., width]``."""
        return [part.adaLN_modulation(c) for part in self._modulated_parts()]

    def _predicted(self, x: Tensor, modulations: Sequence[Tensor]) -> Tensor:
        x = self.x_embedder(x.to(self.dtype)) + self.pos_embed
        for part, modulation in zip(self._modulated_parts(), modulations, strict=True):
            x = part(x, modulation)
        return x

    def predict(self, x: Tensor, timesteps: Tensor, about: Tensor) -> Tensor:
        """The noise in ``x[B, T, A]`` at ``timesteps[B]``, in the network's dtype."""
        return self._predicted(x, self._modulations(self.t_embedder(timesteps) + about))

    def loss(
        self,
        actions: Tensor,
        is_pad: Tensor,
        about: Tensor,
        noise: Tensor | None = None,
        timesteps: Tensor | None = None,
    ) -> Tensor:
        """The squared error of the noise in ``actions[B, T, A]``, normalised.

        Rows that are `is_pad` ``[B, T]`` count as predicted: the mean is over all rows, as in the public
        code. Noise and timesteps ``[B]`` are drawn unless given.
        """
        noise = torch.randn_like(actions) if noise is None else noise
        if timesteps is None:
            steps = self.shape.train_steps
            timesteps = torch.randint(0, steps, (len(actions),), device=actions.device)
        noisy = self.sampler.add_noise(actions, noise, timesteps)
        wrong = F.mse_loss(self.predict(noisy, timesteps, about).float(), noise, reduction="none")
        return (wrong * ~is_pad[..., None]).mean()

    def sample(self, about: Tensor, noise: Tensor, prefix: Prefix | None = None) -> Tensor:
        """From ``noise[B, T, A]``, float32, to a chunk of normalised actions.

        `prefix` is what is committed, without guidance: that needs gradients.
        """
        times = self.t_embedder(self.sampler.timesteps(noise.device))
        made = self._modulations(times[:, None] + about)

        def denoise(x: Tensor, step: int) -> Tensor:
            return self._predicted(x, [each[step] for each in made]).float()

        return self.sampler.sample(denoise, noise, prefix)
