"""What both LeRobot formats share: features, columns of an episode, and one camera's video."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dexrun.export import depth_video, stats, video
from dexrun.export.errors import BadEpisodeError, ExportError
from dexrun.export.job import ExportPlan, Slot
from dexrun.export.lerobot_language import FEATURE
from dexrun.export.options import ExportOptions
from policies.data.lerobot_features import SUBTASK
from policies.data.recorded import DatasetShape, EpisodeRef
from policies.data.sampled import Sampled
from policies.data.tips import locating, tips_of
from runtime.joints import SEPARATOR
from runtime.recording.bounds import reading
from runtime.units import DEFAULT_LEROBOT, UnitMap

UNITS = UnitMap(convention=DEFAULT_LEROBOT)

STATE, ACTION, FORCE = "observation.state", "action", "observation.force"
INTERVENTION = "intervention"
"""Whether a person drove; LeRobot's DAgger rollouts call it so."""
TIP = "observation.tip"
"""Where the instruction's object was seen last."""
IMAGES = "observation.images."
CHUNK_FILES = 1000
MM = 1e-3

INDEX_FEATURES: dict[str, dict[str, Any]] = {
    "timestamp": {"dtype": "float32", "shape": [1], "names": None},
    "frame_index": {"dtype": "int64", "shape": [1], "names": None},
    "episode_index": {"dtype": "int64", "shape": [1], "names": None},
    "index": {"dtype": "int64", "shape": [1], "names": None},
    "task_index": {"dtype": "int64", "shape": [1], "names": None},
}


@dataclass(frozen=True, slots=True)
class LerobotLayout:
    """Which features a data set has.

    Attributes:
        videos: colour: key to camera. depth_videos, depth_images: the same for depth.
        mask_images: the same for masks. subtasks: whether each row says which sub-step it is of.
        language: the language columns, if sub-steps and boxes are in such.
        tip: whether it has the language hint.
    """

    shape: DatasetShape
    units: UnitMap
    fps: int
    videos: Mapping[str, str]
    depth_videos: Mapping[str, str]
    depth_images: Mapping[str, str]
    tip: bool = False
    mask_images: Mapping[str, str] = field(default_factory=dict)
    subtasks: bool = False
    language: tuple[str, ...] = ()

    @property
    def video_keys(self) -> list[str]:
        return [*self.videos, *self.depth_videos]

    def features(self) -> dict[str, dict[str, Any]]:
        """As in ``info.json``; videos still without their ``info``. Of several arms, joints are called as
        LeRobot's bimanual robots call them: ``left_shoulder_pan.pos``.
        """
        joints = [f"{name.replace(SEPARATOR, '_')}.pos" for name in self.shape.joints]
        vector = {"dtype": "float32", "shape": [len(joints)], "names": joints}
        out: dict[str, dict[str, Any]] = {ACTION: dict(vector), STATE: dict(vector)}
        if self.shape.force_channels:
            names = [f"force.{i}" for i in range(self.shape.force_channels)]
            out[FORCE] = {"dtype": "float32", "shape": [len(names)], "names": names}
        if self.tip:
            out[TIP] = {"dtype": "float32", "shape": [3], "names": ["x", "y", "z"]}
        if self.shape.intervention:
            out[INTERVENTION] = {"dtype": "bool", "shape": [1], "names": None}
        for key, camera in self.videos.items():
            out[key] = self._picture("video", camera, 3)
        for key, camera in self.depth_videos.items():
            out[key] = self._picture("video", camera, 1)
        for key, camera in self.depth_images.items():
            scale = self.shape.cameras[camera].depth_scale_m
            unit = {"depth_unit": "mm"} if abs(scale - MM) < 1e-9 else {}
            info = {"is_depth_map": True, **unit, "depth_scale_m": scale}
            out[key] = {**self._picture("image", camera, 1), "info": info}
        for key, camera in self.mask_images.items():
            out[key] = {**self._picture("image", camera, 1), "info": {"is_mask": True}}
        if self.subtasks:
            out[SUBTASK] = {"dtype": "int64", "shape": [1], "names": None}
        return {**out, **dict.fromkeys(self.language, FEATURE), **INDEX_FEATURES}

    def _picture(self, dtype: str, camera: str, channels: int) -> dict[str, Any]:
        size = self.shape.cameras[camera]
        names = ["height", "width", "channels"]
        return {"dtype": dtype, "shape": [size.height, size.width, channels], "names": names}


