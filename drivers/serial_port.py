"""Serial ports: finding one by path or USB serial number, opening it for ourselves alone, naming what failed.

A path below ``/dev/serial/by-id`` names a device for good by itself; ``/dev/ttyACM0`` does not, and is
looked up by the adapter's serial number once it is known.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import struct
import termios
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

import serial
import serial.tools.list_ports

from runtime.messages import DeviceError, FaultKind


class PortInfo(Protocol):
    """What a lister says of a port; pyserial's ``ListPortInfo`` is one, and has a ``location`` besides."""

    device: str
    serial_number: str | None


Lister = Callable[[], Iterable[PortInfo]]
"""Lists the serial ports that are there now."""


def list_ports() -> Iterable[PortInfo]:
    """The machine's serial ports."""
    return serial.tools.list_ports.comports()


@dataclass(frozen=True, slots=True)
class Adapter:
    """By what a port is known again after it went away.

    Attributes:
        serial_number: of the USB adapter; none have CH340s, and cheap ones all have the same.
        location: which USB socket it was in, through which hubs; empty if not known.
        kind: vendor and product, for those without a number.
    """

    serial_number: str = ""
    location: str = ""
    kind: tuple[int, int] | None = None

    def __bool__(self) -> bool:
        return self != Adapter()


def adapter_at(path: str, lister: Lister = list_ports) -> Adapter:
    """What is behind `path`, as far as it says."""
    real = os.path.realpath(path)
    found = (_adapter(info) for info in lister() if os.path.realpath(info.device) == real)
    return next(found, Adapter())


def _adapter(info: PortInfo) -> Adapter:
    vendor, product = getattr(info, "vid", None), getattr(info, "pid", None)
    kind = None if vendor is None or product is None else (int(vendor), int(product))
    return Adapter(info.serial_number or "", getattr(info, "location", None) or "", kind)


def find_ports(device: str, port: str, known: Adapter, lister: Lister = list_ports) -> list[str]:
    """The paths to try, the likeliest first: ports with the serial number that is asked for, else `port`.

    Of several with one number, that in the socket where the adapter was comes first, then `port`. An adapter
    without a number is looked for in its socket, then at `port`.

    `device` is the device's name in the configuration, for the error.

    Raises:
        DeviceError: ``not_found``; says which ports there are.
    """
    there = os.path.exists(port)
    ports = list(lister()) if known or not there else []
    alike = [info for info in ports if _alike(_adapter(info), known)]
    if alike:
        real = os.path.realpath(port)

        def likely(info: PortInfo) -> tuple[bool, bool]:
            place = _adapter(info).location
            return (not known.location or place != known.location), os.path.realpath(info.device) != real

        found = [info.device for info in sorted(alike, key=likely)]
        listed = not there or real in map(os.path.realpath, found)
        return found if known.serial_number or listed else [*found, port]
    if not known.serial_number and there:
        return [port]
    names = ", ".join(f"{p.device} ({p.serial_number or 'no serial number'})" for p in ports) or "none"
    if known.serial_number:
        detail = f"no serial port has this serial number; ports that are there: {names}"
        raise DeviceError(device, FaultKind.NOT_FOUND, known.serial_number, detail)
    raise DeviceError(device, FaultKind.NOT_FOUND, port, f"no such port; ports that are there: {names}")


def _alike(one: Adapter, known: Adapter) -> bool:
    if known.serial_number:
        return one.serial_number == known.serial_number
    return known.kind is not None and bool(known.location) and one == known


def find_port(device: str, port: str, serial_number: str, lister: Lister = list_ports) -> str:
    """The likeliest of `find_ports`, for an adapter of which nothing but its number may be known."""
    return find_ports(device, port, Adapter(serial_number), lister)[0]


class _Unflushed(serial.Serial):
    """A port whose opening leaves alone what came in before."""

    def _reset_input_buffer(self) -> None:
        return


def open_port(device: str, path: str, baudrate: int, *, flush: bool = True) -> serial.Serial:
    """Open `path` non-blocking, locked against other programs that lock, at its lowest latency.

    `flush` says whether what came in before is thrown away.

    Raises:
        DeviceError: ``not_found``, ``in_use``, ``no_permission`` or ``cannot_open``.
    """
    try:
        kind = serial.Serial if flush else _Unflushed
        line = kind(path, baudrate, timeout=0, write_timeout=0.5, exclusive=True)
    except (serial.SerialException, OSError, ValueError) as error:
        raise _opening(device, path, error) from error
    # USB adapters hold bytes back for up to 16 ms otherwise; not every port has the setting.
    with contextlib.suppress(ValueError, OSError, NotImplementedError, AttributeError):
        line.set_low_latency_mode(True)
    return line


def _opening(device: str, path: str, error: Exception) -> DeviceError:
    number = getattr(error, "errno", None)
    if number in (errno.EAGAIN, errno.EWOULDBLOCK, errno.EBUSY):
        detail = "another program has this port open"
        if _is_ours(path):
            detail = "another device of this configuration is at this port, and has it open"
        return DeviceError(device, FaultKind.IN_USE, path, detail)
    if number in (errno.ENOENT, errno.ENODEV, errno.ENXIO):
        return DeviceError(device, FaultKind.NOT_FOUND, path, "no such port")
    if number in (errno.EACCES, errno.EPERM):
        detail = "not allowed to open this port; on Linux, join its group (usually dialout)"
        return DeviceError(device, FaultKind.NO_PERMISSION, path, detail)
    return DeviceError(device, FaultKind.CANNOT_OPEN, path, " ".join(str(error).split()))


def _is_ours(path: str) -> bool:
    """Whether this program itself has `path` open."""
    real, listed = os.path.realpath(path), "/proc/self/fd"
    for descriptor in os.listdir(listed) if os.path.isdir(listed) else ():
        with contextlib.suppress(OSError):
            if os.readlink(f"{listed}/{descriptor}") == real:
                return True
    return False


_TCGETS2 = 0x802C542A
_TERMIOS2 = struct.Struct("4I20sII")


def line_speed(descriptor: int) -> int:
    """A terminal's speed in bit/s; `termios` itself knows no 250,000, 128,000 or 76,800."""
    return int(_TERMIOS2.unpack(fcntl.ioctl(descriptor, _TCGETS2, bytes(_TERMIOS2.size)))[6])


def bytes_taken(descriptor: int) -> int:
    """How many bytes the emulated device at the far end has dealt with, modulo 2**32; 0 on any other port."""
    return int(struct.unpack("I4x", fcntl.ioctl(descriptor, termios.TIOCGWINSZ, bytes(8)))[0])


def tell_bytes_taken(descriptor: int, count: int) -> None:
    """What `bytes_taken` says from now on at both ends of this pseudo-terminal.

    A terminal has one thing that either end can set and the other read: the size of its window.
    """
    fcntl.ioctl(descriptor, termios.TIOCSWINSZ, struct.pack("I4x", count % 2**32))


@contextlib.contextmanager
def naming_loss(device: str, path: str, last_good_ns: int | None = None) -> Iterator[None]:
    """Turn what an unplugged port raises into a `DeviceError` of kind ``gone``."""
    try:
        yield
    except (serial.SerialException, OSError, termios.error) as error:
        detail = f"the port went away ({' '.join(str(error).split())})"
        raise DeviceError(device, FaultKind.GONE, path, detail, last_good_ns) from error
