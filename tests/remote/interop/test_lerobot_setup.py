"""LeRobot 0.4.4's own setup-motors, calibrate and find-port on our emulated servos, and ours, do the same."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from dexrun.setup.calibrate import main as calibrate
from dexrun.setup.find_ports import main as find_ports
from dexrun.setup.setup_motors import main
from drivers.arms import describe
from drivers.feetech import registers as reg
from drivers.feetech.emulator import FeetechEmulator
from drivers.feetech.servo import SimpleServoBank
from runtime.clock import RealClock
from runtime.stepped import SteppedClock
from tests.remote.interop.peers import Peer, needs

PEER = "lerobot"
pytestmark = needs(PEER)

JOINTS = describe().joints
SHIPPED = {i: {reg.ID: 1} for i in range(1, 7)} | {2: {reg.ID: 1, reg.BAUD_RATE: 1}}


def bus(folder: Path, name: str) -> FeetechEmulator:
    bank = SimpleServoBank(RealClock(), {i: 2000 + i for i in range(1, 7)})
    return FeetechEmulator(bank, folder / name, registers=SHIPPED)


def connect(emulator: FeetechEmulator, asked: str) -> None:
    """The servo that is asked for, alone; all of them where none is."""
    named = {number for number, name in enumerate(JOINTS, start=1) if name in asked}
    emulator.faults.silent = set(range(1, 7)) - (named or set(range(1, 7)))


class Plugger:
    def __init__(self, emulator: FeetechEmulator) -> None:
        self.emulator = emulator

    def confirm(self, text: str) -> None:
        connect(self.emulator, text)

    def confirmed(self) -> bool:
        raise AssertionError

    def show(self, text: str) -> None:
        del text

    def watch(self, lines: Sequence[str]) -> None:
        raise AssertionError(lines)


def kept(emulator: FeetechEmulator) -> list[bytes]:
    """What is there without power, up to the operating mode and what protects the motor."""
    emulator.power_cycle()
    return [servo.read(0, 40) for servo in emulator.servos.values()]


def test_both_leave_the_same_registers_and_lerobot_accepts_ours(tmp_path: Path) -> None:
    theirs, ours = bus(tmp_path, "theirs"), bus(tmp_path, "ours")
    try:
        ours.faults.silent = set(range(1, 7))
        assert main(["--port", ours.port], Plugger(ours), SteppedClock()) == 0
        with Peer(PEER, "setup", theirs.port, str(tmp_path)) as peer:
            for _ in range(7):  # six servos, then all
                connect(theirs, peer.line("ASK "))
                peer.say("")
            peer.line("SET")
        assert kept(theirs) == kept(ours)
        for servo in ours.servos.values():
            assert [servo.get(at) for at in (reg.BAUD_RATE, reg.RETURN_DELAY_TIME, reg.LOCK)] == [0, 0, 1]
    finally:
        theirs.close()
        ours.close()


PLACES = (1147, 2047, 2947, 2047)
"""Through which every joint is moved, in ticks after the homing offset that is to be found."""
HELD = {i: {reg.HOMING_OFFSET: 40 * i - 90, reg.MIN_POSITION_LIMIT: 900 + i} for i in range(1, 7)}
"""Of an earlier calibration: neither may count what is left of it."""


def worn(folder: Path, name: str) -> tuple[FeetechEmulator, SimpleServoBank]:
    """An arm in the middle of its joints, which is somewhere else on every encoder."""
    bank = SimpleServoBank(RealClock(), {i: middle(i) for i in range(1, 7)})
    return FeetechEmulator(bank, folder / name, registers=HELD), bank


def middle(servo_id: int) -> int:
    return 1700 + 100 * servo_id


def move(bank: SimpleServoBank, place: int) -> None:
    for servo_id in range(1, 7):
        bank.override(servo_id, position=middle(servo_id) + place - 2047)


class Mover:
    def __init__(self, bank: SimpleServoBank) -> None:
        self.bank = bank
        self.places = list(PLACES)

    def confirm(self, text: str) -> None:
        if text.startswith("Close"):
            move(self.bank, PLACES[0])

    def confirmed(self) -> bool:
        if self.places:
            move(self.bank, self.places.pop(0))
            return False
        return True

    def show(self, text: str) -> None:
        del text

    def watch(self, lines: Sequence[str]) -> None:
        del lines


def test_both_calibrate_an_arm_alike(tmp_path: Path) -> None:
    (theirs, moved), (ours, bank) = worn(tmp_path, "theirs"), worn(tmp_path, "ours")
    try:
        assert calibrate(["--port", ours.port, "--to", str(tmp_path / "ours.json")], Mover(bank)) == 0
        with Peer(PEER, "calibrate", theirs.port, str(tmp_path)) as peer:
            assert "middle" in peer.line("ASK ")
            peer.say("")
            for place in PLACES:
                assert peer.line("ASK ").endswith("moved")
                move(moved, place)
                peer.say("look")
            peer.line("ASK ")
            peer.say("")
            peer.line("SET")
        written = (reg.HOMING_OFFSET, reg.MIN_POSITION_LIMIT, reg.MAX_POSITION_LIMIT, reg.TORQUE_ENABLE)
        of_both = [
            [[servo.get(at) for at in written] for servo in each.servos.values()] for each in (theirs, ours)
        ]
        assert of_both[0] == of_both[1]
        assert of_both[0][0] == [middle(1) - 2047, 1147, 2947, 0]
        files = [json.loads((tmp_path / name).read_text()) for name in ("arm.json", "ours.json")]
        assert files[0] == files[1]
    finally:
        theirs.close()
        ours.close()


class Unplugger:
    """Pulls out one port at the first look."""

    def __init__(self, emulator: FeetechEmulator) -> None:
        self.emulator = emulator
        self.looks = 0
        self.said: list[str] = []

    def confirm(self, text: str) -> None:
        raise AssertionError(text)

    def confirmed(self) -> bool:
        self.emulator.unplug()
        self.looks += 1
        return self.looks > 1

    def show(self, text: str) -> None:
        self.said.append(text)

    def watch(self, lines: Sequence[str]) -> None:
        del lines


def test_both_find_the_port_that_is_pulled_out(tmp_path: Path) -> None:
    arms = [bus(tmp_path, name) for name in ("ttyACM0", "ttyACM1")]
    try:
        with Peer(PEER, "find-port", str(tmp_path)) as peer:
            peer.line("ASK ")
            arms[1].unplug()
            peer.say("")
            theirs = peer.line("The port of this MotorsBus is ")
        arms[1].plug()
        person = Unplugger(arms[1])
        assert find_ports(["--from", str(tmp_path)], person, SteppedClock()) == 0
        assert theirs == f"'{arms[1].port}'"
        assert person.said[-1] == f"that one was {arms[1].port}"
    finally:
        for arm in arms:
            arm.close()
