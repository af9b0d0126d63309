"""Processes beside a run: what they print, what becomes of them, and that nobody waits for one that hangs."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from loguru import logger

from dexrun.panel.beside import _start
from dexrun.panel.processes import ProcessBeside
from runtime.clock import NS_PER_S, RealClock
from tests.dexrun.rig import Stage, perform

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


def test_one_ends_with_a_run_that_is_killed() -> None:
    script = (
        "import os, signal, time\n"
        "from dexrun.panel.processes import ProcessBeside\n"
        "process = ProcessBeside('the server', 'tests.panel.talker', ['up', 'stay'], 'up')\n"
        "print(process.pid, flush=True)\n"
        "signal.pause()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as run:
        assert run.stdout is not None
        assert run.stderr is not None
        pid = int(run.stdout.readline())
        while b"up" not in run.stderr.readline():  # it is itself by now
            pass
        run.kill()
    clock, state = RealClock(), Path(f"/proc/{pid}/stat")
    until_ns = clock.now_ns() + 30 * NS_PER_S
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        while state.read_text().rpartition(")")[2].split()[0] != "Z":  # of a container whose init reaps none
            assert clock.now_ns() < until_ns, "it lives on"
            clock.wait_until_ns(clock.now_ns() + NS_PER_S // 100)


def test_an_interrupted_run_ends_what_is_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[ProcessBeside] = []

    def start(*_: object) -> list[ProcessBeside]:
        started.append(ProcessBeside("the server", "tests.panel.talker", ["stay"], "panel at"))
        return started

    monkeypatch.setattr("dexrun.panel.beside._started", start)

    async def script(stage: Stage) -> None:
        await stage.up.control.ticked()
        os.kill(os.getpid(), signal.SIGINT)
        await stage.rest(60.0)

    stage = perform(tmp_path, script, mode="teleop", panel__share="always")
    assert stage.summary["stop_reason"] == "interrupted (SIGINT)"
    assert len(started) == 1
    with pytest.raises(ProcessLookupError):
        os.kill(started[0].pid, 0)


def test_without_its_packages_nothing_is_started_and_a_line_says_why(heard: Heard) -> None:
    lines, _ = heard
    assert _start("the panel's server", ("no_such_package",), "tests.panel.talker", [], "panel at") is None
    why = "no_such_package is not installed; pip install 'dexrun[panel]'"
    assert lines == [("WARNING", f"the panel's server is not started: {why}")]
