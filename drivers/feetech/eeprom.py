"""Writing what the servos keep without power: told, read back, and put back if it cannot be finished."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from loguru import logger

from drivers.feetech import registers as reg
from drivers.feetech.bus import FeetechBus
from runtime.messages import DeviceError, FaultKind


@dataclass(frozen=True, slots=True)
class EepromWrite:
    """One register of one servo, from what it holds to what it shall hold."""

    servo_id: int
    register: reg.Register
    old: int
    new: int


def plan(bus: FeetechBus, servo_id: int, register: reg.Register, value: int) -> list[EepromWrite]:
    """What has to be written so that `register` holds `value`: one write, or none."""
    held = bus.read(servo_id, register)
    return [EepromWrite(servo_id, register, held, value)] if held != value else []


def write_all(bus: FeetechBus, writes: Sequence[EepromWrite]) -> None:
    """Make all of `writes`, or none; as `written` with nothing to follow."""
    with written(bus, writes):
        pass


@contextmanager
def written(bus: FeetechBus, writes: Sequence[EepromWrite]) -> Iterator[None]:
    """Make all of `writes`, each with a line in the log; if one fails, or the body, all are taken back.

    Raises:
        DeviceError: a servo does not answer, or does not take or give back a value. Its detail says what the
            servos hold now.
    """
    made: list[EepromWrite] = []
    try:
        for write in writes:
            made.append(write)
            _write(bus, write)
        yield
    except BaseException as error:  # an interrupt, too: no servo stays half-written
        stuck = _take_back(bus, made)
        if not stuck and not isinstance(error, DeviceError):
            raise
        state = stuck or "the servos hold what they held before"
        kind = error.kind if isinstance(error, DeviceError) else FaultKind.REFUSED
        why = error.detail if isinstance(error, DeviceError) else f"{type(error).__name__}: {error}"
        raise DeviceError(bus.device, kind, bus.where, f"{why}; {state}", bus.last_good_ns) from error


def _write(bus: FeetechBus, write: EepromWrite) -> None:
    name, register = bus.name(write.servo_id), write.register
    logger.info(
        "{}: EEPROM of {} (servo {}): {} {} -> {}",
        bus.device, name, write.servo_id, register.name, write.old, write.new,
    )  # fmt: skip
    with _unlocked(bus, write.servo_id):
        bus.write(write.servo_id, register, write.new)
        held = bus.read(write.servo_id, register)
    if held != write.new:
        detail = f"{name} (servo {write.servo_id}): {register.name} is {held} after {write.new} was written"
        raise DeviceError(bus.device, FaultKind.REFUSED, bus.where, detail, bus.last_good_ns)


@contextmanager
def _unlocked(bus: FeetechBus, servo_id: int) -> Iterator[None]:
    bus.write(servo_id, reg.LOCK, 0)
    try:
        yield
    finally:
        bus.write(servo_id, reg.LOCK, 1)


def _take_back(bus: FeetechBus, made: Sequence[EepromWrite]) -> str:
    """Undo `made`, newest first; says in words what could not be."""
    stuck = []
    for write in reversed(made):
        try:
            _write(bus, EepromWrite(write.servo_id, write.register, write.new, write.old))
        except DeviceError:
            name = f"{bus.name(write.servo_id)} (servo {write.servo_id})"
            stuck.append(f"{write.register.name} of {name}, {write.old} before and {write.new} to be written")
    if not stuck:
        return ""
    return (
        f"could not be put back, and may hold either value: {'; '.join(stuck)}; the others hold the old ones"
    )
