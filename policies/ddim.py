"""DDIM sampling of a chunk (Song et al., arXiv 2010.02502) with nothing but arithmetic in its loop.

The schedule's numbers come from `diffusers.DDIMScheduler`, once; the loop then holds no tensor-to-number
conversion, so that a GPU never waits for the host and the whole loop can be captured in a graph.

A committed prefix (real-time chunking, see `runtime.rtc`) enters each predicted clean chunk, either by
replacing it by weight (inpainting), or by the gradient of the weighted difference with respect to the noisy
chunk (pseudo-inverse guidance, arXiv 2506.07339, carried over from flows to DDIM: with
``x0 = (x - sqrt(1-a) eps)/sqrt(a)`` the guided prediction is ``x0 + min(limit, 1/sqrt(a)) J^T w (y - x0)``).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

GUIDANCE_LIMIT = 5.0
"""The paper's clip of the guidance weight."""


@dataclass(frozen=True, slots=True)
class DenoisingStep:
    """One step of the schedule: square roots of the cumulated alphas, before and after."""

    timestep: int
    signal: float
    noise: float
    next_signal: float
    next_noise: float


@dataclass(frozen=True, slots=True)
class Prefix:
    """What is committed: ``actions[B, T, A]`` in the network's units, ``weights[T, 1]`` or
    ``[B, T, 1]`` in 0..1.
    """

    actions: Tensor
    weights: Tensor
    guidance: bool = False


class NoiseSchedule(Protocol):
    """What a network was trained with: the steps of its noise, how many are taken, and what it predicts."""

    @property
    def train_steps(self) -> int: ...

    @property
    def inference_steps(self) -> int: ...

    @property
    def prediction(self) -> Literal["epsilon", "sample"]: ...


Denoise = Callable[[Tensor, int], Tensor]
"""Noisy chunk and index into the schedule to the network's prediction, in float32."""


def make_scheduler(shape: NoiseSchedule) -> Any:
    """The `diffusers.DDIMScheduler` of the public configurations of DexGraspVLA and DexVLA, its steps set."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # diffusers warns about its own dependencies
        from diffusers import DDIMScheduler
    make: Any = DDIMScheduler
    scheduler = make(
        num_train_timesteps=shape.train_steps,
        beta_start=0.0001,
        beta_end=0.02,
        beta_schedule="squaredcos_cap_v2",
        clip_sample=True,
        set_alpha_to_one=True,
        steps_offset=0,
        prediction_type=shape.prediction,
    )
    scheduler.set_timesteps(shape.inference_steps)
    return scheduler


def no_infinity(values: Tensor) -> Tensor:
    """`values`, NaN where they are infinite: cut off at the end of a range they would look like numbers."""
    return torch.where(values.isfinite(), values, torch.nan)


class Sampler:
    """The schedule of a network, and sampling by it."""

    def __init__(self, shape: NoiseSchedule) -> None:
        scheduler = make_scheduler(shape)
        alphas: Tensor = scheduler.alphas_cumprod
        stride = shape.train_steps // shape.inference_steps
        one = torch.tensor(1.0)
        self.steps: list[DenoisingStep] = []
        for timestep in scheduler.timesteps.tolist():
            now = alphas[timestep]
            after = alphas[timestep - stride] if timestep >= stride else one
            roots = [float(v**0.5) for v in (now, 1 - now, after, 1 - after)]
            self.steps.append(DenoisingStep(timestep, *roots))
        self.alphas = alphas
        self._predicts_noise = shape.prediction == "epsilon"

    def timesteps(self, device: torch.device) -> Tensor:
        """``[S]``, largest first."""
        return torch.tensor([step.timestep for step in self.steps], device=device)

    def sample(self, denoise: Denoise, noise: Tensor, prefix: Prefix | None = None) -> Tensor:
        """From ``noise[B, T, A]`` (float32) to a chunk in the network's units; NaN where it is not finite."""
        x = noise
        for index, step in enumerate(self.steps):
            if prefix is not None and prefix.guidance:
                clean, eps = self._guided(denoise, x, index, step, prefix)
            else:
                clean, eps = self._split(no_infinity(denoise(x, index)), x, step)
                if prefix is not None:
                    clean = clean + prefix.weights * (prefix.actions - clean)
                    eps = (x - step.signal * clean) / step.noise
            x = step.next_signal * clean + step.next_noise * eps
        return x

    def _split(self, output: Tensor, x: Tensor, step: DenoisingStep) -> tuple[Tensor, Tensor]:
        if self._predicts_noise:
            return ((x - step.noise * output) / step.signal).clamp(-1.0, 1.0), output
        return output.clamp(-1.0, 1.0), (x - step.signal * output) / step.noise

    def _guided(
        self, denoise: Denoise, x: Tensor, index: int, step: DenoisingStep, prefix: Prefix
    ) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            x = x.detach().requires_grad_(True)
            output = no_infinity(denoise(x, index))
            clean = (x - step.noise * output) / step.signal if self._predicts_noise else output
            error = (prefix.weights * (prefix.actions - clean)).detach()
            (pull,) = torch.autograd.grad(clean, x, error)
        weight = min(GUIDANCE_LIMIT, 1.0 / step.signal)
        guided = (clean.detach() + weight * pull).clamp(-1.0, 1.0)
        return guided, (x.detach() - step.signal * guided) / step.noise

    def add_noise(self, clean: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """The forward process, as in training; ``timesteps[B]``."""
        alphas = self.alphas.to(clean.device)[timesteps].view(-1, *([1] * (clean.dim() - 1)))
        return alphas**0.5 * clean + (1 - alphas) ** 0.5 * noise
