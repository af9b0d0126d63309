"""Zarr version 2 stores, in a folder or a zip: nothing but metadata is read until rows are asked for.

Specification: https://zarr-specs.readthedocs.io/en/latest/v2/v2.0.html
"""

from __future__ import annotations

import itertools
import json
import math
import os
import struct
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from policies.data.dataset import Array, DatasetError, RowNumbers
from policies.data.set_files import SMALL_BYTES

CODECS = ("blosc", "zlib", "gzip", "zstd", "lz4", "bz2", "lzma", "imagecodecs_jpegxl")
"""What chunks may be compressed by. Among numcodecs' own are some that execute what they decode."""
_CHUNK_BYTES = 1 << 30
_LOCAL_HEAD = struct.Struct("<26xHH")


class ZarrStore:
    """A store's members by name. Pickles without its open file."""

    def __init__(self, path: Path) -> None:
        """Open it.

        Raises:
            ValueError: it is no zip and no folder.
        """
        self.path = path
        self._members: dict[str, tuple[int, int]] = {}
        self._file = -1
        if path.is_file():
            self._list()

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "_members": self._members, "_file": -1}

    def _list(self) -> None:
        """Where each member's bytes are; members are not compressed again, so that they are read in place."""
        try:
            with zipfile.ZipFile(self.path) as archive:
                for info in archive.infolist():
                    if info.compress_type != zipfile.ZIP_STORED:
                        raise ValueError(f"{info.filename} is compressed in the zip; expected it stored")
                    self._members[info.filename] = (info.header_offset, info.file_size)
        except zipfile.BadZipFile as error:
            raise ValueError(f"no zip, or cut off: {error}") from None

    def __contains__(self, name: str) -> bool:
        return name in self._members if self._members else (self.path / name).is_file()

    def read(self, name: str) -> bytes:
        """A member.

        Raises:
            OSError, KeyError: there is none. ValueError: it is larger than anything that is read.
        """
        if not self._members:
            file = self.path / name
            size = file.stat().st_size
            if size > _CHUNK_BYTES:
                raise ValueError(f"{name} has {size} bytes")
            return file.read_bytes()
        if self._file < 0:
            self._file = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        at, size = self._members[name]
        if size > _CHUNK_BYTES:
            raise ValueError(f"{name} has {size} bytes")
        skip = sum(_LOCAL_HEAD.unpack(os.pread(self._file, _LOCAL_HEAD.size, at)))
        data = os.pread(self._file, size, at + _LOCAL_HEAD.size + skip)
        if len(data) != size:
            raise ValueError(f"{name} is cut off")
        return data

    def json(self, name: str) -> dict[str, Any]:
        """A member that is an object; an empty one if there is none."""
        if name not in self:
            return {}
        data = self.read(name)
        if len(data) > SMALL_BYTES:
            raise ValueError(f"{name} has {len(data)} bytes")
        try:
            found = json.loads(data)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
        return found if isinstance(found, dict) else {}

    def arrays(self, group: str) -> dict[str, ZarrRows]:
        """The arrays in a group, by name."""
        if self._members:
            found = [name.split("/")[1] for name in self._members if name.count("/") == 2]
            names = sorted({name for name in found if f"{group}/{name}/.zarray" in self._members})
        else:
            names = sorted(p.parent.name for p in self.path.glob(f"{group}/*/.zarray"))
        return {name: ZarrRows.of(self, f"{group}/{name}") for name in names}

    def close(self) -> None:
        """Close its file."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


@dataclass
class ZarrRows:
    """An array of which rows are read, a chunk at a time; the last chunk stays."""

    store: ZarrStore
    name: str
    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    dtype: np.dtype[Any]
    codec: Mapping[str, Any] | None
    fill: Any
    separator: str
    _last: tuple[str, Array] | None = field(default=None, repr=False)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_last": None}

    @classmethod
    def of(cls, store: ZarrStore, name: str) -> ZarrRows:
        """The array `name`.

        Raises:
            ValueError: it is none that is read here.
        """
        about = store.json(f"{name}/.zarray")
        shape, chunks = tuple(map(int, about["shape"])), tuple(map(int, about["chunks"]))
        dtype, codec = np.dtype(about["dtype"]), about.get("compressor")
        if len(shape) != len(chunks) or not shape or min(chunks) < 1 or dtype.kind not in "fiub":
            raise ValueError(f"{name}: {about['dtype']} {list(shape)} in chunks of {list(chunks)}")
        if math.prod(chunks) * dtype.itemsize > _CHUNK_BYTES:
            raise ValueError(f"{name}: chunks of {list(chunks)} are larger than what is read")
        if about.get("filters") or about.get("order", "C") != "C":
            raise ValueError(f"{name}: filters, or an order other than C, are not read")
        if codec is not None and codec.get("id") not in CODECS:
            raise ValueError(
                f"{name}: compressed by {str(codec.get('id'))[:30]!r}; accepted: {', '.join(CODECS)}"
            )
        return cls(
            store, name, shape, chunks, dtype, codec, about.get("fill_value") or 0,
            about.get("dimension_separator", "."),
        )  # fmt: skip

    def __len__(self) -> int:
        return self.shape[0]

    def rows(self, rows: RowNumbers) -> Array:
        """``[len(rows), *shape[1:]]``.

        Raises:
            DatasetError: a chunk is damaged.
        """
        out = np.empty((len(rows), *self.shape[1:]), self.dtype)
        block = rows // self.chunks[0]
        for number in np.unique(block).tolist():
            here = block == number
            for place, at in self._blocks():
                out[(here, *place)] = self._chunk(number, at)[rows[here] - number * self.chunks[0]][
                    (slice(None), *(slice(0, each.stop - each.start) for each in place))
                ]
        return out

    def _blocks(self) -> Iterator[tuple[tuple[slice, ...], tuple[int, ...]]]:
        """Of the axes after the first: which part each chunk is, and its numbers."""
        counts = [math.ceil(n / c) for n, c in zip(self.shape[1:], self.chunks[1:], strict=True)]
        for at in itertools.product(*map(range, counts)):
            yield (
                tuple(
                    slice(i * c, min(n, (i + 1) * c))
                    for i, c, n in zip(at, self.chunks[1:], self.shape[1:], strict=True)
                ),
                at,
            )

    def _chunk(self, number: int, at: tuple[int, ...]) -> Array:
        key = f"{self.name}/{self.separator.join(map(str, (number, *at)))}"
        if self._last is not None and self._last[0] == key:
            return self._last[1]
        if key not in self.store:
            return np.full(self.chunks, self.fill, self.dtype)
        try:
            chunk = self._decoded(self.store.read(key))
        except DatasetError:
            raise
        except Exception as error:  # a damaged chunk fails in as many ways as there are codecs
            why = " ".join(str(error).split())[:200] or type(error).__name__
            raise DatasetError(f"{self.store.path}: {key} is damaged: {why}") from None
        self._last = (key, chunk)
        return chunk

    def _decoded(self, raw: bytes) -> Array:
        size = math.prod(self.chunks) * self.dtype.itemsize
        if self.codec is None:
            data: Any = raw
        elif self.codec["id"] == "imagecodecs_jpegxl":
            return _jpegxl(raw).reshape(self.chunks)
        else:
            data = _unpacked(self.codec, raw, size)
        return np.frombuffer(data, self.dtype)[: math.prod(self.chunks)].reshape(self.chunks)


def _unpacked(codec: Mapping[str, Any], raw: bytes, size: int) -> Any:
    import numcodecs
    from numcodecs import blosc

    if codec["id"] == "blosc":
        if int.from_bytes(raw[4:8], "little") > size:
            raise ValueError("it unfolds into more than a chunk")
        blosc.use_threads = False
        return blosc.decompress(raw)
    return numcodecs.get_codec(dict(codec)).decode(raw)


def _jpegxl(raw: bytes) -> Array:
    try:
        decode = import_module("imagecodecs").jpegxl_decode
    except ImportError:
        raise DatasetError("pictures are JPEG XL, as UMI's own are: pip install imagecodecs") from None
    return np.asarray(decode(raw))
