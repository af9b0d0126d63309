"""The calibrate command against an emulated arm."""

from __future__ import annotations

import fcntl
import io
import json
import os
import pty
import re
import signal
import struct
import termios
from collections.abc import Sequence
from pathlib import Path

import pytest

from dexrun.setup.calibrate import main
from dexrun.setup.person import Terminal
from drivers.arms.so100 import JOINT_NAMES
from drivers.feetech import registers as reg
from drivers.feetech.calibration import load_calibration
from drivers.feetech.emulator import FeetechEmulator
from drivers.feetech.servo import EmulatedServo, SimpleServoBank
from runtime.stepped import SteppedClock

LIMITS = (reg.HOMING_OFFSET, reg.MIN_POSITION_LIMIT, reg.MAX_POSITION_LIMIT)


class Hand:
    """Moves the emulated joints stop to stop, one place for every look."""

    def __init__(self, bank: SimpleServoBank, emulator: FeetechEmulator, reach: int) -> None:
        self.bank = bank
        self.emulator = emulator
        self.places = [2047 - reach, 2047, 2047 + reach, 2047]
        self.closed = 2047 - reach
        self.said: list[str] = []
        self.tables: list[list[str]] = []
        self.torque: list[set[int]] = []

    def confirm(self, text: str) -> None:
        self.said.append(text)
        if text.startswith("Close"):
            self.bank.override(6, position=self.closed)
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

    def watch(self, lines: Sequence[str]) -> None:
        self.tables.append(list(lines))


def run(tmp_path: Path, reach: int, *arguments: str, closed: int = 0) -> tuple[int, Path, Hand]:
    bank = SimpleServoBank(SteppedClock(), dict.fromkeys(range(1, 7), 2047))
    emulator = FeetechEmulator(bank, tmp_path / "arm")
    for servo in emulator.servos.values():  # as every run leaves it
        servo.write(reg.TORQUE_ENABLE.address, b"\x01")
    hand = Hand(bank, emulator, reach)
    hand.closed = closed or hand.closed
    target = tmp_path / "arm.json"
    try:
        return main(["--port", emulator.port, "--to", str(target), *arguments], hand), target, hand
    finally:
        emulator.close()


def test_an_arm_is_calibrated_and_written_in_lerobots_layout(tmp_path: Path) -> None:
    code, target, hand = run(tmp_path, 900)
    assert code == 0
    calibration = load_calibration(target, JOINT_NAMES)
    assert (calibration["elbow_flex"].range_min, calibration["elbow_flex"].range_max) == (1147, 2947)
    assert hand.said[-1] == f"written to {target}, and into the servos"
    assert calibration["gripper"].drive_mode == 0
    assert os.listdir(tmp_path) == ["arm.json"]
    rows = [table[1] for table in hand.tables]
    assert rows[0].split() == ["shoulder_pan", "2047", "2047", "2047"]
    assert rows[-1].split() == ["shoulder_pan", "1147", "2047", "2947"]
    held = hand.emulator.servos[6]
    assert [held.get(register) for register in LIMITS] == [0, 1147, 2947]


def test_a_gripper_that_closes_with_rising_ticks_is_recorded_as_lerobot_reads_it(tmp_path: Path) -> None:
    code, target, hand = run(tmp_path, 700, closed=2740)
    assert code == 0
    joint = load_calibration(target, JOINT_NAMES)["gripper"]
    assert joint.drive_mode == 1
    # LeRobot turns 0 to 100 round where drive_mode is 1: closed is 0 there, too.
    assert 100 - 100 * (2740 - joint.range_min) / (joint.range_max - joint.range_min) < 1
    assert "Close gripper all the way and keep it so, then press Enter." in hand.said
    _, _, hand = run(tmp_path, 700, "--reversed", "gripper")
    assert not any("Close" in line for line in hand.said)


def test_a_sweep_that_the_model_cannot_make_is_refused_and_no_servo_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, target, hand = run(tmp_path, 2040)
    assert code == 3
    said = capsys.readouterr().err
    assert "shoulder_pan: its range is 7 to 4087, 4080 ticks, a full turn, and the joint has stops" in said
    assert "as they were; torque is off" in said
    assert not target.exists()
    assert [hand.emulator.servos[1].get(register) for register in LIMITS] == [0, 0, 4095]


def test_what_a_check_does_not_use_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["--check", "--port", "/dev/nowhere", "--name", "arm", "--reversed", "gripper"])
    assert left.value.code == 2
    assert "--reversed: with --check, what the file says is compared" in capsys.readouterr().err


@pytest.mark.parametrize(("name", "why"), [("", "is a folder"), ("file/arm.json", "cannot be written: ")])
def test_a_file_that_cannot_be_written_is_refused_before_the_port_is_opened(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, why: str
) -> None:
    (tmp_path / "file").touch()
    assert main(["--port", "/dev/nowhere", "--to", str(tmp_path / name)]) == 2
    assert why in capsys.readouterr().err


def test_a_servo_that_takes_no_write_leaves_all_as_before(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(servo: EmulatedServo, start: int, data: bytes) -> None:
        if servo.servo_id != 6 or start >= 40:
            write(servo, start, data)

    write = EmulatedServo.write
    monkeypatch.setattr(EmulatedServo, "write", refuse)
    code, target, hand = run(tmp_path, 900)
    assert code == 3
    said = capsys.readouterr().err
    assert "gripper (servo 6): Min_Position_Limit is 0 after 1147 was written; the servos hold what" in said
    for number in range(1, 7):
        assert [hand.emulator.servos[number].get(register) for register in LIMITS] == [0, 0, 4095]
    assert not target.exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupt_says_what_is_left(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], number: signal.Signals
) -> None:
    class Leaving(Hand):
        def confirmed(self) -> bool:
            os.kill(os.getpid(), number)
            return super().confirmed()

    bank = SimpleServoBank(SteppedClock(), dict.fromkeys(range(1, 7), 2047))
    emulator = FeetechEmulator(bank, tmp_path / "arm")
    target = tmp_path / "arm.json"
    try:
        code = main(["--port", emulator.port, "--to", str(target)], Leaving(bank, emulator, 900))
    finally:
        emulator.close()
    assert code == 1
    assert capsys.readouterr().err == (
        f"dexrun: interrupted ({number.name}); {target} is not written; the servos' offsets and limits are "
        "as they were; torque is off\n"
    )


