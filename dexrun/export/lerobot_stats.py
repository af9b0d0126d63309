"""Statistics of a whole LeRobot data set, computed from all of its rows and of what was seen of its pictures.

How often each value was seen is kept beside the data set's own metadata, so that quantiles of an appended
one are those of its pictures as well. A data set of LeRobot's own has no such file: its pictures' quantiles
are mixed with the new ones', as LeRobot does it.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dexrun.export import lerobot, stats
from dexrun.export.stats import ImageStats, Stats

SEEN = "dexrun_seen.npz"
_LARGEST = 4 << 20

Columns = Mapping[str, NDArray[Any]]


def whole(
    folder: Path,
    before: Mapping[str, Stats],
    files: int,
    rows: Sequence[Columns],
    seen: Sequence[Mapping[str, ImageStats]],
) -> dict[str, Stats]:
    """Of everything in `folder`, whose first `files` data files were there `before`; notes what was seen."""
    out = {}
    earlier = _rows_before(folder, list(rows[0]), files)
    for key in rows[0]:
        parts = [earlier[key]] if key in earlier else []
        out[key] = stats.of_rows(np.concatenate([*parts, *(each[key] for each in rows)]))
    known = _seen_before(folder)
    for key in seen[0]:
        every = [each[key] for each in seen]
        if key in before and key not in known:
            out[key] = stats.aggregate([{key: before[key]}, {key: ImageStats.merged(every).result()}])[key]
            continue
        merged = ImageStats.merged([*every, *([known[key]] if key in before else [])])
        out[key], known[key] = merged.result(), merged
    _note(folder, known)
    return out


def _rows_before(folder: Path, keys: Sequence[str], files: int) -> dict[str, NDArray[Any]]:
    import pyarrow.parquet as pq

    found: dict[str, list[NDArray[Any]]] = {}
    for path in sorted((folder / "data").glob("chunk-*/file-*.parquet")):
        if int(path.parent.name[6:]) * lerobot.CHUNK_FILES + int(path.stem[5:]) >= files:
            continue
        with pq.ParquetFile(path) as file:
            table = file.read(columns=list(keys))
        for key in keys:
            found.setdefault(key, []).append(_column(table.column(key)))
    return {key: np.concatenate(parts) for key, parts in found.items()}


def _column(column: Any) -> NDArray[Any]:
    import pyarrow as pa

    whole_column = column.combine_chunks()
    if pa.types.is_fixed_size_list(column.type):
        flat = whole_column.flatten().to_numpy(zero_copy_only=False)
        return np.asarray(flat).reshape(len(column), column.type.list_size)
    return np.asarray(whole_column.to_numpy(zero_copy_only=False))


def _seen_before(folder: Path) -> dict[str, ImageStats]:
    path = folder / "meta" / SEEN
    if not path.is_file():
        return {}
    with zipfile.ZipFile(path) as members:
        if any(member.file_size > _LARGEST for member in members.infolist()):
            raise ValueError(f"{path}: larger than what is kept there")
    with np.load(path, allow_pickle=False) as kept:
        about = {name.removesuffix("/about"): kept[name] for name in kept.files if name.endswith("/about")}
        return {key: ImageStats.of(kept[f"{key}/counts"], unit, int(n)) for key, (unit, n) in about.items()}


def _note(folder: Path, seen: Mapping[str, ImageStats]) -> None:
    if seen:
        kept: dict[str, Any] = {f"{key}/counts": each.counts for key, each in seen.items()}
        kept |= {f"{key}/about": np.array([each.unit, each.images]) for key, each in seen.items()}
        np.savez_compressed(folder / "meta" / SEEN, **kept)
