"""Guards for every test: what a test started, it has ended.

Looked at after each test: Python threads, asyncio tasks, child processes, sockets and pseudo-terminals,
shared memory, scheduling. Threads of C libraries (torch, OpenBLAS, librealsense) are nobody's leak.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing.util import get_temp_dir
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.internal.conjecture import providers

from drivers.world import client
from runtime import masking
from tests import forked_world

# These tests start the program and the tabletop some hundred times. Where the environment forbids bytecode,
# each start would compile all of it, and each of pytest's processes rewrite all assertions.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# Examples are the same every time, and nobody looks at the watch: a busy machine is not a fault of the code.
# `--hypothesis-profile=search` draws new ones.
settings.register_profile(
    "exact", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("search", settings.get_profile("exact"), derandomize=False)
settings.load_profile("exact")

# Hypothesis also draws what numbers and texts stand in this project's modules, of those that were imported by
# then: which these are depends on the tests before. There is no setting for it.
if not hasattr(providers, "is_local_module_file"):
    raise RuntimeError("hypothesis finds this project's constants in another way now: see tests/conftest.py")
providers.is_local_module_file = lambda path: False  # type: ignore[attr-defined]

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A suite started in the background inherits this, and hands it down to programs that Ctrl-C must reach.
    signal.signal(signal.SIGINT, signal.default_int_handler)

GRACE_S = 20.0
"""What was told to end may take this long; only a leak ever waits for it."""


def threads() -> set[str]:
    return {f"thread {t.name} ({t.ident})" for t in threading.enumerate() if t.is_alive()}


def tasks() -> set[str]:
    known = getattr(asyncio.tasks, "_all_tasks", None) or getattr(asyncio.tasks, "_scheduled_tasks", ())
    return {f"task {t.get_name()} ({id(t)})" for t in list(known) if not t.done()}


def children() -> set[str]:
    found = set()
    for listing in Path("/proc/self/task").glob("*/children"):
        try:
            found.update(f"child process {pid}" for pid in listing.read_text().split() if not helper(pid))
        except OSError:
            continue
    return found


def helper(pid: str) -> bool:
    """Whether this is multiprocessing's own helper, which lives as long as the interpreter."""
    try:
        command = Path("/proc", pid, "cmdline").read_bytes()
    except OSError:
        return True
    return b"resource_tracker" in command or b"forkserver" in command


def descriptors() -> set[str]:
    found = set()
    for entry in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{entry}")
        except OSError:
            continue
        if target.startswith(("socket:", "/dev/ptmx", "/dev/pts/")):
            found.add(f"file descriptor {entry} ({target})")
    return found


def shared_memory() -> set[str]:
    """Segments that this process has mapped, or has created and not let go of."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    held = [line.rpartition("/dev/shm/")[2] for line in lines if "/dev/shm/dexrun-" in line]  # noqa: S108
    return {f"shared memory {name.removesuffix(' (deleted)')}" for name in held}


def scheduling() -> set[str]:
    """A thread that stays before all ordinary ones takes the processor from every test beside it."""
    return {f"scheduling policy {os.sched_getscheduler(0)}"} if hasattr(os, "sched_getscheduler") else set()


PROBES: tuple[Callable[[], set[str]], ...] = (
    threads,
    tasks,
    children,
    forked_world.worlds,
    descriptors,
    shared_memory,
    scheduling,
)


def left_over(before: list[set[str]]) -> list[str]:
    return sorted(name for probe, known in zip(PROBES, before, strict=True) for name in probe() - known)


@pytest.fixture(autouse=True)
def _nothing_left_behind() -> Iterator[None]:
    before = [probe() for probe in PROBES]
    yield
    if not left_over(before):
        return
    gc.collect()
    deadline = time.monotonic() + GRACE_S
    while (leaks := left_over(before)) and time.monotonic() < deadline:
        time.sleep(0.005)
    if leaks:
        pytest.fail("left behind: " + "; ".join(leaks), pytrace=False)


@pytest.fixture(scope="session", autouse=True)
def _temporary_folder_of_the_session() -> None:
    """The fork server's socket is in it, whichever test is the first to need one."""
    get_temp_dir()


@pytest.fixture(autouse=True)
def _tabletops_begin_at_once(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.path.parent.name != "world":
        monkeypatch.setattr(client, "subprocess", forked_world.ForkedStarts)


@pytest.fixture(autouse=True)
def _no_secret_of_another_test(monkeypatch: pytest.MonkeyPatch) -> None:
    """What one test took for a secret is a word like any other in the next."""
    monkeypatch.setattr(masking, "_known", {})


@pytest.fixture
def zarr_group() -> Iterator[Callable[[Path], Any]]:
    """Opens stores with zarr 3, and ends the thread that it starts."""
    import zarr
    from zarr.core.sync import cleanup_resources

    stores: list[Any] = []

    def read(path: Path) -> Any:
        if path.suffix == ".zip":
            stores.append(zarr.storage.ZipStore(path, mode="r"))
            return zarr.open_group(stores[-1], mode="r")
        return zarr.open_group(path, mode="r")

    yield read
    for store in stores:
        store.close()
    cleanup_resources()
