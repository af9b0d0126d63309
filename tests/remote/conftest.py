"""No test of this folder leaves a thread, a child or a descriptor behind."""

from __future__ import annotations

import gc
import os
import threading
import time
from collections.abc import Iterator

import pytest


def _sockets() -> set[str]:
    found = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            continue
        if target.startswith("socket:"):
            found.add(target)
    return found


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    threads, sockets = set(threading.enumerate()), _sockets()
    yield
    left = [t for t in threading.enumerate() if t not in threads and not _of_the_process(t)]
    for thread in left:
        thread.join(5.0)
    assert not [t for t in left if t.is_alive()]
    if _sockets() - sockets:  # half a second in a process that has run many tests: only where it is needed
        gc.collect()
    deadline = time.monotonic() + 5.0
    while _sockets() - sockets and time.monotonic() < deadline:  # gRPC closes them on a thread of its own
        time.sleep(0.005)
    assert not _sockets() - sockets


def _of_the_process(thread: threading.Thread) -> bool:
    """The asyncio poller of gRPC poller is one for the process, however many servers come and go."""
    return "_poll_wrapper" in thread.name
