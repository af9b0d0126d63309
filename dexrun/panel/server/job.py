"""One child process of the server, with what it said."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import pty
import signal
import struct
import sys
import termios
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import anyio

from dexrun.panel.server.job_kinds import JobKind
from dexrun.panel.server.tail import OutputTail
from runtime.clock import NS_PER_S, Clock

_ROWS, _COLUMNS = 40, 110
_READ = 65_536
_PATIENCE_S = (20.0, 5.0)
"""After an interrupt it may take so long until it is told to terminate, then so long until it is killed."""
INPUT = 500


class PanelJob:
    """A command that a page started.

    Attributes:
        number: of the job. kind, given: what was asked for. folder: where its results appear, if anywhere.
        code: its exit code; ``None`` while it runs. stopped: whether it was told to end.
        began_ns, ended_ns: since the Unix epoch; 0: not yet.
    """

    def __init__(
        self, number: int, kind: JobKind, given: Mapping[str, Any], folder: Path | None, clock: Clock
    ) -> None:
        self.number = number
        self.kind = kind
        self.given = dict(given)
        self.folder = folder
        self.tail = OutputTail()
        self.code: int | None = None
        self.stopped = False
        self.began_ns, self.ended_ns = clock.wall_ns(), 0
        self._clock = clock
        self._process: asyncio.subprocess.Process | None = None
        self._terminal = -1

    async def run(self, words: Sequence[str], ended: Callable[[], None]) -> None:
        """Run it until it has ended; one that is cancelled is brought to its end first."""
        try:
            await self._start(words)
            await self._read()
        finally:
            with anyio.CancelScope(shield=True):
                await self._bring_down()
            self.ended_ns = self._clock.wall_ns()
            ended()

    async def _start(self, words: Sequence[str]) -> None:
        command = [sys.executable, "-m", "dexrun.panel.server.child", str(os.getpid()), *words]
        environment = {**os.environ, "PYTHONUNBUFFERED": "1", "COLUMNS": str(_COLUMNS), "LINES": str(_ROWS)}
        inside = -1
        if self.kind.asks:
            self._terminal, inside = pty.openpty()
            fcntl.ioctl(inside, termios.TIOCSWINSZ, struct.pack("HHHH", _ROWS, _COLUMNS, 0, 0))
            os.set_blocking(self._terminal, False)
        try:
            self._process = await asyncio.create_subprocess_exec(
                *command,
                stdin=inside if self.kind.asks else asyncio.subprocess.DEVNULL,
                stdout=inside if self.kind.asks else asyncio.subprocess.PIPE,
                stderr=inside if self.kind.asks else asyncio.subprocess.STDOUT,
                env=environment,
                start_new_session=True,
            )
        finally:
            if inside >= 0:
                os.close(inside)

    async def _read(self) -> None:
        process = self._process
        assert process is not None  # noqa: S101 - started by the caller
        if self.kind.asks:
            await self._read_terminal()
        elif process.stdout is not None:
            while data := await process.stdout.read(_READ):
                self.tail.feed(data)
        self.code = await process.wait()

    async def _read_terminal(self) -> None:
        loop, ended = asyncio.get_running_loop(), asyncio.Event()

        def read() -> None:
            try:
                data = os.read(self._terminal, _READ)
            except BlockingIOError:
                return
            except OSError:  # nobody has its other end open any more
                data = b""
            self.tail.feed(data)
            if not data:
                ended.set()

        loop.add_reader(self._terminal, read)
        try:
            await ended.wait()
        finally:
            loop.remove_reader(self._terminal)

    def type(self, line: str) -> None:
        """Have a person's line typed at its terminal.

        Raises:
            ValueError: it has no terminal, or takes nothing in; one line.
        """
        if self._terminal < 0 or self.code is not None:
            raise ValueError("nothing is asked")
        try:
            os.write(self._terminal, line.encode() + b"\n")
        except OSError as error:
            raise ValueError(f"the line does not get there: {error.strerror}") from None

    def interrupt(self, number: signal.Signals = signal.SIGINT) -> None:
        """Send a signal to it and what it has started, as a terminal does at Ctrl-C."""
        self.stopped = True
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)

    async def _bring_down(self) -> None:
        """End it, sooner or later, and let go of its terminal."""
        process = self._process
        if process is not None and self.code is None:
            for number, patience_s in zip((signal.SIGINT, signal.SIGTERM), _PATIENCE_S, strict=True):
                self.interrupt(number)
                with anyio.move_on_after(patience_s):
                    self.code = await process.wait()
                    break
            else:
                self.interrupt(signal.SIGKILL)
                self.code = await process.wait()
        if self._terminal >= 0:
            os.close(self._terminal)
            self._terminal = -1

    def as_json(self) -> dict[str, Any]:
        """For a page."""
        ended = self.code is not None
        return {
            "id": self.number,
            "kind": self.kind.name,
            "args": self.given,
            "asks": self.kind.asks,
            "moves": self.kind.moves,
            "state": ("stopped" if self.stopped else "done" if self.code == 0 else "failed")
            if ended
            else "running",
            "code": self.code,
            "began_s": self.began_ns / NS_PER_S,
            "ended_s": self.ended_ns / NS_PER_S if self.ended_ns else None,
        }
