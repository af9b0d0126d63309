"""What a data set says of itself, in the words of ``policy.json`` and ``dexrun.json``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from policies.data.dataset import ACTION, IMAGES, STATE, Dataset, DatasetError
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


def cameras_of(dataset: Dataset, wanted: Sequence[str] | None, policy: str) -> list[str]:
    """The cameras that a `policy` is trained on: `wanted`, by ``policy.cameras``, or all that there are.

    Raises:
        DatasetError: one is not there, or none is.
    """
    there = [name.removeprefix(IMAGES) for name in dataset.features if name.startswith(IMAGES)]
    chosen = there if wanted is None else list(wanted)
    for name in chosen:
        if name not in there:
            has = ", ".join(there) or "none"
            raise DatasetError(f"{dataset.path}: no camera {name!r} in it (policy.cameras); it has: {has}")
    if not chosen:
        raise DatasetError(f"{dataset.path}: no camera in it, and {policy} needs one")
    return chosen


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
