"""ACT's and DexVLA's data sets: an HDF5 file for each episode.

The action of a row is the one that was given when the row was observed. Files that dexrun wrote hold it so.
Others whose attribute ``sim`` is false hold, at each row, the action that *led* there, as they were
recorded; ACT's and DexVLA's own loaders take the row before, and so does this one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from policies.data.dataset import (
    ACTION,
    IMAGES,
    INTERVENTION,
    STATE,
    Array,
    DatasetError,
    Feature,
    RowNumbers,
    Switches,
)
from policies.data.noted import NOTES, convention, notes_at
from policies.data.opened import OpenDataset, gathered, known, reported
from policies.data.set_files import frames_per_second, hdf5_array
from runtime.recording.bounds import BROKEN, one_line
from runtime.recording.pictures import unfolded

ACT, DEXVLA = "act-hdf5", "dexvla-hdf5"
_USUAL_FPS = 50.0
"""Of ALOHA's, which do not say."""
_QPOS, _PICTURES = "observations/qpos", "observations/images"
_SUBSTEPS, _REASONING = "substep_reasonings", "reasoning"
_OPEN_FILES = 32


class _Hdf5Files:
    """Files that are open, a few at a time; pickles without them."""

    def __init__(self) -> None:
        self._open: dict[Path, Any] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {"_open": {}}

    def get(self, path: Path) -> Any:
        import h5py

        root = self._open.pop(path, None)
        if root is None:
            root = h5py.File(path, "r")
        self._open[path] = root
        while len(self._open) > _OPEN_FILES:
            self._open.pop(next(iter(self._open))).close()
        return root

    def close(self) -> None:
        while self._open:
            self._open.popitem()[1].close()


@dataclass
class Hdf5Episode:
    """One file.

    Attributes:
        late: by how many rows its actions come late.
    """

    number: int
    name: str
    length: int
    task: str
    label: str
    path: Path
    late: int
    features: Mapping[str, Feature]
    files: _Hdf5Files = field(repr=False)
    lost: Mapping[str, str] = field(default_factory=dict)
    said: Mapping[str, Any] = field(default_factory=dict)

    def numbered(self, number: int) -> Hdf5Episode:
        """The same at another place."""
        return replace(self, number=number)

    def read(self, feature: str, rows: RowNumbers) -> Array:
        """See `policies.data.dataset.DataEpisode.read`."""
        about = known(self.features, feature)
        try:
            root = self.files.get(self.path)
            if feature.startswith(IMAGES):
                return self._pictures(root, feature.removeprefix(IMAGES), about, rows)
            key = {STATE: _QPOS, ACTION: "action", INTERVENTION: "intervention"}[feature]
            values = np.asarray(hdf5_array(root, key)).astype(about.dtype, copy=False)
            if feature == ACTION:
                rows = np.maximum(rows - self.late, 0)
            return np.asarray(values[rows].reshape(len(rows), *about.shape))
        except (*BROKEN, OSError) as error:
            raise DatasetError(f"{self.name}: {feature}: {one_line(error)}") from None

    def substeps(self, rows: RowNumbers) -> list[str]:
        """Of each row, or of the whole episode, as DexVLA's own loader reads them."""
        try:
            root = self.files.get(self.path)
            for key, one in ((_SUBSTEPS, False), (_REASONING, True)):
                if root.get(key) is not None:
                    texts = root[key][:1] if one else root[key][: self.length]
                    if not one and len(texts) != self.length:
                        raise ValueError(f"{len(texts)} texts for {self.length} rows")
                    return [_text(texts[0 if one else row]) or self.task for row in rows.tolist()]
        except (*BROKEN, OSError) as error:
            raise DatasetError(f"{self.name}: {_SUBSTEPS}: {one_line(error)}") from None
        return [self.task] * len(rows)

    def _pictures(self, root: Any, camera: str, about: Feature, rows: RowNumbers) -> Array:
        array = hdf5_array(root, f"{_PICTURES}/{camera}")

        def load(row: int) -> Array:
            image = np.asarray(array[row])
            if array.ndim == 2:  # encoded, and filled up to one length
                image = _decoded(image)
            if image.shape != about.shape:
                raise ValueError(f"row {row} is {list(image.shape)}; expected {list(about.shape)}")
            return image

        return gathered(rows, about, load)


