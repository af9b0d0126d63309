"""What a run says about itself: on the terminal, and in its summary."""

from __future__ import annotations

import errno
import io
import json
import logging
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from loguru import logger
from rich.console import Console

from dexrun.__main__ import main
from dexrun.config.load import load
from dexrun.config.mode_options import TerminalOptions
from dexrun.exit_codes import BAD_CONFIGURATION, NOT_DONE
from dexrun.outcome import stopped
from dexrun.run_folder import RunFolder
from dexrun.run_record import RunRecord
from dexrun.simulation.score import judged
from dexrun.summary import summarise
from dexrun.terminal.dashboard import Dashboard, Status, as_line, as_table, summed_up
from dexrun.terminal.log import close_log, open_log
from drivers.world.judge import JudgeReport, ObjectReport
from runtime.clock import NS_PER_S
from runtime.stepped import SteppedClock
from tests.dexrun.rig import arguments, settings

STATUS = Status(
    mode="grasp",
    step="grasp the red cube (attempt 1)",
    state="running",
    elapsed_s=12.34,
    rate_hz=30.0,
    period_error_us={"p50": 3.0, "p99": 41.0},
    work_us={"p50": 350.0, "p99": 812.0},
    horizon=24,
    ticks=370,
    missed=1,
    starved=2,
    sensor_rates_hz={"arm": 100.1, "head": 29.97},
    force_n=(0.125, -3.0, 0.0),
    clips={"velocity": 4, "range": 0},
    faults={"arm": {"elbow_flex.no_reply": 3}},
)


def test_a_plain_line() -> None:
    assert as_line(STATUS) == (
        "   12.3s grasp running   30.0 Hz p99 41us horizon 24 sensors [arm 100 head 30]"
        " force [+0.12 -3.00 +0.00 N] clips [velocity:4] | grasp the red cube (attempt 1)"
    )


def test_a_plain_line_with_nothing_to_tell() -> None:
    bare = Status("teleop", "engaging", "idle", 0.0, 0.0, {}, {}, 0, 0, 0, 0)
    assert "sensors [none] force [none] clips [none] | engaging" in as_line(bare)


def test_the_panel_shows_every_figure() -> None:
    out = io.StringIO()
    Console(file=out, width=100).print(as_table(STATUS))
    shown = out.getvalue()
    for figure in (
        "dexrun grasp  12.3 s",
        "grasp the red cube (attempt 1)",
        "running, 30.00 Hz, 370 ticks",
        "1 / 2",
        "p50 3 us, p99 41 us",
        "p50 350 us, p99 812 us",
        "24 steps",
        "arm 100 head 30",
        "+0.12 -3.00 +0.00 N",
        "velocity:4",
        "arm: no_reply 3 (elbow_flex)",
    ):
        assert figure in shown, figure


JOINTS = ("shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper")
TROUBLED = replace(
    STATUS,
    state="holding: arm at /dev/serial/by-id/usb-1a86_USB_Single_Serial_58FA083324-if00: no_reply: 6 servos",
    sensor_rates_hz=dict.fromkeys(("arm", "leader", "head", "wrist", "side", "top", "force"), 29.97),
    clips={
        "range": 4,
        "relative": 2,
        "velocity": 40,
        "acceleration": 7,
        "collision": 12,
        "force": 3,
        "stall": 1,
    },
    faults={
        "arm": {f"{joint}.{kind}": 3 for joint in JOINTS for kind in ("no_reply", "bad_packet")}
        | {"late": 40},
        "head": {"timeout": 2},
    },
    episode="3/20: recording, 12.3 s (2 kept)",
    keys="SPACE end, e stop the arm, s success, f failure, d discard, q end, ? help",
)


def test_faults_of_many_joints_are_summed_up() -> None:
    assert summed_up(TROUBLED.faults) == (
        "arm: late 40, no_reply 18 (6 joints), bad_packet 18 (6 joints); head: timeout 2"
    )
    assert summed_up({"arm": {"elbow_flex.no_reply": 0}}) == "none"


