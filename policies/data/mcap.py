"""Recordings as a data set: a run's folder, a folder of runs, a folder of episodes, or a single file.

A row is what a policy would have been given at that moment (`policies.data.sampled`), in the robot's units:
radians, a gripper 0 to 1. Pictures are decoded when they are read.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from policies.data.annotated import substeps_of
from policies.data.dataset import (
    ACTION,
    DEPTH,
    FORCE,
    IMAGES,
    INTERVENTION,
    MASKS,
    STATE,
    TIP,
    Array,
    DatasetError,
    Feature,
    RowNumbers,
    Switches,
)
from policies.data.opened import OpenDataset, gathered, known, lost
from policies.data.recorded import DatasetShape, EpisodeRef, describe, name_of
from policies.data.sampled import Sampled, sample
from policies.data.sampling import SamplingOptions
from policies.data.tips import tips_of
from runtime.messages import CameraInfo
from runtime.pilot import Pilot
from runtime.recording.bounds import RecordingError
from runtime.recording.reader import Episode
from runtime.units import UnitMap

FORMAT = "mcap"
LABELS = {"none": ""}
_OPEN_FILES = 48
_REASONS = 5


def recorded_files(path: Path) -> list[Path]:
    """The finished episodes at `path`, in order; none if there is no recording.

    Of a run's folder, a folder of runs (``latest``, a link to one of them, is none of its own), a folder of
    episodes, or a file itself.
    """
    if path.is_file():
        return [path] if path.suffix == ".mcap" else []
    if found := _episodes(path):
        return found
    runs = [run for run in sorted(path.glob("*")) if run.is_dir() and not run.is_symlink()]
    return [file for run in runs for file in _episodes(run)]


def _episodes(run: Path) -> list[Path]:
    return sorted(run.glob("episodes/*.mcap")) or sorted(run.glob("*.mcap"))


class _Files:
    """Recordings that are open, a few at a time; pickles without them."""

    def __init__(self) -> None:
        self._open: OrderedDict[Path, Episode] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        return {"_open": OrderedDict()}

    def get(self, path: Path) -> Episode:
        episode = self._open.pop(path, None) or Episode(path)
        self._open[path] = episode
        while len(self._open) > _OPEN_FILES:
            self._open.popitem(last=False)[1].close()
        return episode

    def close(self) -> None:
        while self._open:
            self._open.popitem()[1].close()


@dataclass
class McapEpisode:
    """One recording, resampled.

    Attributes:
        vectors: ``[T, ...]`` by feature. shown: by camera's feature, which of its pictures each row shows,
            ``[T]``; below 0, none.
        seen_by: of `TIP`, the cameras that have masks, depth and a pose.
        lost: by sensor, what of its samples is missing. begin_ns: when its first row is, by its own clock.
        spoken: what its annotation says is being done at each row.
    """

    number: int
    name: str
    length: int
    task: str
    label: str
    path: Path
    features: Mapping[str, Feature]
    vectors: Mapping[str, Array]
    shown: Mapping[str, RowNumbers]
    seen_by: Mapping[str, CameraInfo]
    files: _Files = field(repr=False)
    scales: Mapping[str, float] = field(default_factory=dict)
    lost: Mapping[str, str] = field(default_factory=dict)
    begin_ns: int = 0
    said: Mapping[str, Any] = field(default_factory=dict)
    spoken: Sequence[str] = ()
    _tips: list[Array] = field(default_factory=list, repr=False)

    def numbered(self, number: int) -> McapEpisode:
        """The same at another place."""
        return replace(self, number=number)

    def read(self, feature: str, rows: RowNumbers) -> Array:
        """See `policies.data.dataset.DataEpisode.read`."""
        about = known(self.features, feature)
        if feature in self.vectors:
            return self.vectors[feature][rows]
        with self._reading() as recording:
            if feature == TIP:
                return self._tip(recording)[rows]
            return gathered(
                self.shown[feature][rows], about, lambda index: self._load(recording, feature, index)
            )

    def substeps(self, rows: RowNumbers) -> list[str]:
        """Those of its annotation."""
        return [self.spoken[row] or self.task for row in rows.tolist()]

    @contextmanager
    def _reading(self) -> Iterator[Episode]:
        try:
            yield self.files.get(self.path)
        except (RecordingError, ValueError) as error:
            raise DatasetError(f"{self.name}: {error}") from None

    def _load(self, recording: Episode, feature: str, index: int) -> Array:
        for kind, load in ((IMAGES, recording.color), (MASKS, recording.mask)):
            if feature.startswith(kind):
                return load(feature.removeprefix(kind), index)
        camera = feature.removeprefix(DEPTH)
        return recording.depth(camera, index) * np.float32(self.scales[camera])

    def _tip(self, recording: Episode) -> Array:
        """``[T, 3]``: by the first camera that sees it. Worked out once."""
        if not self._tips:
            masks = {camera: self.shown[f"{MASKS}{camera}"] for camera in self.seen_by}
            found = tips_of(recording, self.seen_by, masks) if masks else np.full((self.length, 3), np.nan)
            self._tips.append(found.astype(np.float32))
        return self._tips[0]


def open_recordings(path: Path, switches: Switches, options: SamplingOptions | None = None) -> OpenDataset:
    """The recordings at `path` as a data set. An episode that cannot be used costs itself alone.

    Without `options`, rows come at the rate of the first episode's control loop.

    Raises:
        DatasetError: none can be used, or a switch asks for what none has.
    """
    left_out: dict[str, str] = {}
    found = list(_described(path, switches, left_out))
    _some(path, found, left_out)
    options = options or SamplingOptions(fps=_rate(found[0].path))
    options = options.model_copy(update={"cameras": switches.cameras})
    files = _Files()
    kept = _alike(found, left_out)
    sampled = list(_sampled(kept, options, left_out))
    _some(path, sampled, left_out)
    features = _features(path, [each.sampled for each in sampled], switches)
    episodes = [_episode(number, each, features, files) for number, each in enumerate(sampled)]
    about = _about(sampled[0], options)
    if TIP in features:
        about["tip_camera"] = next((camera for each in episodes for camera in each.seen_by), "")
    return OpenDataset(path, FORMAT, options.fps, features, episodes, about, left_out, files.close)


def _some(path: Path, kept: list[Any], left_out: Mapping[str, str]) -> None:
    if kept:
        return
    reasons = list(dict.fromkeys(left_out.values()))
    told = (
        reasons[:1] if len(reasons) == 1 else [f"{name}: {why}" for name, why in left_out.items()][:_REASONS]
    )
    raise DatasetError(f"{path}: none of {len(left_out)} recorded episodes can be used: {'; '.join(told)}")


@dataclass(frozen=True)
class _Found:
    sampled: Sampled
    cameras: Mapping[str, CameraInfo]
    spoken: Sequence[str]


def _described(path: Path, switches: Switches, left_out: dict[str, str]) -> Iterator[EpisodeRef]:
    """The episodes with what of them is switched on, and every picture of it there."""
    depth = switches.use_depth or switches.use_language_tip
    for file in recorded_files(path):
        try:
            ref = describe(file, switches.cameras)
            if ref is None:
                left_out[name_of(file)] = "discarded"
                continue
            asked = ref.shape.chosen(SamplingOptions(cameras=switches.cameras))
            for name in ref.missing:
                if name == "force" and switches.use_force:
                    raise DatasetError("there is not one sample of force")
                if name != "force" and not switches.cameras:
                    raise DatasetError(f"there is not one sample of {name}; name the cameras that are read")
            yield replace(ref, shape=ref.shape.exported(asked, depth=depth, force=switches.use_force))
        except (DatasetError, RecordingError) as error:
            left_out[name_of(file)] = str(error)


def _rate(file: Path) -> float:
    with Episode(file) as episode:
        rate = episode.robot.get("control_rate_hz")
    return float(rate) if isinstance(rate, (int, float)) and rate > 0 else SamplingOptions().fps


def _alike(found: list[EpisodeRef], left_out: dict[str, str]) -> list[EpisodeRef]:
    """Those of the shape that most have."""
    groups: list[list[EpisodeRef]] = []
    for ref in found:
        for group in groups:
            if not group[0].shape.difference(ref.shape):
                group.append(ref)
                break
        else:
            groups.append([ref])
    kept = max(groups, key=len)
    for group in groups:
        if group is not kept:
            different = kept[0].shape.difference(group[0].shape)
            left_out.update({ref.name: f"not like the others: {different}" for ref in group})
    return kept


def _sampled(refs: list[EpisodeRef], options: SamplingOptions, left_out: dict[str, str]) -> Iterator[_Found]:
    for ref in refs:
        try:
            found = _one(ref, options)
        except (DatasetError, RecordingError) as error:
            left_out[ref.name] = str(error)
            continue
        yield found


def _one(ref: EpisodeRef, options: SamplingOptions) -> _Found:
    sampled = sample(ref, options)
    with sampled.recording as recording:
        cameras = {camera: recording.camera_info(camera) for camera in sampled.shape.cameras}
        spoken = substeps_of(sampled)
    for name, values in (("state", sampled.position), ("action", sampled.action)):
        if not (finite := np.isfinite(values).all(axis=1)).all():
            raise DatasetError(f"its {name} is not a finite number at row {int(np.argmin(finite))}")
    return _Found(sampled, cameras, spoken)


def _features(path: Path, episodes: list[Sampled], switches: Switches) -> dict[str, Feature]:
    shape = episodes[0].shape
    joints = (len(shape.joints),)
    out = {
        STATE: Feature(joints, "float32", "rad", shape.joints),
        ACTION: Feature(joints, "float32", "rad", shape.joints),
    }
    if switches.use_force:
        out[FORCE] = Feature((shape.force_channels,), "float32", "N")
    masked = [c for c in shape.cameras if any(c in each.masks for each in episodes)]
    for camera, about in shape.cameras.items():
        size = (about.height, about.width)
        out[f"{IMAGES}{camera}"] = Feature((*size, 3), "uint8", "rgb")
        if switches.use_depth and about.depth:
            out[f"{DEPTH}{camera}"] = Feature(size, "float32", "m")
        if switches.use_mask and camera in masked:
            out[f"{MASKS}{camera}"] = Feature(size, "uint8", "mask")
    if switches.use_language_tip:
        out[TIP] = Feature((3,), "float32", "m", ("x", "y", "z"))
    if any(each.pilot is not None for each in episodes):
        out[INTERVENTION] = Feature((), "bool", "bool")
    _switches_have_effect(path, shape, masked, switches)
    return out


def _switches_have_effect(path: Path, shape: DatasetShape, masked: list[str], switches: Switches) -> None:
    lacking = {
        "use_force": switches.use_force and not shape.force_channels and "force sensor",
        "use_depth": switches.use_depth and not shape.depth_cameras and "depth",
        "use_mask": switches.use_mask and not masked and "tracked masks",
        "use_language_tip": switches.use_language_tip
        and not set(masked) & set(shape.depth_cameras)
        and "camera with tracked masks and depth",
    }
    for switch, what in lacking.items():
        if what:
            raise DatasetError(f"{path}: {switch}, and the recordings have no {what}; switch it off")


def _episode(number: int, found: _Found, features: Mapping[str, Feature], files: _Files) -> McapEpisode:
    sampled, ref, rows = found.sampled, found.sampled.ref, len(found.sampled)
    vectors = {STATE: sampled.position, ACTION: sampled.action, FORCE: sampled.force}
    if INTERVENTION in features:
        pilot = sampled.pilot
        vectors[INTERVENTION] = np.ones(rows, bool) if pilot is None else pilot == Pilot.PERSON
    none = np.full(rows, -1, np.int64)
    shown = {f"{IMAGES}{camera}": index for camera, index in sampled.frames.items()}
    shown |= {f"{DEPTH}{camera}": index for camera, index in sampled.depths.items()}
    shown |= {f"{MASKS}{camera}": sampled.masks.get(camera, none) for camera in sampled.frames}
    return McapEpisode(
        number=number,
        name=ref.name,
        length=rows,
        task=ref.task,
        label=LABELS.get(ref.label, ref.label),
        path=ref.path,
        features=features,
        vectors={
            key: np.asarray(value, features[key].dtype)
            for key, value in vectors.items()
            if key in features and value is not None
        },
        shown=shown,
        seen_by={
            camera: info
            for camera, info in found.cameras.items()
            if camera in sampled.masks and camera in sampled.depths and info.base_from_camera is not None
        },
        files=files,
        lost=lost(ref.drops, {name: report.as_json() for name, report in sampled.reports.items()}),
        begin_ns=int(sampled.times[0]),
        spoken=found.spoken,
        scales={camera: ref.shape.cameras[camera].depth_scale_m for camera in sampled.depths},
    )


def _about(found: _Found, options: SamplingOptions) -> dict[str, Any]:
    shape, robot = found.sampled.shape, json.loads(found.sampled.shape.robot)
    return {
        "units": UnitMap().said(),
        "joints": list(shape.joints),
        "ranges": [list(pair) for pair in shape.ranges],
        "grippers": list(shape.grippers),
        "robot": robot,
        "action": options.action or found.sampled.ref.action,
        "cameras": {
            name: {
                "height": camera.height,
                "width": camera.width,
                "depth_scale_m": camera.depth_scale_m,
                **{key: getattr(found.cameras[name].intrinsics, key) for key in ("fx", "fy", "cx", "cy")},
            }
            for name, camera in shape.cameras.items()
        },
    }