def _decoded(data: Array) -> Array:
    """A JPEG's channels, in the order in which they were given to the encoder."""
    import cv2

    if data.dtype != np.uint8 or data.ndim != 1 or not data.size:
        raise ValueError(f"a picture is {data.dtype} {list(data.shape)}; expected the bytes of a JPEG")
    return unfolded(data.data, cv2.IMREAD_COLOR)


def episode_files(path: Path) -> list[Path]:
    """The files of a data set, ``episode_2`` before ``episode_10``; none if it is none."""
    if path.is_file():
        return [path] if path.suffix in (".hdf5", ".h5") else []
    return sorted(path.glob("*.hdf5"), key=lambda file: (len(file.name), file.name))


def open_hdf5(path: Path, switches: Switches) -> OpenDataset:
    """The files at `path` as a data set. An episode that cannot be read costs itself alone.

    Raises:
        DatasetError: none can be used, or a switch asks for what they have not.
    """
    for switch in ("use_depth", "use_force", "use_language_tip", "use_mask"):
        if getattr(switches, switch):
            raise DatasetError(f"{path}: {switch}, and HDF5 data sets have no such thing; switch it off")
    about = notes_at((path.parent if path.is_file() else path) / NOTES)
    said = {each["episode"]: each for each in about.get("episodes", [])}
    left_out: dict[str, str] = {}
    files = _Hdf5Files()
    episodes: list[Hdf5Episode] = []
    features: dict[str, Feature] | None = None
    kind = ACT
    for index, file in enumerate(episode_files(path)):
        try:
            root = files.get(file)
            found = _features(root, about, switches)
            if features is not None and found != features:
                raise ValueError(f"not like the others: {_difference(features, found)}")
            known_as, language = said.get(index, {}), root.get("language_raw")
            kind = kind if language is None else DEXVLA
            task = str(known_as.get("task", "")) if language is None else _text(language[0])
            late = 0 if about or bool(root.attrs.get("sim", False)) else 1
            length = len(hdf5_array(root, "action"))
        except (*BROKEN, OSError) as error:
            left_out[file.name] = one_line(error)
            continue
        features = found
        label = str(known_as.get("label", ""))
        episodes.append(
            Hdf5Episode(
                len(episodes), file.name, length, task, "" if label == "none" else label, file, late,
                features, files, reported(known_as), known_as,
            )
        )  # fmt: skip
    if features is None:
        why = "; ".join(f"{name}: {reason}" for name, reason in list(left_out.items())[:5])
        raise DatasetError(f"{path}: no episode can be used: {why}")
    rate = frames_per_second(about.get("fps", _USUAL_FPS))
    kept = {key: value for key, value in about.items() if key != "episodes"}
    return OpenDataset(path, kind, rate, features, episodes, kept, left_out, files.close)


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _features(root: Any, about: Mapping[str, Any], switches: Switches) -> dict[str, Feature]:
    unit = convention(about.get("units"))
    out: dict[str, Feature] = {}
    rows = len(hdf5_array(root, "action"))
    for name, key in ((STATE, _QPOS), (ACTION, "action")):
        array = hdf5_array(root, key)
        if array.ndim != 2 or len(array) != rows:
            raise ValueError(f"{key} is {list(array.shape)}; expected [{rows}, D]")
        out[name] = Feature((int(array.shape[1]),), "float32", unit)
    if root.get("intervention") is not None:
        out[INTERVENTION] = Feature((), "bool", "bool")
    there = list(root.get(_PICTURES) or {})
    for camera in switches.cameras:
        if camera not in there:
            raise ValueError(f"no camera {camera!r}; there is: {', '.join(there) or 'none'}")
    for camera in switches.cameras or there:
        array = hdf5_array(root, f"{_PICTURES}/{camera}")
        shape = array.shape[1:] if array.ndim == 4 else _decoded(np.asarray(array[0])).shape
        if len(array) != rows or len(shape) != 3 or shape[2] != 3:
            raise ValueError(f"images of {camera} are {list(array.shape)}; expected [{rows}, H, W, 3]")
        out[f"{IMAGES}{camera}"] = Feature(tuple(map(int, shape)), "uint8", "rgb")
    return out


def _difference(one: Mapping[str, Feature], other: Mapping[str, Feature]) -> str:
    for name in (*one, *other):
        if one.get(name) != other.get(name):
            shapes = [list(each.shape) if each else "none" for each in (one.get(name), other.get(name))]
            return f"{name} is {shapes[1]} instead of {shapes[0]}"
    return "its features"
