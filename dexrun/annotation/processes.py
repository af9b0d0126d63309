"""The pipeline's processes: started, spoken to, looked after."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import dexrun
from dexrun.annotation.commands import LineReader
from dexrun.annotation.errors import AnnotateError
from runtime.clock import Clock

_END_S = 5.0
_LAST_WORDS = 4000


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """Where the workers run.

    Attributes:
        pythons: by role, what runs Python there; a path, or words such as ``ssh gpu /opt/sam2/bin/python``.
        hosts: by role, the address on which it listens and is reached; if one is given, all use ZeroMQ.
        trackers: how many there are. patience_s: a worker that says nothing for longer is ended.
        tries: how often a piece of work may lose its worker.
    """

    pythons: Mapping[str, str] = field(default_factory=dict)
    hosts: Mapping[str, str] = field(default_factory=dict)
    trackers: int = 1
    patience_s: float = 300.0
    tries: int = 5


class WorkerProcess:
    """One process. `log` is what it and its libraries had to say, for its last words.

    Attributes:
        name: ``tracker 1``. role: ``tracker``. address: where it is reached, once it is ready.
    """

    def __init__(self, name: str, role: str, python: str, start: Mapping[str, Any], clock: Clock) -> None:
        self.name = name
        self.role = role
        self.address = ""
        self.ready = False
        self._clock = clock
        self.heard_ns = clock.now_ns()
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        command = [*(shlex.split(python) or [sys.executable]), "-m", "dexrun.annotation.worker", role]
        try:
            self._process = subprocess.Popen(  # noqa: S603 - what the person said, or this interpreter
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._log,
                env=_environment(python),
            )
        except OSError as error:
            self._log.close()
            raise AnnotateError(f"--python {role}={python}: {error.strerror or error}") from None
        assert self._process.stdin is not None and self._process.stdout is not None  # noqa: S101, PT018
        self._lines = LineReader(self._process.stdout.fileno())
        self._unsaid = b""
        os.set_blocking(self._process.stdin.fileno(), False)
        self.say(**start)

    @property
    def descriptor(self) -> int:
        """What is readable when it has said something, or has ended."""
        return self._lines.descriptor

    @property
    def pid(self) -> int:
        """Its number."""
        return self._process.pid

    @property
    def ended(self) -> bool:
        """Whether it is gone."""
        return self._lines.ended

    def say(self, **command: Any) -> None:
        """Give it a command; into nothing if it is gone, which `ended` will tell.

        What a worker that does not read has no room for waits here for `flush`; nobody else waits for it.
        """
        self._unsaid += json.dumps(command).encode() + b"\n"
        self.flush()

    def flush(self) -> None:
        """Give it more of what it had no room for."""
        assert self._process.stdin is not None  # noqa: S101 - a pipe was asked for
        try:
            while self._unsaid:
                self._unsaid = self._unsaid[os.write(self._process.stdin.fileno(), self._unsaid) :]
        except BlockingIOError:
            return
        except (OSError, ValueError):  # it is gone
            self._unsaid = b""

    @property
    def waits_for(self) -> list[int]:
        """The descriptor that is writable when `flush` can do something; none if there is nothing to do."""
        assert self._process.stdin is not None  # noqa: S101 - a pipe was asked for
        return [self._process.stdin.fileno()] if self._unsaid else []

    def answers(self) -> list[dict[str, Any]]:
        """What it has said since."""
        said = list(self._lines.lines())
        if said:
            self.heard_ns = self._clock.now_ns()
        return said

    def kill(self) -> None:
        """End it at once, and wait until it is gone: nothing of it writes any more."""
        self._process.kill()
        self._release()

    def close(self) -> None:
        """Have it end by itself; insist after a while."""
        assert self._process.stdin is not None  # noqa: S101 - a pipe was asked for
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(timeout=_END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
        self._release()

    def _release(self) -> None:
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):
                if pipe is not None:
                    pipe.close()
        self._log.close()

    def last_words(self) -> str:
        """How it ended."""
        code = self._process.wait()
        self._log.seek(0)
        lines = self._log.read()[-_LAST_WORDS:].decode(errors="replace").strip().splitlines()
        return f"the {self.name} ended with code {code}" + (f": {lines[-1].strip()}" if lines else "")


def _environment(python: str) -> dict[str, str]:
    """With the modules of this interpreter; for another one, with the program's sources alone."""
    if not python:
        return {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    root = Path(dexrun.__file__ or ".").resolve().parents[1]
    if root.name in ("site-packages", "dist-packages"):
        return dict(os.environ)
    return {**os.environ, "PYTHONPATH": str(root)}


def close_all(workers: Sequence[WorkerProcess]) -> None:
    """End them all."""
    for worker in workers:
        worker.close()
