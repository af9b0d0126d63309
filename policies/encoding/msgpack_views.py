"""msgpack in both directions without copying what is large.

`unpack` gives every ``bin`` as a view into the message, so that an image is never moved after it was
received; the package's own decoder copies each one. `pack` leaves large buffers where they are and gives
the message as a list of pieces, for one ``b"".join``. Both are bounded by `Limits`, which a C decoder
applies only after it has allocated.

Format: https://github.com/msgpack/msgpack/blob/master/spec.md. Integers are written in the shortest form,
floats as float64, exactly as the ``msgpack`` package does with its defaults.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from policies.encoding.limits import DEFAULT_LIMITS, Limits, WireError

Piece = bytes | memoryview
Encode = Callable[[Any], Any]
Decode = Callable[[dict[Any, Any]], Any]

_NUMBERS: dict[int, struct.Struct] = {
    0xCA: struct.Struct(">f"),
    0xCB: struct.Struct(">d"),
    0xCC: struct.Struct(">B"),
    0xCD: struct.Struct(">H"),
    0xCE: struct.Struct(">I"),
    0xCF: struct.Struct(">Q"),
    0xD0: struct.Struct(">b"),
    0xD1: struct.Struct(">h"),
    0xD2: struct.Struct(">i"),
    0xD3: struct.Struct(">q"),
}
_CONSTANTS = {0xC0: None, 0xC2: False, 0xC3: True}
_LENGTHS = {1: struct.Struct(">B"), 2: struct.Struct(">H"), 4: struct.Struct(">I")}
_BINS = {0xC4: 1, 0xC5: 2, 0xC6: 4}
_STRINGS = {0xD9: 1, 0xDA: 2, 0xDB: 4}
_ARRAYS = {0xDC: 2, 0xDD: 4}
_MAPS = {0xDE: 2, 0xDF: 4}


def _same(value: dict[Any, Any]) -> Any:
    return value


class _Reader:
    def __init__(self, view: memoryview, limits: Limits, decode: Decode) -> None:
        self.view = view
        self.size = len(view)
        self.at = 0
        self.left = limits.items
        self.limits = limits
        self.decode = decode

    def take(self, count: int) -> memoryview:
        end = self.at + count
        if end > self.size:
            raise WireError(f"message ends at byte {self.size}, in the middle of a value")
        piece = self.view[self.at : end]
        self.at = end
        return piece

    def length(self, width: int) -> int:
        return int.from_bytes(self.take(width), "big")

    def value(self, depth: int) -> Any:
        self.left -= 1
        if self.left < 0:
            raise WireError(f"more than {self.limits.items} values in one message", "too_large")
        if self.at >= self.size:
            raise WireError(f"message ends at byte {self.size}, where a value should be")
        code = self.view[self.at]
        self.at += 1
        # In the order in which they are frequent: text, small integers, bytes.
        if 0xA0 <= code <= 0xBF:
            return self._text(code & 0x1F)
        if code <= 0x7F:
            return code
        if code in _BINS:
            return self.take(self.length(_BINS[code]))
        if code <= 0x8F:
            return self._map(code & 0x0F, depth)
        if code <= 0x9F:
            return self._array(code & 0x0F, depth)
        if code >= 0xE0:
            return code - 0x100
        return self._long(code, depth)

    def _long(self, code: int, depth: int) -> Any:
        if code in _CONSTANTS:
            return _CONSTANTS[code]
        number = _NUMBERS.get(code)
        if number is not None:
            return number.unpack(self.take(number.size))[0]
        if code in _STRINGS:
            return self._text(self.length(_STRINGS[code]))
        if code in _ARRAYS:
            return self._array(self.length(_ARRAYS[code]), depth)
        if code in _MAPS:
            return self._map(self.length(_MAPS[code]), depth)
        raise WireError(f"msgpack type 0x{code:02x} at byte {self.at - 1}; extension types are not taken")

    def _text(self, size: int) -> str:
        if size > self.limits.text_bytes:
            raise WireError(f"text of {size} bytes; at most {self.limits.text_bytes} are taken", "too_large")
        try:
            return str(self.take(size), "utf-8")
        except UnicodeDecodeError:
            raise WireError(f"text before byte {self.at} is not UTF-8") from None

    def _deeper(self, count: int, depth: int) -> int:
        if depth >= self.limits.depth:
            raise WireError(f"more than {self.limits.depth} levels of nesting", "too_large")
        if count > self.left:
            raise WireError(f"more than {self.limits.items} values in one message", "too_large")
        return depth + 1

    def _array(self, count: int, depth: int) -> list[Any]:
        depth = self._deeper(count, depth)
        return [self.value(depth) for _ in range(count)]

    def _map(self, count: int, depth: int) -> Any:
        depth = self._deeper(count, depth)
        found: dict[Any, Any] = {}
        for _ in range(count):
            key = self.value(depth)
            if isinstance(key, memoryview):
                if len(key) > self.limits.text_bytes:
                    raise WireError(f"key of {len(key)} bytes", "too_large")
                key = bytes(key)
            self.limits.check_key(key)
            found[key] = self.value(depth)
        return self.decode(found)


def unpack(
    message: bytes | bytearray | memoryview, limits: Limits = DEFAULT_LIMITS, decode: Decode = _same
) -> Any:
    """The value of `message`; ``bin`` as `memoryview` into it; every map goes through `decode`.

    Raises:
        WireError: it is not one whole msgpack value, or is over a limit.
    """
    view = memoryview(message)
    limits.check_size(view.nbytes)
    reader = _Reader(view, limits, decode)
    value = reader.value(0)
    if reader.at != len(view):
        raise WireError(f"{len(view) - reader.at} bytes after the end of the message")
    return value


@dataclass(frozen=True, slots=True)
class Bin:
    """A ``bin`` value in several pieces (an array's header and its pixels)."""

    pieces: tuple[Piece, ...]


def _not_ours(value: Any) -> Any:
    raise WireError(f"a {type(value).__name__} cannot be sent", "type")


_SHORT, _LARGE = 64, 4096
_SIZES = {1: 1 << 8, 2: 1 << 16, 4: 1 << 32}


def _head(count: int, codes: dict[int, int]) -> bytes:
    for code, width in codes.items():
        if count < _SIZES[width]:
            return bytes([code]) + _LENGTHS[width].pack(count)
    raise WireError(f"{count} bytes or items are more than msgpack can say", "too_large")


def _integer(value: int) -> bytes:
    if -32 <= value < 128:
        return bytes([value & 0xFF])
    for code in (0xCC, 0xCD, 0xCE, 0xCF) if value >= 0 else (0xD0, 0xD1, 0xD2, 0xD3):
        try:
            return bytes([code]) + _NUMBERS[code].pack(value)
        except struct.error:
            continue
    raise WireError(f"integer {value} does not fit msgpack's 64 bits", "too_large")


@functools.lru_cache(maxsize=512)
def _short_text(value: str) -> bytes:
    """Keys, mostly, and the same in every message."""
    return _text(value)


@functools.lru_cache(maxsize=512)
def _short_bin(value: bytes) -> bytes:
    """The same of openpi's keys, which are bytes."""
    return _head(len(value), _BINS) + value


def _text(value: str) -> bytes:
    data = value.encode()
    head = bytes([0xA0 | len(data)]) if len(data) < 32 else _head(len(data), _STRINGS)
    return head + data


def _number(value: float) -> bytes:
    return b"\xcb" + _NUMBERS[0xCB].pack(value)


def _constant(value: bool | None) -> bytes:
    return b"\xc0" if value is None else b"\xc3" if value else b"\xc2"


_SCALARS: dict[type, Callable[[Any], bytes]] = {
    type(None): _constant,
    bool: _constant,
    int: _integer,
    float: _number,
    str: _text,
}


class _Writer:
    """Large buffers are pieces of their own; what lies between two of them is one."""

    def __init__(self, encode: Encode) -> None:
        self.pieces: list[Piece] = []
        self.encode = encode
        self.small = bytearray()

    def finish(self) -> list[Piece]:
        if self.small:
            self.pieces.append(bytes(self.small))
            self.small = bytearray()
        return self.pieces

    def value(self, value: Any, depth: int) -> None:
        scalar = _SCALARS.get(type(value))
        if scalar is _text and len(value) < _SHORT:
            self.small += _short_text(value)
        elif type(value) is bytes and len(value) < _SHORT:
            self.small += _short_bin(value)
        elif scalar is not None:
            self.small += scalar(value)
        elif depth > 64:
            raise WireError("more than 64 levels of nesting", "too_large")
        elif isinstance(value, Bin | bytes | bytearray | memoryview):
            self._bin(value if isinstance(value, Bin) else Bin((memoryview(value).cast("B"),)))
        elif isinstance(value, list | tuple):
            count = len(value)
            self.small += bytes([0x90 | count]) if count < 16 else _head(count, _ARRAYS)
            for item in value:
                self.value(item, depth + 1)
        elif isinstance(value, dict):
            self._map(value, depth + 1)
        else:
            self.value(self.encode(value), depth + 1)

    def _bin(self, value: Bin) -> None:
        self.small += _head(sum(len(piece) for piece in value.pieces), _BINS)
        for piece in value.pieces:
            if len(piece) < _LARGE:
                self.small += piece
            else:
                self.finish().append(piece)

    def _map(self, value: dict[Any, Any], depth: int) -> None:
        count = len(value)
        self.small += bytes([0x80 | count]) if count < 16 else _head(count, _MAPS)
        for key, item in value.items():
            self.value(key, depth)
            self.value(item, depth)


def pack(value: Any, encode: Encode = _not_ours) -> list[Piece]:
    """`value` as pieces of one message; whatever is not plain goes through `encode` first.

    The pieces are views of the arrays in `value`: join them before those change.

    Raises:
        WireError: something in `value` cannot be sent.
    """
    writer = _Writer(encode)
    writer.value(value, 0)
    return writer.finish()
