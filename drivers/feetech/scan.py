"""Which servos answer on a port, at which speed, and whether two of them have one id. Nothing is changed.

A port is listened to before anything is sent to it: what talks by itself is no servo bus, and is left alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass

from drivers.feetech import registers as reg
from drivers.feetech.bus import FeetechBus
from drivers.feetech.port import READ_BUDGET, BusPort
from drivers.serial_port import naming_loss
from runtime.clock import Clock
from runtime.messages import DeviceError, FaultKind

SCAN_TIMEOUT_S = 0.06
"""Silence after which nobody answers: servos that are all asked at once may answer one after another."""
GUARD_S = 10.0
"""The same, in wall time, on an emulated port, which says itself that it has nothing to say."""
LIKELY_IDS = range(21)
"""Asked one by one wherever anybody was heard; all ids only if none of these answers."""
LISTENED = 4
"""So many times `SCAN_TIMEOUT_S` is a port listened to first."""
_LOOKS, _BROKEN = 4, 2
"""So often is a servo's state read, and so many broken answers mean that two servos gave it."""
_PING_ALL = bytes([0xFF, 0xFF, reg.BROADCAST_ID, 2, 1, 0xFE])


@dataclass(frozen=True, slots=True)
class FoundServo:
    """A servo that answered.

    Attributes:
        servo_id: what it answers to. baudrate: at which speed, in bit/s.
        model: its Model_Number. firmware: ``major.minor``.
        clashes: its answers come broken: two servos have this id, or a cable is bad.
    """

    servo_id: int
    baudrate: int
    model: int
    firmware: str
    clashes: bool = False


@dataclass(frozen=True, slots=True)
class BusScan:
    """What was heard on a port.

    Attributes:
        servos: in the order of their speeds, the usual one first.
        babbles: something talks without being asked; nothing was sent.
    """

    servos: tuple[FoundServo, ...] = ()
    babbles: bool = False


@contextmanager
def raw_port(device: str, path: str, clock: Clock, baudrate: int = 1_000_000) -> Iterator[BusPort]:
    """An open port for `scan` and `bus_on`.

    Raises:
        DeviceError: it cannot be opened.
    """
    timeout_s = GUARD_S if clock.stepped else SCAN_TIMEOUT_S
    with closing(BusPort(device, path, baudrate, timeout_s, emulated=clock.stepped)) as port:
        yield port


def bus_on(device: str, port: BusPort, names: dict[int, str] | None = None, num_retry: int = 2) -> FeetechBus:
    """A bus that talks through `port`, which stays the caller's."""
    return FeetechBus(device, names or {reg.BROADCAST_ID: "any"}, port, num_retry)


def scan(device: str, port: BusPort, speeds: Iterable[int] = tuple(reg.BAUD_CODES)) -> BusScan:
    """Look for servos at each of `speeds` in bit/s that the adapter has; the port is left at the last one.

    Raises:
        DeviceError: ``gone``.
    """
    with naming_loss(device, port.path):
        if any(port.readPort(1) for _ in range(LISTENED)):
            return BusScan(babbles=True)
    found: list[FoundServo] = []
    for speed in speeds:
        try:
            port.setBaudRate(speed)
        except ValueError:  # no servo can be heard there: some adapters have the usual speeds only
            continue
        if _anybody(device, port):
            found += _servos(device, port, speed)
    return BusScan(tuple(found))


def _anybody(device: str, port: BusPort) -> bool:
    """Whether anything answers at this speed, broken or not."""
    with naming_loss(device, port.path):
        port.drain()
        port.clearPort()
        port.setPacketTimeout(0)
        port.writePort(list(_PING_ALL))
        heard = port.readPort(READ_BUDGET)
        port.drain()
    return bool(heard)


def _servos(device: str, port: BusPort, speed: int) -> list[FoundServo]:
    bus = bus_on(device, port)
    answering = [i for i in LIKELY_IDS if _answers(bus, i)]
    if not answering:
        answering = [i for i in range(LIKELY_IDS.stop, reg.MAX_ID + 1) if _answers(bus, i)]
    return [_looked_at(bus, servo_id, speed) for servo_id in answering]


def _answers(bus: FeetechBus, servo_id: int) -> bool:
    """Whether anybody has this id; several that share it may answer in pieces."""
    bus.errors.clear()
    if bus.sync_read([servo_id], reg.MODEL_NUMBER.address, reg.MODEL_NUMBER.size, 0):
        return True
    return any(key.endswith(FaultKind.BAD_PACKET) for key in bus.errors)


def _looked_at(bus: FeetechBus, servo_id: int, speed: int) -> FoundServo:
    bus.errors.clear()
    start, size = reg.HEALTH_BLOCK
    whole = [bus.sync_read([servo_id], start, size, 0).get(servo_id) for _ in range(_LOOKS)]
    if whole.count(None) >= _BROKEN:
        return FoundServo(servo_id, speed, 0, "", clashes=True)
    try:
        model = bus.read(servo_id, reg.MODEL_NUMBER)
        firmware = ".".join(str(bus.read(servo_id, at)) for at in (reg.FIRMWARE_MAJOR, reg.FIRMWARE_MINOR))
    except DeviceError:
        return FoundServo(servo_id, speed, 0, "", clashes=True)
    return FoundServo(servo_id, speed, model, firmware)
