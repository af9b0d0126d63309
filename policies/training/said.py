"""What a data set says of itself, in the words of ``policy.json`` and ``dexrun.json``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from policies.data.dataset import ACTION, STATE, Dataset
from runtime.units import CONVENTIONS, translated

_ABOUT = ("robot", "model", "arms", "joints")
"""What of a data set's own words is about the robot."""


def units_of(dataset: Dataset) -> dict[str, Any] | None:
    """The units of its joints, as a policy's ``units`` takes them; ``None`` if it does not say."""
    said = dataset.about.get("units")
    if isinstance(said, str):
        said = {"convention": said}
    if isinstance(said, Mapping):
        return translated(said)
    for name in (ACTION, STATE):
        if name in dataset.features and dataset.features[name].unit in CONVENTIONS:
            return {"convention": dataset.features[name].unit}
    return None


def entries_of(dataset: Dataset, feature: str) -> tuple[str, ...]:
    """What the entries of a vector are, as a policy's ``keys`` name them; none: all joints in their order."""
    return tuple(name.removesuffix(".pos") for name in dataset.features[feature].names)


def described(dataset: Dataset) -> dict[str, Any]:
    """What ``dexrun.json`` of a checkpoint has of the data set that it is of."""
    units = units_of(dataset)
    about = {key: dataset.about[key] for key in _ABOUT if key in dataset.about}
    return {
        **({} if units is None else {"units": units}),
        **about,
        "rate_hz": dataset.rate_hz,
        "features": {name: asdict(feature) for name, feature in dataset.features.items()},
        "data": {
            "path": str(dataset.path),
            "format": dataset.format,
            "episodes": len(dataset.episodes),
            "rows": sum(episode.length for episode in dataset.episodes),
            "fingerprint": dataset.fingerprint(),
        },
    }
