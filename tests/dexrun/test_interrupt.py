"""Ctrl-C, SIGTERM, a hang-up at any moment: the arm is held, all is let go of, the summary is written."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dexrun import app
from dexrun.__main__ import main
from dexrun.exit_codes import NOT_DONE
from tests.dexrun.rig import PATIENT, ROOT, Stage, arguments, assert_tame, newest, perform


def height(stage: Stage) -> float:
    """Of the grasp point, metres."""
    position = stage.up.control.position
    return 1.0 if position is None else stage.up.model.grasp_height(position)


MOMENTS: dict[str, Callable[[Stage], bool]] = {
    "before the first tick": lambda stage: True,
    "homing": lambda stage: stage.step.startswith("home"),
    "a question": lambda stage: stage.step.startswith("planner"),
    "a grasp": lambda stage: stage.step.startswith("grasp") and len(stage.up.control.horizon) > 0,
    "the grasp's lowest point": lambda stage: stage.step.startswith("grasp") and height(stage) < 0.03,
    "placing": lambda stage: stage.step.startswith("place") and len(stage.up.control.horizon) > 5,
}


ALSO = ("homing", "a grasp", "placing")


@pytest.mark.parametrize(
    "moment", [pytest.param(each, marks=pytest.mark.slow) if each in ALSO else each for each in MOMENTS]
)
def test_a_signal_ends_the_run_cleanly(tmp_path: Path, moment: str) -> None:
    async def script(stage: Stage) -> None:
        await stage.until(lambda: MOMENTS[moment](stage))
        os.kill(os.getpid(), signal.SIGINT)

    stage = perform(tmp_path, script)
    assert stage.code == NOT_DONE
    assert stage.summary["outcome"] == "stopped"
    assert stage.summary["stop_reason"] == "interrupted (SIGINT)"
    assert stage.servos is not None
    assert stage.servos.holding()
    assert_tame(stage.up)
    assert "judge" in stage.summary or moment == "before the first tick"
    tried = ["grasp", "placing"]
    assert bool(stage.summary["attempts"]) == any(word in moment for word in tried)


def test_the_episode_is_over_before_the_score_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recordings: list[Any] = []
    still_on: list[bool] = []
    opened, scored = app.open_recording, app.score

    @contextlib.asynccontextmanager
    async def open_recording(*given: Any) -> AsyncIterator[Any]:
        async with opened(*given) as recording:
            recordings.append(recording)
            yield recording

    def score(*given: Any) -> dict[str, Any]:
        still_on.append(recordings[0].episodes.recording)
        return scored(*given)

    async def script(stage: Stage) -> None:
        await stage.until(lambda: stage.step.startswith("grasp"))
        assert recordings[0].episodes.recording
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(app, "open_recording", open_recording)
    monkeypatch.setattr(app, "score", score)
    stage = perform(tmp_path, script)
    assert still_on == [False]
    (episode,) = stage.summary["recording"]["episodes"]
    assert episode["stop_reason"] == "the run ended"


def freeze(process: subprocess.Popen[bytes]) -> None:
    """It does nothing more, and is there all the same."""
    process.send_signal(signal.SIGSTOP)
    deadline = time.monotonic() + 30.0
    while Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] != "T":
        assert time.monotonic() < deadline


@pytest.mark.slow
def test_a_tabletop_that_hangs_does_not_hold_up_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the real clock, on which it is asked for nothing but the score."""
    monkeypatch.setattr(app, "_JUDGE_S", 0.5)

    async def script(stage: Stage) -> None:
        await stage.until(lambda: stage.step.startswith("grasp"))
        assert stage.up.world is not None
        freeze(stage.up.world.process)
        os.kill(os.getpid(), signal.SIGTERM)

    stage = perform(tmp_path, script, **PATIENT)
    assert stage.code == NOT_DONE
    assert stage.summary["stop_reason"] == "interrupted (SIGTERM)"
    assert stage.summary["judge_missing"] == "the simulated world did not answer within 0.5 s"
    assert "judge" not in stage.summary
    assert stage.up.world is not None
    assert stage.up.world.process.returncode == -signal.SIGKILL  # nobody waits for it to go by itself


def test_later_signals_change_nothing(tmp_path: Path) -> None:
    async def script(stage: Stage) -> None:
        await stage.until(lambda: stage.step.startswith("grasp"))
        os.kill(os.getpid(), signal.SIGTERM)
        try:
            await stage.rest(1.0)
        finally:
            os.kill(os.getpid(), signal.SIGINT)

    stage = perform(tmp_path, script)
    assert stage.code == NOT_DONE
    assert stage.summary["stop_reason"] == "interrupted (SIGTERM)"
    assert stage.servos is not None
    assert stage.servos.holding()


