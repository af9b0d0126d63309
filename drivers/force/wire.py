"""What the force sensor sends, both ways: text lines, and binary frames.

Text: ``K`` decimal numbers, separated, ended by a line feed, a carriage return, or both.

Frames: ``header (2) | n (1) | payload (n) | check``. The payload is ``K`` int16 or float32, little endian;
``n`` its length in bytes. The check covers ``n`` and the payload: CRC-16/CCITT-FALSE (polynomial 0x1021,
start 0xFFFF), little endian, or the low byte of their sum.

The parsers take bytes in pieces of any size, never raise, and find their way back after garbage.
"""

from __future__ import annotations

import binascii
import re
import struct
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from drivers.force.options import SerialForceOptions
from runtime.messages import Floats

_LINE_END = re.compile(rb"[\r\n]")
LINE_LIMIT = 256
"""A line longer than this is garbage."""


class Parser(Protocol):
    """Turns bytes into samples.

    Attributes:
        bad: stretches of bytes that were not a sample, not counting the one that a stream begins with.
    """

    bad: int

    def expected(self) -> str:
        """What a sample looks like."""

    def unread(self) -> bytes:
        """The newest bytes that were not a sample."""

    def feed(self, data: bytes) -> list[Floats]:
        """The samples, in counts ``[K]``, that `data` completes."""


def crc16(data: bytes) -> bytes:
    """CRC-16/CCITT-FALSE, little endian."""
    return binascii.crc_hqx(data, 0xFFFF).to_bytes(2, "little")


def sum8(data: bytes) -> bytes:
    """The low byte of the sum."""
    return bytes([sum(data) & 0xFF])


CHECKS: dict[str, tuple[int, Callable[[bytes], bytes]]] = {"crc16": (2, crc16), "sum8": (1, sum8)}
_CODES = {"int16": "h", "float32": "f"}


def _layout(config: SerialForceOptions) -> struct.Struct:
    return struct.Struct(f"<{config.channels}{_CODES[config.value]}")


def encode(config: SerialForceOptions, counts: Sequence[float] | Floats) -> bytes:
    """One sample as the sensor sends it; int16 values are rounded and clipped."""
    if config.format == "text":
        return (config.separator.join(f"{c:.3f}" for c in counts) + "\r\n").encode("ascii")
    values = list(counts)
    if config.value == "int16":
        values = [max(-32768, min(32767, round(v))) for v in values]
    payload = _layout(config).pack(*values)
    body = bytes([len(payload)]) + payload
    return bytes.fromhex(config.header) + body + CHECKS[config.checksum][1](body)


def parser_for(config: SerialForceOptions) -> Parser:
    """The parser of the format that is configured."""
    return TextParser(config) if config.format == "text" else FrameParser(config)


class TextParser:
    """Lines of numbers. What comes before the first line's end is dropped.

    A stream is joined anywhere, and the end of a number is a number: ``-31234.0`` can begin as ``34.0``.
    """

    def __init__(self, config: SerialForceOptions) -> None:
        self.bad = 0
        self._refused = b""
        self._channels = config.channels
        self._separator = config.separator.strip() or None  # a blank one stands for any run of blanks
        self._buffer = b""
        self._begun = False
        """Whether a line's beginning has been seen."""

    def expected(self) -> str:
        between = "blanks" if self._separator is None else repr(self._separator)
        return f"a line of {self._channels} numbers" + (f" with {between} between" * (self._channels > 1))

    def unread(self) -> bytes:
        return self._refused or self._buffer

    def feed(self, data: bytes) -> list[Floats]:
        samples = []
        *lines, self._buffer = _LINE_END.split(self._buffer + data)
        for line in lines:
            sample = self._parse(line) if self._begun else None
            if sample is not None:
                samples.append(sample)
            elif self._begun and line.strip():
                self.bad += 1
                self._refused = line.strip()
            self._begun = True
        # What is too long to be a line is cut, but stays too long, so that it counts once when it ends.
        self._buffer = self._buffer[: LINE_LIMIT + 1]
        return samples

    def _parse(self, line: bytes) -> Floats | None:
        if len(line) > LINE_LIMIT or b"_" in line:  # which Python allows inside of numbers
            return None
        try:
            words = line.decode("ascii").split(self._separator)
            values = np.array([float(word) for word in words])
        except ValueError:
            return None
        return values if len(values) == self._channels and np.isfinite(values).all() else None


class FrameParser:
    """Binary frames."""

    def __init__(self, config: SerialForceOptions) -> None:
        self.bad = 0
        self._struct = _layout(config)
        self._start = bytes.fromhex(config.header) + bytes([self._struct.size])
        self._check_size, self._check = CHECKS[config.checksum]
        self._size = 3 + self._struct.size + self._check_size
        self._buffer = bytearray()
        self._in_step = False
        self._refused = b""

    def expected(self) -> str:
        return f"a frame of {self._size} bytes that begins with {self._start.hex()}"

    def unread(self) -> bytes:
        return self._refused

    def feed(self, data: bytes) -> list[Floats]:
        buffer = self._buffer
        buffer += data
        samples = []
        while len(buffer) >= self._size:
            sample = self._parse(bytes(buffer[: self._size]))
            if sample is not None:
                samples.append(sample)
                self._in_step = True
                del buffer[: self._size]
                continue
            if self._in_step:
                self.bad += 1
            self._in_step = False
            self._refused = bytes(buffer[: self._size])
            following = buffer.find(self._start, 1)
            # Without another start in sight, one may still be cut off at the end.
            del buffer[: following if following > 0 else max(1, len(buffer) - len(self._start) + 1)]
        return samples

    def _parse(self, frame: bytes) -> Floats | None:
        body, check = frame[2 : -self._check_size], frame[-self._check_size :]
        if not frame.startswith(self._start) or self._check(body) != check:
            return None
        values = np.array(self._struct.unpack(body[1:]), dtype=np.float64)
        return values if np.isfinite(values).all() else None
