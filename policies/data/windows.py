"""Windows over episodes: what one training sample is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from policies.data.dataset import Array, Dataset, DatasetError, RowNumbers
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
        numbers, rows: of every sample, ``[N]``: its episode's number, and the row that it is about.
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
        self._last_rows = lengths - 1
        self.numbers: RowNumbers = np.repeat(np.arange(len(counts)), counts)
        before = np.cumsum(counts) - counts
        self.rows: RowNumbers = np.arange(len(self.numbers)) - before[self.numbers] + spec.first
        self.too_short = tuple(e.name for e, n in zip(dataset.episodes, counts, strict=True) if n == 0)
        if not len(self):
            longest = int(lengths.max()) if len(lengths) else 0
            raise DatasetError(
                f"{dataset.path}: no episode is long enough: a sample needs "
                f"{spec.first - spec.last + 1} rows, the longest of {len(lengths)} episodes has {longest}"
            )

    def __len__(self) -> int:
        return len(self.numbers)

    def place(self, index: int) -> tuple[int, int]:
        """The number of the episode and the row that sample `index` is about.

        Raises:
            IndexError: there is no such sample.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"sample {index}: there are {len(self)}")
        return int(self.numbers[index]), int(self.rows[index])

    def __getitem__(self, index: int) -> dict[str, Array]:
        """By feature ``[n, *shape]``, and ``<feature>_is_pad`` ``[n]`` of bools.

        Raises:
            IndexError: there is no such sample.
            DatasetError: what it shows cannot be read.
        """
        self.place(index)
        return {name: values[0] for name, values in self.batch([index]).items()}

    def batch(self, indices: Sequence[int]) -> dict[str, Array]:
        """Several samples as one: ``[len(indices), n, *shape]`` by feature, and what is pad.

        An episode is asked once for a feature, however many of its samples there are.

        Raises:
            DatasetError: what they show cannot be read.
        """
        asked = np.asarray(indices, np.int64)
        order = np.argsort(self.numbers[asked], kind="stable")
        chosen = asked[order]
        numbers, begins = np.unique(self.numbers[chosen], return_index=True)
        ends = np.append(begins[1:], len(chosen))
        last = self._last_rows[self.numbers[chosen]][:, None]
        out: dict[str, Array] = {}
        for name, offsets in self._offsets.items():
            wanted = self.rows[chosen][:, None] + offsets
            rows = np.clip(wanted, 0, last)
            read = [
                self.dataset.episodes[number].read(name, rows[begin:end].reshape(-1))
                for number, begin, end in zip(numbers, begins, ends, strict=True)
            ]
            joined = read[0] if len(read) == 1 else np.concatenate(read)
            out[name] = _put_back(joined.reshape(len(chosen), len(offsets), *joined.shape[1:]), order)
            out[f"{name}{IS_PAD}"] = _put_back(rows != wanted, order)
        return out


def _put_back(values: Array, order: RowNumbers) -> Array:
    out = np.empty_like(values)
    out[order] = values
    return out
