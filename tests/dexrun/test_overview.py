"""The ten lines with which ``--check`` begins, and what is said about mistyped options."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dexrun.__main__ import main
from dexrun.exit_codes import BAD_CONFIGURATION
from drivers.feetech.calibration import save_calibration
from tests.feetech.rig import CALIBRATION

ROOT = Path(__file__).parents[2]
CONFIG = str(ROOT / "config.toml")
COMMANDS = ("serve", "replay", "export", "info", "view", "convert", "calibrate")
CASES = {
    (): {
        "mode": "grasp: planner, perception and policy clear the table on their own",
        "moves": "[arm], a simulated arm: nothing real moves",
        "force": "force simulated (serial world:force)",
        "policy": "geometric, in a thread of this machine",
        "clock": "real; the simulated tabletop runs beside it",
    },
    ("--mode", "teleop", "--arm.port", "/dev/ttyACM0", "--arm.calibration", "arm.json"): {
        "moves": "[arm], a REAL arm at /dev/ttyACM0",
        "arms": "arm real (feetech /dev/ttyACM0); leader simulated (feetech world:leader)",
        "planner": "not used in mode teleop",
    },
    ("--planner.base_url", "http://me:hunter2@gpu:8000/v1"): {
        "planner": "the first model that it lists at http://***@gpu:8000/v1; prompt 'clear the table'",
    },
}


@pytest.mark.parametrize("words", CASES)
def test_check_begins_with_ten_lines(
    words: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    save_calibration("arm.json", CALIBRATION)
    assert main(["--config", CONFIG, "--check", *words]) == 0
    lines = capsys.readouterr().out.splitlines()
    said = dict(line.removeprefix("# ").split(maxsplit=1) for line in lines[:10])
    assert list(said) == [
        *("mode", "moves", "arms", "cameras", "force", "planner", "policy", "limits", "clock", "writes")
    ]
    assert {word: said[word] for word in CASES[words]} == CASES[words]
    assert json.loads("\n".join(lines[10:]))["mode"] in said["mode"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--confg", "x"), "command line: confg: unknown key; did you mean 'config'?"),
        (("--chekc",), "--chekc needs a value; did you mean --check?"),
        (("--grasp.home_rad", "3"), "command line: grasp.home_rad = '3': give a list, such as [0.1, 0.2]"),
        (
            ("--policy.type", "act", "--policy.cameras", "head"),
            """command line: policy.cameras = 'head': give a list, such as ["head"]""",
        ),
        (("--safety.joints", "3"), "command line: safety.joints = '3': give a table, such as {name = 1}"),
    ],
)
def test_a_slip_is_told_in_a_persons_words(
    words: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--config", CONFIG, *words]) == BAD_CONFIGURATION
    assert capsys.readouterr().err == f"dexrun: {said}\n"


@pytest.mark.parametrize("command", [(), *((name,) for name in COMMANDS)])
def test_every_help_has_an_example(command: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    try:
        code = main([*command, "--help"])
    except SystemExit as ended:
        code = int(ended.code or 0)
    text = " ".join(capsys.readouterr().out.split())
    assert code == 0
    assert "xample" in text
    assert f"dexrun {command[0]} " in text.partition("xample")[2] if command else "examples: dexrun" in text
