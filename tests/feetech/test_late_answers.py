"""Answers that come later than they are waited for, on a line with a clock of its own."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

import pytest

from drivers.feetech import registers as reg
from drivers.feetech.bus import FeetechBus
from drivers.feetech.emulator import status_packet, take_instructions
from drivers.feetech.port import BusPort
from runtime.messages import DeviceError, FaultKind

TIMEOUT_S = 0.02
HELD = {reg.HOMING_OFFSET: 47, reg.MIN_POSITION_LIMIT: 874, reg.MAX_POSITION_LIMIT: 3100}


class SlowLine(BusPort):
    """A servo that holds `HELD`, and answers `delay_s` late as often as `late` says."""

    def __init__(self, delay_s: float, late: int) -> None:
        self.path, self.is_using, self.starved = "slow", False, False
        self._timeout_s, self._emulated = TIMEOUT_S, False
        self._buffer, self._budget = bytearray(), 0
        self._descriptor, self._servo = os.pipe()
        self._now_s, self._delay_s, self._late = 0.0, delay_s, late
        self._underway: list[tuple[float, bytes]] = []

    def close(self) -> None:
        os.close(self._descriptor)
        os.close(self._servo)

    def clearPort(self) -> None:  # noqa: N802 - scservo_sdk's name
        self._buffer.clear()

    def writePort(self, packet: Sequence[int]) -> int:  # noqa: N802 - scservo_sdk's name
        (asked,) = take_instructions(bytearray(packet))
        register = next(each for each in HELD if each.address == asked.parameters[0])
        due_s = self._now_s + (self._delay_s if self._late else 0.0)
        self._late = max(0, self._late - 1)
        self._underway.append((due_s, status_packet(asked.servo_id, 0, register.encode(HELD[register]))))
        return len(packet)

    def _readable(self) -> bool:
        until_s = self._now_s + self._timeout_s
        if not self._underway or self._underway[0][0] > until_s:
            self._now_s = until_s
            return False
        due_s, answer = self._underway.pop(0)
        self._now_s = max(self._now_s, due_s)
        os.write(self._servo, answer)
        return True


class EchoingLine(SlowLine):
    """An adapter that gives back what is sent to it, before what a servo answers, if there is one."""

    def __init__(self, model: int | None) -> None:
        super().__init__(0.0, late=0)
        self._model = model

    def writePort(self, packet: Sequence[int]) -> int:  # noqa: N802 - scservo_sdk's name
        self._underway.append((self._now_s, bytes(packet)))
        (asked,) = take_instructions(bytearray(packet))
        if self._model is not None and asked.servo_id in (1, 2):
            data = reg.MODEL_NUMBER.encode(self._model) if asked.parameters else b""
            self._underway.append((self._now_s, status_packet(asked.servo_id, 0, data)))
        return len(packet)


@pytest.mark.parametrize("model", [None, reg.MODEL_STS3215])
def test_an_echo_is_told_from_a_servo_of_another_model(model: int | None) -> None:
    line = EchoingLine(model)
    bus = FeetechBus("arm", {1: "shoulder_pan", 2: "elbow_flex"}, line, num_retry=1)
    with pytest.raises(DeviceError, match="what is sent comes back as it is") as caught:
        bus.check_models([1, 2], reg.MODEL_STS3215)
    assert caught.value.kind is FaultKind.NO_REPLY
    line.close()


@pytest.fixture(params=[0.021, 0.025, 0.035, 0.039])
def line(request: pytest.FixtureRequest) -> Iterator[SlowLine]:
    line = SlowLine(request.param, late=2)
    yield line
    line.close()


def test_a_late_answer_is_not_taken_for_another_registers(line: SlowLine) -> None:
    bus = FeetechBus("arm", {3: "elbow_flex"}, line, num_retry=2)
    assert {register: bus.read(3, register) for register in HELD} == HELD
    assert bus.errors == {"elbow_flex.no_reply": 1}
