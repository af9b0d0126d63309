"""A foreground network of three nodes in ONNX's own format, written by hand: what is bright is foreground."""

from __future__ import annotations

import hashlib
import json
import struct
from pathlib import Path

SIDE = 64


def _varint(value: int) -> bytes:
    out = b""
    while value > 0x7F:
        out, value = out + bytes([value & 0x7F | 0x80]), value >> 7
    return out + bytes([value])


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _bytes(field: int, data: bytes | str) -> bytes:
    data = data.encode() if isinstance(data, str) else data
    return _varint(field << 3 | 2) + _varint(len(data)) + data


def _node(kind: str, inputs: list[str], output: str, attributes: bytes = b"") -> bytes:
    return _bytes(
        1, b"".join(_bytes(1, each) for each in inputs) + _bytes(2, output) + _bytes(4, kind) + attributes
    )


def _picture(field: int, name: str, shape: list[int | str]) -> bytes:
    sizes = (_number(1, each) if isinstance(each, int) else _bytes(2, each) for each in shape)
    dims = b"".join(_bytes(1, each) for each in sizes)
    return _bytes(field, _bytes(1, name) + _bytes(2, _bytes(1, _number(1, 1) + _bytes(2, dims))))


def bright_is_foreground(shape: list[int | str] | None = None) -> bytes:
    """``sigmoid(20 * mean over the channels)``: 0.5 where ``(x - 128) / 256`` is 0."""
    shape = [1, 3, SIDE, SIDE] if shape is None else shape
    axes = _bytes(5, _bytes(1, "axes") + _number(8, 1) + _number(20, 7))
    keep = _bytes(5, _bytes(1, "keepdims") + _number(3, 1) + _number(20, 2))
    gain = _bytes(5, _number(1, 1) + _number(2, 1) + _bytes(9, struct.pack("<f", 20.0)) + _bytes(8, "gain"))
    graph = (
        _node("ReduceMean", ["input"], "mean", axes + keep)
        + _node("Mul", ["mean", "gain"], "scaled")
        + _node("Sigmoid", ["scaled"], "output")
        + _bytes(2, "bright")
        + gain
        + _picture(11, "input", shape)
        + _picture(12, "output", [1, 1, *shape[2:]])
    )
    return _number(1, 8) + _bytes(7, graph) + _bytes(8, _bytes(1, "") + _number(2, 13))


def as_package(folder: Path, network: bytes, piece: int = 200) -> Path:
    """The layout of the npm package: pieces called by their SHA-256, and what they make up."""
    dist = folder / "dist"
    dist.mkdir(parents=True)
    chunks = []
    for begin in range(0, len(network), piece):
        part = network[begin : begin + piece]
        name = hashlib.sha256(part).hexdigest()
        (dist / name).write_bytes(part)
        chunks.append({"hash": name, "offsets": [begin, begin + len(part)]})
    entry = {"size": len(network), "mime": "application/octet-steam", "chunks": chunks}
    (dist / "resources.json").write_text(json.dumps({"/models/medium": entry}))
    return folder
