"""The port that scservo_sdk talks through: bounded, and without burning a processor while it waits.

The SDK's own port handler polls a non-blocking port in a loop, takes its timeouts from the wall clock
(at least 34 ms a packet, whatever is asked), and sends the next request with late bytes of the last reply
still in the buffer. This one has the methods that the SDK calls, and none of that.
"""
# ruff: noqa: N802 - scservo_sdk's names

from __future__ import annotations

import contextlib
import os
import select
import termios
from collections.abc import Sequence

import serial

from drivers.serial_port import bytes_taken, naming_loss, open_port

READ_BUDGET = 1024
"""Bytes that one transaction may take in; a babbling line ends there."""

_GLANCE_S = 0.002
_GLANCES = 100


class BusPort:
    """An open port for one `scservo_sdk` packet handler.

    Args:
        device: the bus's name in the configuration, for errors.
        path: what to open.
        timeout_s: how long the line may stay silent while an answer is awaited.
        emulated: whether the far end says what it has dealt with. Silence is not waited for then; `timeout_s`
            only guards against an emulator that hangs, and a busy machine is not taken for a silent servo.

    Raises:
        DeviceError: the port cannot be opened.
    """

    def __init__(
        self, device: str, path: str, baudrate: int, timeout_s: float, *, emulated: bool = False
    ) -> None:
        self._device = device
        self.path = path
        self.is_using = False
        self.starved = False
        """Whether the last wait for bytes ended in silence."""
        self._timeout_s = timeout_s
        self._baudrate = baudrate
        self._line: serial.Serial = open_port(device, path, baudrate)
        self._descriptor = int(self._line.fileno())
        self._emulated = emulated
        self._sent = bytes_taken(self._descriptor) if emulated else 0
        self._buffer = bytearray()
        self._budget = READ_BUDGET

    def close(self) -> None:
        """Let go of the port; never raises."""
        with contextlib.suppress(OSError, termios.error):  # one that went away is let go of, too
            if self._emulated:
                self._settle()
        with contextlib.suppress(OSError, termios.error):
            self._line.close()

    @property
    def pending(self) -> int:
        """Bytes that have come in along with what was asked for."""
        return len(self._buffer)

    def drain(self) -> None:
        """Throw away what comes in until the line has been silent for a timeout (or babbles on)."""
        self.setPacketTimeout(0)
        while not self.starved:
            self.readPort(READ_BUDGET)
        self._buffer.clear()

    def clearPort(self) -> None:
        """Forget what came in before the next request goes out."""
        self._buffer.clear()
        self._line.reset_input_buffer()

    def writePort(self, packet: Sequence[int]) -> int:
        """Send."""
        # Every system call lets go of the interpreter, and costs up to a switch interval to get it back from
        # a thread that computes: pyserial's write would wait for the line as well.
        written = os.write(self._descriptor, bytes(packet))
        self._sent = (self._sent + written) % 2**32
        return written

    def readPort(self, length: int) -> bytes:
        """Up to `length` bytes; fewer only if the line fell silent for a timeout, or the budget is spent."""
        buffer = self._buffer
        while len(buffer) < length and self._budget > 0:
            if not self._readable():
                break
            chunk = os.read(self._descriptor, 4096)
            if not chunk:
                raise OSError("hung up")
            self._budget -= len(chunk)
            buffer += chunk
        self.starved = len(buffer) < length
        taken = bytes(buffer[: max(0, length)])
        del buffer[: max(0, length)]
        return taken

    def _readable(self) -> bool:
        """Wait for bytes; ``False`` when the line has stayed silent."""
        if not self._emulated:
            return self._select(self._timeout_s)
        for _ in range(max(1, round(self._timeout_s / _GLANCE_S))):
            if self._select(_GLANCE_S):
                return True
            if self._all_taken():
                return self._select(0.0)  # what was answered is there by now
        return False

    def _all_taken(self) -> bool:
        """Whether the far end has dealt with all that was sent here; it may have had to with more, of whoever
        had the port before.
        """
        return (bytes_taken(self._descriptor) - self._sent) % 2**32 < 2**31

    def _settle(self) -> None:
        """What was sent last is dealt with before another opens the port, who counts from there."""
        for _ in range(_GLANCES):
            if self._all_taken():
                return
            select.select([], [], [], _GLANCE_S)

    def _select(self, timeout_s: float) -> bool:
        return bool(select.select([self._descriptor], [], [], timeout_s)[0])

    def setPacketTimeout(self, packet_length: int) -> None:
        """A request went out: an answer may take one timeout from now."""
        del packet_length
        self.starved = False
        self._budget = READ_BUDGET

    def setPacketTimeoutMillis(self, milliseconds: float) -> None:
        """As `setPacketTimeout`; the timeout is this port's own."""
        del milliseconds
        self.setPacketTimeout(0)

    def isPacketTimeout(self) -> bool:
        """Whether the answer is overdue."""
        return self.starved

    def setBaudRate(self, baudrate: int) -> None:
        """Go on at another speed, in bit/s.

        Raises:
            DeviceError: ``gone``. ValueError: the adapter has no such speed.
        """
        with naming_loss(self._device, self.path):
            self._line.baudrate = self._baudrate = baudrate

    def getBaudRate(self) -> int:
        """The line's speed in bit/s."""
        return self._baudrate
