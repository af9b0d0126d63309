"""The calibrate command against an emulated arm."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest

from dexrun.setup.calibrate import Terminal, main
from drivers.arms.so100 import JOINT_NAMES
from drivers.feetech import registers as reg
from drivers.feetech.calibration import load_calibration
from drivers.feetech.emulator import FeetechEmulator
from drivers.feetech.servo import SimpleServoBank
from runtime.stepped import SteppedClock


class Hand:
    """Moves the emulated joints stop to stop, one place for every look."""

    def __init__(self, bank: SimpleServoBank, emulator: FeetechEmulator, reach: int) -> None:
        self.bank = bank
        self.emulator = emulator
        self.places = [2047 - reach, 2047 + reach, 2047]
        self.said: list[str] = []
        self.torque: list[set[int]] = []

    def confirm(self, text: str) -> None:
        self.said.append(text)
        self.torque.append({servo.get(reg.TORQUE_ENABLE) for servo in self.emulator.servos.values()})

    def confirmed(self) -> bool:
        if not self.places:
            return True
        place = self.places.pop(0)
        for number in range(1, 7):
            self.bank.override(number, position=place)
        return False

    def show(self, text: str) -> None:
        self.said.append(text)


def run(tmp_path: Path, reach: int) -> tuple[int, Path, Hand]:
    bank = SimpleServoBank(SteppedClock(), dict.fromkeys(range(1, 7), 2047))
    emulator = FeetechEmulator(bank, tmp_path / "arm")
    for servo in emulator.servos.values():  # as every run leaves it
        servo.write(reg.TORQUE_ENABLE.address, b"\x01")
    hand = Hand(bank, emulator, reach)
    target = tmp_path / "arm.json"
    try:
        return main(["--port", emulator.port, "--to", str(target)], hand), target, hand
    finally:
        emulator.close()


def test_an_arm_is_calibrated_and_written_in_lerobots_layout(tmp_path: Path) -> None:
    code, target, hand = run(tmp_path, 900)
    assert code == 0
    calibration = load_calibration(target, JOINT_NAMES)
    assert (calibration["elbow_flex"].range_min, calibration["elbow_flex"].range_max) == (1147, 2947)
    assert hand.said[-1] == f"written to {target}"


def test_torque_is_cut_when_the_arm_is_held_and_before_it_has_to_be_moved(tmp_path: Path) -> None:
    _, _, hand = run(tmp_path, 900)
    hold, middle = hand.said[:2]
    assert ("Hold the arm" in hold, "Torque is off" in hold) == (True, False)
    assert "Torque is off" in middle
    assert hand.torque == [{1}, {0}]


@pytest.mark.parametrize(("presses", "torque"), [(0, {1}), (1, {0}), (2, {0})])
def test_an_input_that_ends_confirms_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], presses: int, torque: set[int]
) -> None:
    bank = SimpleServoBank(SteppedClock(), dict.fromkeys(range(1, 7), 2047))
    emulator = FeetechEmulator(bank, tmp_path / "arm")
    for servo in emulator.servos.values():
        servo.write(reg.TORQUE_ENABLE.address, b"\x01")
    target = tmp_path / "arm.json"
    reading, writing = os.pipe()
    os.write(writing, b"\n" * presses)
    os.close(writing)
    try:
        with open(reading) as keys:
            code = main(["--port", emulator.port, "--to", str(target)], Terminal(keys, io.StringIO()))
        assert {servo.get(reg.TORQUE_ENABLE) for servo in emulator.servos.values()} == torque
    finally:
        emulator.close()
    message = f"dexrun: the input ended before Enter was pressed; {target} is not written\n"
    assert (code, capsys.readouterr().err) == (1, message)
    assert not target.exists()


def test_a_joint_that_was_not_moved_is_named_and_nothing_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, target, _ = run(tmp_path, 10)
    assert code == 3
    assert "shoulder_pan: moved by 20 ticks" in capsys.readouterr().err
    assert not target.exists()


def test_a_port_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--port", "/dev/nowhere", "--to", str(tmp_path / "arm.json")]) == 3
    assert "/dev/nowhere" in capsys.readouterr().err


def test_an_unknown_joint_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--port", "/dev/nowhere", "--to", str(tmp_path / "arm.json"), "--reversed", "elbow"]
    assert main(arguments) == 2
    assert "no such joint" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--port", "/dev/nowhere", "--baudrate", "9600"], "--baudrate: invalid choice: 9600"),
        (["--port", ""], "--port is empty"),
    ],
)
def test_what_no_bus_can_be_opened_with_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    try:
        code: int | str | None = main([*arguments, "--to", str(tmp_path / "arm.json")])
    except SystemExit as error:
        code = error.code
    assert code == 2
    assert message in capsys.readouterr().err
