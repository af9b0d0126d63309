"""What is inside recordings and the data sets that dexrun exports."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dexrun.export.errors import ExportError

if TYPE_CHECKING:
    from runtime.recording.reader import Episode


@dataclass
class Row:
    """One episode. `rates` in Hz and `drops` in samples, by topic."""

    name: str
    seconds: float
    label: str = ""
    task: str = ""
    rows: int = 0
    rates: Mapping[str, float] = field(default_factory=dict)
    drops: Mapping[str, int] = field(default_factory=dict)
    note: str = ""


@dataclass
class Content:
    """What is inside. `facts` are about all of it; `features` the arrays or topics and what they are like."""

    kind: str
    path: Path
    bytes: int
    facts: dict[str, Any] = field(default_factory=dict)
    features: dict[str, str] = field(default_factory=dict)
    episodes: list[Row] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "kind": self.kind,
            "path": str(self.path),
            "bytes": self.bytes,
            **self.facts,
            "features": self.features,
            "episodes": [vars(row) for row in self.episodes],
        }


def inspect(path: Path) -> Content:
    """Look inside.

    Raises:
        ExportError: it is neither a recording nor a data set that is known.
    """
    if not path.exists():
        raise ExportError(f"{path}: no such file or folder")
    for fits, look in _KINDS:
        if fits(path):
            try:
                return look(path)
            except (OSError, ValueError, KeyError) as error:
                raise ExportError(f"{path}: cannot be read: {' '.join(str(error).split())}") from None
    raise ExportError(
        f"{path}: neither a recording (a run's folder, an .mcap file) nor a data set that dexrun exports"
    )


def size_of(path: Path) -> int:
    """Bytes of a file, or of everything in a folder."""
    files = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]
    return sum(file.stat().st_size for file in files)


# --- recordings


def _is_recording(path: Path) -> bool:
    if path.is_file():
        return path.suffix == ".mcap"
    return bool(list(path.glob("episodes/*.mcap*")) or list(path.glob("*.mcap*")))


def _recording(path: Path) -> Content:
    from runtime.recording.reader import Recording, RecordingError

    try:
        with Recording(path) as recording:
            episodes = [_episode(episode) for episode in recording.episodes]
            first = recording.episodes[0]
            content = Content("recording", path, size_of(path), episodes=episodes)
            content.features = {topic: _topic(first, topic) for topic, count in first.topics.items() if count}
            robot = first.robot
            content.facts = {
                "robot": robot.get("model", ""),
                "joints": robot.get("joint_names", []),
                "seconds": round(sum(row.seconds for row in episodes), 3),
                "labels": _counted([row.label for row in episodes]),
                "tasks": _counted([row.task for row in episodes]),
            }
            if recording.unfinished:
                content.facts["unfinished"] = [draft.name for draft in recording.unfinished]
            return content
    except RecordingError as error:
        raise ExportError(str(error)) from None


def _episode(episode: Episode) -> Row:
    rates = {}
    for topic, count in episode.topics.items():
        stamps = episode.stamps(topic) if count > 2 else np.zeros(0)
        span = (stamps[-1] - stamps[0]) / 1e9 if len(stamps) else 0.0
        if span > 0 and not topic.endswith("/info"):
            rates[topic] = round(float((count - 1) / span), 2)
    notes = [
        "repaired" if episode.repaired else "",
        "discarded" if episode.metadata.get("discarded") == "true" else "",
    ]
    return Row(
        episode.path.name,
        round(episode.duration_s, 3),
        episode.label,
        episode.task,
        episode.topics.get("/ticks", 0),
        rates,
        episode.drops,
        " ".join(note for note in notes if note),
    )


def _topic(episode: Episode, topic: str) -> str:
    """What a topic's messages are like."""
    from runtime.recording.reader import RecordingError

    parts = topic.split("/")
    if topic.startswith("/cameras/"):
        camera, kind = parts[2], parts[3]
        if kind == "color":
            height, width = episode.color(camera, 0).shape[:2]
            return f"{width}x{height} {episode.color_bytes(camera, 0)[1]}"
        if kind == "info":
            return "intrinsics"
        if kind == "depth":
            height, width = episode.depth(camera, 0).shape
            return f"{width}x{height} uint16, unit {episode.camera_info(camera).depth_scale_m} m"
    try:
        columns = episode.columns(topic)
    except RecordingError:
        return "events"
    return ", ".join(f"{name} {list(v.shape[1:])}" for name, v in columns.items() if v.ndim > 1) or "rows"


def _counted(values: Sequence[str]) -> dict[str, int]:
    return {value: values.count(value) for value in dict.fromkeys(values)}


# --- LeRobot


def _is_lerobot(path: Path) -> bool:
    return (path / "meta" / "info.json").is_file()


def _lerobot(path: Path) -> Content:
    info = json.loads((path / "meta" / "info.json").read_text(encoding="utf-8"))
    about = _report(path / "meta" / "dexrun.json")
    fps = info["fps"]
    content = Content(f"LeRobot {info['codebase_version']}", path, size_of(path))
    lengths = _lengths_v3(path) if info["codebase_version"] == "v3.0" else _lengths_v21(path)
    content.episodes = [_exported(n, length, fps, about) for n, length in enumerate(lengths)]
    content.features = {key: _feature(feature) for key, feature in info["features"].items()}
    content.facts = {
        "robot": info.get("robot_type") or "",
        "fps": fps,
        "rows": info["total_frames"],
        "seconds": round(info["total_frames"] / fps, 3),
        "tasks": info["total_tasks"],
    }
    return _with_report(content, about)


