"""Packages as ``pip install`` leaves them, made in a folder that a test puts on the path."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from runtime import plugins

Points = Mapping[str, Mapping[str, str]]
"""Entry points: by group, by name, what they refer to."""


def distribution(folder: Path, name: str, points: Points, modules: Mapping[str, str] | None = None) -> None:
    """Put package `name` 1.2 into `folder`: modules by file name, and the metadata."""
    for file, text in (modules or {}).items():
        path = folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    info = folder / f"{name.replace('-', '_')}-1.2.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n")
    sections = (
        f"[{group}]\n" + "".join(f"{key} = {value}\n" for key, value in entries.items())
        for group, entries in points.items()
    )
    (info / "entry_points.txt").write_text("\n".join(sections))


@contextlib.contextmanager
def installed(folder: Path) -> Iterator[None]:
    """What is in `folder` is installed, here and in processes that are started meanwhile."""
    sys.path.append(str(folder))
    plugins.installed.cache_clear()
    before = set(sys.modules)
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        for name in set(sys.modules) - before:
            if str(folder) in str(getattr(sys.modules[name], "__file__", None)):
                del sys.modules[name]
        plugins.installed.cache_clear()
