"""Looks into the data sets that dexrun exports."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dexrun.export.contents import Content, Row, counted, size_of
from dexrun.export.errors import ExportError
from policies.data.set_files import SMALL_BYTES, small_json

# --- LeRobot


def _is_lerobot(path: Path) -> bool:
    return (path / "meta" / "info.json").is_file()


def _lerobot(path: Path) -> Content:
    info = small_json(path / "meta" / "info.json")
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
    return small_json(path) if path.is_file() else {}


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
        content.facts["labels"] = counted([row.label for row in content.episodes])
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
        """The member `name`.

        Raises:
            ValueError: it is larger than what is looked at here.
        """
        size = self._zip.getinfo(name).file_size if self._zip else (self._path / name).stat().st_size
        if size > SMALL_BYTES:
            raise ValueError(f"{name} has {size} bytes")
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
        """A small array of one chunk.

        Raises:
            ValueError: it is compressed otherwise than here, or unfolds into more than it says.
        """
        from numcodecs import Blosc

        about = self.json(f"{name}/.zarray")
        raw = self.read(f"{name}/0")
        if compressor := about["compressor"]:
            if compressor["id"] != "blosc":  # among numcodecs' own is one that executes what it decodes
                raise ValueError(f"{name} is compressed by {str(compressor['id'])[:20]!r}; expected blosc")
            if int.from_bytes(raw[4:8], "little") > SMALL_BYTES:
                raise ValueError(f"{name} unfolds into more than it should have")
            raw = Blosc().decode(raw)
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


KINDS: tuple[tuple[Callable[[Path], bool], Callable[[Path], Content]], ...] = (
    (_is_lerobot, _lerobot),
    (_is_zarr, _zarr),
    (_is_hdf5, _hdf5),
)
"""How a kind is recognised, and what looks into it."""
