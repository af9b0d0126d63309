"""The live panel and the log on one terminal: a real pseudo-terminal, and what it would show."""

from __future__ import annotations

import contextlib
import datetime
import io
import json
import logging
import os
import pty
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TextIO

import pytest
from loguru import logger
from rich.console import Console

from dexrun.config.mode_options import LogOptions, TerminalOptions
from dexrun.terminal.dashboard import Dashboard, Status
from dexrun.terminal.log import close_log, open_log
from runtime.clock import NS_PER_S
from runtime.masking import know_secret
from runtime.stepped import SteppedClock
from tests.dexrun.test_reports import STATUS

_PIECE = re.compile(r"\x1b\[([?\d;]*)([A-Za-z])|([\r\n])|([^\x1b\r\n]+)")


COLUMNS = 100


class Screen:
    """A terminal without a bottom: what `rich` sends, and nothing else, is understood."""

    def __init__(self) -> None:
        self.lines = [""]
        self._row = self._column = 0

    def feed(self, sent: str) -> None:
        position = 0
        while position < len(sent):
            match = _PIECE.match(sent, position)
            assert match is not None, repr(sent[position : position + 20])
            position = match.end()
            argument, command, control, text = match.groups()
            if command:
                self._command(argument, command)
            elif control:
                self._move(control)
            else:
                self._write(text)

    def _command(self, argument: str, command: str) -> None:
        if command == "A":
            self._row -= int(argument)
            assert self._row >= 0
        elif command == "K":
            assert argument == "2"
            self.lines[self._row] = ""
        else:
            assert command in "mhl", command  # colours, and the cursor's visibility

    def _move(self, control: str) -> None:
        if control == "\r":
            self._column = 0
            return
        self._row += 1
        if self._row == len(self.lines):
            self.lines.append("")

    def _write(self, text: str) -> None:
        for character in text:
            if self._column == COLUMNS:
                self._move("\r")
                self._move("\n")
            line = self.lines[self._row].ljust(self._column)
            self.lines[self._row] = line[: self._column] + character + line[self._column + 1 :]
            self._column += 1


class Terminal:
    """One end of a pseudo-terminal as a file, and a screen at the other."""

    def __init__(self) -> None:
        self.screen = Screen()
        self._master, slave = pty.openpty()
        self.file = os.fdopen(slave, "w", encoding="utf-8", buffering=1)
        self._received, self._echoes = bytearray(), 0
        self._more = threading.Condition()
        self._thread = threading.Thread(target=self._drain)
        self._thread.start()

    def _drain(self) -> None:
        with contextlib.suppress(OSError):  # the other end is closed
            while True:
                sent = os.read(self._master, 65_536)
                with self._more:
                    self._received += sent
                    self._more.notify_all()

    def press(self) -> None:
        """A key that the terminal echoes where the cursor stands, as it does ``^C``; returns once it has."""
        self._echoes += 1
        os.write(self._master, b"\x01")
        with self._more:
            assert self._more.wait_for(lambda: self._received.count(b"^A") == self._echoes, timeout=60)

    def close(self) -> list[str]:
        """The lines that are left on the screen."""
        self.file.close()
        self._thread.join()
        os.close(self._master)
        self.screen.feed(self._received.decode())
        return [line.rstrip() for line in self.screen.lines]


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Terminal]:
    for name, value in {"TERM": "xterm-256color", "COLUMNS": str(COLUMNS), "LINES": "60"}.items():
        monkeypatch.setenv(name, value)
    terminal = Terminal()
    yield terminal
    if not terminal.file.closed:
        terminal.close()


