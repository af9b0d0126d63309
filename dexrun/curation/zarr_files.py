"""Replay buffers put together anew."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from dexrun.curation.links import link
from dexrun.curation.pieces import Excerpt
from dexrun.curation.said import report_of
from dexrun.export import zarr_v2
from dexrun.export.umi_zarr import pack
from policies.data.dataset import DatasetError
from policies.data.noted import notes
from policies.data.zarr_store import ZarrRows, ZarrStore


def assemble_zarr(pieces: list[Excerpt], draft: Path) -> None:
    """A store of the pieces' rows; a zip, where the first one's is."""
    stores = {each.source.path: ZarrStore(each.source.path) for each in pieces}
    first = stores[pieces[0].source.path]
    folder = draft.with_name(f".{draft.name}.store") if first.path.is_file() else draft
    attributes = dict(first.json(".zattrs"))
    attributes["dexrun"] = report_of(notes(attributes.get("dexrun", {}), ".zattrs: dexrun"), pieces)
    ends = np.cumsum([each.length for each in pieces]).astype(np.int64)
    zarr_v2.replay_buffer(folder, attributes, ends)
    try:
        for name in first.arrays("data"):
            arrays = {path: store.arrays("data").get(name) for path, store in stores.items()}
            if missing := [path for path, array in arrays.items() if array is None]:
                raise DatasetError(f"{missing[0]}: there is no data/{name}")
            _write(folder / "data" / name, arrays, pieces, int(ends[-1]))
    finally:
        for store in stores.values():
            store.close()
    if folder is not draft:
        pack(folder, draft)


def _write(path: Path, arrays: dict[Path, Any], pieces: list[Excerpt], rows: int) -> None:
    like: ZarrRows = arrays[pieces[0].source.path]
    linked = all(_a_file_a_row(array) and array.codec == like.codec for array in arrays.values())
    if not linked and len(like.shape) < 4:
        parts = [arrays[p.source.path].rows(_rows(p)) for p in pieces]
        zarr_v2.whole(path, np.concatenate(parts))
        return
    out = zarr_v2.images(path, rows, like.shape[1:])
    out.write_metadata()
    row = 0
    for piece in pieces:
        array: ZarrRows = arrays[piece.source.path]
        for source in _rows(piece).tolist():
            if linked and array.codec == zarr_v2.COMPRESSOR:
                link(_chunk_file(array, source), _chunk_file(array, row, path))
            else:
                out.write_chunk(row, array.rows(np.array([source])))
            row += 1


def _rows(piece: Excerpt) -> Any:
    start = piece.episode.start
    return np.arange(start + piece.first, start + piece.end)


def _a_file_a_row(array: ZarrRows) -> bool:
    folder = not array.store.path.is_file()
    return folder and array.chunks == (1, *array.shape[1:]) and array.dtype == np.uint8


def _chunk_file(array: ZarrRows, row: int, folder: Path | None = None) -> Path:
    name = array.separator.join(map(str, (row, *[0] * (len(array.shape) - 1))))
    return (folder or array.store.path / array.name) / name
