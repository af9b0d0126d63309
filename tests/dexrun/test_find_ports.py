"""``dexrun find-ports`` on emulated buses: who answers, which one is moved or unplugged."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import serial

from dexrun.setup.find_ports import main
from dexrun.setup.ports import places
from drivers.emulated_port import EmulatedPort
from drivers.feetech import registers as reg
from drivers.feetech.emulator import FeetechEmulator
from drivers.feetech.scan import BusScan, raw_port, scan
from drivers.feetech.servo import EmulatedServo, SimpleServoBank
from runtime.stepped import SteppedClock


class Hand:
    """Does `acts`, one for each look."""

    def __init__(self, *acts: Callable[[], object]) -> None:
        self.acts = list(acts)
        self.said: list[str] = []
        self.tables: list[list[str]] = []

    def confirm(self, text: str) -> None:
        raise AssertionError(text)

    def confirmed(self) -> bool:
        if not self.acts:
            return True
        self.acts.pop(0)()
        return False

    def show(self, text: str) -> None:
        self.said.append(text)

    def watch(self, lines: Sequence[str]) -> None:
        self.tables.append(list(lines))


def arm(folder: Path, name: str, **more: Any) -> FeetechEmulator:
    bank = SimpleServoBank(SteppedClock(), {i: 2000 + i for i in range(1, 7)})
    return FeetechEmulator(bank, folder / name, **more)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "by-id"
    made.mkdir()
    return made


@pytest.fixture
def arms(folder: Path) -> Iterator[list[FeetechEmulator]]:
    made = [arm(folder, "usb-follower"), arm(folder, "usb-leader")]
    yield made
    for each in made:
        each.close()


def find(folder: Path, hand: Hand) -> int:
    return main(["--from", str(folder)], hand, SteppedClock())


def test_ports_are_listed_with_their_servos_and_a_hand_shows_which_is_which(
    folder: Path, arms: list[FeetechEmulator], monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(servo: EmulatedServo, start: int, data: bytes) -> None:
        raise AssertionError((servo, start, data))

    arms[1].servos[2].write(reg.TORQUE_ENABLE.address, b"\x01")
    monkeypatch.setattr(EmulatedServo, "write", never)
    bank = arms[0].servos[3]._bank
    assert isinstance(bank, SimpleServoBank)
    hand = Hand(lambda: bank.override(3, position=2300), arms[1].unplug)
    assert find(folder, hand) == 0
    follower, leader = (str(folder / name) for name in ("usb-follower", "usb-leader"))
    assert hand.said[0] == f"  1  {follower}"
    assert hand.said[2] == ("     6 servos at 1000000 bit/s: 1, 2, 3, 4, 5, 6 (STS3215, firmware 3.10)")
    assert f"torque is on at {leader}: that arm cannot be moved by hand; unplug it instead" in hand.said
    assert hand.tables == [
        ["  1  MOVED: servo 3, by 297 ticks", "  2  as it was"],
        ["  1  MOVED: servo 3, by 297 ticks", "  2  UNPLUGGED"],
    ]
    assert hand.said[-2:] == [f"that one was {leader}", f"that one was {follower}"]


def test_two_servos_with_one_id_are_noticed_by_their_broken_answers(folder: Path) -> None:
    both = arm(folder, "bus", registers={2: {reg.ID: 1}, 3: {reg.BAUD_RATE: 4}})
    both.faults.silent = {4, 5, 6}
    hand = Hand()
    try:
        assert find(folder, hand) == 0
    finally:
        both.close()
    assert hand.said[2] == (
        "     1 servo at 1000000 bit/s: 1 (unreadable); 1 servo at 115200 bit/s: 3 (STS3215, firmware 3.10); "
        "broken answers from 1: two servos with one id, or a bad cable"
    )


def test_an_id_that_no_arm_has_is_found_too(folder: Path) -> None:
    one = arm(folder, "bus", registers={1: {reg.ID: 240}})
    one.faults.silent = {2, 3, 4, 5, 6}
    hand = Hand()
    try:
        assert find(folder, hand) == 0
    finally:
        one.close()
    assert "1 servo at 1000000 bit/s: 240" in hand.said[2]


def test_what_talks_by_itself_is_sent_nothing(folder: Path) -> None:
    got: list[bytes] = []
    sensor = EmulatedPort(folder / "force", got.append)
    try:
        with raw_port("port", sensor.path, SteppedClock()) as port:
            sensor.write(b"1.25\n")
            assert scan("port", port) == BusScan(babbles=True)
    finally:
        sensor.close()
    assert got == []


def test_json_is_for_programs(
    folder: Path, arms: list[FeetechEmulator], capsys: pytest.CaptureFixture[str]
) -> None:
    arms[1].faults.silent = set(range(1, 7))
    assert main(["--from", str(folder), "--json"], clock=SteppedClock()) == 0
    first, second = json.loads(capsys.readouterr().out)
    assert [servo["servo_id"] for servo in first["heard"]["servos"]] == [1, 2, 3, 4, 5, 6]
    assert (second["heard"]["servos"], second["trouble"]) == ([], "")


def test_a_port_is_called_by_the_link_that_lasts(tmp_path: Path) -> None:
    class Info:
        def __init__(self, name: str) -> None:
            self.device, self.serial_number = str(tmp_path / name), "58FA\x1b[2J"
            self.description, self.vid, self.pid = "USB Single Serial", 0x1A86, 0x55D3

    for name in ("ttyACM0", "ttyACM1"):
        (tmp_path / name).touch()
    (tmp_path / "by-id").mkdir()
    (tmp_path / "by-id" / "usb-arm").symlink_to(tmp_path / "ttyACM1")
    found = places(lambda: [Info("ttyACM0"), Info("ttyACM1")], [tmp_path / "by-id", tmp_path / "none"])
    assert [(each.path, each.lasting) for each in found] == [
        (str(tmp_path / "by-id" / "usb-arm"), True),
        (str(tmp_path / "ttyACM0"), False),
    ]
    assert found[0].adapter == "USB Single Serial (1a86:55d3, 58FA\x1b[2J)"


def test_a_folder_that_is_not_there_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--from", str(tmp_path / "none")], Hand(), SteppedClock()) == 2
    assert capsys.readouterr().err == f"dexrun: --from {tmp_path / 'none'}: No such file or directory\n"


def test_a_port_that_another_program_took_meanwhile_is_said(
    folder: Path, arms: list[FeetechEmulator], monkeypatch: pytest.MonkeyPatch
) -> None:
    hand = Hand(lambda: None)
    taken: list[serial.Serial] = []
    show = hand.show

    def take(text: str) -> None:
        if not taken:
            taken.append(serial.Serial(arms[0].port, exclusive=True))
        show(text)

    monkeypatch.setattr(hand, "show", take)
    assert find(folder, hand) == 0
    taken[0].close()
    assert hand.tables[0][0].startswith("  1  not read: another ")
    assert hand.tables[0][1] == "  2  as it was"