def test_what_changes_is_drawn_in_place_on_a_terminal_and_seldom_elsewhere() -> None:
    class Screen(io.StringIO):
        def isatty(self) -> bool:
            return True

    screen, pipe = Screen(), io.StringIO()
    for out in (screen, pipe):
        terminal = Terminal(io.StringIO(), out)
        for row in ("a 1", "a 1", "a 2"):
            terminal.watch(["joint", row])
    assert screen.getvalue() == "\r\x1b[Kjoint\n\r\x1b[Ka 1\n\x1b[2A\r\x1b[Kjoint\n\r\x1b[Ka 2\n"
    assert pipe.getvalue() == "joint\na 1\n"


def test_a_row_wider_than_the_terminal_is_cut_and_drawn_over() -> None:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 24, 20, 0, 0))
    with open(theirs, "w", encoding="utf-8") as out:
        terminal = Terminal(io.StringIO(), out)
        for ticks in (1, 20, 300):
            terminal.watch(["joint  lowest  now  highest", f"elbow_flex {ticks} ticks of many"])
        sent = ""
        while not sent.endswith("300 ticks\r\n"):
            sent += os.read(ours, 4096).decode()
    os.close(ours)
    rows = re.findall(r"\r\x1b\[K(.*?)\r\n", sent)
    assert rows[-2:] == ["joint  lowest  now  ", "elbow_flex 300 ticks"]
    assert len(rows) == 6
    assert max(map(len, rows)) == 20


def test_a_program_at_the_terminal_is_told_what_is_asked_and_that_it_was_answered(tmp_path: Path) -> None:
    typed, shown = tmp_path / "typed", io.StringIO()
    typed.write_text("\n\n2\n")
    with typed.open() as keys:
        terminal = Terminal(keys, shown, marked=True)
        terminal.confirm("Plug it in.")
        assert terminal.confirmed()  # of a file the end can always be read
        assert terminal.ask("Which?", {"2": "the second", "1": "the first"}) == "2"
    plain = io.StringIO()
    assert Terminal(io.StringIO("2\n"), plain, marked=False).ask("Which?") == "2"
    pieces = re.split("\x1b\\]1771;(.*?)\x07", shown.getvalue())
    assert ("".join(pieces[::2]), plain.getvalue()) == ("Plug it in.\nWhich? ", "Which? ")
    assert [json.loads(said) for said in pieces[1::2]] == [
        {"enter": "Plug it in."},
        {},
        {"watch": True},
        {},
        {"line": "Which?", "choices": [["2", "the second"], ["1", "the first"]]},
        {},
    ]


def test_torque_is_cut_when_the_arm_is_held_and_before_it_has_to_be_moved(tmp_path: Path) -> None:
    _, _, hand = run(tmp_path, 900)
    hold, middle = hand.said[:2]
    assert ("Hold the arm" in hold, "Torque is off" in hold) == (True, False)
    assert "Torque is off" in middle
    assert hand.torque == [{1}, {0}, {0}]


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
    message = (
        f"dexrun: the input ended before Enter was pressed; {target} is not written; the servos' offsets and "
        f"limits are as they were{'; torque is off' if presses else ''}\n"
    )
    assert (code, capsys.readouterr().err) == (1, message)
    assert not target.exists()


def test_a_joint_that_was_not_moved_is_named_and_nothing_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, target, _ = run(tmp_path, 10)
    assert code == 3
    assert "shoulder_pan: its range is 2037 to 2057, 20 ticks: it was not moved" in capsys.readouterr().err
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


def test_a_file_is_checked_against_servos_and_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    bank = SimpleServoBank(SteppedClock(), dict.fromkeys(range(1, 7), 2047))
    emulator = FeetechEmulator(bank, tmp_path / "arm")
    hand = Hand(bank, emulator, 900)
    named = ["--port", emulator.port, "--name", "left-follower"]
    try:
        assert main([*named, "--check"], hand) == 2
        assert main(named, hand) == 0
        assert sorted(load_calibration("calibration/left-follower.json", JOINT_NAMES)) == sorted(JOINT_NAMES)
        hand.said.clear()
        assert main([*named, "--check"], hand) == 0
        assert {text.split(maxsplit=1)[1] for text in hand.said} == {"file, servo and model agree"}
        bank.override(4, position=3100)
        emulator.servos[2].write(reg.LOCK.address, b"\0")
        emulator.servos[2].write(reg.HOMING_OFFSET.address, b"\x05\0")
        hand.said.clear()
        assert main([*named, "--check"], hand) == 1
    finally:
        emulator.close()
    assert hand.said[1] == (
        "  shoulder_lift    Homing_Offset is 5 in the servo, homing_offset is 0 in the file"
    )
    assert hand.said[3] == "  wrist_flex       it stands at 3100, outside of 1147 to 2947"
    assert "no such file" in capsys.readouterr().err.lower()


def test_a_name_is_no_path(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--port", "x", "--name", "../arm"])
    assert ended.value.code == 2
    assert "letters, digits" in capsys.readouterr().err
