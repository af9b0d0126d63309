"""The calibrate command against an emulated arm."""

from __future__ import annotations

from pathlib import Path

import pytest

from dexrun.calibrate import main
from drivers.feetech.calibration import load_calibration
from drivers.feetech.emulator import FeetechEmulator
from drivers.feetech.servo import SimpleServoBank
from runtime.so100 import JOINT_NAMES
from runtime.stepped import SteppedClock


class Hand:
    """Moves the emulated joints stop to stop, one place for every look."""

    def __init__(self, bank: SimpleServoBank, reach: int) -> None:
        self.bank = bank
        self.places = [2047 - reach, 2047 + reach, 2047]
        self.said: list[str] = []

    def confirm(self, text: str) -> None:
        self.said.append(text)

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
    hand = Hand(bank, reach)
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
