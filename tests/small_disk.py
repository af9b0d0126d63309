"""A disk that is soon full: a real one, in memory."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest


@contextlib.contextmanager
def small_disk(folder: Path, mib: int, *, lazily: bool = False) -> Iterator[Path]:
    """A file system of so many MiB at `folder`; skips where none may be mounted.

    With `lazily` it goes once nobody has a file of it open any more.
    """
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={mib}m", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a small disk cannot be mounted here: only root can")
    try:
        yield folder
    finally:
        subprocess.run(["umount", *(["-l"] if lazily else []), str(folder)], check=True)
