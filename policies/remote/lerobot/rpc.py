"""The three messages of ``lerobot/transport/services.proto``, by hand: they have two kinds of field.

``Observation {TransferState transfer_state = 1; bytes data = 2}``, ``PolicySetup`` and ``Actions
{bytes data = 1}``. Wire format: https://protobuf.dev/programming-guides/encoding/.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from policies.remote.limits import WireError
from policies.remote.msgpack_views import Piece

BEGIN, MIDDLE, END = 1, 2, 3
PIECE_BYTES = 2 * 1024 * 1024
SERVICE = "transport.AsyncInference"
CAPABILITIES = "dexrun"
"""Our own server says in the metadata of its answers what it can do beyond LeRobot's: ``jpeg prefix``."""
STATUS = "dexrun-status"
"""Trailing metadata of ``GetActions``: the episode's status, as JSON."""
FRAME_BYTES = 1 << 22


def channel_options(limit_bytes: int, keep_alive_s: float = 10.0) -> list[tuple[str, int]]:
    """What both our ends tell gRPC: large frames and windows, and a sign of life."""
    return [
        ("grpc.max_receive_message_length", limit_bytes),
        ("grpc.max_send_message_length", limit_bytes),
        ("grpc.http2.max_frame_size", FRAME_BYTES),
        ("grpc.http2.lookahead_bytes", FRAME_BYTES),
        ("grpc.http2.bdp_probe", 0),
        ("grpc.keepalive_time_ms", round(keep_alive_s * 1000)),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.enable_retries", 0),
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.so_reuseport", 0),
    ]


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _read_varint(view: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(view) and shift < 64:
        byte = view[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise WireError("a protobuf number does not end")


def _fields(message: bytes) -> Iterator[tuple[int, int | memoryview]]:
    """Field number and value, an integer or a view."""
    view = memoryview(message)
    at = 0
    while at < len(view):
        tag, at = _read_varint(view, at)
        number, kind = tag >> 3, tag & 7
        if kind == 0:
            value, at = _read_varint(view, at)
            yield number, value
            continue
        if kind == 2:
            size, at = _read_varint(view, at)
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
        else:
            raise WireError(f"protobuf wire type {kind} is not taken")
        if at + size > len(view):
            raise WireError("a protobuf field reaches beyond its message")
        yield number, view[at : at + size]
        at += size


def data_message(pieces: Iterable[Piece]) -> bytes:
    """``PolicySetup`` or ``Actions``."""
    kept = list(pieces)
    return b"".join((b"\x0a", _varint(sum(len(p) for p in kept)), *kept)) if kept else b""


def read_data(message: bytes) -> memoryview:
    """The data of ``PolicySetup`` or ``Actions``; empty if there is none.

    Raises:
        WireError: not such a message.
    """
    found = memoryview(b"")
    for number, value in _fields(message):
        if number == 1:
            if not isinstance(value, memoryview):
                raise WireError("data is not bytes")
            found = value
    return found


def observation_message(state: int, pieces: Iterable[Piece]) -> bytes:
    """``Observation``: one piece of a body."""
    kept = list(pieces)
    return b"".join((b"\x08", _varint(state), b"\x12", _varint(sum(len(p) for p in kept)), *kept))


def observation_messages(pieces: list[Piece]) -> list[bytes]:
    """A body in pieces of 2 MiB; one of at most that is a single ``END``."""
    size = sum(len(p) for p in pieces)
    if size <= PIECE_BYTES:
        return [observation_message(END, pieces)]
    body = memoryview(b"".join(pieces))
    starts = range(0, size, PIECE_BYTES)
    out = []
    for start in starts:
        state = END if start + PIECE_BYTES >= size else BEGIN if start == 0 else MIDDLE
        out.append(observation_message(state, [body[start : start + PIECE_BYTES]]))
    return out


def read_observation(message: bytes) -> tuple[int, memoryview]:
    """Transfer state and data of one piece.

    Raises:
        WireError: not such a message.
    """
    state, data = 0, memoryview(b"")
    for number, value in _fields(message):
        if number == 1 and isinstance(value, int):
            state = value
        elif number == 2 and isinstance(value, memoryview):
            data = value
        elif number in (1, 2):
            raise WireError("an observation's field has the wrong type")
    if state not in (BEGIN, MIDDLE, END):
        raise WireError(f"transfer state {state}; 1 to 3 are taken")
    return state, data
