"""A small data set in memory, and a training of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from policies.data.dataset import (
    ACTION,
    IMAGES,
    INTERVENTION,
    STATE,
    Array,
    DatasetError,
    Feature,
    Statistics,
)
from policies.training.options import TrainingOptions
from policies.training.trainer import TrainingEnd, train
from runtime.clock import RealClock

JOINTS = ("shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper")


@dataclass
class HeldEpisode:
    """`policies.data.dataset.DataEpisode` of arrays."""

    number: int
    arrays: dict[str, Array]
    label: str = "success"
    task: str = "pick"

    @property
    def name(self) -> str:
        return f"episode {self.number}"

    @property
    def length(self) -> int:
        return len(self.arrays[ACTION])

    def read(self, feature: str, rows: Array) -> Array:
        if feature not in self.arrays:
            raise DatasetError(f"{self.name}: no {feature}")
        return self.arrays[feature][rows]


@dataclass
class HeldDataset:
    """`policies.data.dataset.Dataset` of arrays."""

    features: Mapping[str, Feature]
    episodes: Sequence[HeldEpisode]
    rate_hz: float = 10.0
    path: Path = Path("data/held")
    format: str = "mcap"
    about: Mapping[str, Any] = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)
    print: str = "1f"
    closed: bool = False

    def statistics(self, feature: str) -> Statistics:
        rows = np.concatenate([each.arrays[feature] for each in self.episodes]).astype(float)
        rows = rows[np.isfinite(rows).all(axis=1)]
        return Statistics(rows.mean(0), rows.std(0), rows.min(0), rows.max(0), len(rows))

    def fingerprint(self) -> str:
        return self.print

    def close(self) -> None:
        self.closed = True


def held(episodes: int = 10, rows: int = 12, size: tuple[int, int] = (32, 32), seed: int = 0) -> HeldDataset:
    """Episodes in each of which another picture means another motion of six joints, radians."""
    random = np.random.default_rng(seed)
    made = []
    for number in range(episodes):
        goal, start = random.uniform(-0.8, 0.8, (2, 6))
        start[5], goal[5] = 0.2, random.uniform(0.3, 0.9)
        along = np.linspace(0, 1, rows + 1)[:, None]
        path = (start + (goal - start) * along).astype(np.float32)
        picture = random.integers(0, 256, (1, *size, 3), dtype=np.uint8)
        arrays: dict[str, Array] = {
            STATE: path[:-1],
            ACTION: path[1:],
            IMAGES + "head": np.repeat(picture, rows, axis=0),
            INTERVENTION: np.arange(rows) >= rows // 2,
        }
        made.append(HeldEpisode(number, arrays))
    features = {
        STATE: Feature((6,), "float32", "rad", JOINTS),
        ACTION: Feature((6,), "float32", "rad", JOINTS),
        IMAGES + "head": Feature((*size, 3), "uint8", "rgb"),
        INTERVENTION: Feature((), "bool", "bool"),
    }
    return HeldDataset(features, made)


TINY = {
    "chunk": 5,
    "hidden": 16,
    "feedforward": 16,
    "heads": 2,
    "encoder_layers": 1,
    "latent": 4,
    "base_width": 4,
}


def options(to: Path, **changes: Any) -> TrainingOptions:
    """A training of a tiny ACT."""
    given = {
        "data": "data/held",
        "to": str(to),
        "steps": 6,
        "batch": 4,
        "workers": 0,
        "device": "cpu",
        "save_every": 3,
        "log_every": 1,
        "trackers": ["csv"],
        "optimizer": {"lr": 1e-3},
        "policy": {"type": "act", "shape": TINY},
    }
    return TrainingOptions.model_validate({**given, **changes})


def trained(
    given: TrainingOptions, dataset: HeldDataset | None = None, told: list[str] | None = None, **more: Any
) -> TrainingEnd:
    lines = [] if told is None else told
    return train(given, clock=RealClock(), tell=lines.append, dataset=dataset or held(), **more)
