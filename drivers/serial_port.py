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
from typing import Protocol

import serial
import serial.tools.list_ports

from runtime.messages import DeviceError, FaultKind


class PortInfo(Protocol):
    """What a lister says of a port; pyserial's ``ListPortInfo`` is one."""

    device: str
    serial_number: str | None


Lister = Callable[[], Iterable[PortInfo]]
"""Lists the serial ports that are there now."""


def list_ports() -> Iterable[PortInfo]:
    """The machine's serial ports."""
    return serial.tools.list_ports.comports()


def serial_number_of(path: str, lister: Lister = list_ports) -> str:
    """The USB serial number behind `path`, or ``""`` if it has none."""
    real = os.path.realpath(path)
    for info in lister():
        if os.path.realpath(info.device) == real:
            return info.serial_number or ""
    return ""


def find_port(device: str, port: str, serial_number: str, lister: Lister = list_ports) -> str:
    """The path to open: the port with `serial_number` if one is asked for, else `port`.

    `device` is the device's name in the configuration, for the error.

    Raises:
        DeviceError: ``not_found``; says which ports there are.
    """
    ports = list(lister()) if serial_number or not os.path.exists(port) else []
    for info in ports:
        if serial_number and info.serial_number == serial_number:
            return info.device
    if not serial_number and os.path.exists(port):
        return port
    there = ", ".join(f"{p.device} ({p.serial_number or 'no serial number'})" for p in ports) or "none"
    if serial_number:
        detail = f"no serial port has this serial number; ports that are there: {there}"
        raise DeviceError(device, FaultKind.NOT_FOUND, serial_number, detail)
    raise DeviceError(device, FaultKind.NOT_FOUND, port, f"no such port; ports that are there: {there}")


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
        return DeviceError(device, FaultKind.IN_USE, path, "another program has this port open")
    if number in (errno.ENOENT, errno.ENODEV, errno.ENXIO):
        return DeviceError(device, FaultKind.NOT_FOUND, path, "no such port")
    if number in (errno.EACCES, errno.EPERM):
        detail = "not allowed to open this port; on Linux, join its group (usually dialout)"
        return DeviceError(device, FaultKind.NO_PERMISSION, path, detail)
    return DeviceError(device, FaultKind.CANNOT_OPEN, path, " ".join(str(error).split()))


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
