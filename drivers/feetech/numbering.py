"""Giving a servo that is alone on its line its id, its speed and the shortest response delay, or nothing.

Id and speed are how a servo is talked to: between the two writes it answers to an address that is neither the
old nor the new one. What fails there is put back, wherever the servo is by then.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import product

from loguru import logger

from drivers.feetech import registers as reg
from drivers.feetech.bus import FeetechBus
from drivers.feetech.eeprom import plan, written
from drivers.feetech.port import BusPort
from drivers.feetech.scan import FoundServo, bus_on
from runtime.messages import DeviceError, FaultKind

DELAY = 0
"""Of the response, in 2 us: LeRobot's choice, too. 250 as shipped."""


@dataclass(frozen=True, slots=True)
class ServoAddress:
    """How a servo is talked to: `servo_id` at `baudrate` bit/s."""

    servo_id: int
    baudrate: int = 1_000_000

    def __str__(self) -> str:
        return f"id {self.servo_id} at {self.baudrate} bit/s"


class Numberer:
    """Sets up the servo of one joint after another.

    Args:
        device: for errors. port: open, and left at whatever speed was used last.
    """

    def __init__(self, device: str, port: BusPort) -> None:
        self._device = device
        self._port = port

    def delay(self, at: ServoAddress) -> int:
        """The response delay that the servo at `at` holds.

        Raises:
            DeviceError: it does not answer.
        """
        return self._bus(at).read(at.servo_id, reg.RETURN_DELAY_TIME)

    def is_set(self, found: FoundServo, wanted: ServoAddress) -> bool:
        """Whether nothing is to be written.

        Raises:
            DeviceError: it does not answer.
        """
        here = ServoAddress(found.servo_id, found.baudrate)
        return here == wanted and self.delay(here) == DELAY

    def settle(self, found: FoundServo, wanted: ServoAddress, joint: str) -> list[str]:
        """Let the servo `found` be the one of `joint`, at `wanted`; returns what was changed, in words.

        Raises:
            DeviceError: it does not take it; the detail says what the servo holds now.
        """
        here = ServoAddress(found.servo_id, found.baudrate)
        bus = self._bus(here, joint)
        if bus.read(here.servo_id, reg.TORQUE_ENABLE):
            bus.write(here.servo_id, reg.TORQUE_ENABLE, 0)
        writes = plan(bus, here.servo_id, reg.RETURN_DELAY_TIME, DELAY)
        said = [f"response delay {write.old} -> {write.new}" for write in writes]
        if here.baudrate != wanted.baudrate:
            said.insert(0, f"{here.baudrate} -> {wanted.baudrate} bit/s")
        if here.servo_id != wanted.servo_id:
            said.insert(0, f"id {here.servo_id} -> {wanted.servo_id}")
        with written(bus, writes):
            if here != wanted:
                self._move(here, wanted, joint)
        return said

    def _bus(self, at: ServoAddress, joint: str = "servo", num_retry: int = 2) -> FeetechBus:
        self._port.setBaudRate(at.baudrate)
        return bus_on(self._device, self._port, {at.servo_id: joint}, num_retry)

    def _move(self, old: ServoAddress, new: ServoAddress, joint: str) -> None:
        try:
            self._change(old, new, joint)
        except BaseException as error:
            state = self._put_back(old, new, joint)
            kind = error.kind if isinstance(error, DeviceError) else FaultKind.REFUSED
            why = error.detail if isinstance(error, DeviceError) else f"{type(error).__name__}: {error}"
            raise DeviceError(self._device, kind, self._port.path, f"{why}; {state}") from error

    def _change(self, old: ServoAddress, new: ServoAddress, joint: str) -> None:
        logger.info("{}: EEPROM of {}: {} -> {}", self._device, joint, old, new)
        self._bus(old, joint).write(old.servo_id, reg.LOCK, 0)
        between = ServoAddress(new.servo_id, old.baudrate)
        if old.servo_id != new.servo_id:
            self._send(old, reg.ID, new.servo_id, joint)
        if self._bus(between, joint).ping(new.servo_id) is None:
            detail = f"{joint}: nobody answers to id {new.servo_id} after it was written"
            raise DeviceError(self._device, FaultKind.REFUSED, self._port.path, detail)
        if old.baudrate != new.baudrate:
            self._send(between, reg.BAUD_RATE, reg.BAUD_CODES[new.baudrate], joint)
        bus = self._bus(new, joint)
        bus.write(new.servo_id, reg.LOCK, 1)
        expected = ((reg.ID, new.servo_id), (reg.BAUD_RATE, reg.BAUD_CODES[new.baudrate]), (reg.LOCK, 1))
        for register, value in expected:
            held = bus.read(new.servo_id, register)
            if held != value:
                detail = f"{joint}: {register.name} is {held} after {value} was written"
                raise DeviceError(self._device, FaultKind.REFUSED, self._port.path, detail)

    def _send(self, at: ServoAddress, register: reg.Register, value: int, joint: str) -> None:
        """Write what changes the address: its acknowledgement may come from the old one or the new one."""
        try:
            self._bus(at, joint, num_retry=0).write(at.servo_id, register, value)
        except DeviceError as error:
            if error.kind == FaultKind.GONE:
                raise

    def _put_back(self, old: ServoAddress, new: ServoAddress, joint: str) -> str:
        """Undo half a change; says in words where the servo is."""
        with suppress(DeviceError):
            for at in self._where(old, new):
                if at != old:
                    self._change(at, old, joint)
                else:
                    self._bus(old, joint).write(old.servo_id, reg.LOCK, 1)
                return f"it has {old}, as before"
        ids = " or ".join(str(i) for i in dict.fromkeys((old.servo_id, new.servo_id)))
        speeds = " or ".join(str(b) for b in dict.fromkeys((old.baudrate, new.baudrate)))
        return (
            f"it could not be put back: it has id {ids}, at {speeds} bit/s; switch its power off and on, and "
            "start again: it is looked for at every id and speed"
        )

    def _where(self, old: ServoAddress, new: ServoAddress) -> Iterator[ServoAddress]:
        ids, speeds = (old.servo_id, new.servo_id), (old.baudrate, new.baudrate)
        for servo_id, speed in dict.fromkeys(product(ids, speeds)):
            at = ServoAddress(servo_id, speed)
            if self._bus(at, joint="servo").ping(servo_id) is not None:
                yield at
