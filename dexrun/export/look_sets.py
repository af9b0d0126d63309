"""Looks into the data sets that dexrun exports."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dexrun.export.contents import Content, Row, counted, size_of
from dexrun.export.errors import ExportError
from policies.data.noted import NOTES, notes, notes_at
from policies.data.replay_buffer import episode_ends
from policies.data.set_files import frames_per_second, json_lines, small_json, table_of
from policies.data.zarr_store import ZarrStore

# --- LeRobot


def _is_lerobot(path: Path) -> bool:
    return (path / "meta" / "info.json").is_file()


def _lerobot(path: Path) -> Content:
    info = small_json(path / "meta" / "info.json")
    about = notes_at(path / "meta" / NOTES)
    fps = frames_per_second(info["fps"])
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
    files = sorted((path / "meta" / "episodes").glob("*/*.parquet"))
    return [int(rows) for file in files for rows in table_of(file, ["length"])["length"].to_pylist()]


def _lengths_v21(path: Path) -> list[int]:
    return [int(each["length"]) for each in json_lines(path / "meta" / "episodes.jsonl")]


def _feature(feature: Mapping[str, Any]) -> str:
    info = feature.get("info") or {}
    codec = f", {info['video.codec']} {info['video.pix_fmt']}" if "video.codec" in info else ""
    return f"{feature['dtype']} {list(feature['shape'])}{codec}"


def _exported(number: int, length: int, fps: float, about: Mapping[str, Any]) -> Row:
    """An episode of a data set, with what the export said about it."""
    known = {entry["episode"]: entry for entry in about.get("episodes", [])}.get(number, {})
    sensors = known.get("sensors", {}).values()
    worst = max((each.get("largest_stamp_error_s", 0.0) for each in sensors), default=None)
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
        content.facts["largest_stamp_error_s"] = about.get("largest_stamp_error_s", 0.0)
        content.facts["gaps"] = about.get("gaps", 0)
    return content


# --- zarr


def _is_zarr(path: Path) -> bool:
    return zipfile.is_zipfile(path) if path.is_file() else (path / ".zgroup").is_file()


def _zarr(path: Path) -> Content:
    store = ZarrStore(path)
    try:
        data, meta = store.arrays("data"), store.arrays("meta")
        if "episode_ends" not in meta:
            raise ExportError(f"{path}: a zarr store without meta/episode_ends; expected a replay buffer")
        ends = episode_ends(path, meta["episode_ends"], data)
        attributes = store.json(".zattrs")
    finally:
        store.close()
    fps = frames_per_second(attributes["fps"]) if attributes.get("fps") else 1.0
    about = notes(attributes.get("dexrun", {}), ".zattrs: dexrun")
    kind = "UMI replay buffer" if "robot0_eef_pos" in data else "DexGraspVLA replay buffer"
    content = Content(kind, path, size_of(path))
    lengths = np.diff(ends, prepend=0).tolist()
    content.episodes = [_exported(n, length, fps, about) for n, length in enumerate(lengths)]
    content.features = {
        f"{group}/{name}": f"{array.dtype.str} {list(array.shape)}"
        for group, arrays in (("data", data), ("meta", meta))
        for name, array in arrays.items()
    }
    kept = {key: value for key, value in attributes.items() if key != "dexrun"}
    content.facts = {"rows": ends[-1], **kept}
    return _with_report(content, about)


# --- HDF5


def _is_hdf5(path: Path) -> bool:
    return path.suffix == ".hdf5" or (path.is_dir() and bool(list(path.glob("*.hdf5"))))


def _hdf5(path: Path) -> Content:
    import h5py

    files = [path] if path.is_file() else sorted(path.glob("*.hdf5"), key=lambda p: (len(p.name), p.name))
    about = notes_at(path / NOTES) if path.is_dir() else {}
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
