"""What a data set is made of when it is edited: pieces of episodes of others, in order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

from policies.data.dataset import DatasetError
from policies.data.opened import OpenDataset


@dataclass(frozen=True)
class Excerpt:
    """Rows `first` to `end` of one episode of one data set, and what is said of them.

    Attributes:
        episode: of `source`. label: ``success``, ``failure`` or ``""``.
    """

    source: OpenDataset
    episode: Any
    first: int
    end: int
    task: str
    label: str

    @property
    def whole(self) -> bool:
        """Whether nothing is cut off."""
        return self.first == 0 and self.end == self.episode.length

    @property
    def length(self) -> int:
        """Rows."""
        return self.end - self.first


_DIGITS = 9
"""Of an episode's number."""


def pieces_of(dataset: OpenDataset) -> list[Excerpt]:
    """All episodes, as they are."""
    return [Excerpt(dataset, each, 0, each.length, each.task, each.label) for each in dataset.episodes]


def numbers(text: str, count: int) -> list[int]:
    """The episodes that ``3,7-9`` names, of `count`.

    Raises:
        DatasetError: it names none, or one that is not there.
    """
    found: list[int] = []
    for part in text.split(","):
        low, dash, high = part.strip().partition("-")
        ends = [low, high] if dash else [low]
        whole = all(end.isdecimal() and end.isascii() and len(end) <= _DIGITS for end in ends)
        if not whole or int(ends[-1]) < int(low):
            raise DatasetError(f"--episodes {text:.40}: expected numbers and ranges, as in 3,7-9")
        if int(ends[-1]) >= count:
            raise DatasetError(f"--episodes {text:.40}: there are 0 to {count - 1}, and no {int(ends[-1])}")
        found += range(int(low), int(ends[-1]) + 1)
    return list(dict.fromkeys(found))


def chosen(dataset: OpenDataset, episodes: str, labels: str, task: str) -> list[int]:
    """The numbers of the episodes that fit everything that is given.

    Raises:
        DatasetError: nothing is given, or nothing fits.
    """
    if not (episodes or labels or task):
        raise DatasetError("which episodes? give --episodes 3,7-9, --labels failure or --task-is TEXT")
    wanted = numbers(episodes, len(dataset.episodes)) if episodes else range(len(dataset.episodes))
    names = {name.strip().replace("none", "") for name in labels.split(",")} if labels else None
    found = [
        number
        for number in wanted
        if (names is None or dataset.episodes[number].label in names)
        and (not task or dataset.episodes[number].task == task)
    ]
    if not found:
        raise DatasetError(f"{dataset.path}: no episode fits")
    return found


def relabelled(piece: Excerpt, task: str | None, label: str | None) -> Excerpt:
    """`piece` with another task or label, where one is given."""
    new = piece if task is None else replace(piece, task=task)
    return new if label is None else replace(new, label="" if label == "none" else label)


def alike(datasets: Sequence[OpenDataset]) -> None:
    """Whether they can be one data set.

    Raises:
        DatasetError: two are of different formats, rates, features or units; which, and in what.
    """
    first = datasets[0]
    for other in datasets[1:]:
        pairs: list[tuple[str, Any, Any]] = [
            ("format", first.format, other.format),
            ("rows a second", first.rate_hz, other.rate_hz),
            ("features", sorted(first.features), sorted(other.features)),
            *((f"{key} in about", first.about.get(key), other.about.get(key)) for key in ("robot", "units")),
        ]
        pairs += [(name, first.features[name], other.features.get(name)) for name in first.features]
        for what, one, two in pairs:
            if one != two:
                raise DatasetError(
                    f"{first.path} and {other.path} do not go together: {what} is {one} and {two}"
                )


_ASSEMBLERS: Mapping[str, tuple[str, str]] = {
    "mcap": ("dexrun.curation.mcap_files", "assemble_mcap"),
    "lerobot-v3": ("dexrun.curation.lerobot_files", "assemble_v3"),
    "lerobot-v2.1": ("dexrun.curation.lerobot_files", "assemble_v21"),
    "dexgrasp-zarr": ("dexrun.curation.zarr_files", "assemble_zarr"),
    "umi-zarr": ("dexrun.curation.zarr_files", "assemble_zarr"),
    "act-hdf5": ("dexrun.curation.hdf5_files", "assemble_hdf5"),
    "dexvla-hdf5": ("dexrun.curation.hdf5_files", "assemble_hdf5"),
}


def assemble(pieces: Iterable[Excerpt], draft: Path) -> None:
    """Write `pieces`, all of one format, as a data set of that format at `draft`, which is not there yet.

    What is not changed is linked to where it was, where the file system can.

    Raises:
        DatasetError: the format cannot hold what is asked for.
    """
    parts = list(pieces)
    if not parts:
        raise DatasetError("nothing would be left of the data set")
    if short := [each for each in parts if each.length < 1]:
        raise DatasetError(f"nothing would be left of {short[0].episode.name}")
    module, function = _ASSEMBLERS[parts[0].source.format]
    write: Callable[[list[Excerpt], Path], None] = getattr(import_module(module), function)
    write(parts, draft)