def test_the_panel_of_a_run_in_trouble_fits_80_columns_and_24_lines() -> None:
    out = io.StringIO()
    Console(file=out, width=80).print(
        Dashboard(SteppedClock(), TerminalOptions(), lambda: TROUBLED)._panel(80)
    )
    lines = out.getvalue().splitlines()
    assert len(lines) <= 22
    assert max(map(len, lines)) <= 72
    for figure in ("2 kept", "f failure", "no_reply 18", "head: timeout 2", "stall:1"):
        assert figure in out.getvalue(), out.getvalue()


@pytest.mark.parametrize(("style", "shown"), [("lines", 5), ("auto", 5), ("none", 0)])
def test_the_terminal_is_written_to_at_intervals_and_at_the_end(style: str, shown: int) -> None:
    out, clock = io.StringIO(), SteppedClock()
    options = TerminalOptions.model_validate({"style": style, "line_s": 5.0})

    async def main() -> None:
        dashboard = Dashboard(clock, options, lambda: STATUS, out)
        dashboard.start()
        await clock.sleep_until_ns(21 * NS_PER_S)
        await dashboard.stop()

    clock.run(main)
    assert out.getvalue().count("grasp running") == shown


def test_the_live_panel_is_drawn() -> None:
    out, clock = io.StringIO(), SteppedClock()

    async def main() -> None:
        dashboard = Dashboard(clock, TerminalOptions(style="live"), lambda: STATUS, out)
        dashboard.start()
        await clock.sleep_until_ns(NS_PER_S)
        await dashboard.stop()

    clock.run(main)
    assert "370 ticks" in out.getvalue()


# --- the score


def thing(name: str, color: str, shape: str, in_tray: bool) -> ObjectReport:
    return ObjectReport(name, color, shape, (0.2, 0.0, 0.0), in_tray, held=False, fallen=False)


def report(*inside: str) -> JudgeReport:
    things = tuple(
        thing(f"{color} {shape}", color, shape, f"{color} {shape}" in inside)
        for color, shape in (("red", "cube"), ("red", "cylinder"), ("blue", "cube"))
    )
    return JudgeReport(3, len(inside), len(inside) == 3, things)


ALL = ("red cube", "red cylinder", "blue cube")


@pytest.mark.parametrize(
    ("prompt", "inside", "success"),
    [
        ("clear the table", ALL, True),
        ("clear the table", ("red cube",), False),
        ("put the red cube in the tray", ("red cube",), True),
        ("put the red cube in the tray", (), False),
        ("put the red cube in the tray", ("red cube", "blue cube"), False),
        ("put the red objects away", ("red cube", "red cylinder"), True),
        ("put the cubes in the tray", ("red cube", "blue cube"), True),
        ("put the red cube and the blue cube away", ("red cube", "blue cube"), True),
        ("put the red cylinder and the blue cube away", ("red cylinder", "blue cube"), True),
        ("put the RED cylinder in the tray", ("red cylinder",), True),
        ("put the green cube in the tray", (), False),
    ],
)
def test_the_score_is_of_what_was_asked_for(prompt: str, inside: tuple[str, ...], success: bool) -> None:
    scored = judged(report(*inside), prompt)
    assert scored["success"] is success
    assert scored["objects_total"] == 3
    assert scored["objects_in_tray"] == len(inside)


# --- the summary


PROMISED = {
    *("mode", "prompt", "outcome", "stop_reason", "duration_s", "ticks", "missed_ticks", "starved_ticks"),
    *("period_error_us", "work_us", "loop_lag_us", "sensor_rates_hz", "device_faults", "clips"),
    *("planner", "policy", "attempts"),
}
"""What DESIGN lists for every run; ``judge`` is there where there is ground truth."""


def test_a_run_that_never_came_up_promises_the_same_fields(tmp_path: Path) -> None:
    outcome = stopped("arm at /dev/nowhere: not_found: no such port")
    summary = summarise(settings(tmp_path), RunRecord(outcome), 1_500_000_000)
    assert set(summary) >= PROMISED
    assert summary["duration_s"] == 1.5
    assert summary["ticks"] == 0
    assert set(summary["planner"]) >= {"calls", "retries", "errors", "latency_s"}
    assert set(summary["policy"]) >= {"chunks", "dropped_chunks", "inference_s", "seam_rad"}
    for name in ("period_error_us", "work_us", "loop_lag_us"):
        assert set(summary[name]) == {"p50", "p99", "max"}


