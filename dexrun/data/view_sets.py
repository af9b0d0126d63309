"""What ``dexrun view`` shows of a data set: LeRobot's (v2.1, v3.0), and ACT's and DexVLA's HDF5 files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dexrun.export.errors import ExportError
from policies.data.noted import NOTES, notes_at
from policies.data.set_files import (
    Pictures,
    frames_per_second,
    hdf5_array,
    lerobot_file,
    small_json,
    table_of,
)
from runtime.recording.bounds import BROKEN, one_line

if TYPE_CHECKING:
    from numpy.typing import NDArray

TIMELINE = "time"
_IMAGES = "observation.images."
_STATE, _ACTION = "observation.state", "action"
_DEPTH = ("gray12le", "gray16le")
"""Pixel formats of depth videos, which Rerun does not decode."""
_VERSIONS = ("v2.0", "v2.1", "v3.0")
_COLORS = {"state": (70, 130, 230), "action": (240, 150, 30)}


@dataclass
class SetEpisode:
    """One episode of a data set.

    Attributes:
        index: counted from 0. first_s: where it begins when all episodes are laid one behind the other.
        values: ``[T, D]`` by ``state`` and ``action``. names: of the `D`, in the data set's words.
        videos: by camera, a file and the second in it at which the episode begins.
        images: by camera, `T` pictures.

    Raises:
        ValueError: `values` are none, not of that shape, or not of one length.
    """

    index: int
    fps: float
    first_s: float
    values: Mapping[str, NDArray[np.float64]]
    names: Sequence[str]
    videos: Mapping[str, tuple[Path, float]] = field(default_factory=dict)
    images: Mapping[str, Pictures] = field(default_factory=dict)

    def __post_init__(self) -> None:
        shapes = {word: values.shape for word, values in self.values.items()}
        lengths = {shape[0] for shape in shapes.values() if len(shape) == 2}
        if not shapes or len(lengths) != 1 or any(len(shape) != 2 for shape in shapes.values()):
            told = ", ".join(f"{word} {list(shape)}" for word, shape in shapes.items()) or "nothing"
            raise ValueError(f"episode {self.index} has {told}; expected rows of state and action")

    @property
    def rows(self) -> int:
        """How many."""
        return len(next(iter(self.values.values())))


def episodes_of(path: Path) -> list[SetEpisode] | None:
    """The episodes of the data set in `path`; ``None`` if it is none.

    Raises:
        ExportError: it is one of a kind that is not shown, holds no episode, or cannot be read.
    """
    try:
        if (path / "meta" / "info.json").is_file():
            found = list(_lerobot(path))
        elif path.suffix == ".hdf5" or (path.is_dir() and any(path.glob("*.hdf5"))):
            found = list(_hdf5(path))
        elif path.suffix == ".zip" or (path / ".zgroup").is_file():
            raise ExportError(
                f"{path}: view shows recordings, LeRobot's data sets and HDF5 files; of a zarr store, "
                "dexrun info says what is in it"
            )
        else:
            return None
    except (*BROKEN, OSError) as error:
        raise ExportError(f"{path}: cannot be read: {one_line(error)}") from None
    if not found:
        raise ExportError(f"{path}: the data set holds no episode")
    return found


# --- LeRobot


def _lerobot(path: Path) -> Iterator[SetEpisode]:
    info = small_json(path / "meta" / "info.json")
    if info["codebase_version"] not in _VERSIONS:
        told = f"codebase_version {str(info['codebase_version'])[:20]!r}"
        raise ValueError(f"{told} is not known; expected {', '.join(_VERSIONS)}")
    features, fps = info["features"], frames_per_second(info["fps"])
    cameras = [
        key
        for key, feature in features.items()
        if feature["dtype"] == "video" and (feature.get("info") or {}).get("video.pix_fmt") not in _DEPTH
    ]
    columns = {word: key for word, key in (("state", _STATE), ("action", _ACTION)) if key in features}
    rows = 0
    for index, table, where in _tables(path, info, cameras, list(columns.values())):
        values = {
            word: np.array(table.column(key).to_pylist(), dtype=np.float64) for word, key in columns.items()
        }
        videos = {camera.removeprefix(_IMAGES): where[camera] for camera in cameras}
        yield SetEpisode(index, fps, rows / fps, values, _names(features, values), videos)
        rows += len(table)


def _names(features: Mapping[str, Any], values: Mapping[str, NDArray[np.float64]]) -> list[str]:
    names = (features.get(_STATE) or features[_ACTION]).get("names")
    if isinstance(names, Mapping):
        names = next(iter(names.values()))
    return [str(name) for name in names] if names else _numbered(values)


def _numbered(values: Mapping[str, NDArray[np.float64]]) -> list[str]:
    return [str(n) for n in range(next(iter(values.values())).shape[-1])]


def _tables(
    path: Path, info: Mapping[str, Any], cameras: Sequence[str], columns: Sequence[str]
) -> Iterator[tuple[int, Any, dict[str, tuple[Path, float]]]]:
    """Of every episode its number, its rows, and of every camera a file and from which second on."""
    if info["codebase_version"] != "v3.0":
        for index in range(info["total_episodes"]):
            at = {"episode_chunk": index // info.get("chunks_size", 1000), "episode_index": index}
            videos = {c: (lerobot_file(path, info["video_path"], video_key=c, **at), 0.0) for c in cameras}
            yield index, table_of(lerobot_file(path, info["data_path"], **at), columns), videos
        return
    import pyarrow.compute as pc

    listed = sorted((path / "meta" / "episodes").glob("*/*.parquet"))
    opened: tuple[Path, Any] | None = None
    for row in (row for file in listed for row in table_of(file).to_pylist()):
        at = {"chunk_index": row["data/chunk_index"], "file_index": row["data/file_index"]}
        file = lerobot_file(path, info["data_path"], **at)
        if opened is None or opened[0] != file:
            opened = (file, table_of(file, [*columns, "episode_index"]))
        index = row["episode_index"]
        videos = {}
        for camera in cameras:
            key = f"videos/{camera}/"
            at = {"chunk_index": row[f"{key}chunk_index"], "file_index": row[f"{key}file_index"]}
            film = lerobot_file(path, info["video_path"], video_key=camera, **at)
            videos[camera] = (film, float(row[f"{key}from_timestamp"]))
        yield index, opened[1].filter(pc.equal(opened[1].column("episode_index"), index)), videos


# --- HDF5


def _hdf5(path: Path) -> Iterator[SetEpisode]:
    import h5py

    files = [path] if path.is_file() else sorted(path.glob("*.hdf5"), key=lambda p: (len(p.name), p.name))
    folder = path.parent if path.is_file() else path
    about = notes_at(folder / NOTES)
    fps, rows = frames_per_second(about.get("fps", 50.0)), 0
    for index, file in enumerate(files):
        with h5py.File(file, "r") as root:
            values = {
                word: np.array(hdf5_array(root, key), dtype=np.float64)
                for word, key in (("state", "observations/qpos"), ("action", "action"))
            }
            names = list(root.get("observations/images") or {})
            images = {name: Pictures(file, f"observations/images/{name}") for name in names}
            shown = {name: each for name, each in images.items() if each.fits(root, len(values["action"]))}
        yield SetEpisode(index, fps, rows / fps, values, _numbered(values), images=shown)
        rows += len(values["action"])


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
    """Everything of `episodes`, one behind the other.

    Raises:
        ExportError: a film or a picture cannot be read.
    """
    try:
        _log_set(stream, episodes)
    except (*BROKEN, OSError) as error:
        raise ExportError(f"the data set cannot be shown: {one_line(error)}") from None


def _log_set(stream: Any, episodes: Sequence[SetEpisode]) -> None:
    import rerun as rr

    playing: dict[str, Path] = {}  # in v3.0 one film holds many episodes

    for name in episodes[0].names:
        for word, color in _COLORS.items():
            stream.log(f"joints/{name}/{word}", rr.SeriesLines(colors=color, names=word), static=True)
    for episode in episodes:
        times = episode.first_s + np.arange(episode.rows) / episode.fps
        at = [rr.TimeColumn(TIMELINE, duration=times)]
        for word, values in episode.values.items():
            for place, name in enumerate(episode.names[: values.shape[1]]):
                stream.send_columns(f"joints/{name}/{word}", at, rr.Scalars.columns(scalars=values[:, place]))
        _log_films(stream, episode, times, playing)
        for camera, pictures in episode.images.items():
            for time_s, picture in zip(times.tolist(), pictures, strict=True):
                stream.set_time(TIMELINE, duration=time_s)
                stream.log(f"cameras/{camera}", rr.Image(picture).compress(jpeg_quality=90))


def _log_films(
    stream: Any, episode: SetEpisode, times: NDArray[np.float64], playing: dict[str, Path]
) -> None:
    """Which picture of which film is shown when; a film that is `playing` already is not put there again."""
    import rerun as rr

    for camera, (film, from_s) in episode.videos.items():
        if playing.get(camera) != film:
            playing[camera] = film
            stream.set_time(TIMELINE, duration=float(times[0]))
            stream.log(f"cameras/{camera}", rr.AssetVideo(path=film))
        frames = (from_s + np.arange(episode.rows) / episode.fps) * 1e9
        columns = rr.VideoFrameReference.columns_nanos(np.round(frames).astype(np.int64))
        stream.send_columns(f"cameras/{camera}", [rr.TimeColumn(TIMELINE, duration=times)], columns)
