"""Zarr version 2 directory stores, written chunk by chunk by any number of processes.

Only a part of the format is needed: C order, ``.`` between chunk numbers, Blosc (zstd, byte-shuffled as zarr
itself does by default) or nothing. Specification: https://zarr-specs.readthedocs.io/en/latest/v2/v2.0.html
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

COMPRESSOR = {"id": "blosc", "cname": "zstd", "clevel": 3, "shuffle": 1, "blocksize": 0}


@dataclass(frozen=True, slots=True)
class ZarrArray:
    """An array in a store: whole rows to a chunk, `chunk_rows` of them."""

    path: Path
    shape: tuple[int, ...]
    dtype: str
    chunk_rows: int

    def write_metadata(self) -> None:
        """Create the array; what is not written of it later is zero."""
        self.path.mkdir(parents=True)
        content = {
            "zarr_format": 2,
            "shape": list(self.shape),
            "chunks": [self.chunk_rows, *self.shape[1:]],
            "dtype": np.dtype(self.dtype).str,
            "compressor": COMPRESSOR,
            "fill_value": 0,
            "order": "C",
            "filters": None,
        }
        (self.path / ".zarray").write_text(json.dumps(content, indent=4), encoding="utf-8")

    def write_chunk(self, number: int, rows: NDArray[Any]) -> None:
        """Write the chunk that begins at row ``number * chunk_rows``; a short last one is filled up.

        Raises:
            OSError: the disk is full.
        """
        from numcodecs import Blosc, blosc

        blosc.use_threads = False
        block = np.zeros((self.chunk_rows, *self.shape[1:]), self.dtype)
        block[: len(rows)] = rows
        settings = {key: value for key, value in COMPRESSOR.items() if key != "id"}
        name = ".".join([str(number), *["0"] * (len(self.shape) - 1)])
        (self.path / name).write_bytes(Blosc(**settings).encode(block))

    def write(self, values: NDArray[Any]) -> None:
        """Write all of it."""
        for number in range(math.ceil(self.shape[0] / self.chunk_rows)):
            first = number * self.chunk_rows
            self.write_chunk(number, values[first : first + self.chunk_rows])


def images(path: Path, rows: int, size: tuple[int, ...]) -> ZarrArray:
    """An array of uint8 images, a chunk each."""
    return ZarrArray(path, (rows, *size), "|u1", 1)


def whole(path: Path, values: NDArray[Any]) -> None:
    """A small array, in chunks of up to 1000 rows."""
    array = ZarrArray(path, values.shape, values.dtype.str, max(1, min(1000, len(values))))
    array.write_metadata()
    array.write(values)


def group(path: Path, attributes: Mapping[str, Any] | None = None) -> None:
    """A group; its parent must be one, too."""
    path.mkdir(parents=True, exist_ok=True)
    (path / ".zgroup").write_text('{"zarr_format": 2}', encoding="utf-8")
    if attributes:
        (path / ".zattrs").write_text(json.dumps(attributes, indent=4, ensure_ascii=False), encoding="utf-8")


def replay_buffer(folder: Path, attributes: Mapping[str, Any], ends: NDArray[np.int64]) -> None:
    """The groups of a replay buffer, ``data`` and ``meta``, and ``meta/episode_ends``."""
    group(folder, attributes)
    group(folder / "data")
    group(folder / "meta")
    whole(folder / "meta" / "episode_ends", ends)
