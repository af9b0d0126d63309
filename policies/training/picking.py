"""Which samples are trained on, which are held back, and how often each is drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from policies.data.dataset import INTERVENTION, DataEpisode, Dataset, DatasetError, RowNumbers
from policies.data.windows import Windows
from policies.training.batches import Weights
from policies.training.options import PickOptions, ValidationOptions

FAILURE = "failure"


@dataclass(frozen=True, slots=True)
class Picked:
    """Sample numbers.

    Attributes:
        train, held_back: samples to train on, and of episodes that are not trained on.
        weights: of `train`; ``None`` if all are alike.
        episodes, held_back_episodes: how many they are of.
        failures: episodes left out because they failed.
    """

    train: RowNumbers
    held_back: RowNumbers
    weights: Weights | None
    episodes: int
    held_back_episodes: int
    failures: int


def pick(windows: Windows, options: PickOptions, validation: ValidationOptions, seed: int) -> Picked:
    """The samples of `windows` as `options` say, split by episode.

    Raises:
        DatasetError: nothing is left, or it does not say who drove.
    """
    dataset = windows.dataset
    wanted = {e.number for e in dataset.episodes if options.failures or e.label != FAILURE}
    failures = len(dataset.episodes) - len(wanted)
    chosen = np.isin(windows.numbers, sorted(wanted))
    driven = _driven(dataset, options)
    if driven is not None and options.driven_by != "anybody":
        by_person = _at(driven, windows, np.arange(len(windows)))
        chosen &= by_person if options.driven_by == "person" else ~by_person
    numbers = np.flatnonzero(chosen)
    if not len(numbers):
        raise DatasetError(f"{dataset.path}: {_nothing(dataset, options, failures)}")
    of = windows.numbers[numbers]
    held = _held_back(np.unique(of), validation.share, seed)
    back = np.isin(of, held)
    train = numbers[~back]
    weights = None
    if driven is not None and options.person_weight != 1:
        weights = np.where(_at(driven, windows, train), options.person_weight, 1.0)
    episodes = len(np.unique(of[~back]))
    return Picked(train, numbers[back], weights, episodes, len(held), failures)


def _driven(dataset: Dataset, options: PickOptions) -> Sequence[NDArray[np.bool_]] | None:
    """By episode, whether a person drove each row; ``None`` if nobody wants to know."""
    if options.driven_by == "anybody" and options.person_weight == 1:
        return None
    if INTERVENTION not in dataset.features:
        raise DatasetError(
            f"{dataset.path}: it does not say who drove (no {INTERVENTION!r} in it); leave out "
            "pick.driven_by and pick.person_weight"
        )
    return [_rows(episode) for episode in dataset.episodes]


def _rows(episode: DataEpisode) -> NDArray[np.bool_]:
    return np.asarray(episode.read(INTERVENTION, np.arange(episode.length))).reshape(-1).astype(bool)


def _at(driven: Sequence[NDArray[np.bool_]], windows: Windows, chosen: RowNumbers) -> NDArray[np.bool_]:
    pairs = zip(windows.numbers[chosen], windows.rows[chosen], strict=True)
    return np.array([driven[number][row] for number, row in pairs], bool)


def _nothing(dataset: Dataset, options: PickOptions, failures: int) -> str:
    if failures == len(dataset.episodes):
        return f"all {failures} episodes are labelled as failures; pick.failures = true trains on them"
    return f"no row that pick.driven_by = {options.driven_by!r} asks for"


def _held_back(episodes: RowNumbers, share: float, seed: int) -> RowNumbers:
    """A share of the episodes' numbers, drawn by the seed: at least one of two, and never all."""
    count = min(max(1, round(share * len(episodes))), len(episodes) - 1) if share else 0
    random = np.random.default_rng((seed, 42))
    return np.sort(random.choice(episodes, count, replace=False))


def spread(samples: RowNumbers, count: int) -> RowNumbers:
    """At most `count` of them, evenly over all."""
    if len(samples) <= count:
        return samples
    return samples[np.linspace(0, len(samples) - 1, count).round().astype(np.int64)]
