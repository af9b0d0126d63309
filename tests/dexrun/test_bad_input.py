"""What cannot be used is named in one line, with where it was given; nothing has moved."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import serial

from dexrun.__main__ import main
from dexrun.exit_codes import BAD_CONFIGURATION, STOPPED
from drivers.arms.so100 import JOINT_NAMES, JOINT_RANGES_RAD
from drivers.emulated_port import EmulatedPort
from drivers.feetech.calibration import save_calibration
from tests.dexrun.rig import PATIENT, STANDING_TICKS, Stage, arguments, newest, staged
from tests.feetech.rig import CALIBRATION

LATE = re.compile(r": timeout: no (whole picture|complete pair) [\w.: ]+ \(time \d+\): hold$")
"""Said, in real time and on a busy machine, of a camera that was opened beside the device in question."""
LOG_LINE = re.compile(r"^\d\d:\d\d:\d\d\.\d{3} (\w+) +(.*)$")


# --- configuration: refused before anything is touched


MISTAKES = {
    "--world.sed 7": "world.sed: unknown key; did you mean 'seed'?",
    "--wrold.seed 7": "wrold: unknown key; did you mean 'world'?",
    "--cameras.head.widht 640": "cameras.head.widht: unknown key; did you mean 'width'?",
    "--leader.prot x": "leader.prot: unknown key; did you mean 'port'?",
    "--policy.chunk_step 3": "policy.chunk_step: unknown key; did you mean 'chunk_steps'?",
    "--grasp.home [0]": "grasp.home: unknown key; did you mean 'home_rad'?",
    "--control.rate_hz -1": "control.rate_hz = '-1': input should be greater than 0",
    "--safety.max_velocity_rad_s nan": "safety.max_velocity_rad_s = 'nan': input should be a finite number",
    "--cameras.head.fps fast": "cameras.head.fps = 'fast': give a whole number",
    "--mode walk": "mode = 'walk': input should be 'grasp', 'teleop' or 'rollout'",
    "--arm.driver dynamixel": "arm.driver = 'dynamixel': unknown; known: feetech",
    "--cameras.head.driver zed": "cameras.head.driver = 'zed': unknown; known: opencv, realsense",
    "--cameras.top.source 3": "cameras.top.driver: this key is required; known: opencv, realsense",
    "--policy.type geometrical": "policy.type = 'geometrical': unknown; did you mean 'geometric'?",
    "--arm.joint_torque_limit_fraction.grippr 0.5": "arm.joint_torque_limit_fraction.grippr: no such joint;"
    " did you mean 'gripper'?",
    "--leader.zero_rad {elbow=0.1}": "leader.zero_rad.elbow: no such joint; did you mean 'elbow_flex'?",
    "--safety.joints.foo.lower_rad 1": "safety.joints.foo: no such joint; known: elbow_flex, gripper,"
    " shoulder_lift, shoulder_pan, wrist_flex, wrist_roll",
    '--serve.units.reversed ["jaw"]': "serve.units.reversed.jaw: no such joint; known: elbow_flex, gripper,"
    " shoulder_lift, shoulder_pan, wrist_flex, wrist_roll",
    "--faults.rules {\"head.*\"='ignore'}": "faults.rules.head.* = 'ignore':"
    " input should be 'retry', 'hold' or 'stop'",
}
ELSEWHERE = {
    "--grasp.head top": "command line: grasp.head = 'top' is not a camera; [cameras] has: head, wrist",
    "--cameras.wrist.open_timeout_s 5.8": "command line: cameras.wrist: open_timeout_s + timeout_s"
    " (5.8 + 0.417) must be less than devices.join_timeout_s (6), the longest that the end of a run waits",
    "--arm.calibration no.json": "command line: arm.calibration = 'no.json': no such file",
    "--config no.toml": "no.toml: no such file; --config names the configuration to use",
    "--runs /dev/null/runs": "runs = '/dev/null/runs': nothing can be written there: ",
}


@pytest.mark.parametrize("given", [*MISTAKES, *ELSEWHERE])
def test_a_bad_configuration_is_one_line(
    given: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*arguments(tmp_path), *given.split()]) == BAD_CONFIGURATION
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    if given in MISTAKES:
        assert said.err == f"dexrun: command line: {MISTAKES[given]}\n"
    else:
        assert said.err.startswith(f"dexrun: {ELSEWHERE[given]}")
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_cannot_be_is_said_as_it_was_given(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*arguments(tmp_path), "--cameras.Side.driver", "opencv"]) == BAD_CONFIGURATION
    first = capsys.readouterr().err.splitlines()[0]
    assert first.startswith("dexrun: command line: cameras.Side = 'Side': give a name of small letters")


def test_two_mistakes_are_two_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*arguments(tmp_path), "--world.sed", "7", "--mode", "walk"]) == BAD_CONFIGURATION
    assert len(capsys.readouterr().err.splitlines()) == 2


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("WORLD__SEEED", "7", "world.seeed: unknown key; did you mean 'seed'?\n"),
        ("WORLD", '{"seed":3}', 'world = {"seed":3}: not a TOML value: '),
        ("GRASP__HOME", "[1", "grasp.home = [1: not a TOML value: "),
        ("MODE__X", "1", "mode.x: mode is not a table\n"),
    ],
)
def test_the_environment_is_named(
    name: str,
    value: str,
    said: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(f"DEXRUN_{name}", value)
    assert main(arguments(tmp_path)) == BAD_CONFIGURATION
    error = capsys.readouterr().err
    assert error.startswith(f"dexrun: environment: {said}")
    assert error.count("\n") == 1


def test_a_secret_is_no_configuration(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEXRUN_PLANNER_API_KEY", "a-secret")
    assert main([*arguments(tmp_path), "--check"]) == 0
    assert "a-secret" not in capsys.readouterr().out


def test_credentials_in_urls_are_not_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [*arguments(tmp_path), "--planner.base_url", "http://me:hunter2@gpu/v1", "--check"]
    assert main(words) == 0
    said = capsys.readouterr().out
    assert ("http://***@gpu/v1" in said, "hunter2" in said) == (True, False)
    assert main([*arguments(tmp_path), "rtsp://me:hunter2@camera/live"]) == BAD_CONFIGURATION
    assert "unexpected argument 'rtsp://***@camera/live'" in capsys.readouterr().err


# --- devices: not there, or somebody else's


def started(tmp_path: Path, capsys: pytest.CaptureFixture[str], code: int, **keys: str) -> tuple[str, Stage]:
    """Run with a robot that cannot come up; returns the one error line, and the world as it was left."""
    stage = Stage()
    with staged(stage, None):
        assert main(arguments(tmp_path, **keys)) == code
    said = capsys.readouterr().err
    lines = [line for line in said.splitlines() if not line.startswith("dexrun: FAIL  ")]  # before the log
    found = [match for line in lines if (match := LOG_LINE.match(line))]
    assert len(found) == len(lines), said
    errors = [match[2] for match in found if match[1] in ("WARNING", "ERROR") and not LATE.search(match[2])]
    assert len(errors) == 1, said
    assert found[-1][2].startswith("summary in ")
    stage.summary = json.loads((newest(tmp_path) / "summary.json").read_text())
    assert stage.summary["outcome"] == "stopped"
    assert errors[0] == f"stopped: {stage.summary['stop_reason']}"
    assert stage.summary["ticks"] == 0
    assert_stands(stage)
    return errors[0], stage


def assert_stands(stage: Stage) -> None:
    """The servos are where they were at power-up, and asked for nothing else."""
    assert stage.servos is not None
    start = (1.57, -3.05, 2.7, 1.2, 0.0)
    for joint, angle in enumerate(start):
        low, high = JOINT_RANGES_RAD[joint]
        ticks = 2048 + (angle - (low + high) / 2) * 4096 / (2 * 3.141592653589793)
        assert abs(stage.servos.position[joint] - ticks) < STANDING_TICKS, JOINT_NAMES[joint]
    if any(stage.servos.torque):
        assert stage.servos.goal == pytest.approx(stage.servos.position, abs=STANDING_TICKS)


def given(tmp_path: Path, key: str, value: str) -> dict[str, str]:
    """`key` as `value`, with what a real device needs besides: real time, and an arm its calibration."""
    keys = {key: value}
    if key.endswith(("port", "serial", "source")) and not value.startswith("world:"):
        keys |= PATIENT
        if key.startswith("arm"):
            save_calibration(tmp_path / "arm.json", CALIBRATION)
            keys["arm__calibration"] = str(tmp_path / "arm.json")
    return keys


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("arm__port", "/dev/nowhere", "arm at /dev/nowhere: not_found: no such port"),
        ("force__port", "/dev/nowhere", "force at /dev/nowhere: not_found: no such port"),
        ("cameras__head__serial", "123456", "head at 123456: not_found: no camera with this serial number"),
        ("cameras__wrist__source", "http://127.0.0.1:9/none", "wrist at http://127.0.0.1:9/none: not_found"),
        ("cameras__wrist__source", "97", "wrist at 97: not_found: no video device there"),
    ],
)
def test_a_device_that_cannot_be_used_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], key: str, value: str, message: str
) -> None:
    line, stage = started(tmp_path, capsys, STOPPED, **given(tmp_path, key, value))
    assert re.match(f"stopped: {message}", line)
    device = line.removeprefix("stopped: ").split()[0]
    assert sum(stage.summary["device_faults"][device].values()) == 1


@pytest.fixture
def taken_port(tmp_path: Path) -> Iterator[str]:
    """A serial port that another program holds."""
    port = EmulatedPort(tmp_path / "taken", on_data=lambda data: None)
    try:
        with serial.Serial(port.path, exclusive=True):
            yield port.path
    finally:
        port.close()


@pytest.mark.parametrize(("key", "device"), [("arm__port", "arm"), ("force__port", "force")])
def test_a_serial_port_in_use_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], taken_port: str, key: str, device: str
) -> None:
    line, _ = started(tmp_path, capsys, STOPPED, **given(tmp_path, key, taken_port))
    why = "another device of this configuration is at this port, and has it open"  # as this process has
    assert line == f"stopped: {device} at {taken_port}: in_use: {why}"


@pytest.mark.slow
def test_a_device_that_is_open_and_sends_nothing_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another device's port, or a cable without the sensor behind it."""
    port = EmulatedPort(tmp_path / "mute", on_data=lambda data: None)
    keys = {"force__port": port.path, **PATIENT, "force__open_timeout_s": "3", "devices__first_data_s": "1"}
    stage = Stage()
    try:
        with staged(stage, None):
            assert main(arguments(tmp_path / "runs", **keys)) == STOPPED
    finally:
        port.close()
    reason = f"force at {port.path}: silent: nothing came for 3 s"
    assert f"stopped: {reason}" in capsys.readouterr().err
    summary = json.loads((newest(tmp_path / "runs") / "summary.json").read_text())
    assert (summary["stop_reason"], summary["ticks"]) == (reason, 0)
    assert summary["device_faults"]["force"]["silent"] >= 1
    assert_stands(stage)


def test_the_scene_readers_port_in_use_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        line, _ = started(tmp_path, capsys, STOPPED, planner__scene_reader__port=port)
    assert f"planner.scene_reader.port = {port}: unreachable: cannot listen there" in line


def test_a_missing_checkpoint_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keys = {"policy__type": "act", "policy__checkpoint": "/nowhere/model.safetensors"}
    line, _ = started(tmp_path, capsys, BAD_CONFIGURATION, **keys)
    assert "/nowhere/model.safetensors: no such file" in line
