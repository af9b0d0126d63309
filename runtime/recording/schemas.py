"""Message types of the recordings, and how each is put into bytes and taken out again.

Images and calibrations are Foxglove's own protobuf types, so that its panels and Rerun show them. Rows
(states, forces, ticks) are protobuf types made from a ring's layout: ``stamp_ns``, ``index``, then the
ring's fields as doubles or signed integers of 64 bits, in order, so that all rows of a topic have the same
size and values keep every bit. What is rare and has no fixed shape is JSON.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime import protobuf as pb
from runtime.masking import without_secrets
from runtime.messages import CameraInfo, Intrinsics
from runtime.recording.bounds import ROW_BYTES
from runtime.ring import Fields, Layout

Piece = bytes | memoryview


@dataclass(frozen=True, slots=True)
class Schema:
    """Name, encoding and definition, as MCAP stores them; `message_encoding` is its channels'."""

    name: str
    encoding: str
    data: bytes
    message_encoding: str


def _protobuf(name: str, members: list[pb.Field]) -> Schema:
    return Schema(name, "protobuf", pb.descriptor_set(name, members), "protobuf")


_STAMP = pb.Field("timestamp", 1, pb.MESSAGE, type_name=pb.TIMESTAMP)

COMPRESSED_IMAGE = _protobuf(
    "foxglove.CompressedImage",
    [
        _STAMP,
        pb.Field("frame_id", 4, pb.STRING),
        pb.Field("data", 2, pb.BYTES),
        pb.Field("format", 3, pb.STRING),
    ],
)

RAW_IMAGE = _protobuf(
    "foxglove.RawImage",
    [
        _STAMP,
        pb.Field("frame_id", 7, pb.STRING),
        pb.Field("width", 2, pb.FIXED32),
        pb.Field("height", 3, pb.FIXED32),
        pb.Field("encoding", 4, pb.STRING),
        pb.Field("step", 5, pb.FIXED32),
        pb.Field("data", 6, pb.BYTES),
    ],
)

CALIBRATION = _protobuf(
    "foxglove.CameraCalibration",
    [
        _STAMP,
        pb.Field("frame_id", 9, pb.STRING),
        pb.Field("width", 2, pb.FIXED32),
        pb.Field("height", 3, pb.FIXED32),
        pb.Field("distortion_model", 4, pb.STRING),
        *[pb.Field(name, 5 + i, pb.DOUBLE, repeated=True) for i, name in enumerate("DKRP")],
    ],
)

EVENT = Schema("dexrun.Event", "jsonschema", b'{"type": "object"}', "json")

CHUNK = _protobuf(
    "dexrun.Chunk",
    [
        pb.Field("stamp_ns", 1, pb.SFIXED64),
        pb.Field("after_tick", 2, pb.SFIXED64),
        pb.Field("step", 3, pb.SFIXED64),
        pb.Field("epoch", 4, pb.SFIXED64),
        pb.Field("observed_ns", 5, pb.SFIXED64),
        pb.Field("rows", 6, pb.SFIXED64),
        pb.Field("inference_s", 7, pb.DOUBLE),
        pb.Field("actions", 8, pb.DOUBLE, repeated=True),
        pb.Field("rate_hz", 9, pb.DOUBLE),
        pb.Field("discrete", 10, pb.SFIXED64, repeated=True),
        pb.Field("status", 11, pb.STRING),
        pb.Field("why", 12, pb.STRING),
        pb.Field("reasoning", 13, pb.STRING),
    ],
)


def compressed_image(stamp_ns: int, frame: str, kind: str, data: Piece) -> list[Piece]:
    """``foxglove.CompressedImage``; `stamp_ns` since the epoch, `kind` ``jpeg`` or ``png``."""
    head = pb.field_bytes(1, pb.timestamp(stamp_ns)) + pb.field_text(3, kind) + pb.field_text(4, frame)
    return [head + pb.key(2, pb.LEN) + pb.varint(len(data)), data]


