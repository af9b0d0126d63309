"""Files of a data set in another one: linked, so that they cost nothing, or copied where that cannot be."""

from __future__ import annotations

import os
import shutil
from pathlib import Path


def link(source: Path, target: Path) -> None:
    """The file `source` at `target` as well. Neither may be written to in place afterwards.

    Raises:
        OSError: it cannot be.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source.resolve(), target)
    except OSError:  # another disk, or a file system without hard links
        shutil.copy2(source, target)


def link_tree(source: Path, target: Path, leave: tuple[str, ...] = ()) -> None:
    """Every file below `source`, but those in the folders, or of the names, in `leave` right below it."""
    target.mkdir(parents=True, exist_ok=True)
    for entry in sorted(source.iterdir()):
        if entry.name in leave or entry.is_symlink():
            continue
        if entry.is_dir():
            link_tree(entry, target / entry.name)
        else:
            link(entry, target / entry.name)


def lasting(folder: Path) -> None:
    """Make everything below `folder` last: a rename must not be on the disk before what it names.

    What is linked was there before, and is left alone.
    """
    for root, _, files in os.walk(folder):
        new = [path for path in (Path(root, name) for name in files) if path.lstat().st_nlink == 1]
        for path in (*new, Path(root)):
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
