"""The guards of tests/conftest.py notice what they are there for."""

import asyncio
import socket
import subprocess
import sys
import threading

import pytest

from runtime.ring import Ring
from tests import conftest


def leaked(before: list[set[str]]) -> list[str]:
    return conftest.left_over(before)


@pytest.fixture
def before() -> list[set[str]]:
    return [probe() for probe in conftest.PROBES]


def test_thread(before: list[set[str]]) -> None:
    event = threading.Event()
    thread = threading.Thread(target=event.wait, name="leaker")
    thread.start()
    assert [name for name in leaked(before) if "leaker" in name]
    event.set()
    thread.join()
    assert leaked(before) == []


def test_socket(before: list[set[str]]) -> None:
    with socket.socket():
        assert any(name.startswith("file descriptor") for name in leaked(before))
    assert leaked(before) == []


def test_child_process(before: list[set[str]]) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        assert f"child process {child.pid}" in leaked(before)
        child.communicate(b"\n")
    assert leaked(before) == []


def test_task(before: list[set[str]]) -> None:
    async def main() -> None:
        task = asyncio.create_task(asyncio.Event().wait(), name="leaker")
        assert any("leaker" in name for name in leaked(before))
        task.cancel()

    asyncio.run(main())
    assert leaked(before) == []


def test_shared_memory(before: list[set[str]]) -> None:
    ring = Ring.create_shared({"x": ((2,), "<f8")}, 3)
    assert f"shared memory {ring.name}" in leaked(before)
    ring.close()
    ring.unlink()
    assert leaked(before) == []
