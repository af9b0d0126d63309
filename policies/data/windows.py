"""Windows over episodes: what one training sample is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from policies.data.dataset import Array, Dataset, DatasetError
from policies.data.opened import known

IS_PAD = "_is_pad"


@dataclass(frozen=True, slots=True)
class WindowSpec:
    """Which rows a sample has, relative to its own.

    Attributes:
        rows: by feature, offsets in rows, ascending: ``(-1, 0)`` two observations, ``range(0, 16)`` a chunk.
            An offset before the episode's first row or after its last is that row again, and marked as pad.
        first, last: samples begin at row `first` and end with row ``length - 1 + last`` of each episode;
            ``last`` is at most 0 (samples whose actions would pass the end are left out by it).
    """

    rows: Mapping[str, tuple[int, ...]]
    first: int = 0
    last: int = 0


class Windows:
    """All samples of a data set, numbered from 0, episode by episode.

    Attributes:
        too_short: names of the episodes that have no sample.
    """

    def __init__(self, dataset: Dataset, spec: WindowSpec) -> None:
        """Count them.

        Raises:
            DatasetError: the data set lacks a feature, or all of its episodes are too short.
        """
        if spec.last > 0:
            raise ValueError(f"last is {spec.last}: no sample is after an episode's last row")
        for name in spec.rows:
            known(dataset.features, name)
        self.dataset, self.spec = dataset, spec
        self._offsets = {name: np.array(offsets, np.int64) for name, offsets in spec.rows.items()}
        lengths = np.array([episode.length for episode in dataset.episodes], np.int64)
        counts = np.maximum(0, lengths + spec.last - spec.first)
        self._ends = np.cumsum(counts)
        self.too_short = tuple(e.name for e, n in zip(dataset.episodes, counts, strict=True) if n == 0)
        if not len(self):
            longest = int(lengths.max()) if len(lengths) else 0
            raise DatasetError(
                f"{dataset.path}: no episode is long enough: a sample needs "
                f"{spec.first - spec.last + 1} rows, the longest of {len(lengths)} episodes has {longest}"
            )

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def place(self, index: int) -> tuple[int, int]:
        """The number of the episode and the row that sample `index` is about.

        Raises:
            IndexError: there is no such sample.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"sample {index}: there are {len(self)}")
        number = int(np.searchsorted(self._ends, index, side="right"))
        before = int(self._ends[number - 1]) if number else 0
        return number, index - before + self.spec.first

    def __getitem__(self, index: int) -> dict[str, Array]:
        """By feature ``[n, *shape]``, and ``<feature>_is_pad`` ``[n]`` of bools.

        Raises:
            IndexError: there is no such sample.
            DatasetError: what it shows cannot be read.
        """
        number, row = self.place(index)
        episode = self.dataset.episodes[number]
        out: dict[str, Array] = {}
        for name, offsets in self._offsets.items():
            wanted = row + offsets
            rows = np.clip(wanted, 0, episode.length - 1)
            out[name] = episode.read(name, rows)
            out[f"{name}{IS_PAD}"] = rows != wanted
        return out
