"""Who sets devices up: a person at a terminal, or a script that stands for one."""

from __future__ import annotations

import select
import sys
from collections.abc import Sequence
from typing import Protocol, TextIO

from loguru import logger

from runtime.printable import printable

SAMPLE_S = 0.05
QUIET_SAMPLES = 20
"""Where nothing can be drawn over, what changed is shown once in so many samples."""


def log_as_lines() -> None:
    """From now on what is written into servos is told in a person's lines, not a log's."""
    logger.remove()
    logger.add(sys.stderr, format="{message}", level="INFO", diagnose=False)


class Person(Protocol):
    """Who holds the arm.

    Raises:
        EOFError: `confirm` and `confirmed`: there is nobody to press Enter any more.
    """

    def confirm(self, text: str) -> None:
        """Show `text` and wait for Enter."""

    def confirmed(self) -> bool:
        """Whether Enter was pressed meanwhile; waits for a moment at most."""

    def show(self, text: str) -> None:
        """Show one line."""

    def watch(self, lines: Sequence[str]) -> None:
        """Show a table that changes, in the place of the one before."""


class TypingPerson(Person, Protocol):
    """A person who answers in words.

    Raises:
        EOFError: `ask`: as `confirm`.
    """

    def ask(self, text: str) -> str:
        """Show `text`; returns the line that is typed, without blanks around it."""


class Terminal:
    """A person at a terminal."""

    def __init__(self, keys: TextIO = sys.stdin, out: TextIO = sys.stdout) -> None:
        self._keys = keys
        self._out = out
        self._drawn: Sequence[str] = ()
        self._calls = 0

    def confirm(self, text: str) -> None:
        self.show(text)
        self._enter()

    def confirmed(self) -> bool:
        ready, _, _ = select.select([self._keys], [], [], SAMPLE_S)
        if ready:
            self._enter()
        return bool(ready)

    def ask(self, text: str) -> str:
        self._drawn = ()
        self._out.write(printable(text) + " ")
        self._out.flush()
        return self._enter().strip()

    def _enter(self) -> str:
        typed = self._keys.readline()
        if not typed:
            raise EOFError
        return typed

    def show(self, text: str) -> None:
        self._drawn = ()
        self._out.write(printable(text) + "\n")
        self._out.flush()

    def watch(self, lines: Sequence[str]) -> None:
        self._calls += 1
        lines = [printable(row) for row in lines]
        if lines == self._drawn:
            return
        if self._out.isatty():
            up = f"\x1b[{len(self._drawn)}A" if self._drawn else ""
            self._out.write(up + "".join(f"\r\x1b[K{line}\n" for line in lines))
        elif self._drawn and self._calls % QUIET_SAMPLES:
            return
        else:
            self._out.write("".join(f"{line}\n" for line in lines))
        self._drawn = lines
        self._out.flush()
