"""The little of protobuf's wire format that recordings and gRPC messages need: fields, descriptors.

Only whole messages of scalars, byte strings and packed 64-bit arrays. Format:
https://protobuf.dev/programming-guides/encoding/ and ``google/protobuf/descriptor.proto``.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

VARINT, I64, LEN, I32 = 0, 1, 2, 5

# Field types of descriptor.proto.
DOUBLE, INT64, INT32, FIXED32, STRING, MESSAGE, BYTES, SFIXED64 = 1, 3, 5, 7, 9, 11, 12, 16


class ProtobufError(ValueError):
    """The bytes are not a message of this kind."""


def varint(value: int) -> bytes:
    """`value`, not negative, in groups of seven bits."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def key(number: int, wire: int) -> bytes:
    """What stands before a field."""
    return varint(number << 3 | wire)


def field_bytes(number: int, data: bytes) -> bytes:
    """A string, byte string, message or packed array."""
    return key(number, LEN) + varint(len(data)) + data


def field_text(number: int, text: str) -> bytes:
    """A string."""
    return field_bytes(number, text.encode())


def field_int(number: int, value: int) -> bytes:
    """An ``int32`` or ``int64`` that is not negative, or an enum."""
    return key(number, VARINT) + varint(value)


def field_fixed32(number: int, value: int) -> bytes:
    """A ``fixed32``."""
    return key(number, I32) + struct.pack("<I", value)


def field_i64(number: int, value: int) -> bytes:
    """An ``sfixed64``."""
    return key(number, I64) + struct.pack("<q", value)


def timestamp(ns: int) -> bytes:
    """The body of a ``google.protobuf.Timestamp``; `ns` since the epoch, not negative."""
    seconds, nanos = divmod(ns, 1_000_000_000)
    return field_int(1, seconds) + field_int(2, nanos)


def _read_varint(data: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(data) or shift > 63:
            raise ProtobufError("a number runs past the end of its message")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7


def fields(data: memoryview | bytes) -> Iterator[tuple[int, int | memoryview]]:
    """``(number, value)`` of every field: an int for varints, the raw bytes for everything else.

    Raises:
        ProtobufError: these bytes are not a message.
    """
    view, at = memoryview(data), 0
    while at < len(view):
        tag, at = _read_varint(view, at)
        number, wire = tag >> 3, tag & 7
        if wire == VARINT:
            value, at = _read_varint(view, at)
            yield number, value
            continue
        if wire == LEN:
            size, at = _read_varint(view, at)
        elif wire in (I64, I32):
            size = 8 if wire == I64 else 4
        else:
            raise ProtobufError(f"wire type {wire} is not used by anything here")
        if at + size > len(view):
            raise ProtobufError("a field runs past the end of its message")
        yield number, view[at : at + size]
        at += size


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a message type; `type` as in descriptor.proto, `type_name` for messages."""

    name: str
    number: int
    type: int
    repeated: bool = False
    type_name: str = ""


_TIMESTAMP_FILE = "google/protobuf/timestamp.proto"
TIMESTAMP = ".google.protobuf.Timestamp"


def _message(name: str, members: Sequence[Field]) -> bytes:
    out = field_text(1, name)
    for member in members:
        body = field_text(1, member.name) + field_int(3, member.number)
        body += field_int(4, 3 if member.repeated else 1) + field_int(5, member.type)
        if member.type_name:
            body += field_text(6, member.type_name)
        out += field_bytes(2, body)
    return out


def _file(name: str, package: str, dependencies: Sequence[str], message: bytes) -> bytes:
    out = field_text(1, name) + field_text(2, package)
    out += b"".join(field_text(3, each) for each in dependencies)
    return out + field_bytes(4, message) + field_text(12, "proto3")


def descriptor_set(full_name: str, members: Sequence[Field]) -> bytes:
    """A serialised ``FileDescriptorSet`` that defines message `full_name` (``package.Name``)."""
    package, _, name = full_name.rpartition(".")
    timed = any(member.type_name == TIMESTAMP for member in members)
    out = b""
    if timed:
        stamp = _message("Timestamp", [Field("seconds", 1, INT64), Field("nanos", 2, INT32)])
        out += field_bytes(1, _file(_TIMESTAMP_FILE, "google.protobuf", [], stamp))
    path = f"{package.replace('.', '/')}/{name}.proto"
    file = _file(path, package, [_TIMESTAMP_FILE] if timed else [], _message(name, members))
    return out + field_bytes(1, file)
