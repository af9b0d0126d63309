"""ACT's and DexVLA's data sets put together anew: whole files are linked, changed ones written again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from dexrun.curation.links import link
from dexrun.curation.pieces import Excerpt
from dexrun.curation.said import report_of
from dexrun.export.hdf5 import check_room
from policies.data.noted import NOTES, notes_at


def assemble_hdf5(pieces: list[Excerpt], draft: Path) -> None:
    """A folder with a file for each piece, and the report of the first source, if it has one."""
    draft.mkdir(parents=True)
    root = pieces[0].source.path
    about = notes_at((root.parent if root.is_file() else root) / NOTES)
    for number, piece in enumerate(pieces):
        target = draft / f"episode_{number}.hdf5"
        retold = piece.task != piece.episode.task and piece.source.format == "dexvla-hdf5"
        if piece.whole and not retold:
            link(piece.episode.path, target)
        else:
            _cut(piece, target, piece.task if retold else None)
    # Of files of others, which shift their actions, nothing may be said: with a report nothing is shifted.
    if about:
        (draft / NOTES).write_text(json.dumps(report_of(about, pieces), indent=4), encoding="utf-8")


def _cut(piece: Excerpt, target: Path, task: str | None) -> None:
    import h5py

    rows = slice(piece.first, piece.end)
    with h5py.File(piece.episode.path, "r") as source, h5py.File(target, "w") as out:
        for name, value in source.attrs.items():
            out.attrs[name] = value

        def copy(name: str, item: Any) -> None:
            if not isinstance(item, h5py.Dataset):
                return
            check_room(target.parent, item.nbytes)
            text = h5py.check_string_dtype(item.dtype)
            if name == "language_raw":
                out.create_dataset(
                    name, data=item[...] if task is None else np.array([task], object), dtype=item.dtype
                )
            elif item.shape and item.shape[0] == piece.episode.length:
                options = (
                    {"dtype": item.dtype}
                    if text
                    else {"chunks": item.chunks, "compression": item.compression}
                )
                out.create_dataset(name, data=item[rows], **options)
            else:
                out.create_dataset(name, data=item[...])

        source.visititems(copy)
