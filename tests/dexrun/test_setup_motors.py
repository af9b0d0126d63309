"""``dexrun setup-motors`` on emulated servos as they are shipped, with a scripted person who plugs them."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from dexrun.setup.setup_motors import main
from drivers.arms.so100 import JOINT_NAMES
from drivers.feetech import registers as reg
from drivers.feetech.emulator import FeetechEmulator
from drivers.feetech.servo import EmulatedServo, SimpleServoBank
from runtime.stepped import SteppedClock

KEPT = (reg.ID, reg.BAUD_RATE, reg.RETURN_DELAY_TIME)
SET = [[number, 0, 0] for number in range(1, 7)]
ALL = set(range(1, 7))
SHIPPED = {i: {reg.ID: 1} for i in ALL} | {
    2: {reg.ID: 1, reg.BAUD_RATE: 1},
    5: {reg.ID: 77, reg.BAUD_RATE: 6},
}


class Plugger:
    """Connects what he is asked to, unless a joint is in `mistakes`: then those servos, once each."""

    def __init__(self, emulator: FeetechEmulator, mistakes: dict[str, list[set[int]]] | None = None) -> None:
        self.emulator = emulator
        self.mistakes = mistakes or {}
        self.said: list[str] = []

    def connect(self, *servos: int) -> None:
        self.emulator.faults.silent = ALL - set(servos)

    def confirm(self, text: str) -> None:
        if len(self.said) > 60:
            raise AssertionError(self.said[-4:])
        self.said.append(text)
        asked = [
            name for name in JOINT_NAMES if f"that of {name} first" in text or f"of {name} alone" in text
        ]
        if not asked:
            later = self.mistakes.get("all", [])
            self.connect(*(later.pop(0) if later else ALL))
            return
        later = self.mistakes.get(asked[0], [])
        self.connect(*(later.pop(0) if later else {JOINT_NAMES.index(asked[0]) + 1}))

    def confirmed(self) -> bool:
        raise AssertionError

    def show(self, text: str) -> None:
        self.said.append(text)

    def watch(self, lines: Sequence[str]) -> None:
        raise AssertionError(lines)


@pytest.fixture
def shipped(tmp_path: Path) -> Iterator[FeetechEmulator]:
    bank = SimpleServoBank(SteppedClock(), {i: 2000 + i for i in ALL})
    emulator = FeetechEmulator(bank, tmp_path / "bus", registers=SHIPPED)
    emulator.faults.silent = set(ALL)
    yield emulator
    emulator.close()


def kept(emulator: FeetechEmulator) -> list[list[int]]:
    """What the servos hold after their power was off and on."""
    emulator.power_cycle()
    return [[servo.get(register) for register in KEPT] for servo in emulator.servos.values()]


def run(emulator: FeetechEmulator, person: Plugger, *more: str) -> int:
    return main(["--port", emulator.port, *more], person, SteppedClock())


def test_shipped_servos_get_their_ids_wherever_they_are_found(shipped: FeetechEmulator) -> None:
    person = Plugger(shipped)
    assert run(shipped, person) == 0
    assert person.said[:2] == [
        "Connect the servo of gripper alone, with its power, then press Enter.",
        "gripper: id 1 -> 6, response delay 250 -> 0 (firmware 3.10)",
    ]
    assert (
        "wrist_roll: id 77 -> 5, 57600 -> 1000000 bit/s, response delay 250 -> 0 (firmware 3.10)"
        in person.said
    )
    assert "shoulder_pan: response delay 250 -> 0 (firmware 3.10)" in person.said
    assert person.said[-1] == "all set: 6 servos at 1000000 bit/s: 1, 2, 3, 4, 5, 6 (STS3215, firmware 3.10)"
    assert {servo.get(reg.LOCK) for servo in shipped.servos.values()} == {1}
    assert kept(shipped) == SET


def test_what_is_set_is_skipped_and_not_written_again(
    shipped: FeetechEmulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(shipped, Plugger(shipped), "--joints", "wrist_roll", "gripper") == 0
    writes: list[tuple[int, int]] = []
    write = EmulatedServo.write

    def noted(servo: EmulatedServo, start: int, data: bytes) -> None:
        writes.append((servo.servo_id, start))
        write(servo, start, data)

    monkeypatch.setattr(EmulatedServo, "write", noted)
    person = Plugger(shipped)
    person.connect(5, 6)
    assert run(shipped, person) == 0
    assert person.said[:2] == ["gripper: already set (id 6)", "wrist_roll: already set (id 5)"]
    assert {servo for servo, _ in writes} == {1, 2, 3, 4}
    writes.clear()
    person = Plugger(shipped)
    person.connect(3)
    assert run(shipped, person, "--joints", "elbow_flex") == 0
    assert person.said[1] == "elbow_flex: already set (id 3); nothing was written"
    assert writes == []
    assert kept(shipped) == SET


def test_wrong_plugs_are_said_and_asked_for_again(shipped: FeetechEmulator) -> None:
    shipped.servos[4]._put(reg.MODEL_NUMBER, 1284)
    person = Plugger(shipped, {"gripper": [set(), {6, 5}, {6, 3}, {4}]})
    assert run(shipped, person, "--joints", "gripper") == 0
    words = [text for text in person.said if "Connect the servo" not in text]
    assert words[0] == "no servo answers at any speed: is it powered, and its cable in?"
    assert words[1].startswith("several servos answer (1 servo at 1000000 bit/s: 1 ")
    assert words[2] == (
        "broken answers from id 1: two servos with one id (connect only one), or a bad cable; "
        "nothing was written"
    )
    assert words[3] == "the servo with id 1 is of model 1284, not 777 (STS3215); nothing was written"
    assert words[4] == "gripper: id 1 -> 6, response delay 250 -> 0 (firmware 3.10)"


def test_all_are_looked_at_together_at_the_end(shipped: FeetechEmulator) -> None:
    shipped.servos[4]._put(reg.FIRMWARE_MINOR, 9)
    person = Plugger(shipped, {"all": [{1, 2, 3, 5}, ALL]})
    assert run(shipped, person) == 0
    assert person.said[-4:] == [
        "no answer from wrist_flex (id 4), gripper (id 6)",
        "Connect all servos in their order, then press Enter.",
        "firmware differs (3.10, 3.9): LeRobot refuses such an arm; Feetech's own program updates it",
        "all set: 6 servos at 1000000 bit/s: 1, 2, 3, 4, 5, 6 "
        "(STS3215, firmware 3.10; STS3215, firmware 3.9)",
    ]


def test_a_servo_that_has_another_joints_id_is_asked_about(shipped: FeetechEmulator) -> None:
    assert run(shipped, Plugger(shipped), "--joints", "wrist_roll", "gripper") == 0
    person = Plugger(shipped, {"gripper": [{5}, {6}]})
    person.connect(5)
    assert run(shipped, person, "--joints", "gripper") == 0
    assert person.said[1].startswith(
        "This servo has id 5, as wrist_roll has. Enter makes it gripper; if it is"
    )
    assert person.said[2] == "gripper: already set (id 6); nothing was written"
    assert [row[0] for row in kept(shipped)] == [1, 1, 1, 1, 5, 6]


@pytest.mark.parametrize("register", [reg.RETURN_DELAY_TIME, reg.ID, reg.BAUD_RATE])
def test_a_servo_that_takes_half_of_it_is_put_back(
    shipped: FeetechEmulator,
    register: reg.Register,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write = EmulatedServo.write

    def refuse(servo: EmulatedServo, start: int, data: bytes) -> None:
        if start != register.address:
            write(servo, start, data)

    monkeypatch.setattr(EmulatedServo, "write", refuse)
    assert run(shipped, Plugger(shipped), "--joints", "shoulder_lift") == 3
    said = capsys.readouterr().err
    assert "the servos hold what they held before" in said
    if register is not reg.RETURN_DELAY_TIME:
        assert "it has id 1 at 500000 bit/s, as before" in said
    assert said.endswith("; no servo was written\n")
    assert kept(shipped)[1] == [1, 1, 250]


def test_a_servo_that_goes_away_in_the_middle_is_said_to_have_one_of_two_addresses(
    shipped: FeetechEmulator, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write = EmulatedServo.write

    def leave(servo: EmulatedServo, start: int, data: bytes) -> None:
        write(servo, start, data)
        if start == reg.ID.address:
            shipped.faults.silent = set(ALL)

    monkeypatch.setattr(EmulatedServo, "write", leave)
    assert run(shipped, Plugger(shipped), "--joints", "gripper") == 3
    said = capsys.readouterr().err
    assert "it could not be put back: it has id 1 or 6, at 1000000 bit/s" in said


def stop() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def leave() -> None:
    raise EOFError


@pytest.mark.parametrize(("how", "why"), [(stop, "interrupted (SIGINT)"), (leave, "the input ended before")])
def test_who_breaks_off_is_told_what_was_written(
    shipped: FeetechEmulator, capsys: pytest.CaptureFixture[str], how: Callable[[], None], why: str
) -> None:
    class Leaving(Plugger):
        def confirm(self, text: str) -> None:
            if "wrist_flex" in text:
                how()
            super().confirm(text)

    assert run(shipped, Leaving(shipped)) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"dexrun: {why}")
    assert said.endswith(
        "; written before: gripper: id 1 -> 6, response delay 250 -> 0; wrist_roll: id 77 -> 5, "
        "57600 -> 1000000 bit/s, response delay 250 -> 0; no other servo was\n"
    )
    assert [row[0] for row in kept(shipped)] == [1, 1, 1, 1, 5, 6]


def test_what_does_not_exist_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--port", "x", "--joints", "elbow"]) == 2
    assert main(["--port", "x", "--model", "so9"]) == 2
    assert main(["--port", str(tmp_path / "none")]) == 3
    assert len(capsys.readouterr().err.splitlines()) == 3
