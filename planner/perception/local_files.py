"""Files that the configuration names, which may hold anything: whatever is wrong with one is one line."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from runtime.input_file import as_found
from runtime.interfaces import PerceptionError


def located(path: Path, told: str) -> Path:
    """`path` with ``~`` resolved; there may be nothing at it.

    Raises:
        PerceptionError: nobody can look there; begins with `told`.
    """
    try:
        path = path.expanduser()
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError as error:  # too long a name, no permission
        raise PerceptionError(f"{told}: {error.strerror or error}") from None
    except (RuntimeError, ValueError) as error:  # no such user; a name with a zero byte
        raise PerceptionError(f"{told}: {error}") from None
    return path


def is_file(path: Path) -> bool:
    """Whether a file is there, as far as anybody may see."""
    return os.path.isfile(path)  # `Path.is_file` raises where it may not look


def is_folder(path: Path) -> bool:
    """Whether a folder is there, as far as anybody may see."""
    return os.path.isdir(path)


def read_json(path: Path, told: str) -> Any:
    """What the file holds.

    Raises:
        FileNotFoundError: there is none.
        PerceptionError: it cannot be read, or is not JSON; begins with `told`.
    """
    try:
        return parsed(path.read_bytes())
    except FileNotFoundError:
        raise
    except OSError as error:
        raise PerceptionError(f"{told}: {path.name} cannot be read: {error.strerror or error}") from None
    except ValueError:
        raise PerceptionError(f"{told}: {path.name} is {as_found(path, 'not JSON')}") from None


def parsed(data: bytes) -> Any:
    """What `data` holds.

    Raises:
        ValueError: it is not JSON, or nested deeper than anything that is meant.
    """
    try:
        return json.loads(data)
    except RecursionError:
        raise ValueError("nested too deeply") from None
