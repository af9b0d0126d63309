"""A data set that is open, whatever it is stored as: what its format made of its files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np

from policies.data.dataset import (
    TIP,
    Array,
    DataEpisode,
    DatasetError,
    Feature,
    RowNumbers,
    Statistics,
    substeps_at,
)


def nothing() -> None:
    """There is no file to close."""


class StoredEpisode(DataEpisode, Protocol):
    """A `DataEpisode` that can take another place."""

    def numbered(self, number: int) -> Self: ...


@dataclass
class OpenDataset:
    """A `policies.data.dataset.Dataset`.

    Attributes:
        left_out: episodes that cannot be used, by name, and why.
        shut: closes its files.
    """

    path: Path
    format: str
    rate_hz: float
    features: Mapping[str, Feature]
    episodes: Sequence[StoredEpisode]
    about: Mapping[str, Any] = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)
    shut: Callable[[], None] = nothing
    _statistics: dict[str, Statistics] = field(default_factory=dict, init=False, repr=False)

    def statistics(self, feature: str) -> Statistics:
        """See `policies.data.dataset.Dataset`; rows in which the object is not seen do not count."""
        if feature not in self._statistics:
            self._statistics[feature] = self._measured(feature)
        return self._statistics[feature]

    def _measured(self, feature: str) -> Statistics:
        about = known(self.features, feature)
        if len(about.shape) > 1:
            raise DatasetError(f"{self.path}: {feature} is a picture; statistics are of vectors")
        parts = []
        for episode in self.episodes:
            values = episode.read(feature, np.arange(episode.length)).astype(np.float64)
            values = values.reshape(len(values), -1)
            finite = np.isfinite(values).all(axis=1)
            if not finite.all() and feature != TIP:
                row = int(np.argmin(finite))
                raise DatasetError(
                    f"{self.path}: {feature} of {episode.name} is not a finite number at row {row}; "
                    "dexrun data drop leaves the episode out"
                )
            parts.append(values[finite])
        every = np.concatenate(parts)
        if not len(every):
            raise DatasetError(f"{self.path}: {feature} has no value in any row")
        return Statistics(
            every.mean(axis=0), every.std(axis=0), every.min(axis=0), every.max(axis=0), len(every)
        )

    def fingerprint(self) -> str:
        """Of features, tasks, labels and every vector of every row; of pictures, how many and how large."""
        digest = hashlib.sha256()
        digest.update(json.dumps([self.rate_hz, {k: repr(v) for k, v in self.features.items()}]).encode())
        for episode in self.episodes:
            digest.update(json.dumps([episode.length, episode.task, episode.label]).encode())
            for name, about in self.features.items():
                if len(about.shape) <= 1 and name != TIP:  # which is worked out from the others
                    values = episode.read(name, np.arange(episode.length))
                    digest.update(np.ascontiguousarray(values).tobytes())
        return digest.hexdigest()

    def close(self) -> None:
        """Close its files. Idempotent."""
        self.shut()

    def only(self, numbers: Iterable[int]) -> OpenDataset:
        """The same with these episodes alone, numbered anew; it shares the files.

        Raises:
            DatasetError: there is no such episode, or none is asked for.
        """
        kept = list(numbers)
        there = len(self.episodes)
        if not kept or not all(0 <= number < there for number in kept):
            raise DatasetError(
                f"{self.path}: episodes {kept or 'none'} were asked for; there are 0 to {there - 1}"
            )
        return replace(self, episodes=[self.episodes[old].numbered(new) for new, old in enumerate(kept)])


def known(features: Mapping[str, Feature], name: str) -> Feature:
    """The feature.

    Raises:
        DatasetError: there is none, or it is switched off.
    """
    if name not in features:
        raise DatasetError(f"the data set has no {name}; it has {', '.join(features)}")
    return features[name]


def lost(drops: Mapping[str, int], sensors: Mapping[str, Any]) -> dict[str, str]:
    """By sensor, what of its samples is missing, as recordings and exports report it."""
    out = {topic: f"{count} dropped" for topic, count in drops.items() if count}
    for name, report in sensors.items():
        if gaps := report.get("gaps"):
            longest = max(gaps, key=lambda gap: gap["duration_s"])
            at = f"{longest['duration_s']:.2f} s at {longest['start_s']:.2f} s"
            out[name] = f"nothing for {at}" + (f", {len(gaps)} gaps" if len(gaps) > 1 else "")
    return out


def reported(said: Mapping[str, Any]) -> dict[str, str]:
    """`lost`, of an episode of an export's report."""
    return lost(said.get("dropped_while_recording", {}), said.get("sensors", {}))


def gathered(rows: RowNumbers, feature: Feature, load: Callable[[int], Array]) -> Array:
    """Pictures ``[len(rows), *shape]``; what several rows show is loaded once.

    Args:
        rows: which picture each row shows; below 0, none: zeros.
        feature: what they are.
        load: gives one.
    """
    out = np.zeros((len(rows), *feature.shape), feature.dtype)
    for number in np.unique(rows[rows >= 0]).tolist():
        out[rows == number] = load(number)
    return out


@dataclass
class _Every:
    """Every so many rows of an episode."""

    whole: StoredEpisode
    step: int
    number: int

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "whole":
            raise AttributeError(name)
        return getattr(self.whole, name)

    @property
    def length(self) -> int:
        return -(-self.whole.length // self.step)

    def numbered(self, number: int) -> _Every:
        return replace(self, number=number)

    def read(self, feature: str, rows: RowNumbers) -> Array:
        return self.whole.read(feature, rows * self.step)

    def substeps(self, rows: RowNumbers) -> list[str]:
        return substeps_at(self.whole, rows * self.step)


def strided(dataset: OpenDataset, rate_hz: float | None) -> OpenDataset:
    """The same at another rate: every second, third... row.

    Raises:
        DatasetError: its rate is no multiple of that.
    """
    if rate_hz is None or rate_hz == dataset.rate_hz:
        return dataset
    step = round(dataset.rate_hz / rate_hz)
    if step < 1 or abs(dataset.rate_hz / step - rate_hz) > 1e-3 * rate_hz:
        given = ", ".join(f"{dataset.rate_hz / n:g}" for n in (1, 2, 3))
        raise DatasetError(
            f"{dataset.path}: rows are {dataset.rate_hz:g} a second; a rate of {rate_hz:g} Hz cannot be had "
            f"of them, {given}... Hz can"
        )
    episodes: Any = [_Every(each, step, each.number) for each in dataset.episodes]
    return replace(dataset, rate_hz=dataset.rate_hz / step, episodes=episodes)
