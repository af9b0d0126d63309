"""Simulated tabletops that begin at once: forked from a process that has imported what they need.

The runtime starts a new interpreter for its tabletop, which takes 1.4 s of processor time more than this; a
suite with some 150 runs would spend an eighth of its time on it. `tests/world`, and all programs that tests
start, have the real thing; runs within the process of the tests have these.
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from multiprocessing.context import ForkServerContext
from multiprocessing.forkserver import _forkserver  # type: ignore[attr-defined] # has no public face
from multiprocessing.reduction import DupFd
from pathlib import Path
from typing import Any

NEEDED = (
    "drivers.world.process",
    "drivers.world.world",
    "drivers.feetech.emulator",
    "drivers.opencv_camera.emulator",
    "mujoco",
    "cv2",
)


class ForkedWorld:
    """What `drivers.world.client` uses of a `subprocess.Popen`, over a process of a fork server."""

    def __init__(
        self, command: Sequence[str], *, pass_fds: tuple[int, int], stderr: Any, **others: Any
    ) -> None:
        assert tuple(command[:3]) == (sys.executable, "-m", "drivers.world")
        assert others == {"stdin": subprocess.DEVNULL, "start_new_session": True}
        ends = tuple(_Handed(each) for each in (*pass_fds, stderr.fileno()))
        self._process = _context().Process(target=_world, args=ends)
        self._process.start()
        self.pid = self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        code = self._process.exitcode
        if code is None:
            raise subprocess.TimeoutExpired("drivers.world", timeout or 0.0)
        return code

    def send_signal(self, signal: int) -> None:
        if self.pid is not None and self._process.exitcode is None:
            os.kill(self.pid, signal)

    def terminate(self) -> None:
        self._process.terminate()

    def kill(self) -> None:
        self._process.kill()


class ForkedStarts:
    """In the place of the module `subprocess`, for `drivers.world.client`."""

    Popen = ForkedWorld
    DEVNULL = subprocess.DEVNULL
    TimeoutExpired = subprocess.TimeoutExpired


def worlds() -> set[str]:
    """Those that are there."""
    server = _forkserver._forkserver_pid
    found = set()
    for listing in Path(f"/proc/{server}/task").glob("*/children") if server else ():
        found.update(f"simulated world {pid}" for pid in listing.read_text().split())
    return found


class _Handed:
    """A descriptor that goes along with a start. Others would be fetched later, from a thread that stays."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def __reduce__(self) -> tuple[Callable[[Any], Any], tuple[Any]]:
        return _taken, (DupFd(self._descriptor),)


def _taken(handed: Any) -> int:
    return int(handed.detach())


def _context() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(NEEDED))
    return context


def _world(channel: int, bell: int, stderr: int) -> None:
    from drivers.world.process import serve

    os.setsid()
    os.dup2(stderr, 2)
    sys.exit(serve(channel, bell))
