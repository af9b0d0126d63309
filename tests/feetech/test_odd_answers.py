"""Whole packets that are not what was asked for: of another length, another servo's, two of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from drivers.feetech import registers as reg
from drivers.feetech.emulator import status_packet
from runtime.messages import DeviceError, FaultKind
from tests.feetech.rig import NAMES, Rig, rig, shipped

Change = Callable[[bytes], bytes]
START = {name: 1500 + 100 * at for at, name in enumerate(NAMES)} | {"gripper": 2600}


def again(packet: bytes, *, servo_id: int = 0, error: int | None = None, data: bytes | None = None) -> bytes:
    return status_packet(
        servo_id or packet[2], packet[4] if error is None else error, packet[5:-1] if data is None else data
    )


def answering(r: Rig, change: Change) -> None:
    r.emulator.faults.apply = lambda packet: (change(packet), b"")  # type: ignore[method-assign]


SPOILED: dict[str, Change] = {
    "too short": lambda packet: again(packet, data=packet[5:-2]),
    "too long": lambda packet: again(packet, data=packet[5:-1] + b"\x07"),
    "twice": lambda packet: packet + packet,
}


@pytest.mark.parametrize("how", SPOILED)
def test_an_answer_of_another_length_or_a_second_one_is_none(tmp_path: Path, how: str) -> None:
    with rig(tmp_path, start=START) as r:
        answering(r, SPOILED[how])
        with pytest.raises(
            DeviceError, match=r"what servo 1 \(shoulder_pan\), .* answers is spoiled"
        ) as caught:
            r.arm.open()
        assert caught.value.kind is FaultKind.BAD_PACKET


@pytest.mark.parametrize("how", SPOILED)
def test_nothing_becomes_a_state_of_it_and_it_is_not_called_silence(tmp_path: Path, how: str) -> None:
    with rig(tmp_path, start=START, give_up_s=0.05) as r:
        r.arm.open()
        r.run(1)
        answering(r, SPOILED[how])
        with pytest.raises(DeviceError, match="silent or not understood: shoulder_pan") as caught:
            r.run(100)
        assert caught.value.kind is FaultKind.BAD_PACKET
        assert r.arm.states.published == 1
        assert not any(key.endswith("no_reply") for key in r.arm.statistics())


def test_another_servos_answer_is_not_taken_for_ones_own(tmp_path: Path) -> None:
    """One of two servos that answer under one id, for once: its position would be the other's."""
    with rig(tmp_path, start=START) as r:
        r.arm.open()
        r.run(1)
        before = r.arm.states.newest()
        left = [1]

        def as_the_fourth(packet: bytes) -> bytes:
            if packet[2] == 5 and left:
                left.pop()
                return again(packet, servo_id=4)
            return packet

        answering(r, as_the_fourth)
        for _ in range(3):
            r.run(1)
            state = r.arm.states.newest()
            assert before is not None
            assert state is not None
            assert state["position"].tolist() == before["position"].tolist()
        assert r.arm.statistics() == {"wrist_flex.bad_packet": 1, "wrist_roll.bad_packet": 1}


def test_an_alarm_without_a_name_is_told_too(tmp_path: Path) -> None:
    with rig(tmp_path, start=START) as r:
        r.arm.open()
        answering(r, lambda packet: again(packet, error=0x51) if packet[2] == 3 else packet)
        r.run(2)
        counts = {f"elbow_flex.alarm_{what}": 1 for what in ("voltage", "bit_4", "bit_6")}
        assert r.arm.statistics() == counts


def test_a_servo_that_answers_no_write_is_called_that(tmp_path: Path) -> None:
    registers = shipped()
    registers[3][reg.RESPONSE_STATUS_LEVEL] = 0
    with (
        rig(tmp_path, registers=registers) as r,
        pytest.raises(DeviceError, match=r"elbow_flex .*its Response_Status_Level is 0: it answers no write"),
    ):
        r.arm.open()


@pytest.mark.parametrize("trust_s", [0.0, 0.02])
def test_a_servo_that_answers_and_takes_no_goal_is_not_left_behind(tmp_path: Path, trust_s: float) -> None:
    """Its Goal_Position stays what it was: what a lost packet looks like, and every packet looks like it."""
    with rig(tmp_path, start=START, trust_torque_s=trust_s) as r:
        r.arm.open()
        r.run(3)

        def follow(goals: int) -> None:
            for number in range(goals):
                r.arm.targets.post(r.clock.now_ns(), position=np.full(6, 0.1 + 0.01 * number))
                r.run(3)

        follow(20)
        assert r.arm.statistics() == {}
        r.emulator.servos[3].write = lambda start, data: None  # type: ignore[method-assign]
        with pytest.raises(DeviceError, match="took none of 8 goals in a row: elbow_flex") as caught:
            follow(40)
        assert caught.value.kind is FaultKind.REFUSED
        assert r.arm.statistics()["elbow_flex.lost_goal"] == 8


def test_now_and_then_a_lost_goal_is_none_that_is_refused(tmp_path: Path) -> None:
    with rig(tmp_path, start=START) as r:
        r.arm.open()
        r.run(3)
        servo = r.emulator.servos[3]
        real, lost = servo.write, 0
        for number in range(60):
            drop = number % 5 != 0
            lost += drop
            servo.write = (lambda start, data: None) if drop else real  # type: ignore[method-assign]
            r.arm.targets.post(r.clock.now_ns(), position=np.full(6, 0.1 + 0.01 * (number % 7)))
            r.run(3)
        assert r.arm.statistics()["elbow_flex.lost_goal"] > 15