def layout(shape: DatasetShape, options: ExportOptions, depth: str) -> LerobotLayout:
    """The features to export; `depth` is ``video``, ``images``, ``both`` or ``none``.

    Raises:
        ExportError: the frame rate is not whole, a camera or unit does not exist, or a size is odd (H.264).
    """
    if options.fps != int(options.fps):
        raise ExportError(f"fps is {options.fps}; LeRobot data sets have a whole number of frames per second")
    cameras = shape.chosen(options)
    for name in cameras if options.codec == "h264" else ():
        size = shape.cameras[name]
        if size.height % 2 or size.width % 2:
            given = f"{size.width}x{size.height}"
            raise ExportError(f"camera {name} is {given}; H.264 takes even sizes only, --codec av1 any")
    with_depth = [c for c in cameras if c in shape.depth_cameras]
    for name in with_depth if depth != "none" else ():
        if not shape.cameras[name].depth_scale_m:
            raise ExportError(f"camera {name} has depth and no depth_scale_m to read it by")
    as_video = with_depth if depth in ("video", "both") else []
    as_images = with_depth if depth in ("images", "both") else []
    suffix = "_depth_raw" if depth == "both" else "_depth"
    return LerobotLayout(
        shape,
        options.units or UNITS,
        int(options.fps),
        {f"{IMAGES}{c}": c for c in cameras},
        {f"{IMAGES}{c}_depth": c for c in as_video},
        {f"{IMAGES}{c}{suffix}": c for c in as_images},
        options.tip in ("feature", "both"),
    )


def robot_type(shape: DatasetShape, options: ExportOptions) -> str:
    """As configured, or the arm's model, a follower."""
    return options.robot_type or shape.robot_type


def tasks(ref: EpisodeRef, options: ExportOptions, depth: str) -> tuple[str, ...]:
    """One for the rows, one for each video; depth first, since it takes longest."""
    of = layout(ref.shape, options, depth)
    ref.units(of.units)
    return (*(f"video:{key}" for key in (*of.depth_videos, *of.videos)), "rows")


def columns(sampled: Sampled, slot: Slot, of: LerobotLayout) -> dict[str, NDArray[Any]]:
    """The low-dimensional features and what LeRobot counts, ``[T, ...]``; ``task_index`` is left out."""
    rows = np.arange(slot.length, dtype=np.int64)
    units = slot.ref.units(of.units)
    out: dict[str, NDArray[Any]] = {
        ACTION: units.to_policy(sampled.action).astype(np.float32),
        STATE: units.observed(sampled.position).astype(np.float32),
    }
    if sampled.force is not None:
        out[FORCE] = sampled.force.astype(np.float32)
    if of.tip:
        out[TIP] = _tips(sampled)
    if sampled.intervention is not None:
        out[INTERVENTION] = sampled.intervention
    return {**out, "timestamp": (rows / of.fps).astype(np.float32), "frame_index": rows}


def _tips(sampled: Sampled) -> NDArray[np.float32]:
    """``[T, 3]`` metres in the base frame; before it was seen, where it was first: trainers want numbers."""
    with reading(sampled.ref.path):
        infos = locating(sampled.recording, sampled.masks)
        tips = tips_of(sampled.recording, infos, sampled.masks)
    seen = np.flatnonzero(np.isfinite(tips).all(axis=1))
    if not len(seen):
        raise BadEpisodeError(sampled.ref.name, "its object is seen in no row; --tip none exports without")
    tips[: seen[0]] = tips[seen[0]]
    return tips.astype(np.float32)


