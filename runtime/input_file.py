"""Files that a person names: read up to a size, parsed up to a depth, so that no path is a trap."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

LARGEST = 1 << 20
POINTER = "a pointer of Git LFS, not the file itself; get it with git lfs pull"
_POINTER = b"version https://git-lfs.github.com/"


def read_small(path: Path, largest: int = LARGEST) -> bytes:
    """What is in `path`, which may be a device or a pipe that never ends.

    Raises:
        OSError: it cannot be read.
        ValueError: there is more in it than `largest` bytes, or it only says where the file is.
    """
    with path.open("rb") as file:
        data = file.read(largest + 1)
    if data.startswith(_POINTER):
        raise ValueError(POINTER)
    if len(data) > largest:
        raise ValueError(f"larger than {largest >> 20} MiB")
    return data


def is_pointer(path: Path) -> bool:
    """Whether the file only says where it is: what a clone without Git LFS leaves of large ones."""
    try:
        with path.open("rb") as file:
            return file.read(len(_POINTER)) == _POINTER
    except OSError:
        return False


def as_found(path: Path, otherwise: str) -> str:
    """What the file at `path` is that cannot be read: a pointer of Git LFS, or `otherwise`."""
    return POINTER if is_pointer(path) else otherwise


def parse_json(data: bytes | str) -> Any:
    """`data` as JSON.

    Raises:
        ValueError: it is none, is nested too deeply, or has a number of too many digits.
    """
    try:
        return json.loads(data)
    except RecursionError:
        raise ValueError("nested too deeply") from None