def test_teleoperation_has_no_prompt(tmp_path: Path) -> None:
    summary = summarise(settings(tmp_path, mode="teleop"), RunRecord(stopped("x")), 0)
    assert summary["prompt"] is None


def test_a_summary_is_written_whole(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path, 0)
    path = folder.write_summary({"outcome": "completed", "prompt": "räum auf"})
    assert json.loads(path.read_text(encoding="utf-8")) == {"outcome": "completed", "prompt": "räum auf"}
    assert [each.name for each in folder.path.iterdir()] == ["summary.json"]


@pytest.mark.parametrize(
    ("file", "code", "said"),
    [
        ("config.json", BAD_CONFIGURATION, "written there: [Errno 28] No space left on device"),
        ("summary.json", NOT_DONE, "summary.json cannot be written: No space left on device"),
    ],
)
def test_a_disk_without_room_is_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    file: str,
    code: int,
    said: str,
) -> None:
    write = RunFolder.write_json

    def full(folder: RunFolder, name: str, content: Any) -> Path:
        if name == file:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(folder, name, content)

    monkeypatch.setattr(RunFolder, "write_json", full)
    if file == "summary.json":
        monkeypatch.setattr(RunFolder, "write_summary", lambda self, summary: full(self, file, summary))
    short = {"mode": "teleop", "teleop__duration_s": "0.1", "recording__teleop": "false"}
    assert main([*arguments(tmp_path, **short), "--terminal.level", "WARNING"]) == code
    error = capsys.readouterr().err
    assert error.endswith(f"{said}\n")
    assert error.count("\n") == 1


def test_a_log_on_a_full_disk_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "log.txt"
    log.symlink_to("/dev/full")
    sinks = open_log(tmp_path, "ERROR")
    logger.info("into the file alone")
    logger.info("and once more")
    close_log(sinks)
    assert capsys.readouterr().err == f"dexrun: {log} cannot be written: No space left on device\n"


def test_tracebacks_do_not_tell_what_variables_hold(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def ask(headers: dict[str, str]) -> None:
        raise ValueError(f"{len(headers)} header refused")

    key = "-".join(["open", "sesame"])  # written nowhere in this form
    sinks = open_log(tmp_path, "INFO")
    try:
        ask({"authorization": key})
    except ValueError:
        logging.getLogger("library").exception("failed")
    close_log(sinks)
    for told in (capsys.readouterr().err, (tmp_path / "log.txt").read_text(encoding="utf-8")):
        assert "ValueError: 1 header refused" in told
        assert key not in told


def test_runs_of_the_same_second_have_folders_of_their_own(tmp_path: Path) -> None:
    first, second = RunFolder(tmp_path, 0), RunFolder(tmp_path, 0)
    assert first.path != second.path
    assert not (tmp_path / "latest").exists()  # neither has begun
    first.began()
    second.began()
    assert (tmp_path / "latest").resolve() == second.path
    RunFolder(tmp_path, 0)
    RunFolder(tmp_path, 0, latest=False).began()
    assert (tmp_path / "latest").resolve() == second.path


def test_shared_memory_that_cannot_be_written_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def read_only(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr("dexrun.terminal.log.logger.add", read_only)  # its queue has a semaphore there
    assert main(arguments(tmp_path)) == BAD_CONFIGURATION
    assert capsys.readouterr().err == (
        "dexrun: /dev/shm cannot be written, and a run needs it: Read-only file system\n"
    )


def test_a_folder_called_latest_stays_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    (tmp_path / "latest").mkdir()
    run = RunFolder(tmp_path, 0)
    run.began()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([run.path.name, "latest"])


def test_the_summary_has_its_room_from_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk without room or inodes: no file can be made any more."""
    folder = RunFolder(tmp_path, 0)
    room = next(folder.path.iterdir()).stat()
    assert room.st_blocks * 512 >= 200_000

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_text", full)
    monkeypatch.setattr(Path, "write_bytes", full)
    written = folder.write_summary({"outcome": "stopped", "stop_reason": "a" * 100_000})
    assert json.loads(written.read_text())["outcome"] == "stopped"
    assert [path.name for path in folder.path.iterdir()] == ["summary.json"]


def test_the_configuration_that_ships_is_the_default() -> None:
    assert load(["--config", "config.toml"], {}).mode == "grasp"
