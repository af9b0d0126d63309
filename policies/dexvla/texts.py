"""A data set with what is asked and what is to be said at each row, as tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from policies.data.dataset import (
    Array,
    DataEpisode,
    Dataset,
    Feature,
    RowNumbers,
    Statistics,
    substeps_at,
)
from policies.dexvla.words import DexVlaWords

ASKED, SAID = "words.asked", "words.said"
"""``[L]`` int64 each: tokens of the instruction, and of the reasoning with its end; `NONE` after them."""
NONE = -1


class _Table:
    """Texts as rows of tokens, all of one length."""

    def __init__(self, tokens: Mapping[str, Sequence[int]]) -> None:
        self._places = {text: place for place, text in enumerate(tokens)}
        self.length = max(map(len, tokens.values()))
        self.rows = np.full((len(tokens), self.length), NONE, np.int64)
        for place, found in enumerate(tokens.values()):
            self.rows[place, : len(found)] = found

    def places(self, texts: Sequence[str]) -> RowNumbers:
        return np.array([self._places[text] for text in texts], np.int64)


class WordedEpisode:
    """`policies.data.dataset.DataEpisode` with its words."""

    def __init__(self, episode: DataEpisode, asked: Array, said: Array, places: RowNumbers) -> None:
        self.number, self.name, self.length = episode.number, episode.name, episode.length
        self.task, self.label = episode.task, episode.label
        self._episode, self._asked, self._said, self._places = episode, asked, said, places

    def read(self, feature: str, rows: RowNumbers) -> Array:
        """As the episode that it is of."""
        if feature == ASKED:
            return np.repeat(self._asked[None], len(rows), axis=0)
        return self._said[self._places[rows]] if feature == SAID else self._episode.read(feature, rows)


class WordedDataset:
    """`policies.data.dataset.Dataset` with its words."""

    def __init__(self, dataset: Dataset, words: DexVlaWords) -> None:
        self._dataset = dataset
        self.path: Path = dataset.path
        self.format: str = dataset.format
        self.rate_hz: float = dataset.rate_hz
        self.about: Mapping[str, Any] = dataset.about
        self.left_out: Mapping[str, str] = dataset.left_out
        spoken = [substeps_at(each, np.arange(each.length)) for each in dataset.episodes]
        tasks = _Table({each.task: words.instruction(each.task) for each in dataset.episodes})
        said = _Table({text: words.answer(text) for texts in spoken for text in texts})
        made = {ASKED: tasks.length, SAID: said.length}
        self.features: Mapping[str, Feature] = {
            **dataset.features,
            **{name: Feature((length,), "int64") for name, length in made.items()},
        }
        self.episodes: Sequence[DataEpisode] = [
            WordedEpisode(each, tasks.rows[tasks.places([each.task])[0]], said.rows, said.places(texts))
            for each, texts in zip(dataset.episodes, spoken, strict=True)
        ]

    def statistics(self, feature: str) -> Statistics:
        """As of the data set that it is of."""
        return self._dataset.statistics(feature)

    def fingerprint(self) -> str:
        """The same."""
        return self._dataset.fingerprint()

    def close(self) -> None:
        """Close that."""
        self._dataset.close()
