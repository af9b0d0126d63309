"""A data set with words at each row, as tokens: what is asked, what is said."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from policies.data.dataset import (
    Array,
    DataEpisode,
    Dataset,
    Feature,
    RowNumbers,
    substeps_at,
)
from policies.data.derived import DerivedDataset

ASKED, SAID = "words.asked", "words.said"
"""``[L]`` int64 each: tokens of the instruction, and of what is done or said there; `NONE` after them."""
NONE = -1


@dataclass(frozen=True, slots=True)
class WordColumn:
    """One feature of words.

    Attributes:
        texts: an episode's, one for each of its rows.
        tokens: of a text.
    """

    texts: Callable[[DataEpisode], Sequence[str]]
    tokens: Callable[[str], Sequence[int]]


def tasks(episode: DataEpisode) -> Sequence[str]:
    """What is to be done, the same at every row."""
    return [episode.task] * episode.length


def substeps(episode: DataEpisode) -> Sequence[str]:
    """What is being done.

    Raises:
        DatasetError: a file is damaged.
    """
    return substeps_at(episode, np.arange(episode.length))


class _Table:
    """Texts as rows of tokens, all of one length."""

    def __init__(self, texts: Sequence[Sequence[str]], words: WordColumn) -> None:
        tokens = {text: words.tokens(text) for each in texts for text in dict.fromkeys(each)}
        place_of = {text: place for place, text in enumerate(tokens)}
        self.length = max(map(len, tokens.values()), default=0)
        self.rows = np.full((len(tokens), self.length), NONE, np.int64)
        for place, found in enumerate(tokens.values()):
            self.rows[place, : len(found)] = found
        self.places = [np.array([place_of[text] for text in each], np.int64) for each in texts]


class WordedEpisode:
    """`policies.data.dataset.DataEpisode` with words."""

    def __init__(self, episode: DataEpisode, words: Mapping[str, tuple[Array, RowNumbers]]) -> None:
        """`words`: by feature, rows of tokens, and which of them each row has."""
        self.number, self.name, self.length = episode.number, episode.name, episode.length
        self.task, self.label = episode.task, episode.label
        self._episode, self._words = episode, words

    def read(self, feature: str, rows: RowNumbers) -> Array:
        """As the episode that it is of."""
        if feature in self._words:
            tokens, places = self._words[feature]
            return tokens[places[rows]]
        return self._episode.read(feature, rows)


class WordedDataset(DerivedDataset):
    """`policies.data.dataset.Dataset` with words."""

    def __init__(self, dataset: Dataset, words: Mapping[str, WordColumn]) -> None:
        """`words` by the name of their feature.

        Raises:
            DatasetError: a file is damaged.
        """
        tables = {
            name: _Table([each.texts(episode) for episode in dataset.episodes], each)
            for name, each in words.items()
        }
        made = {name: Feature((table.length,), "int64") for name, table in tables.items()}
        episodes = [
            WordedEpisode(episode, {name: (table.rows, table.places[at]) for name, table in tables.items()})
            for at, episode in enumerate(dataset.episodes)
        ]
        super().__init__(dataset, {**dataset.features, **made}, episodes)
