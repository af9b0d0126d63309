"""One child process of the server, with what it said."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import anyio

from dexrun.exit_codes import NOT_DONE
from dexrun.panel.server.job_kinds import JobKind
from dexrun.panel.server.tail import OutputTail
from dexrun.setup.person import ASKS_VARIABLE
from runtime.clock import NS_PER_S, Clock

_ROWS, _COLUMNS = 40, 110
_READ = 65_536
_PATIENCE_S = (20.0, 5.0)
"""After an interrupt it may take so long until it is told to terminate, then so long until it is killed."""
_LAST_WORDS_S = 1.0
INPUT = 500


class PanelJob:
    """A command that a page started.

    Attributes:
        number: of the job. kind, given: what was asked for. folder: where its results appear, if anywhere.
        code: its exit code; ``None`` while it runs. stopped: whether it was told to end.
        began_ns: since the Unix epoch.
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
        self.began_ns = clock.wall_ns()
        self._clock = clock
        # How long it took is no difference of wall time, which may be set meanwhile.
        self._since_ns, self._took_ns = clock.now_ns(), -1
        self._process: subprocess.Popen[bytes] | None = None
        self._output = -1
        self._over = anyio.Event()

    async def run(self, words: Sequence[str], ended: Callable[[], None]) -> None:
        """Run it until it has ended; one that is cancelled is brought to its end first."""
        try:
            self._start(words)
            await self._follow()
        except OSError as error:  # no process, or no terminal, is to be had
            self.tail.feed(f"{self.kind.name} cannot be started: {error.strerror or error}\n".encode())
            self.code = NOT_DONE if self._process is None else self.code
        finally:
            if self._output >= 0:
                os.close(self._output)
                self._output = -1
            self._took_ns = self._clock.now_ns() - self._since_ns
            ended()

    def _start(self, words: Sequence[str]) -> None:
        command = [sys.executable, "-m", "dexrun.panel.child", str(os.getpid()), "dexrun", *words]
        environment = {**os.environ, "PYTHONUNBUFFERED": "1", "COLUMNS": str(_COLUMNS), "LINES": str(_ROWS)}
        environment |= {ASKS_VARIABLE: "1"} if self.kind.asks else {}
        self._output, inside = pty.openpty() if self.kind.asks else os.pipe()
        try:
            if self.kind.asks:
                fcntl.ioctl(inside, termios.TIOCSWINSZ, struct.pack("HHHH", _ROWS, _COLUMNS, 0, 0))
            os.set_blocking(self._output, False)
            self._process = subprocess.Popen(  # noqa: S603 - our own interpreter; words are checked one by one
                command,
                stdin=inside if self.kind.asks else subprocess.DEVNULL,
                stdout=inside,
                stderr=inside,
                env=environment,
                start_new_session=True,
            )
        finally:
            os.close(inside)

    async def _follow(self) -> None:
        """Until it has ended; what it leaves behind may keep its output open, and is not waited for."""
        process = self._process
        assert process is not None  # noqa: S101 - started by the caller
        loop, read = asyncio.get_running_loop(), anyio.Event()
        ends = os.pidfd_open(process.pid)
        loop.add_reader(ends, self._over.set)
        loop.add_reader(self._output, self._read, read)
        try:
            await self._over.wait()
            with anyio.move_on_after(_LAST_WORDS_S):
                await read.wait()
        finally:
            with anyio.CancelScope(shield=True):
                await self._bring_down()
            loop.remove_reader(self._output)
            loop.remove_reader(ends)
            os.close(ends)
            self.code = process.wait()  # it has ended

    def _read(self, read: anyio.Event) -> None:
        try:
            data = os.read(self._output, _READ)
        except BlockingIOError:
            return
        except OSError:  # of a terminal: nobody has its other end open any more
            data = b""
        self.tail.feed(data)
        if not data:
            asyncio.get_running_loop().remove_reader(self._output)
            read.set()

    def asked(self) -> dict[str, Any] | None:
        """What it waits for, with the ``question``'s number; ``None``: for nothing."""
        if not self.tail.asked or self.code is not None:
            return None
        return {**self.tail.asked, "question": self.tail.question}

    def type(self, line: str, question: int) -> None:
        """Have a person's line typed at its terminal, as the answer to `question`.

        Each question is answered once: a second press must not answer the next one.

        Raises:
            ValueError: it does not ask that (any more), or takes nothing in; one line.
        """
        asked = self.asked()
        if asked is None or self._output < 0 or self._over.is_set():
            raise ValueError("nothing is asked")
        if question != asked["question"]:
            raise ValueError("it asks something else by now")
        self.tail.asked = {}
        try:
            os.write(self._output, line.encode() + b"\n")
        except OSError as error:
            raise ValueError(f"the line does not get there: {error.strerror}") from None

    def interrupt(self, number: signal.Signals = signal.SIGINT) -> None:
        """Send a signal to it and what it has started, as a terminal does at Ctrl-C."""
        self.stopped = True
        if self._process is not None and not self._over.is_set():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)

    async def _bring_down(self) -> None:
        """End it, sooner or later."""
        for number, patience_s in zip((signal.SIGINT, signal.SIGTERM), _PATIENCE_S, strict=True):
            if not self._over.is_set():
                self.interrupt(number)
                with anyio.move_on_after(patience_s):
                    await self._over.wait()
        if not self._over.is_set():
            self.interrupt(signal.SIGKILL)
            await self._over.wait()

    def as_json(self) -> dict[str, Any]:
        """For a page."""
        ended = self.code is not None
        took_ns = self._took_ns if self._took_ns >= 0 else self._clock.now_ns() - self._since_ns
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
            "seconds": took_ns / NS_PER_S,
            "ended_s": None if self._took_ns < 0 else (self.began_ns + took_ns) / NS_PER_S,
        }
