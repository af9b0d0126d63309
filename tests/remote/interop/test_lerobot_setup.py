"""LeRobot 0.4.4's own setup-motors on our emulated servos, and ours: the same registers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

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
