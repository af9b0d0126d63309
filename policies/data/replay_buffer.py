"""Replay buffers, as DexGraspVLA and UMI store their data sets in zarr.

DexGraspVLA's: ``data/action``, ``right_state`` ``[K, D]``, ``rgbm`` ``[K, H, W, 4]`` (BGR and mask of the
instruction's object) of the head camera, ``right_cam_img`` ``[K, h, w, 3]`` (BGR) of the wrist camera. UMI's:
``robot0_eef_pos``, ``robot0_eef_rot_axis_angle``, ``robot0_gripper_width``, ``cameraN_rgb`` (RGB); its action
is the poses to come. Both end episodes in ``meta/episode_ends``.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from policies.data.dataset import (
    ACTION,
    IMAGES,
    INTERVENTION,
    MASKS,
    STATE,
    Array,
    DatasetError,
    Feature,
    RowNumbers,
    Switches,
)
from policies.data.noted import convention, notes
from policies.data.opened import OpenDataset, known, reported
from policies.data.set_files import frames_per_second
from policies.data.zarr_store import ZarrRows, ZarrStore

DEXGRASP, UMI = "dexgrasp-zarr", "umi-zarr"
HEAD, WRIST = "rgbm", "right_cam_img"
POSE = ("robot0_eef_pos", "robot0_eef_rot_axis_angle", "robot0_gripper_width")
_POSE_NAMES = ("x", "y", "z", "rx", "ry", "rz", "width")
_USUAL_FPS = {DEXGRASP: 30.0, UMI: 59.94}
"""Of public data sets, which do not say."""
_LARGEST = 50_000_000


@dataclass(frozen=True)
class _Channels:
    """A picture's feature: channels of an array, perhaps turned from BGR."""

    array: str
    first: int
    count: int
    turned: bool


@dataclass
class BufferEpisode:
    """Rows `start` to ``start + length`` of the buffer's arrays."""

    number: int
    name: str
    length: int
    task: str
    label: str
    start: int
    features: Mapping[str, Feature]
    vectors: Mapping[str, tuple[str, ...]]
    pictures: Mapping[str, _Channels]
    arrays: Mapping[str, ZarrRows] = field(repr=False)
    lost: Mapping[str, str] = field(default_factory=dict)
    said: Mapping[str, Any] = field(default_factory=dict)
    _kept: dict[str, Array] = field(default_factory=dict, repr=False)

    def numbered(self, number: int) -> BufferEpisode:
        """The same at another place."""
        return replace(self, number=number)

    def read(self, feature: str, rows: RowNumbers) -> Array:
        """See `policies.data.dataset.DataEpisode.read`."""
        about = known(self.features, feature)
        if feature in self.vectors:
            return self._vector(feature, about)[rows]
        part = self.pictures[feature]
        unique, inverse = np.unique(rows, return_inverse=True)
        images = self.arrays[part.array].rows(unique + self.start)
        images = images[..., part.first : part.first + part.count]
        if part.count == 1:
            images = (images[..., 0] != 0).astype(np.uint8)
        if part.turned:
            images = images[..., ::-1]
        return images[inverse]

    def _vector(self, feature: str, about: Feature) -> Array:
        if feature not in self._kept:
            every = np.arange(self.start, self.start + self.length)
            parts = [self.arrays[name].rows(every).reshape(self.length, -1) for name in self.vectors[feature]]
            values = np.concatenate(parts, axis=1).astype(about.dtype, copy=False)
            self._kept[feature] = values.reshape(self.length, *about.shape)
        return self._kept[feature]


def is_buffer(path: Path) -> bool:
    """Whether there is a zarr store at `path`."""
    return (path / ".zgroup").is_file() or (path.is_file() and zipfile.is_zipfile(path))


def open_buffer(path: Path, switches: Switches) -> OpenDataset:
    """The replay buffer at `path`.

    Raises:
        DatasetError: it cannot be used, or has not what is switched on.
    """
    store = ZarrStore(path)
    arrays, meta, attributes = store.arrays("data"), store.arrays("meta"), store.json(".zattrs")
    if "episode_ends" not in meta:
        raise DatasetError(f"{path}: a zarr store without meta/episode_ends; expected a replay buffer")
    kind = UMI if POSE[0] in arrays else DEXGRASP
    needed = POSE if kind == UMI else ("action", "right_state")
    if missing := [name for name in needed if name not in arrays]:
        raise DatasetError(f"{path}: there is no data/{missing[0]}; there is: {', '.join(arrays)}")
    ends = episode_ends(path, meta["episode_ends"], arrays)
    vectors, pictures, features = _features(path, kind, arrays, attributes, switches)
    report = notes(attributes.get("dexrun", {}), ".zattrs: dexrun")
    said = {each["episode"]: each for each in report.get("episodes", [])}
    starts = [0, *ends[:-1]]
    episodes = []
    for number, (start, end) in enumerate(zip(starts, ends, strict=True)):
        known_as = said.get(number, {})
        label = str(known_as.get("label", ""))
        episodes.append(
            BufferEpisode(
                number, f"{path.name}/episode {number}", end - start, str(known_as.get("task", "")),
                "" if label == "none" else label, start, features, vectors, pictures, arrays,
                reported(known_as), known_as,
            )
        )  # fmt: skip
    about = {key: value for key, value in attributes.items() if key != "dexrun"}
    rate = frames_per_second(attributes.get("fps", _USUAL_FPS[kind]))
    return OpenDataset(path, kind, rate, features, episodes, about, {}, store.close)


