"""Data sets as a page sees them: which there are, their episodes, rows for plots, and single pictures.

Everything that opens one is for one worker thread (`DataSets.thread`), and reads through
`policies.data.opening`, as training and editing do, so that episodes have the same numbers everywhere.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from dexrun.panel.server.drawing import encoded
from dexrun.panel.server.places import Places
from policies.data.dataset import ACTION, FORCE, IMAGES, STATE, DataEpisode, DatasetError, Switches
from policies.data.opened import OpenDataset
from policies.data.opening import open_dataset
from runtime.http_server import RefusedError

T = TypeVar("T")

MOST_LISTED, MOST_OPEN, MOST_ROWS = 500, 3, 600
_DEPTH = 2
"""So far below a configured folder a data set is looked for; a run's folder is one of its own."""


class DataSets:
    """Those below the configured folders.

    Attributes:
        thread: the one that opens and reads them.
    """

    def __init__(self, places: Places) -> None:
        self._places = places
        self._known: dict[str, Path] = {}
        self._open: OrderedDict[str, tuple[tuple[int, int], OpenDataset]] = OrderedDict()
        self.thread = ThreadPoolExecutor(1, "panel-data")

    def close(self) -> None:
        """Let go of files and thread. Idempotent."""
        self.thread.shutdown(wait=True, cancel_futures=True)
        for _, dataset in self._open.values():
            dataset.close()
        self._open.clear()

    def listed(self) -> list[dict[str, Any]]:
        """What there is, the newest first: ``id``, ``path``, ``kind``, ``changed_s``."""
        found: dict[str, dict[str, Any]] = {}
        for root in self._places.roots:
            for path, kind in _data_sets(root, _DEPTH):
                if len(found) >= MOST_LISTED:
                    break
                name, changed_s = self.known(path), path.stat().st_mtime
                shown = self._places.shown(path)
                found[name] = {"id": name, "path": shown, "kind": kind, "changed_s": changed_s}
        return sorted(found.values(), key=lambda each: -each["changed_s"])

    def known(self, path: Path) -> str:
        """The name of the data set at `path`, from now on."""
        name = hashlib.sha256(self._places.shown(path).encode()).hexdigest()[:16]
        self._known[name] = path
        return name

    def _opened(self, name: str) -> OpenDataset:
        """The data set that was listed as `name`; as it is now.

        Raises:
            RefusedError: there is none, or it cannot be read.
        """
        if name not in self._known:
            self.listed()
        path = self._known.get(name)
        if path is None or not path.exists():
            raise RefusedError(404, f"no data set {name[:40]}")
        state = _state(path)
        if name in self._open and self._open[name][0] == state:
            self._open.move_to_end(name)
            return self._open[name][1]
        if name in self._open:
            self._open.pop(name)[1].close()
        dataset = _with_force(path)
        self._open[name] = (state, dataset)
        while len(self._open) > MOST_OPEN:
            self._open.popitem(last=False)[1][1].close()
        return dataset

    def episodes(self, name: str) -> dict[str, Any]:
        """Format, rate, features and episodes; what cannot be used, and why.

        Raises:
            RefusedError: see `_opened`.
        """
        dataset = self._opened(name)
        return {
            "path": self._places.shown(dataset.path),
            "format": dataset.format,
            "rate_hz": dataset.rate_hz,
            "features": {
                feature: {"shape": list(about.shape), "unit": about.unit, "names": list(about.names)}
                for feature, about in dataset.features.items()
            },
            "episodes": [_about(each, dataset.rate_hz) for each in dataset.episodes],
            "left_out": dict(dataset.left_out),
        }

    def episode(self, name: str, number: int) -> dict[str, Any]:
        """At most `MOST_ROWS` rows of an episode's vectors, spread over its length.

        Raises:
            RefusedError: there is no such episode, or it is damaged.
        """
        dataset, episode = self._episode(name, number)
        rows = np.unique(np.linspace(0, episode.length - 1, min(MOST_ROWS, episode.length)).astype(np.int64))
        series = {}
        for feature in (STATE, ACTION, FORCE):
            if feature in dataset.features:
                values = _read(lambda feature=feature: episode.read(feature, rows))  # type: ignore[misc]
                about = dataset.features[feature]
                names = about.names or tuple(str(index) for index in range(values.shape[1]))
                said = [[_number(value) for value in row] for row in values.tolist()]
                series[feature] = {"unit": about.unit, "names": list(names), "values": said}
        return {
            **_about(episode, dataset.rate_hz),
            "rows": rows.tolist(),
            "t_s": [round(row / dataset.rate_hz, 4) for row in rows.tolist()],
            "series": series,
            "cameras": [one.removeprefix(IMAGES) for one in dataset.features if one.startswith(IMAGES)],
        }

    def picture(self, name: str, number: int, camera: str, row: int) -> bytes:
        """JPEG of what `camera` saw at a row.

        Raises:
            RefusedError: there is no such picture, or it is damaged.
        """
        dataset, episode = self._episode(name, number)
        feature = IMAGES + camera
        if feature not in dataset.features or not 0 <= row < episode.length:
            raise RefusedError(404, f"no picture of {camera[:40]!r} at row {row}")
        return encoded(_read(lambda: episode.read(feature, np.array([row])))[0])

    def _episode(self, name: str, number: int) -> tuple[OpenDataset, DataEpisode]:
        dataset = self._opened(name)
        if not 0 <= number < len(dataset.episodes):
            raise RefusedError(404, f"no episode {number}; there are {len(dataset.episodes)}")
        return dataset, dataset.episodes[number]


def _read(read: Callable[[], T]) -> T:
    try:
        return read()
    except DatasetError as error:
        raise RefusedError(409, str(error)) from None


def _with_force(path: Path) -> OpenDataset:
    """With what the force sensor said, where there was one."""
    try:
        return open_dataset(path, Switches(use_force=True))
    except DatasetError:
        return _read(lambda: open_dataset(path))


def _about(episode: DataEpisode, rate_hz: float) -> dict[str, Any]:
    return {
        "number": episode.number,
        "name": episode.name,
        "rows": episode.length,
        "seconds": round(episode.length / rate_hz, 3),
        "task": episode.task,
        "label": episode.label,
    }


def _number(value: float) -> float | None:
    return round(value, 5) if np.isfinite(value) else None


def _state(path: Path) -> tuple[int, int]:
    """Tells whether a data set is still what was opened: edits take its place, recordings grow."""
    episodes = path / "episodes"
    about = (episodes if episodes.is_dir() else path).stat()
    return about.st_ino, about.st_mtime_ns


def _kind(path: Path) -> str:
    """What a folder is by its looks, or ``""``."""
    if (path / "meta" / "info.json").is_file():
        return "lerobot"
    if any(path.glob("episodes/*.mcap")) or any(path.glob("*.mcap")):
        return "recording"
    if (path / ".zgroup").is_file() or path.suffix == ".zarr":
        return "zarr"
    return "hdf5" if any(path.glob("*.hdf5")) else ""


def _data_sets(root: Path, depth: int) -> Iterator[tuple[Path, str]]:
    if not root.is_dir():
        return
    for path in sorted(root.iterdir()):
        hidden = path.name.startswith(".") or (path.is_symlink() and path.name == "latest")
        if hidden or not path.is_dir():
            continue
        if kind := _kind(path):
            yield path, kind
        elif depth > 1:
            yield from _data_sets(path, depth - 1)
