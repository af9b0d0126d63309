"""``dexrun joints`` on an emulated arm."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from dexrun.setup import joints
from dexrun.setup.joints import main
from drivers.arms.so100 import JOINT_NAMES
from drivers.feetech import registers as reg
from drivers.feetech.bus import FeetechBus
from drivers.feetech.calibration import JointCalibration, save_calibration
from drivers.feetech.emulator import FeetechEmulator
from drivers.feetech.options import FeetechOptions
from drivers.feetech.servo import SimpleServoBank
from drivers.feetech.setup import connect
from runtime.clock import Clock
from runtime.stepped import SteppedClock


class Hand:
    """Turns the shoulder to the right by 100 ticks, then presses Enter."""

    def __init__(self, bank: SimpleServoBank) -> None:
        self.bank = bank
        self.tables: list[list[str]] = []
        self.said: list[str] = []

    def confirm(self, text: str) -> None:
        raise AssertionError(text)

    def confirmed(self) -> bool:
        if len(self.tables) > 1:
            return True
        self.bank.override(1, position=2147, temperature=71)
        return False

    def show(self, text: str) -> None:
        self.said.append(text)

    def watch(self, lines: Sequence[str]) -> None:
        self.tables.append(list(lines))


@pytest.mark.parametrize("of_a_file", [True, False])
def test_a_joint_that_a_hand_turns_is_shown_in_all_units(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, of_a_file: bool
) -> None:
    def patient(name: str, config: FeetechOptions, names: Mapping[int, str], clock: Clock) -> FeetechBus:
        """The emulator is a thread of this process, which others may keep from running."""
        return connect(name, config.model_copy(update={"packet_timeout_s": 5.0}), names, clock)

    monkeypatch.setattr(joints, "connect", patient)
    bank = SimpleServoBank(SteppedClock(), dict.fromkeys(range(1, 7), 2047))
    limits = {reg.MIN_POSITION_LIMIT: 1047, reg.MAX_POSITION_LIMIT: 3147}
    emulator = FeetechEmulator(bank, tmp_path / "arm", registers=dict.fromkeys(range(1, 7), limits))
    emulator.servos[2].write(reg.TORQUE_ENABLE.address, b"\x01")
    given = []
    if of_a_file:
        entries = {
            name: JointCalibration(id=i, homing_offset=0, range_min=1047, range_max=3147)
            for i, name in enumerate(JOINT_NAMES, 1)
        }
        save_calibration(tmp_path / "arm.json", entries)
        given = ["--calibration", str(tmp_path / "arm.json")]
    hand = Hand(bank)
    try:
        assert main(["--port", emulator.port, *given], hand) == 0
        assert hand.said == ["torque is on: shoulder_lift; --let-go switches it off (the arm drops)"]
        assert main(["--port", emulator.port, *given, "--let-go"], Hand(bank)) == 0
        assert not any(servo.get(reg.TORQUE_ENABLE) for servo in emulator.servos.values())
    finally:
        emulator.close()
    before, after = (table[1].split() for table in (hand.tables[0], hand.tables[-1]))
    assert before == ["shoulder_pan", "2047", "-0.077", "-4.40", "-4.76", "+0", "+0", "12.0", "30", "0", "-"]
    assert after == [
        "shoulder_pan",
        "2147",
        "0.077",
        "4.40",
        "4.76",
        "+100",
        "+0",
        "12.0",
        "71",
        "0",
        "overtemperature",
    ]


def test_what_is_no_port_or_model_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--port", str(tmp_path / "none")]) == 3
    assert main(["--port", "x", "--model", "so9"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert "so9" in lines[1]
