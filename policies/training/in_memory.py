"""A data set that is read once and then kept."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from policies.data.dataset import Array, DataEpisode, Dataset, DatasetError, RowNumbers
from policies.data.derived import DerivedDataset


class InMemoryEpisode:
    """`policies.data.dataset.DataEpisode`, some of whose features are arrays."""

    def __init__(self, episode: DataEpisode, features: Iterable[str]) -> None:
        self.number, self.name, self.length = episode.number, episode.name, episode.length
        self.task, self.label = episode.task, episode.label
        self._episode = episode
        everything = np.arange(episode.length)
        self.arrays = {name: np.ascontiguousarray(episode.read(name, everything)) for name in features}

    def read(self, feature: str, rows: RowNumbers) -> Array:
        """As the episode that it was read from."""
        held = self.arrays.get(feature)
        return self._episode.read(feature, rows) if held is None else held[rows]


class InMemoryDataset(DerivedDataset):
    """`policies.data.dataset.Dataset` that was read from another one."""

    def __init__(self, dataset: Dataset, features: Iterable[str]) -> None:
        """Read `features` of all episodes.

        Raises:
            DatasetError: they do not fit into the memory that is free, or cannot be read.
        """
        names = tuple(features)
        _check_room(dataset, names)
        episodes = [InMemoryEpisode(each, names) for each in dataset.episodes]
        super().__init__(dataset, dataset.features, episodes)


def _check_room(dataset: Dataset, names: Sequence[str]) -> None:
    features = [dataset.features[name] for name in names]
    row = sum(int(np.prod(each.shape)) * np.dtype(each.dtype).itemsize for each in features)
    needed, free = row * sum(each.length for each in dataset.episodes), _free_bytes()
    if needed > free:
        raise DatasetError(
            f"{dataset.path}: cache = true needs {needed / 2**30:.1f} GiB of memory, and {free / 2**30:.1f} "
            "are free; leave it out, or read less (switches.cameras)"
        )


def _free_bytes() -> int:
    try:
        text = Path("/proc/meminfo").read_text(encoding="ascii")
    except OSError:
        return 1 << 62
    kib = next((line.split()[1] for line in text.splitlines() if line.startswith("MemAvailable:")), "")
    return int(kib) * 1024 if kib else 1 << 62
