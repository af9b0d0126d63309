"""The guards of tests/conftest.py notice what they are there for."""

import asyncio
import socket
import subprocess
import sys
import threading
from pathlib import Path

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


TIME = """
import time
import time as clock
import timeit
from time import monotonic_ns
from time import perf_counter, sleep
from asyncio import sleep
from datetime import datetime
import asyncio, anyio, os, threading, datetime as dates
now = datetime.now()
now = datetime.now(dates.UTC)
now = dates.datetime.utcnow()
now = dates.datetime.today()
now = dates.date.today()
now = anyio.current_time()
now = os.times()
timer = threading.Timer(1.0, print)
waits = [asyncio.sleep(1), 0]
waits = [anyio.sleep(1), 0]
waits = [anyio.sleep_until(1), 0]
"""
HARMLESS = ("from datetime import datetime", "import asyncio, ")


@pytest.mark.parametrize(
    "folder", ["runtime", "drivers/world", "drivers/force", "policies", "planner", "dexrun/serve"]
)
def test_lint_finds_every_way_past_the_clock(folder: str) -> None:
    root = Path(__file__).parents[2]
    command = [sys.executable, "-m", "ruff", "check", "--select", "TID251", "--output-format", "concise"]
    done = subprocess.run(
        [*command, "--stdin-filename", f"{folder}/probe.py", "-"],
        input=TIME,
        cwd=root,
        capture_output=True,
        text=True,
    )
    found = {int(line.split(":")[1]) for line in done.stdout.splitlines() if "TID251" in line}
    assert found == {
        number for number, line in enumerate(TIME.splitlines(), 1) if line and not line.startswith(HARMLESS)
    }