def raw_depth(stamp_ns: int, frame: str, width: int, height: int, data: Piece) -> list[Piece]:
    """``foxglove.RawImage`` of encoding ``16UC1`` from little-endian pixels."""
    head = pb.field_bytes(1, pb.timestamp(stamp_ns)) + pb.field_fixed32(2, width)
    head += pb.field_fixed32(3, height) + pb.field_text(4, "16UC1") + pb.field_fixed32(5, 2 * width)
    head += pb.field_text(7, frame)
    return [head + pb.key(6, pb.LEN) + pb.varint(len(data)), data]


def _doubles(number: int, values: Any) -> bytes:
    return pb.field_bytes(number, np.asarray(values, "<f8").tobytes())


def calibration(stamp_ns: int, info: CameraInfo) -> bytes:
    """``foxglove.CameraCalibration`` in the order of OpenCV's ``plumb_bob`` coefficients."""
    pin = info.intrinsics
    k = [pin.fx, 0.0, pin.cx, 0.0, pin.fy, pin.cy, 0.0, 0.0, 1.0]
    p = [pin.fx, 0.0, pin.cx, 0.0, 0.0, pin.fy, pin.cy, 0.0, 0.0, 0.0, 1.0, 0.0]
    out = pb.field_bytes(1, pb.timestamp(stamp_ns)) + pb.field_fixed32(2, pin.width)
    out += pb.field_fixed32(3, pin.height) + pb.field_text(4, "plumb_bob") + _doubles(5, pin.coefficients)
    return (
        out + _doubles(6, k) + _doubles(7, np.eye(3).ravel()) + _doubles(8, p) + pb.field_text(9, info.name)
    )


def info_metadata(info: CameraInfo) -> dict[str, str]:
    """What Foxglove's calibration has no place for, and the numbers once more, as JSON by key."""
    pin = info.intrinsics
    pose = None if info.base_from_camera is None else np.asarray(info.base_from_camera).tolist()
    numbers = [pin.width, pin.height, pin.fx, pin.fy, pin.cx, pin.cy]
    return {
        "intrinsics": json.dumps([None if x != x else x for x in numbers]),
        "coefficients": json.dumps(list(pin.coefficients)),
        "distortion": pin.model,
        "depth_scale_m": json.dumps(info.depth_scale_m),
        "base_from_camera": json.dumps(pose),
    }


def info_of(name: str, metadata: Mapping[str, str]) -> CameraInfo:
    """The inverse of `info_metadata`."""
    width, height, *pinhole = (float("nan") if x is None else x for x in json.loads(metadata["intrinsics"]))
    fx, fy, cx, cy = pinhole
    k1, k2, p1, p2, k3 = json.loads(metadata["coefficients"])
    pose = json.loads(metadata["base_from_camera"])
    lens, model = (k1, k2, p1, p2, k3), metadata["distortion"]
    pin = Intrinsics(int(width), int(height), fx, fy, cx, cy, lens, model)
    return CameraInfo(
        name, pin, json.loads(metadata["depth_scale_m"]), None if pose is None else np.array(pose, float)
    )


