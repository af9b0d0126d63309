"""What the command and its workers say to each other: lines of JSON on a worker's standard streams."""

from __future__ import annotations

import json
import os
import select
from collections.abc import Iterator, Mapping
from typing import Any

from runtime.clock import NS_PER_S, Clock

_READ_BYTES = 1 << 16
ALIVE_EVERY_NS = NS_PER_S

Line = Mapping[str, Any]


class LineReader:
    """Lines as they come on a descriptor; never waits for the rest of one."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.ended = False
        self._pending = b""

    def look(self, timeout_s: float = 0.0) -> None:
        """Take what has come, after waiting at most `timeout_s` for something."""
        if not self.ended and select.select([self.descriptor], [], [], timeout_s)[0]:
            data = os.read(self.descriptor, _READ_BYTES)
            self.ended = not data
            self._pending += data

    def lines(self, timeout_s: float = 0.0) -> Iterator[dict[str, Any]]:
        """What has come, after waiting at most `timeout_s` for something; other than JSON objects are not."""
        self.look(0.0 if b"\n" in self._pending else timeout_s)
        *whole, self._pending = self._pending.split(b"\n")
        for text in whole:
            try:
                said = json.loads(text)
            except ValueError:
                continue
            if isinstance(said, dict):
                yield said


class Commands:
    """A worker's end. Its standard output is this alone: what libraries print goes to the standard error."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._told_ns = clock.now_ns()
        self._out = os.dup(1)
        os.dup2(2, 1)
        self._lines = LineReader(0)

    @property
    def ended(self) -> bool:
        """Whether whoever gave the commands has gone."""
        return self._lines.ended

    def come(self, timeout_s: float = 0.0) -> Iterator[dict[str, Any]]:
        """The commands that have come; waits at most so long for the first."""
        return self._lines.lines(timeout_s)

    def hear(self) -> bool:
        """Whether whoever gave the commands is there; says to it now and then that this worker is, too.

        Asked by whoever does something that takes long.
        """
        if self._clock.now_ns() - self._told_ns > ALIVE_EVERY_NS:
            self.answer(alive=True)
        self._lines.look()
        return not self.ended

    def answer(self, **said: Any) -> None:
        """Say something; into nothing if nobody is there."""
        self._told_ns = self._clock.now_ns()
        data = json.dumps(said).encode() + b"\n"
        while data:
            try:
                data = data[os.write(self._out, data) :]
            except BrokenPipeError:
                return
