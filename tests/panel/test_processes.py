"""Processes beside a run: what they print, what becomes of them, and that nobody waits for one that hangs."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator

import pytest
from loguru import logger

from dexrun.panel.beside import _start
from dexrun.panel.processes import ProcessBeside

CODE = "\x1b[7m \u2588\u2580\u2584 \x1b[0m"


@pytest.fixture
def heard() -> Iterator[tuple[list[tuple[str, str]], threading.Event]]:
    """What is logged, and whether anything with "panel at" or "ended" was."""
    lines: list[tuple[str, str]] = []
    said = threading.Event()

    def hear(message: object) -> None:
        record = message.record  # type: ignore[attr-defined]
        lines.append((record["level"].name, record["message"]))
        if "panel at" in record["message"] or "ended" in record["message"]:
            said.set()

    handler = logger.add(hear, level="DEBUG")
    yield lines, said
    logger.remove(handler)


Heard = tuple[list[tuple[str, str]], threading.Event]


def test_a_token_is_for_the_terminal_and_for_no_log(heard: Heard, capsys: pytest.CaptureFixture[str]) -> None:
    lines, said = heard
    link = "panel at http://10.0.0.5:8470/#token=s3cret"
    process = ProcessBeside("the server", "tests.panel.talker", ["noise", CODE, link, "stay"], "panel at")
    assert said.wait(30)
    process.end()
    assert lines == [("DEBUG", "noise"), ("INFO", "panel at http://10.0.0.5:8470/")]
    assert link in (out := capsys.readouterr().out)
    assert CODE.split("m")[1][:3] in out


def test_one_that_ends_is_said_and_that_is_all(heard: Heard) -> None:
    lines, said = heard
    process = ProcessBeside("the server", "tests.panel.talker", ["port 8470 is taken"], "panel at")
    assert said.wait(30)
    process.end()
    assert lines[-1] == ("WARNING", "the server has ended (code 7): port 8470 is taken; the run goes on")


def test_one_that_is_stopped_is_ended_all_the_same(heard: Heard) -> None:
    lines, said = heard
    process = ProcessBeside(
        "the server", "tests.panel.talker", ["panel at x (Ctrl-C ends it)", "stay"], "panel at"
    )
    assert said.wait(30)
    os.kill(process.pid, signal.SIGSTOP)
    process.end()
    with pytest.raises(ProcessLookupError):
        os.kill(process.pid, 0)
    assert lines == [("INFO", "panel at x")]


def test_without_its_packages_nothing_is_started_and_a_line_says_why(heard: Heard) -> None:
    lines, _ = heard
    assert _start("the panel's server", ("no_such_package",), "tests.panel.talker", [], "panel at") is None
    why = "no_such_package is not installed; pip install 'dexrun[panel]'"
    assert lines == [("WARNING", f"the panel's server is not started: {why}")]