@dataclass(frozen=True)
class Rows:
    """Rows of one fixed layout.

    Attributes:
        layout: field names to shape and dtype, as in the ring; only floats and integers of at most 64 bits.
    """

    name: str
    layout: Layout
    schema: Schema = field(init=False)

    def __post_init__(self) -> None:
        members = [pb.Field("stamp_ns", 1, pb.SFIXED64), pb.Field("index", 2, pb.SFIXED64)]
        for number, (key, (shape, dtype)) in enumerate(self.layout.items(), 3):
            kind = pb.DOUBLE if np.dtype(dtype).kind == "f" else pb.SFIXED64
            members.append(pb.Field(key, number, kind, repeated=bool(shape)))
        object.__setattr__(self, "schema", _protobuf(self.name, members))
        parts = []
        for number, (key, (shape, dtype)) in enumerate(self.layout.items(), 3):
            wide = "<f8" if np.dtype(dtype).kind == "f" else "<i8"
            size = 8 * int(np.prod(shape))
            mark = pb.key(number, pb.LEN) + pb.varint(size) if shape else pb.key(number, pb.I64)
            parts.append((key, wide, mark))
        object.__setattr__(self, "_parts", parts)

    _parts: list[tuple[str, str, bytes]] = field(init=False, repr=False, default_factory=list)

    def encode(self, stamp_ns: int, index: int, values: Fields | Mapping[str, Any]) -> bytes:
        """One row."""
        out = [pb.field_i64(1, stamp_ns), pb.field_i64(2, index)]
        for key, wide, mark in self._parts:
            out += (mark, np.asarray(values[key]).astype(wide, copy=False).tobytes())
        return b"".join(out)

    def metadata(self) -> dict[str, str]:
        """For the channel, so that a reader knows dtypes and shapes."""
        return {"layout": json.dumps({k: [list(s), d] for k, (s, d) in self.layout.items()})}

    @classmethod
    def of(cls, name: str, metadata: Mapping[str, str]) -> Rows:
        """The inverse of `metadata`.

        Raises:
            KeyError: the channel is not one of rows.
            ValueError: its layout is none of rows.
        """
        layout = json.loads(metadata["layout"])
        found = {str(key): (_shape(shape), _dtype(dtype)) for key, (shape, dtype) in layout.items()}
        rows = cls(name, found)
        if rows.size > ROW_BYTES:
            raise ValueError(f"{name}: rows of {rows.size} bytes, which no recorder writes")
        return rows

    @property
    def size(self) -> int:
        """Bytes of every row."""
        return 18 + sum(len(mark) + self._width(key) for key, _, mark in self._parts)

    def _width(self, key: str) -> int:
        return 8 * int(np.prod(self.layout[key][0]))

    def decode(self, rows: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
        """``stamp_ns``, ``index`` and every field of ``rows[N, size]``, first axis N, in the ring's dtypes.

        Raises:
            ProtobufError: the rows are of another layout.
        """
        if rows.ndim != 2 or rows.shape[1] != self.size:
            raise pb.ProtobufError(f"{self.name}: rows of {rows.shape[-1]} bytes instead of {self.size}")
        out: dict[str, NDArray[Any]] = {
            "stamp_ns": _column(rows, 1, 8, "<i8"),
            "index": _column(rows, 10, 8, "<i8"),
        }
        at = 18
        for key, wide, mark in self._parts:
            if len(rows) and rows[0, at : at + len(mark)].tobytes() != mark:
                raise pb.ProtobufError(f"{self.name}: field {key} is not where it should be")
            at += len(mark)
            shape, dtype = self.layout[key]
            column = _column(rows, at, self._width(key), wide)
            out[key] = column.reshape(len(rows), *shape).astype(dtype, copy=False)
            at += self._width(key)
        return out


def _shape(shape: Any) -> tuple[int, ...]:
    found = tuple(map(int, shape))
    if len(found) > 4 or not all(0 <= length <= ROW_BYTES for length in found):
        raise ValueError(f"a field of shape {str(shape)[:60]}")
    return found


def _dtype(dtype: Any) -> str:
    if np.dtype(str(dtype)).kind not in "fiub" or np.dtype(str(dtype)).itemsize > 8:
        raise ValueError(f"a field of type {str(dtype)[:60]}")
    return str(dtype)


def _column(rows: NDArray[np.uint8], start: int, size: int, dtype: str) -> NDArray[Any]:
    block = np.ascontiguousarray(rows[:, start : start + size])
    wide = block.view(dtype) if size else np.zeros((len(rows), 0), dtype)
    return wide[:, 0] if size == 8 else wide


def event(kind: str, values: Mapping[str, Any]) -> bytes:
    """A JSON object with ``kind`` first; what is not finite becomes ``null``."""
    text = json.dumps({"kind": kind, **plain(values)}, ensure_ascii=False, allow_nan=False)
    return without_secrets(text).encode()


def plain(value: Any) -> Any:
    """`value` as JSON has it: arrays as lists, NaN and infinities as ``None``."""
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and (value != value or abs(value) == float("inf")):
        return None
    return value
