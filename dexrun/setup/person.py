"""Who sets devices up: a person at a terminal, or a script that stands for one."""

from __future__ import annotations

import json
import os
import select
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TextIO

from loguru import logger

from runtime.printable import printable

SAMPLE_S = 0.05
ASKS_VARIABLE = "DEXRUN_ASKS"
"""Set where a program is at the other end of the terminal: what is asked is told to that program, too."""
ASKED_MARK = 1771
"""Begins a control sequence that no terminal shows: ``ESC ] 1771 ; JSON BEL``."""
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

    def ask(self, text: str, choices: Mapping[str, str] | None = None) -> str:
        """Show `text`; returns the line that is typed, without blanks around it.

        `choices`: what each answer means that can be chosen, in words; the first is what Enter alone means.
        """


class Terminal:
    """A person at a terminal, or at a program that shows one.

    Args:
        marked: whether what is asked is said in a form for that program, too (`ASKED_MARK`): ``{"enter":
            text}``, ``{"line": text, "choices": [[answer, meaning]]}``, ``{"watch": true}`` while a table is
            watched until Enter, ``{}`` once it was answered. By default as `ASKS_VARIABLE` says.
    """

    def __init__(
        self, keys: TextIO = sys.stdin, out: TextIO = sys.stdout, marked: bool | None = None
    ) -> None:
        self._keys = keys
        self._out = out
        self._marked = bool(os.environ.get(ASKS_VARIABLE)) if marked is None else marked
        self._watched = False
        self._drawn: Sequence[str] = ()
        self._calls = 0

    def confirm(self, text: str) -> None:
        self.show(text)
        self._mark({"enter": text})
        self._enter()

    def confirmed(self) -> bool:
        if not self._watched:
            self._mark({"watch": True})
            self._watched = True
        ready, _, _ = select.select([self._keys], [], [], SAMPLE_S)
        if ready:
            self._enter()
        return bool(ready)

    def ask(self, text: str, choices: Mapping[str, str] | None = None) -> str:
        self._drawn = ()
        self._out.write(printable(text) + " ")
        self._out.flush()
        self._mark({"line": text, "choices": [[*each] for each in (choices or {}).items()]})
        return self._enter().strip()

    def _columns(self) -> int | None:
        """Of the terminal; ``None`` if it does not say."""
        try:
            return os.get_terminal_size(self._out.fileno()).columns or None
        except (OSError, ValueError):
            return None

    def _mark(self, asked: Mapping[str, Any]) -> None:
        if self._marked:
            self._out.write(f"\x1b]{ASKED_MARK};{json.dumps(asked)}\x07")  # ASCII, and no control character
            self._out.flush()

    def _enter(self) -> str:
        typed = self._keys.readline()
        self._watched = False
        self._mark({})
        if not typed:
            raise EOFError
        return typed

    def show(self, text: str) -> None:
        self._drawn = ()
        self._out.write(printable(text) + "\n")
        self._out.flush()

    def watch(self, lines: Sequence[str]) -> None:
        self._calls += 1
        lines = whole = [printable(row) for row in lines]
        if whole == self._drawn:
            return
        if self._out.isatty():
            lines = [row[: self._columns()] for row in lines]  # a row that takes two is not drawn over
            up = f"\x1b[{len(self._drawn)}A" if self._drawn else ""
            self._out.write(up + "".join(f"\r\x1b[K{line}\n" for line in lines))
        elif self._drawn and self._calls % QUIET_SAMPLES:
            return
        else:
            self._out.write("".join(f"{line}\n" for line in lines))
        self._drawn = whole
        self._out.flush()