def row_stats(data: Mapping[str, NDArray[Any]], *, quantiles: bool) -> dict[str, stats.Stats]:
    """Statistics of low-dimensional features."""
    return {key: stats.of_rows(values, quantiles=quantiles) for key, values in data.items()}


def write_video(
    path: Path, key: str, sampled: Sampled, of: LerobotLayout, plan: ExportPlan
) -> stats.ImageStats:
    """Encode one camera of one episode to `path`; returns what was seen of it."""
    if key in of.depth_videos:
        return _write_depth(path, of.depth_videos[key], sampled, of)
    camera = of.videos[key]
    size = of.shape.cameras[camera]
    seen = stats.ImageStats(len(sampled), 3)

    def images() -> Any:
        for row, image in enumerate(sampled.colors(camera)):
            seen.add(row, image)
            yield image

    options = video.color_options(plan.options.codec, plan.options.crf, threads=1)
    video.encode_color(path, images(), (size.height, size.width), of.fps, options)
    return seen


def _write_depth(path: Path, camera: str, sampled: Sampled, of: LerobotLayout) -> stats.ImageStats:
    size = of.shape.cameras[camera]
    table = depth_video.code_table(size.depth_scale_m)
    seen = stats.ImageStats(len(sampled), 1, levels=65536, unit=size.depth_scale_m * 1000.0)

    def codes() -> Any:
        for row, image in enumerate(sampled.depth_images(camera)):
            seen.add(row, image)
            yield table[image]

    video.encode_gray12(path, codes(), (size.height, size.width), of.fps)
    return seen


def depth_pngs(sampled: Sampled, camera: str) -> tuple[list[bytes], stats.ImageStats]:
    """Every row's depth as 16-bit PNG in device units, and what was seen of it."""
    import cv2

    seen = stats.ImageStats(len(sampled), 1, levels=65536, unit=1.0)
    out = []
    for row, image in enumerate(sampled.depth_images(camera)):
        seen.add(row, image)
        _, data = cv2.imencode(".png", image, [cv2.IMWRITE_PNG_COMPRESSION, 1])
        out.append(data.tobytes())
    return out, seen


def mask_pngs(sampled: Sampled, camera: str) -> tuple[list[bytes], stats.ImageStats]:
    """Every row's mask as PNG of 0 and 255, empty where there is none, and what was seen of it."""
    import cv2

    size = sampled.shape.cameras[camera]
    seen = stats.ImageStats(len(sampled), 1)
    out = []
    masks = sampled.mask_images(camera) if camera in sampled.masks else repeat(None, len(sampled))
    for row, mask in enumerate(masks):
        image = np.zeros((size.height, size.width), np.uint8) if mask is None else mask * np.uint8(255)
        seen.add(row, image)
        _, data = cv2.imencode(".png", image, [cv2.IMWRITE_PNG_COMPRESSION, 1])
        out.append(data.tobytes())
    return out, seen


def task_numbers(slots: Sequence[Slot], known: Sequence[str] = ()) -> dict[str, int]:
    """Every task's number, in order of appearance after the `known` ones."""
    names = dict.fromkeys([*known, *(slot.ref.task for slot in slots)])
    return {name: number for number, name in enumerate(names)}


def write_json(path: Path, content: Any) -> None:
    """Indented, as LeRobot writes it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=4, ensure_ascii=False), encoding="utf-8")


def append_lines(path: Path, rows: Sequence[Any]) -> None:
    """One JSON object per line, after those that are there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def write_table(path: Path, table: Any) -> None:
    """An Arrow table as one parquet file."""
    import pyarrow.parquet as pq

    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, compression="snappy", use_dictionary=True)


def video_info(path: Path, key: str, of: LerobotLayout) -> dict[str, Any]:
    """A video feature's ``info``."""
    info = video.describe(path, of.fps)
    return {**info, **depth_video.INFO} if key in of.depth_videos else info
