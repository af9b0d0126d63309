"""A small diffusion policy for `bench.splice`: trained on the spot, sampled and inpainted as the real one.

It is the DexGraspVLA controller's denoiser and sampler at a small size, on chunks of the ideal trajectory
with a random bias each, so that two chunks for one observation differ as those of a stochastic policy do.

``python -m bench.splice_diffusion`` trains one and records its chunks to ``bench/data/``, which is what the
splice benchmark calls the recorded policy.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own custom
from numpy.typing import NDArray
from torch import Tensor, nn

from bench.splice_policies import BIAS_RAD, JOINTS, RECORDED, RECORDED_STRIDE, Synthetic, ideal
from policies.ddim import Prefix, Sampler
from policies.dexgrasp.denoiser import Denoiser
from policies.dexgrasp.options import ControllerShape
from runtime.messages import Floats
from runtime.rtc import pad_committed, prefix_weights

WIDTH = 64
SPAN = 0.6
"""Radians that become 1 in the network's units."""

CALM_RAD = 0.03
"""A recorded chunk's steps are smaller than this, where a sample could be found."""

LOOKS = (0, 5, 15, 30)
"""Steps ahead at which the observation tells where the trajectory goes."""


def _shape(horizon: int) -> ControllerShape:
    return ControllerShape(
        head=None, wrist="tiny14", image_size=14, action_size=JOINTS, horizon=horizon, layers=2, heads=4,
        dropout=0.0,
    )  # fmt: skip


class Diffusion(nn.Module):
    """Observation of a step to a distribution over chunks."""

    def __init__(self, horizon: int) -> None:
        super().__init__()
        self.horizon = horizon
        self.denoiser = Denoiser(WIDTH, _shape(horizon))
        self.sampler = Sampler(_shape(horizon))
        self.observe = nn.Sequential(
            nn.Linear(JOINTS * len(LOOKS), WIDTH), nn.SiLU(), nn.Linear(WIDTH, 2 * WIDTH)
        )

    def tokens(self, steps: NDArray[np.int64]) -> Tensor:
        """``[B]`` steps to two observation tokens each."""
        seen = np.concatenate([to_network(ideal(steps + look)) for look in LOOKS], axis=1)
        return self.observe(torch.from_numpy(seen).float()).view(-1, 2, WIDTH)  # type: ignore[no-any-return]

    def loss(self, rng: np.random.Generator, batch: int = 64) -> Tensor:
        """Of a random batch."""
        steps = rng.integers(0, 6000, batch)
        chunks = ideal((steps[:, None] + np.arange(self.horizon)).ravel()).reshape(batch, -1, JOINTS)
        chunks = chunks + rng.normal(0, BIAS_RAD, (batch, 1, JOINTS))
        clean = torch.from_numpy(to_network(chunks)).float()
        noise, timesteps = torch.randn_like(clean), torch.randint(0, 50, (batch,))
        noisy = self.sampler.add_noise(clean, noise, timesteps)
        return F.mse_loss(self.denoiser(noisy, timesteps, self.tokens(steps)), noise)


def to_network(rows: Floats) -> Floats:
    """Radians (gripper 0..1) to about -1..1."""
    out = rows.copy()
    out[..., -1] -= 0.5
    return out / SPAN


def train(horizon: int, seed: int, updates: int) -> Diffusion:
    """A policy after so many updates of 64 chunks."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net, rng = Diffusion(horizon), np.random.default_rng(seed)
        optimizer = torch.optim.AdamW(net.parameters(), lr=2e-3)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, updates)
        for _ in range(updates):
            loss = net.loss(rng)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
    return net.eval()


class DiffusionPolicy(Synthetic):
    """`Diffusion` where the synthetic policy stands, with the sampler's own inpainting as ``rtc``."""

    def __init__(self, net: Diffusion, seed: int, scale: Floats, takes_prefix: bool) -> None:
        super().__init__(seed, scale, takes_prefix)
        self._net = net
        self._noise = torch.Generator().manual_seed(seed)

    @torch.no_grad()
    def chunk(self, step: int, committed: Floats, frozen: int) -> Floats:
        """A sample ``[horizon, 6]``, given the committed rows."""
        net, horizon = self._net, self._net.horizon
        tokens = net.tokens(np.array([step]))
        time = net.denoiser.time_tokens(net.sampler.timesteps(tokens.device), tokens.shape[1])
        condition = net.denoiser.prepare(tokens)
        prefix = None
        if self.spec.takes_prefix and len(committed):
            rows = to_network(pad_committed(committed / self._scale, horizon))
            weights = prefix_weights(horizon, frozen, len(committed))
            as_tensors = torch.from_numpy(rows).float()[None], torch.from_numpy(weights).float()[:, None]
            prefix = Prefix(*as_tensors)
        noise = torch.randn((1, horizon, JOINTS), generator=self._noise)
        out = net.sampler.sample(lambda x, i: net.denoiser.cached(x, i, time, condition), noise, prefix)
        rows = out[0].double().numpy() * SPAN
        rows[:, -1] += 0.5
        return np.asarray(rows * self._scale)


def record(target: Path, updates: int, steps: int = 900) -> None:
    """Train, and write the chunks of every `RECORDED_STRIDE` steps."""
    horizon = 50 + RECORDED_STRIDE
    policy = DiffusionPolicy(train(horizon, 0, updates), 0, np.ones(JOINTS), takes_prefix=False)
    ticks = np.arange(0, steps, RECORDED_STRIDE)
    chunks = np.stack([_calm(policy, int(tick)) for tick in ticks])
    target.parent.mkdir(exist_ok=True)
    np.savez_compressed(target, ticks=ticks, chunks=chunks.astype(np.float16))


def _calm(policy: DiffusionPolicy, step: int) -> Floats:
    """The calmest of up to 20 samples: a network this small now and then samples a jump inside a chunk."""
    best, least = np.zeros((0, JOINTS)), np.inf
    for _ in range(20):
        rows = policy.chunk(step, np.zeros((0, JOINTS)), 0)
        jump = float(np.abs(np.diff(rows, axis=0)).max())
        if jump < least:
            best, least = rows, jump
        if least < CALM_RAD:
            break
    return best


if __name__ == "__main__":
    record(RECORDED, updates=2500)