def episode_ends(path: Path, array: ZarrRows, arrays: Mapping[str, ZarrRows]) -> list[int]:
    """Where each episode ends: the number of its last row, and one.

    Raises:
        DatasetError: they do not ascend, or an array of the data is shorter.
    """
    if len(array) > _LARGEST:
        raise DatasetError(f"{path}: {len(array)} episodes")
    ends = array.rows(np.arange(len(array))).astype(np.int64)
    if not len(ends) or (np.diff(ends, prepend=0) < 1).any():
        raise DatasetError(f"{path}: meta/episode_ends must ascend from 1 on; it is {ends[:5].tolist()}...")
    for name, rows in arrays.items():
        if len(rows) < ends[-1]:
            raise DatasetError(
                f"{path}: data/{name} has {len(rows)} rows, and the last episode ends at {ends[-1]}"
            )
    return [int(end) for end in ends]


def _features(
    path: Path, kind: str, arrays: Mapping[str, ZarrRows], attributes: Mapping[str, Any], switches: Switches
) -> tuple[dict[str, tuple[str, ...]], dict[str, _Channels], dict[str, Feature]]:
    if kind == UMI:
        vectors: dict[str, tuple[str, ...]] = {STATE: POSE, ACTION: POSE}
        features = {name: Feature((7,), "float32", "", _POSE_NAMES) for name in vectors}
    else:
        unit = convention(attributes.get("units"))
        names = tuple(attributes.get("joints", ()))
        vectors = {STATE: ("right_state",), ACTION: ("action",)}
        features = {
            name: Feature((arrays[array].shape[1],), "float32", unit, names)
            for name, (array,) in vectors.items()
        }
    if "intervention" in arrays:
        vectors[INTERVENTION], features[INTERVENTION] = ("intervention",), Feature((), "bool", "bool")
    pictures = _chosen(path, _pictures(kind, arrays, attributes, switches), switches)
    for name, part in pictures.items():
        shape = arrays[part.array].shape
        if len(shape) != 4 or shape[3] < part.first + part.count or arrays[part.array].dtype != np.uint8:
            raise DatasetError(
                f"{path}: data/{part.array} is {arrays[part.array].dtype} {list(shape)}; expected uint8 "
                f"[K, H, W, {part.first + part.count}]"
            )
        features[name] = (
            Feature(shape[1:3], "uint8", "mask")
            if part.count == 1
            else Feature((*shape[1:3], 3), "uint8", "rgb")
        )
    return vectors, pictures, features


def _pictures(
    kind: str, arrays: Mapping[str, ZarrRows], attributes: Mapping[str, Any], switches: Switches
) -> dict[str, _Channels]:
    cameras = attributes.get("cameras", {})
    if kind == UMI:
        names = [name for name in arrays if name.startswith("camera") and name.endswith("_rgb")]
        return {
            f"{IMAGES}{cameras.get(name, name.removesuffix('_rgb'))}": _Channels(name, 0, 3, turned=False)
            for name in names
        }
    turned, pictures = attributes.get("channel_order", "BGR") == "BGR", {}
    if HEAD in arrays:
        head = cameras.get(HEAD, "head")
        pictures[f"{IMAGES}{head}"] = _Channels(HEAD, 0, 3, turned=turned)
        if switches.use_mask:
            pictures[f"{MASKS}{head}"] = _Channels(HEAD, 3, 1, turned=False)
    if WRIST in arrays:
        pictures[f"{IMAGES}{cameras.get(WRIST, 'wrist')}"] = _Channels(WRIST, 0, 3, turned=turned)
    return pictures


def _chosen(path: Path, pictures: Mapping[str, _Channels], switches: Switches) -> dict[str, _Channels]:
    lacking = {
        "use_depth": switches.use_depth and "depth",
        "use_force": switches.use_force and "force",
        "use_language_tip": switches.use_language_tip and "point of the object",
        "use_mask": switches.use_mask and not any(n.startswith(MASKS) for n in pictures) and "masks",
    }
    for switch, what in lacking.items():
        if what:
            raise DatasetError(f"{path}: {switch}, and a replay buffer has no {what}; switch it off")
    there = [name.removeprefix(IMAGES) for name in pictures if name.startswith(IMAGES)]
    for camera in switches.cameras:
        if camera not in there:
            raise DatasetError(f"{path}: no camera {camera!r}; there is: {', '.join(there) or 'none'}")
    wanted = switches.cameras or tuple(there)
    return {name: part for name, part in pictures.items() if name.rpartition(".")[2] in wanted}
