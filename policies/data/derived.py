"""Data sets that are made of another one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from policies.data.dataset import DataEpisode, Dataset, Feature, Statistics


class DerivedDataset:
    """`policies.data.dataset.Dataset` with other features or episodes: all else is as in the one it is of."""

    def __init__(
        self,
        dataset: Dataset,
        features: Mapping[str, Feature],
        episodes: Sequence[DataEpisode],
        rate_hz: float | None = None,
    ) -> None:
        self._dataset = dataset
        self.path: Path = dataset.path
        self.format: str = dataset.format
        self.rate_hz: float = dataset.rate_hz if rate_hz is None else rate_hz
        self.about: Mapping[str, Any] = dataset.about
        self.left_out: Mapping[str, str] = dataset.left_out
        self.features = features
        self.episodes = episodes

    def statistics(self, feature: str) -> Statistics:
        """As of the data set that it is of."""
        return self._dataset.statistics(feature)

    def fingerprint(self) -> str:
        """The same."""
        return self._dataset.fingerprint()

    def close(self) -> None:
        """Close that."""
        self._dataset.close()
