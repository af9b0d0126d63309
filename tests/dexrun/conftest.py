"""librealsense for whole runs, as for the camera tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session", autouse=True)
def _one_context() -> Iterator[None]:
    """Keep one context: all contexts of a process share one hotplug socket, open while any of them lives."""
    import pyrealsense2 as rs

    context = rs.context()
    yield
    del context
