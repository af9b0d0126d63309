"""What ``dexrun view`` shows of a data set: LeRobot's (v2.1, v3.0), and ACT's and DexVLA's HDF5 files."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dexrun.export.errors import ExportError

if TYPE_CHECKING:
    from numpy.typing import NDArray

TIMELINE = "time"
_IMAGES = "observation.images."
_STATE, _ACTION = "observation.state", "action"
_DEPTH = ("gray12le", "gray16le")
"""Pixel formats of depth videos, which Rerun does not decode."""
_COLORS = {"state": (70, 130, 230), "action": (240, 150, 30)}


@dataclass
class SetEpisode:
    """One episode of a data set.

    Attributes:
        index: counted from 0. first_s: where it begins when all episodes are laid one behind the other.
        values: ``[T, D]`` by ``state`` and ``action``. names: of the `D`, in the data set's words.
        videos: by camera, a file and the second in it at which the episode begins.
        images: by camera, ``[T, H, W, 3]`` uint8, read when asked for.
    """

    index: int
    fps: float
    first_s: float
    values: Mapping[str, NDArray[np.float64]]
    names: Sequence[str]
    videos: Mapping[str, tuple[Path, float]] = field(default_factory=dict)
    images: Mapping[str, Any] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        """How many."""
        return len(next(iter(self.values.values())))


def episodes_of(path: Path) -> list[SetEpisode] | None:
    """The episodes of the data set in `path`; ``None`` if it is none.

    Raises:
        ExportError: it is one of a kind that is not shown, or cannot be read.
    """
    try:
        if (path / "meta" / "info.json").is_file():
            return list(_lerobot(path))
        if path.suffix == ".hdf5" or (path.is_dir() and any(path.glob("*.hdf5"))):
            return list(_hdf5(path))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ExportError(f"{path}: cannot be read: {' '.join(str(error).split())}") from None
    if path.suffix == ".zip" or (path / ".zgroup").is_file():
        raise ExportError(
            f"{path}: view shows recordings, LeRobot's data sets and HDF5 files; of a zarr store, "
            "dexrun info says what is in it"
        )
    return None


# --- LeRobot


def _lerobot(path: Path) -> Iterator[SetEpisode]:
    info = json.loads((path / "meta" / "info.json").read_text(encoding="utf-8"))
    features, fps = info["features"], float(info["fps"])
    names = _names(features)
    cameras = [
        key
        for key, feature in features.items()
        if feature["dtype"] == "video" and (feature.get("info") or {}).get("video.pix_fmt") not in _DEPTH
    ]
    rows = 0
    for index, table, where in _tables(path, info, cameras):
        values = {
            word: np.array(table.column(key).to_pylist(), dtype=np.float64)
            for word, key in (("state", _STATE), ("action", _ACTION))
            if key in features
        }
        videos = {camera.removeprefix(_IMAGES): where[camera] for camera in cameras}
        yield SetEpisode(index, fps, rows / fps, values, names, videos)
        rows += len(table)


def _names(features: Mapping[str, Any]) -> list[str]:
    feature = features.get(_STATE) or features[_ACTION]
    names = feature.get("names")
    if isinstance(names, Mapping):
        names = next(iter(names.values()))
    width = int(feature["shape"][0])
    return [str(name) for name in names] if names else [str(n) for n in range(width)]


def _tables(
    path: Path, info: Mapping[str, Any], cameras: Sequence[str]
) -> Iterator[tuple[int, Any, dict[str, tuple[Path, float]]]]:
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    size = info.get("chunks_size", 1000)
    if info["codebase_version"] != "v3.0":
        for index in range(info["total_episodes"]):
            at = {"episode_chunk": index // size, "episode_index": index}
            videos = {c: (path / info["video_path"].format(video_key=c, **at), 0.0) for c in cameras}
            yield index, pq.read_table(path / info["data_path"].format(**at)), videos
        return
    listed = sorted((path / "meta" / "episodes").glob("*/*.parquet"))
    opened: tuple[Path, Any] | None = None
    for row in (row for file in listed for row in pq.read_table(file).to_pylist()):
        at = {"chunk_index": row["data/chunk_index"], "file_index": row["data/file_index"]}
        file = path / info["data_path"].format(**at)
        if opened is None or opened[0] != file:
            opened = (file, pq.read_table(file))
        index = row["episode_index"]
        videos = {}
        for camera in cameras:
            key = f"videos/{camera}/"
            at = {"chunk_index": row[f"{key}chunk_index"], "file_index": row[f"{key}file_index"]}
            film = path / info["video_path"].format(video_key=camera, **at)
            videos[camera] = (film, float(row[f"{key}from_timestamp"]))
        yield index, opened[1].filter(pc.equal(opened[1].column("episode_index"), index)), videos


# --- HDF5


def _hdf5(path: Path) -> Iterator[SetEpisode]:
    import h5py

    files = [path] if path.is_file() else sorted(path.glob("*.hdf5"), key=lambda p: (len(p.name), p.name))
    folder = path.parent if path.is_file() else path
    report = folder / "dexrun.json"
    about = json.loads(report.read_text(encoding="utf-8")) if report.is_file() else {}
    fps, rows = float(about.get("fps", 50.0)), 0
    for index, file in enumerate(files):
        with h5py.File(file, "r") as root:
            state, action = np.array(root["observations/qpos"]), np.array(root["action"])
            pictures = root.get("observations/images") or {}
            images = {name: np.array(pictures[name]) for name in pictures if pictures[name].ndim == 4}
            names = [str(n) for n in range(state.shape[1])]
            values = {"state": state.astype(np.float64), "action": action.astype(np.float64)}
            yield SetEpisode(index, fps, rows / fps, values, names, images=images)
            rows += len(action)


# --- into Rerun


def set_blueprint(episode: SetEpisode) -> Any:
    """Cameras on the left, a plot for each number of state and action on the right."""
    import rerun.blueprint as rrb

    cameras = [
        rrb.Spatial2DView(origin=f"cameras/{name}", name=name) for name in (*episode.videos, *episode.images)
    ]
    plots = [rrb.TimeSeriesView(origin=f"joints/{name}", name=name) for name in episode.names]
    side = rrb.Grid(*plots, grid_columns=2, name="state and action")
    body = rrb.Horizontal(rrb.Vertical(*cameras), side, column_shares=[1, 1]) if cameras else side
    return rrb.Blueprint(body, collapse_panels=True)


def log_set(stream: Any, episodes: Sequence[SetEpisode]) -> None:
    """Everything of `episodes`, one behind the other."""
    import rerun as rr

    for name in episodes[0].names:
        for word, color in _COLORS.items():
            stream.log(f"joints/{name}/{word}", rr.SeriesLines(colors=color, names=word), static=True)
    for episode in episodes:
        times = episode.first_s + np.arange(episode.rows) / episode.fps
        at = [rr.TimeColumn(TIMELINE, duration=times)]
        for word, values in episode.values.items():
            for place, name in enumerate(episode.names[: values.shape[1]]):
                stream.send_columns(f"joints/{name}/{word}", at, rr.Scalars.columns(scalars=values[:, place]))
        for camera, (film, from_s) in episode.videos.items():
            stream.set_time(TIMELINE, duration=float(times[0]))
            stream.log(f"cameras/{camera}", rr.AssetVideo(path=film))
            frames = (from_s + np.arange(episode.rows) / episode.fps) * 1e9
            columns = rr.VideoFrameReference.columns_nanos(np.round(frames).astype(np.int64))
            stream.send_columns(f"cameras/{camera}", at, columns)
        for camera, pictures in episode.images.items():
            for time_s, picture in zip(times.tolist(), pictures, strict=True):
                stream.set_time(TIMELINE, duration=time_s)
                stream.log(f"cameras/{camera}", rr.Image(picture).compress(jpeg_quality=90))
