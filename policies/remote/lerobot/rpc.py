"""What both ends of LeRobot's gRPC service agree on: its three messages, its name, the channel's options.

``Observation {TransferState transfer_state = 1; bytes data = 2}``, ``PolicySetup`` and ``Actions
{bytes data = 1}`` of ``lerobot/transport/services.proto``. They have two kinds of field, and a body of
megabytes that generated code would copy once more.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from policies.encoding.limits import WireError
from policies.encoding.msgpack_views import Piece
from runtime import protobuf as pb

BEGIN, MIDDLE, END = 1, 2, 3
PIECE_BYTES = 2 * 1024 * 1024
SERVICE = "transport.AsyncInference"
CAPABILITIES = "dexrun"
"""Our own server says in the metadata of its answers what it can do beyond LeRobot's: ``jpeg prefix``."""
STATUS = "dexrun-status"
"""Trailing metadata of ``GetActions``: the episode's status, or why there are no actions, as JSON."""
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


def _fields(message: bytes) -> Iterator[tuple[int, int | memoryview]]:
    """Field number and value, an integer or a view."""
    try:
        yield from pb.fields(message)
    except pb.ProtobufError as error:
        raise WireError(f"protobuf: {error}") from None


def _data(number: int, pieces: list[Piece]) -> tuple[Piece, ...]:
    """A ``bytes`` field, its pieces as they are."""
    return (pb.key(number, pb.LEN), pb.varint(sum(len(p) for p in pieces)), *pieces)


def data_message(pieces: Iterable[Piece]) -> bytes:
    """``PolicySetup`` or ``Actions``."""
    kept = list(pieces)
    return b"".join(_data(1, kept)) if kept else b""


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
    return b"".join((pb.field_int(1, state), *_data(2, list(pieces))))


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
