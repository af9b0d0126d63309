"""The last lines of what a program wrote, as a terminal would show them."""

from __future__ import annotations

import codecs
import json
import re
from typing import Any

from dexrun.setup.person import ASKED_MARK

LINES, COLUMNS = 400, 400
_PIECE = re.compile(
    rf"\x1b\]{ASKED_MARK};(?P<asked>[^\x07\x1b]*)\x07"
    r"|\x1b\[(?P<numbers>[0-9;?]*)(?P<letter>[A-Za-z])|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b[^\[\]]|[\r\n\x08]|[^\x1b\r\n\x08]+"
)
_UNFINISHED = re.compile(r"\x1b(\[[0-9;?]*|\][^\x07\x1b]*)?$")
_HELD = 8192


class OutputTail:
    """At most `LINES` lines of at most `COLUMNS` letters.

    It knows what the programs here do to a terminal: begin a line anew, go up some lines and write over them,
    clear the rest of one. Colours and whatever else there is are left out.

    Attributes:
        asked: what the program waits for (`dexrun.setup.person.Terminal`); empty: for nothing.
        question: the number of it; each has another.
    """

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._lines = [""]
        self._row = self._column = 0
        self._rest = ""
        self.asked: dict[str, Any] = {}
        self.question = 0

    def feed(self, data: bytes) -> None:
        """Take in what was written."""
        text = self._rest + self._decoder.decode(data)
        cut = _UNFINISHED.search(text)
        self._rest = text[cut.start() :][:_HELD] if cut else ""
        for piece in _PIECE.finditer(text[: cut.start()] if cut else text):
            if piece["asked"] is not None:
                self._asked(piece["asked"])
            elif piece["letter"]:
                self._control(piece["letter"], piece["numbers"])
            elif not piece[0].startswith("\x1b"):
                self._write(piece[0])

    def _asked(self, text: str) -> None:
        try:
            said = json.loads(text)
        except (ValueError, RecursionError):  # it is a program that this one started, and may still be broken
            return
        self.asked = said if isinstance(said, dict) else {}
        self.question += bool(self.asked)

    def _write(self, piece: str) -> None:
        if piece == "\r":
            self._column = 0
        elif piece == "\x08":
            self._column = max(0, self._column - 1)
        elif piece == "\n":
            self._down()
        else:
            self._letters("".join(letter for letter in piece if letter.isprintable() or letter == "\t"))

    def _letters(self, letters: str) -> None:
        line = self._lines[self._row].ljust(self._column)
        line = line[: self._column] + letters + line[self._column + len(letters) :]
        self._lines[self._row] = line[:COLUMNS]
        self._column = min(COLUMNS, self._column + len(letters))

    def _down(self) -> None:
        self._row, self._column = self._row + 1, 0
        if self._row == len(self._lines):
            self._lines.append("")
        if len(self._lines) > LINES:
            del self._lines[0]
            self._row -= 1

    def _control(self, letter: str, numbers: str) -> None:
        count = int(numbers) if numbers.isdecimal() and len(numbers) < 5 else 1
        if letter == "A":
            self._row = max(0, self._row - count)
        elif letter == "B":
            self._row = min(len(self._lines) - 1, self._row + count)
        elif letter == "K":
            line = self._lines[self._row]
            self._lines[self._row] = "" if numbers == "2" else line[: self._column]

    def lines(self) -> list[str]:
        """What there is, oldest first."""
        last = len(self._lines)
        while last and not self._lines[last - 1]:
            last -= 1
        return self._lines[:last]