@contextlib.contextmanager
def on_hang_up(handler: Any) -> Iterator[None]:
    """As if the program had been started so; the suite itself may run under nohup, or not."""
    before = signal.signal(signal.SIGHUP, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_lost_terminal_ends_the_run_cleanly(tmp_path: Path) -> None:
    async def script(stage: Stage) -> None:
        await stage.until(lambda: stage.step.startswith("grasp"))
        os.kill(os.getpid(), signal.SIGHUP)

    with on_hang_up(lambda *_: None):
        stage = perform(tmp_path, script)
    assert stage.code == NOT_DONE
    assert stage.summary["stop_reason"] == "interrupted (SIGHUP)"
    assert stage.servos is not None
    assert stage.servos.holding()


def test_under_nohup_a_lost_terminal_changes_nothing(tmp_path: Path) -> None:
    async def script(stage: Stage) -> None:
        await stage.until(lambda: stage.step.startswith("home"))
        os.kill(os.getpid(), signal.SIGHUP)
        await stage.until(lambda: stage.step.startswith("grasp"))
        os.kill(os.getpid(), signal.SIGTERM)

    with on_hang_up(signal.SIG_IGN):
        stage = perform(tmp_path, script)
    assert stage.summary["stop_reason"] == "interrupted (SIGTERM)"


def test_ctrl_c_ends_teleoperation(tmp_path: Path) -> None:
    async def script(stage: Stage) -> None:
        await stage.until(lambda: stage.step.startswith("operator: approach"))
        await stage.rest(0.5)
        os.kill(os.getpid(), signal.SIGINT)

    stage = perform(tmp_path, script, mode="teleop")
    assert stage.code == NOT_DONE
    assert stage.summary["outcome"] == "stopped"
    assert stage.summary["operator"]["phase"] == "approach"
    assert stage.servos is not None
    assert stage.servos.holding()
    assert_tame(stage.up)


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
@pytest.mark.parametrize("moment", ["open_log", "_exit_code", "close_log"])
def test_a_signal_before_and_after_the_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str, number: signal.Signals
) -> None:
    """From the run's folder on there is always a summary; what is over cannot be interrupted any more."""
    real = getattr(app, moment)

    def interrupted(*given: Any) -> Any:
        os.kill(os.getpid(), number)
        return real(*given)

    async def script(stage: Stage) -> None:
        await stage.until(lambda: stage.step.startswith("home"))
        os.kill(os.getpid(), signal.SIGHUP)

    monkeypatch.setattr(app, moment, interrupted)
    with on_hang_up(lambda *_: None):
        stage = perform(tmp_path, script)
    ended_by = number.name if moment == "open_log" else "SIGHUP"
    assert (stage.code, stage.summary["stop_reason"]) == (NOT_DONE, f"interrupted ({ended_by})")
    assert (stage.robot is None) == (moment == "open_log")


EARLY = """
import os, signal, sys
from dexrun import __main__ as program
from dexrun.config import load as config

def load(arguments):
    try:
        os.kill(os.getpid(), signal.{name})
    except BaseException:  # as some libraries do that are being imported
        pass
    return loaded(arguments)

loaded, config.load = config.load, load
sys.argv = ["dexrun", *{words}]
sys.exit(program.main())
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_before_anything_has_begun(tmp_path: Path, number: signal.Signals) -> None:
    code = EARLY.format(name=number.name, words=arguments(tmp_path / "runs"))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (
        128 + number,
        "",
        f"dexrun: interrupted ({number.name})\n",
    )
    assert not (tmp_path / "runs").exists()


def test_ctrl_c_ends_a_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(arguments: list[str]) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("dexrun.data.info.main", interrupted)
    assert main(["info", "runs/latest"]) == NOT_DONE
    assert capsys.readouterr().err == "dexrun: interrupted\n"


STUCK = """
import atexit, sys, threading
import torch
from dexrun import __main__ as program

def compute():
    matrix = torch.rand(400, 400)
    while True:
        begun.set()
        matrix @ matrix

def interrupted(arguments):
    threading.Thread(target=compute, daemon=True).start()
    begun.wait()
    return program.NOT_DONE

begun = threading.Event()
atexit.register(print, "exit functions ran")
program._main = interrupted
sys.exit(program.main())
"""


def test_a_thread_that_is_still_in_a_library_does_not_spoil_the_exit_code() -> None:
    done = subprocess.run([sys.executable, "-c", STUCK], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (NOT_DONE, "exit functions ran\n", "")


def belonging(folder: str) -> list[str]:
    """Processes whose environment names `folder`."""
    found = []
    for environment in Path("/proc").glob("[0-9]*/environ"):
        try:
            if folder.encode() in environment.read_bytes():
                found.append(environment.parent.name)
        except OSError:  # not ours, or gone
            continue
    return found


@pytest.mark.parametrize(
    ("line", "number", "ticked"),
    [
        ("starting the simulated tabletop", signal.SIGINT, False),
        pytest.param("grasp the red cube", signal.SIGTERM, True, marks=pytest.mark.slow),
    ],
    ids=["SIGINT while starting", "SIGTERM while grasping"],
)
def test_the_program_itself_on_the_real_clock(
    tmp_path: Path, line: str, number: signal.Signals, ticked: bool
) -> None:
    temporary = tempfile.gettempdir()
    words = arguments(tmp_path, **PATIENT)
    program = subprocess.Popen(
        [sys.executable, "-m", "dexrun", *words],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": temporary},
        stderr=subprocess.PIPE,
        text=True,
    )
    with program:
        assert program.stderr is not None
        said = []
        for each in program.stderr:
            said.append(each)
            if line in each:
                program.send_signal(number)
    assert program.returncode == NOT_DONE, "".join(said)
    assert "Traceback" not in "".join(said)
    summary = json.loads((newest(tmp_path) / "summary.json").read_text())
    assert summary["outcome"] == "stopped"
    assert summary["stop_reason"] == f"interrupted ({number.name})"
    assert (summary["ticks"] > 0) == ticked
    assert belonging(temporary) == []
