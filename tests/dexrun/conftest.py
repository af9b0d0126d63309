"""librealsense for whole runs, as for the camera tests; and no temporary file outlives a test."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.small_disk import small_disk


@pytest.fixture(scope="session", autouse=True)
def _one_context() -> Iterator[None]:
    """Keep one context: all contexts of a process share one hotplug socket, open while any of them lives."""
    import pyrealsense2 as rs

    context = rs.context()
    yield
    del context


@pytest.fixture(autouse=True)
def _no_temporary_left(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """Temporary files go to a folder of the test's own, which is empty afterwards."""
    folder: Path = tmp_path_factory.mktemp("temporary")
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield
    assert sorted(path.name for path in folder.iterdir()) == []


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 12 MB."""
    with small_disk(tmp_path / "disk", 12) as folder:
        yield folder
