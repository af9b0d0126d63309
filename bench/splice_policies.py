"""What `bench.splice` splices: policies whose chunks are known, and the trace of an execution."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.interfaces import PolicySpec
from runtime.messages import Floats, Observation, PolicyAnswer
from runtime.rtc import pad_committed, prefix_weights

RATE_HZ = 30.0
CHUNK = 50
JOINTS = 6
RECORDED = Path(__file__).parent / "data" / "diffusion_chunks.npz"
"""Chunks of a small trained diffusion policy (`bench.splice_diffusion`)."""

RECORDED_STRIDE = 6
BIAS_RAD = 0.02
"""Standard deviation of a chunk's constant error, per joint: chunks then differ by 20 to 70 mrad."""
DRIFT_RAD = 0.06
"""Standard deviation of a drifting chunk's error where it ends, per joint."""


def ideal(steps: NDArray[Any]) -> Floats:
    """The trajectory that the synthetic policy means, ``[n]`` steps to ``[n, 6]`` radians (gripper 0..1)."""
    seconds = np.asarray(steps, float)[:, None] / RATE_HZ
    hertz = np.array([0.05, 0.07, 0.09, 0.06, 0.08, 0.05])
    angles: Floats = 0.4 * np.sin(2 * np.pi * hertz * seconds + np.arange(JOINTS))
    angles[:, -1] = 0.5 + 0.5 * angles[:, -1]
    return angles


def continue_prefix(clean: Floats, committed: Floats, frozen: int, stiffness: float = 100.0) -> Floats:
    """What a policy whose chunks are smooth makes of `clean` when given a committed prefix.

    The least-squares smooth correction `e` of the chunk: near ``committed - clean`` where the weights of
    `runtime.rtc` say so, small in its second difference, and small by itself where nothing is committed.
    """
    horizon = len(clean)
    weights = prefix_weights(horizon, frozen, len(committed)) * 100.0
    difference = pad_committed(committed, horizon) - clean
    second = np.diff(np.eye(horizon), n=2, axis=0)
    normal = np.diag(weights + 0.01) + stiffness * second.T @ second
    return np.asarray(clean + np.linalg.solve(normal, weights[:, None] * difference))


class Synthetic:
    """The ideal trajectory with a small bias per chunk, from a seed."""

    def __init__(self, seed: int, scale: Floats, takes_prefix: bool) -> None:
        self.spec = PolicySpec("synthetic", CHUNK, JOINTS, takes_prefix=takes_prefix)
        self._rng = np.random.default_rng(seed)
        self._scale = scale

    def chunk(self, step: int, committed: Floats, frozen: int) -> Floats:
        """``[50, 6]`` in the unit that `scale` makes of radians."""
        rows = ideal(step + np.arange(CHUNK)) + self._rng.normal(0, BIAS_RAD, JOINTS)
        if self.spec.takes_prefix and len(committed):
            rows = continue_prefix(rows, committed / self._scale, frozen)
        return np.asarray(rows * self._scale)

    def infer(self, observation: Observation) -> PolicyAnswer:
        """A chunk for the observation's step."""
        return PolicyAnswer(self.chunk(observation.step, observation.committed, observation.frozen_steps))

    def warm_up(self) -> None:
        """Nothing to do."""

    def statistics(self) -> dict[str, int]:
        """Nothing is counted."""
        return {}

    def reset(self) -> None:
        """Nothing to do."""

    def close(self) -> None:
        """Nothing to do."""


class Drifting(Synthetic):
    """The ideal trajectory, from which a chunk goes away in a direction of its own: its first row is right,
    and what it says of later ones is the worse the further ahead they are.
    """

    def chunk(self, step: int, committed: Floats, frozen: int) -> Floats:
        """``[50, 6]`` in the unit that `scale` makes of radians."""
        ahead = np.arange(CHUNK)
        rows = ideal(step + ahead) + ahead[:, None] / CHUNK * self._rng.normal(0, DRIFT_RAD, JOINTS)
        if self.spec.takes_prefix and len(committed):
            rows = continue_prefix(rows, committed / self._scale, frozen)
        return np.asarray(rows * self._scale)


class Recorded(Synthetic):
    """Chunks of a real policy, by the step that they were observed at.

    The file holds ``chunks[N, T, 6]`` and ``ticks[N]``, in order. A request between two of them gets the
    rows of the earlier one from there on; past the end the recording starts over.
    """

    def __init__(self, path: Path, scale: Floats, takes_prefix: bool) -> None:
        super().__init__(0, scale, takes_prefix)
        with np.load(path) as held:
            self._chunks, self._ticks = held["chunks"].astype(float), held["ticks"].astype(int)
        self._length = int(self._ticks[-1]) + 1

    def chunk(self, step: int, committed: Floats, frozen: int) -> Floats:
        """The recorded rows from `step` on, the last one repeated up to 50."""
        place = int(np.searchsorted(self._ticks, step % self._length, side="right")) - 1
        rows = self._chunks[place][step % self._length - self._ticks[place] :][:CHUNK]
        rows = np.concatenate([rows, np.repeat(rows[-1:], CHUNK - len(rows), axis=0)])
        if self.spec.takes_prefix and len(committed):
            rows = continue_prefix(rows, committed / self._scale, frozen)
        return np.asarray(rows * self._scale)


@dataclass
class Trace:
    """What was executed: a row per tick, and what happened at splices.

    `steps` says which step each row was for, the step of the row before where none was executed.
    `behind` is by how many rows the plan is behind its clock in the end; without it, the starved ticks.
    """

    rows: list[Floats] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)
    starved: int = 0
    chunks: int = 0
    seams: list[float] = field(default_factory=list)
    behind: int | None = None


def _synthetic(scale: Floats, takes_prefix: bool) -> Synthetic:
    return Synthetic(1, scale, takes_prefix)


def _drifting(scale: Floats, takes_prefix: bool) -> Synthetic:
    return Drifting(1, scale, takes_prefix)


def _recorded(scale: Floats, takes_prefix: bool) -> Synthetic:
    return Recorded(RECORDED, scale, takes_prefix)


Maker = Callable[[Floats, bool], Synthetic]
POLICIES: dict[str, Maker] = {"synthetic": _synthetic, "drifting": _drifting, "recorded": _recorded}
