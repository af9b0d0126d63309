"""UMI's replay buffers for the controller's one-camera variant: every row a sample, computed once.

What a sample has is `policies.data.umi.UmiWindows`'s, number for number the reference's: poses relative to
the present one (position and the first two rows of the rotation), the poses to come and the gripper's width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from policies.data.dataset import (
    ACTION,
    STATE,
    Array,
    DataEpisode,
    Dataset,
    Feature,
    RowNumbers,
    Statistics,
)
from policies.data.derived import DerivedDataset
from policies.data.scaling import RANGE_EPS, Scaling, limits, side_by_side, unscaled
from policies.data.umi import UmiSpec, UmiWindows
from runtime.messages import Floats

STATE_SIZE, ACTION_SIZE = 9, 10
"""Position and rotation; and the gripper's width."""
_ENTRIES = ("x", "y", "z", *(f"rot6d.{i}" for i in range(6)))


def holds_poses(dataset: Dataset) -> bool:
    """Whether its states are poses, as a UMI replay buffer's are."""
    return STATE in dataset.features and dataset.features[STATE].names[3:4] == ("rx",)


def entries() -> dict[str, Any]:
    """The `keys` of a policy that takes such a state; joints do not follow from its actions."""
    return {
        "state": {"state": [f"end_effector.{each}" for each in _ENTRIES]},
        "action": {"action": ["skip"] * ACTION_SIZE},
    }


class UmiEpisode:
    """`policies.data.dataset.DataEpisode` whose rows are samples; the last ones, whose poses to come pass the
    end, are none.
    """

    def __init__(self, episode: DataEpisode, samples: UmiWindows, stacked: Sequence[str]) -> None:
        self.number, self.name, self.length = episode.number, episode.name, episode.length
        self.task, self.label = episode.task, episode.label
        self._episode, self._stacked = episode, stacked
        self._back = np.arange(samples.spec.image_horizon)[::-1] * samples.spec.down
        self._down = samples.spec.down
        poses = episode.read(STATE, np.arange(episode.length)).astype(np.float64)
        count = max(0, episode.length - (samples.spec.action_horizon - 1) * samples.spec.down)
        made = [samples.numbers(poses, row) for row in range(count)]
        states = [
            np.concatenate([each["robot0_eef_pos"], each["robot0_eef_rot_axis_angle"]], axis=1)
            for each in made
        ]
        self.arrays: dict[str, Array] = {
            STATE: np.reshape(states, (count, samples.spec.state_horizon, STATE_SIZE)).astype(np.float32),
            ACTION: np.reshape(
                [each["action"] for each in made], (count, samples.spec.action_horizon, ACTION_SIZE)
            ).astype(np.float32),
        }

    def read(self, feature: str, rows: RowNumbers) -> Array:
        """Of pictures, those of the row and of the ones before it; before the beginning, UMI's."""
        if feature in self.arrays:
            return self.arrays[feature][rows]
        if feature not in self._stacked:
            return self._episode.read(feature, rows)
        wanted = rows[:, None] - self._back
        shown = np.where(wanted < 0, rows[:, None] % self._down, wanted)
        read = self._episode.read(feature, shown.reshape(-1))
        return read.reshape(len(rows), len(self._back), *read.shape[1:])


class UmiDataset(DerivedDataset):
    """`policies.data.dataset.Dataset` of a UMI replay buffer's samples.

    Attributes:
        ahead: rows at the end of each episode that are no samples.
    """

    def __init__(self, dataset: Dataset, spec: UmiSpec, stacked: Sequence[str]) -> None:
        """`stacked` are the features that are pictures.

        Raises:
            DatasetError: every episode is shorter than the poses to come.
        """
        samples = UmiWindows(dataset, spec)
        self.ahead = (spec.action_horizon - 1) * spec.down
        made = [UmiEpisode(each, samples, stacked) for each in dataset.episodes]
        self._actions = np.concatenate([each.arrays[ACTION] for each in made]).reshape(-1, ACTION_SIZE)
        features = {
            **dataset.features,
            STATE: Feature((spec.state_horizon, STATE_SIZE), "float32"),
            ACTION: Feature((spec.action_horizon, ACTION_SIZE), "float32"),
            **{name: _stacked(dataset.features[name], spec.image_horizon) for name in stacked},
        }
        super().__init__(dataset, features, made, dataset.rate_hz / spec.down)

    def scaling(self) -> Scaling:
        """Of actions: positions and widths onto -1 to 1, rotations as they are."""
        place, width = self._actions[:, :3].astype(float), self._actions[:, 9:].astype(float)
        return side_by_side(_range(place), unscaled(6), _range(width))


def tensors(scaling: Scaling) -> tuple[torch.Tensor, torch.Tensor]:
    """Scale and offset, as the network's normaliser takes them."""
    return torch.from_numpy(scaling.scale).float(), torch.from_numpy(scaling.offset).float()


def _range(values: Floats) -> Scaling:
    low, high = values.min(axis=0), values.max(axis=0)
    return limits(Statistics(values.mean(axis=0), values.std(axis=0), low, high, len(values)), RANGE_EPS)


def _stacked(feature: Feature, count: int) -> Feature:
    return Feature((count, *feature.shape), feature.dtype, feature.unit, feature.names)