def _lengths_v3(path: Path) -> list[int]:
    import pyarrow.parquet as pq

    rows: list[int] = []
    for file in sorted((path / "meta" / "episodes").glob("*/*.parquet")):
        with pq.ParquetFile(file) as table:
            rows += table.read(columns=["length"]).column(0).to_pylist()
    return rows


def _lengths_v21(path: Path) -> list[int]:
    lines = (path / "meta" / "episodes.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["length"] for line in lines]


def _feature(feature: Mapping[str, Any]) -> str:
    info = feature.get("info") or {}
    codec = f", {info['video.codec']} {info['video.pix_fmt']}" if "video.codec" in info else ""
    return f"{feature['dtype']} {list(feature['shape'])}{codec}"


def _report(path: Path) -> Mapping[str, Any]:
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}


def _exported(number: int, length: int, fps: float, about: Mapping[str, Any]) -> Row:
    """An episode of a data set, with what the export said about it."""
    known = {entry["episode"]: entry for entry in about.get("episodes", [])}.get(number, {})
    worst = max((s["largest_stamp_error_s"] for s in known.get("sensors", {}).values()), default=None)
    return Row(
        known.get("source", f"episode {number}"),
        round(length / fps, 3),
        known.get("label", ""),
        known.get("task", ""),
        length,
        {},
        known.get("dropped_while_recording", {}),
        "" if worst is None else f"stamp error up to {worst * 1e3:.1f} ms",
    )


def _with_report(content: Content, about: Mapping[str, Any]) -> Content:
    if about:
        content.facts["labels"] = _counted([row.label for row in content.episodes])
        content.facts["largest_stamp_error_s"] = about["largest_stamp_error_s"]
        content.facts["gaps"] = about["gaps"]
    return content


# --- zarr


def _is_zarr(path: Path) -> bool:
    return zipfile.is_zipfile(path) if path.is_file() else (path / ".zgroup").is_file()


class _Store:
    """A zarr v2 store's JSON and chunks, from a folder or a zip."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._zip = zipfile.ZipFile(path) if path.is_file() else None

    def read(self, name: str) -> bytes:
        return self._zip.read(name) if self._zip else (self._path / name).read_bytes()

    def json(self, name: str) -> Any:
        return json.loads(self.read(name)) if name in self.names() else {}

    def names(self) -> list[str]:
        if self._zip:
            return self._zip.namelist()
        return [p.relative_to(self._path).as_posix() for p in self._path.glob("*/*/.zarray")] + [
            p.name for p in self._path.glob(".z*")
        ]

    def array(self, name: str) -> Any:
        """A small array of one chunk."""
        from numcodecs import get_codec

        about = self.json(f"{name}/.zarray")
        data = self.read(f"{name}/0")
        raw = get_codec(about["compressor"]).decode(data) if about["compressor"] else data
        return np.frombuffer(raw, about["dtype"])[: about["shape"][0]]

    def close(self) -> None:
        if self._zip:
            self._zip.close()


def _zarr(path: Path) -> Content:
    store = _Store(path)
    try:
        arrays = {n.removesuffix("/.zarray"): store.json(n) for n in store.names() if n.endswith("/.zarray")}
        if "meta/episode_ends" not in arrays:
            raise ExportError(f"{path}: a zarr store without meta/episode_ends; expected a replay buffer")
        ends = store.array("meta/episode_ends")
        attributes = store.json(".zattrs")
    finally:
        store.close()
    fps = attributes.get("fps", 0)
    about = attributes.get("dexrun", {})
    kind = "UMI replay buffer" if "data/robot0_eef_pos" in arrays else "DexGraspVLA replay buffer"
    content = Content(kind, path, size_of(path))
    lengths = np.diff(ends, prepend=0).tolist()
    content.episodes = [_exported(n, length, fps or 1.0, about) for n, length in enumerate(lengths)]
    content.features = {name: f"{a['dtype']} {a['shape']}" for name, a in arrays.items()}
    kept = {key: value for key, value in attributes.items() if key != "dexrun"}
    content.facts = {"rows": int(ends[-1]) if len(ends) else 0, **kept}
    return _with_report(content, about)


# --- HDF5


def _is_hdf5(path: Path) -> bool:
    return path.suffix == ".hdf5" or (path.is_dir() and bool(list(path.glob("*.hdf5"))))


def _hdf5(path: Path) -> Content:
    import h5py

    files = [path] if path.is_file() else sorted(path.glob("*.hdf5"), key=lambda p: (len(p.name), p.name))
    about = _report(path / "dexrun.json") if path.is_dir() else {}
    content = Content("ACT HDF5", path, size_of(path))
    for number, file in enumerate(files):
        with h5py.File(file, "r") as root:
            if number == 0:
                root.visititems(lambda name, item: _note(content.features, name, item))
                content.facts["sim"] = bool(root.attrs.get("sim", False))
            row = _exported(number, len(root["action"]), about.get("fps", 30.0), about)
            if "language_raw" in root:
                content.kind, row.task = "DexVLA HDF5", root["language_raw"][0].decode()
        row.name = file.name
        content.episodes.append(row)
    content.facts["rows"] = sum(row.rows for row in content.episodes)
    return _with_report(content, about)


def _note(features: dict[str, str], name: str, item: Any) -> None:
    if hasattr(item, "shape"):
        features[name] = f"{item.dtype} {list(item.shape)}"


_KINDS: tuple[tuple[Callable[[Path], bool], Callable[[Path], Content]], ...] = (
    (_is_lerobot, _lerobot),
    (_is_recording, _recording),
    (_is_zarr, _zarr),
    (_is_hdf5, _hdf5),
)