def run_with_log(
    folder: Path,
    statuses: list[Status],
    out: TextIO,
    err: TextIO,
    between: Callable[[], None] = lambda: None,
) -> list[str]:
    """Log a line before the panel, one between any two pictures of it, and one after; returns them."""
    clock, said = SteppedClock(), []
    options = TerminalOptions.model_validate({"style": "live", "refresh_s": 1.0})
    pictures = iter(statuses)
    shown = [statuses[0]]

    def status() -> Status:
        shown[0] = next(pictures, shown[0])
        return shown[0]

    def say(line: str) -> None:
        said.append(line)
        logger.warning("{}", line)
        logger.complete()

    async def main() -> None:
        dashboard = Dashboard(clock, options, status)
        say("before the panel")
        dashboard.start()
        for number in range(len(statuses)):
            await clock.sleep_until_ns(number * NS_PER_S + NS_PER_S // 2)
            between()
            say(f"line {number}")
        await dashboard.stop()
        say("after the panel")

    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        sinks = open_log(folder, "INFO")
        clock.run(main)
        close_log(sinks)
    return said


LONG = replace(STATUS, step="grasp " + "the red cube beside the blue cylinder " * 5)


@pytest.mark.parametrize("interrupting", [False, True])
def test_log_lines_stay_above_the_panel(tmp_path: Path, terminal: Terminal, interrupting: bool) -> None:
    last = replace(STATUS, elapsed_s=99.0)
    statuses = [STATUS, LONG, STATUS, LONG, replace(STATUS, faults={}), last]
    between = terminal.press if interrupting else lambda: None
    said = run_with_log(tmp_path, statuses, terminal.file, terminal.file, between)
    lines = terminal.close()
    texts = [line.partition("WARNING ")[2] for line in lines]
    assert [text for text in texts if text] == said
    begin = next(row for row, line in enumerate(lines) if "dexrun grasp" in line)
    end = texts.index("after the panel")
    assert texts.index(said[-2]) < begin < end
    assert lines[begin].strip() == "dexrun grasp  99.0 s"
    assert sum("│" in line for line in lines) == sum("│" in line for line in lines[begin:end]) == 10
    assert all(texts[:begin])


def test_a_log_that_goes_elsewhere_stays_out_of_the_panel(tmp_path: Path, terminal: Terminal) -> None:
    with (tmp_path / "stderr").open("w", encoding="utf-8") as file:
        said = run_with_log(tmp_path, [STATUS, LONG, STATUS], terminal.file, file)
    lines = terminal.close()
    assert not [line for line in lines if "WARNING" in line]
    assert sum("dexrun grasp" in line for line in lines) == 1
    logged = (tmp_path / "stderr").read_text(encoding="utf-8").splitlines()
    assert [line.partition("WARNING ")[2] for line in logged] == said


def test_no_value_of_the_panel_takes_more_than_two_lines_at_80_columns() -> None:
    """Counted for one column more than the table has, the first of the lines would be broken once more."""
    step = " ".join(letter * length for letter, length in zip("abcd", (24, 25, 30, 30), strict=True))
    board = Dashboard(SteppedClock(), TerminalOptions(), lambda: replace(STATUS, step=step))
    console = Console(width=80, height=24)
    with console.capture() as shown:
        console.print(board._panel(console.width))
    rows = shown.get().splitlines()
    first = next(number for number, row in enumerate(rows) if row.startswith("│ step"))
    assert rows[first + 1].startswith("│    ")
    assert rows[first + 2].startswith("│ loop")


MARKS = "the [bold]red[/bold] cube [/b] [link=http://x]y[/link] :smile: \x1b[31m\u202e"


def test_what_the_panel_shows_is_no_markup_and_commands_nothing() -> None:
    """A model's words, a prompt's and a policy's are shown as they are: a closing tag ended the panel."""
    odd = replace(STATUS, step=MARKS, reasoning=MARKS, episode=MARKS, keys=MARKS, state=MARKS)
    for columns in (200, 30):
        console = Console(width=columns, height=60)
        with console.capture() as shown:
            console.print(Dashboard(SteppedClock(), TerminalOptions(), lambda: odd)._panel(columns))
        assert "\x1b" not in shown.get()
        assert "\u202e" not in shown.get()
        words = "".join(shown.get().split()).replace("│", "")
        assert words.count("".join(MARKS[:-6].split())) == (4 if columns == 30 else 5)


@pytest.mark.parametrize("columns", [1, 2, 9, 12, 20, 30, 44, 50, 51, 52])
def test_a_narrow_terminal_shows_the_step_all_the_same(columns: int) -> None:
    console = Console(width=columns, height=24)
    board = Dashboard(SteppedClock(), TerminalOptions(), lambda: replace(STATUS, step="grasp it"))
    with console.capture() as shown:
        console.print(board._panel(console.width))
    assert "graspit" in "".join(shown.get().split()).replace("│", "")


def logged(folder: Path, options: LogOptions, *texts: str) -> None:
    with contextlib.redirect_stderr(io.StringIO()):
        sinks = open_log(folder, "INFO", options)
        for text in texts:
            logger.info("{}", text)
        close_log(sinks)


def test_a_log_for_programs_is_an_object_a_line(tmp_path: Path) -> None:
    key = know_secret("-".join(["open", 'se"<same']))
    sinks = open_log(tmp_path, "ERROR", LogOptions(format="json"))
    logger.info("{} {}", "a {brace}, a <red>tag</red>, a \\ and\ntwo lines with", key)
    try:
        raise ValueError("{0} < 1")
    except ValueError:
        logging.getLogger("library").exception("failed")
    close_log(sinks)
    lines = (tmp_path / "log.jsonl").read_text(encoding="utf-8").splitlines()
    first, second = map(json.loads, lines)
    assert first["message"] == "a {brace}, a <red>tag</red>, a \\ and\ntwo lines with ***"
    assert first["where"].startswith("tests.dexrun.test_terminal:")
    assert datetime.datetime.fromisoformat(first["time"]).tzinfo is not None
    assert set(first) == {"time", "level", "message", "where"}
    assert (second["level"], second["message"]) == ("ERROR", "library: failed")
    assert second["traceback"].endswith("ValueError: {0} < 1\n")
    assert not (tmp_path / "log.txt").exists()


def test_a_log_that_is_large_is_put_aside_and_the_oldest_goes(tmp_path: Path) -> None:
    def held() -> dict[str, list[str]]:
        files = sorted(tmp_path.glob("log*"))
        return {file.name: [line[-1] for line in file.read_text().splitlines()] for file in files}

    options = LogOptions(largest_mb=0.001, kept=2)
    long = "x" * 400
    logged(tmp_path, options, *(f"{long} {number}" for number in range(5)))
    assert held() == {"log.1.txt": ["2", "3"], "log.2.txt": ["0", "1"], "log.txt": ["4"]}
    logged(tmp_path, options, *(f"{long} {number}" for number in range(5, 8)))  # one of 4 has room for 5
    assert held() == {"log.1.txt": ["4", "5"], "log.2.txt": ["2", "3"], "log.txt": ["6", "7"]}
    logged(tmp_path, LogOptions(largest_mb=0.001, kept=0), f"{long} 8")
    assert held()["log.txt"] == ["8"]
