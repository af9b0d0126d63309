"""The files of a data set that came from anywhere: where they are, and how much of them is read.

A data set's own words decide neither which file is opened outside of its folder nor how much memory it takes.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_FIELD = re.compile(r"\{(\w{1,30})(?::0?(\d)d)?\}")
_VALUES = 20_000_000
"""Numbers of one file that are read: six joints and their targets, for four hours at 100 Hz."""
_FPS = 100_000.0
SMALL_BYTES = 64 << 20


def small_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        OSError, ValueError, RecursionError: there is none, or the file is larger than what is looked at here.
    """
    found = _object(path.name, _text(path))
    if not isinstance(found, dict):
        raise ValueError(f"{path.name} holds no object")
    return found


def json_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a file with one on each line.

    Raises:
        OSError, ValueError, RecursionError: there is none, or the file is larger than what is looked at here.
    """
    return [dict(_object(path.name, line)) for line in _text(path).splitlines() if line.strip()]


def _object(name: str, text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def _text(path: Path) -> str:
    if (size := path.stat().st_size) > SMALL_BYTES:
        raise ValueError(f"{path.name} has {size} bytes")
    try:
        return path.read_text(encoding="utf-8")
    except ValueError as error:
        raise ValueError(f"{path.name}: {error}") from None


def lerobot_file(folder: Path, pattern: str, **values: Any) -> Path:
    """The file in `folder` that LeRobot's `pattern` names, such as ``data/file-{file_index:03d}.parquet``.

    It may be a link, as in Hugging Face's cache; the name itself must not lead outside.

    Raises:
        ValueError: it would be outside, or is no ordinary file; or `pattern` asks for what is not known.
    """

    def filled(found: re.Match[str]) -> str:
        if found[1] not in values:
            raise ValueError(f"{{{found[1]}}} in the data set's paths is not known")
        value = values[found[1]]
        return str(value) if found[2] is None else f"{int(value):0{found[2]}d}"

    name = _FIELD.sub(filled, pattern)
    place = PurePosixPath(name)
    if place.is_absolute() or ".." in place.parts:
        raise ValueError(f"{name[:100]!r} leads out of the data set's folder")
    if not (folder / place).is_file():
        raise ValueError(f"{name[:100]!r} is no file in it")
    return folder / place


def frames_per_second(said: Any) -> float:
    """A frame rate.

    Raises:
        ValueError: it is none.
    """
    fps = float(said)
    if not (math.isfinite(fps) and 0.001 <= fps <= _FPS):
        raise ValueError(f"fps = {fps:g} is no frame rate")
    return fps


def table_of(file: Path, columns: Sequence[str] | None = None, most: int = 0) -> Any:
    """A Parquet file's table, of `columns` only if they are given, of at `most` so many numbers.

    Raises:
        OSError, ValueError, KeyError: it cannot be read, is too large, or lacks a column.
    """
    import pyarrow.parquet as pq

    with pq.ParquetFile(file) as opened:
        about = opened.metadata
        names = set(opened.schema_arrow.names if columns is None else columns)
        if missing := names - set(opened.schema_arrow.names):
            raise KeyError(", ".join(sorted(missing)))
        count = 0
        for group in map(about.row_group, range(about.num_row_groups)):
            parts = map(group.column, range(group.num_columns))
            count += sum(
                part.num_values
                for part in parts
                if part.path_in_schema in names or part.path_in_schema.split(".list.")[0] in names
            )
        if count > (most or _VALUES):
            raise ValueError(f"{file.name} holds {count} numbers; at most {most or _VALUES} are read")
        return opened.read(columns=sorted(names))


def hdf5_array(root: Any, key: str) -> Any:
    """The array `key` of an HDF5 file, not read yet.

    Raises:
        ValueError: it is none, lies in another file, or is too large.
    """
    import h5py

    found = root.get(key)
    if not isinstance(found, h5py.Dataset):
        raise ValueError(f"there is no array {key}")
    if found.external or found.is_virtual or found.file.filename != root.file.filename:
        raise ValueError(f"{key} leads into another file")
    if found.ndim != 4 and found.size > _VALUES:
        raise ValueError(f"{key} holds {found.size} numbers; at most {_VALUES} are read")
    return found


@dataclass(frozen=True)
class Pictures:
    """A camera's pictures in an HDF5 file, ``[T, H, W, 3]`` uint8, read one by one: all fill the memory."""

    file: Path
    key: str

    def fits(self, root: Any, rows: int) -> bool:
        """Whether they are not compressed, which is not shown, and there is one for each row.

        Raises:
            ValueError: they are no pictures, or of another number.
        """
        array = hdf5_array(root, self.key)
        if array.ndim == 2:
            return False
        shape = array.shape
        large = array.ndim == 4 and shape[1] * shape[2] * 3 > _VALUES
        if array.ndim != 4 or shape[0] != rows or shape[3] != 3 or array.dtype != np.uint8 or large:
            raise ValueError(f"{self.key} is {array.dtype} {list(shape)}; expected uint8 [{rows}, H, W, 3]")
        return True

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        import h5py

        with h5py.File(self.file, "r") as root:
            for picture in hdf5_array(root, self.key):
                yield np.asarray(picture)
