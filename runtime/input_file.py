"""Files that a person names: read up to a size, parsed up to a depth, so that no path is a trap."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

LARGEST = 1 << 20


def read_small(path: Path, largest: int = LARGEST) -> bytes:
    """What is in `path`, which may be a device or a pipe that never ends.

    Raises:
        OSError: it cannot be read.
        ValueError: there is more in it than `largest` bytes.
    """
    with path.open("rb") as file:
        data = file.read(largest + 1)
    if len(data) > largest:
        raise ValueError(f"larger than {largest >> 20} MiB")
    return data


def parse_json(data: bytes | str) -> Any:
    """`data` as JSON.

    Raises:
        ValueError: it is none, is nested too deeply, or has a number of too many digits.
    """
    try:
        return json.loads(data)
    except RecursionError:
        raise ValueError("nested too deeply") from None
