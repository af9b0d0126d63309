"""Writes the pickles that the peers read, as pieces: large arrays are not copied.

Plain values, arrays and the few classes of a protocol, in protocol 4, byte for byte what CPython's pickler
gives for an array of numpy 1 (whose module names numpy 2 still reads; not the other way round).
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np

from policies.encoding import npy
from policies.encoding.limits import WireError
from policies.encoding.msgpack_views import Piece

FRAME_BYTES = 64 * 1024
_SHORT = 256


class Raw:
    """Something written by hand: `write` gets the writer."""

    def write(self, writer: Writer) -> None:
        """Put the value on the stack."""
        raise NotImplementedError


class Writer:
    """One message. `numpy_module` is where the arrays say they come from."""

    def __init__(self, numpy_module: str = "numpy.core.multiarray") -> None:
        self._numpy_module = numpy_module
        self._pieces: list[Piece] = [b"\x80\x04"]
        self._frame = bytearray()
        self._memo: dict[Any, int] = {}
        self._count = 0

    # --- output

    def emit(self, data: bytes) -> None:
        """Opcodes, into the frame."""
        self._frame += data

    def position(self) -> int:
        """Where the frame ends at present, for `cut`."""
        return len(self._frame)

    def cut(self, start: int) -> bytes:
        """Take back what was written to the frame since `start`."""
        taken = bytes(self._frame[start:])
        del self._frame[start:]
        return taken

    def _boundary(self) -> None:
        if len(self._frame) >= FRAME_BYTES:
            self._commit()

    def _commit(self) -> None:
        if len(self._frame) >= 4:
            self._pieces.append(b"\x95" + struct.pack("<Q", len(self._frame)))
        if self._frame:
            self._pieces.append(bytes(self._frame))
        self._frame = bytearray()

    def finish(self) -> list[Piece]:
        """The message."""
        self.emit(b".")
        self._commit()
        return self._pieces

    # --- memo

    def memoize(self, key: Any = None) -> None:
        """Keep the top of the stack; `key` finds it again."""
        self.emit(b"\x94")
        if key is not None:
            self._memo[key] = self._count
        self._count += 1

    def again(self, key: Any) -> bool:
        """Put the value kept under `key` on the stack, if there is one."""
        index = self._memo.get(key)
        if index is None:
            return False
        self.emit(b"h" + bytes([index]) if index < _SHORT else b"j" + struct.pack("<I", index))
        return True

    # --- values

    def value(self, value: Any) -> None:
        """Put `value` on the stack."""
        self._boundary()
        if value is None or isinstance(value, bool):
            self.emit(b"N" if value is None else b"\x88" if value else b"\x89")
        elif isinstance(value, int):
            self._int(value)
        elif isinstance(value, float):
            self.emit(b"G" + struct.pack(">d", value))
        elif isinstance(value, str):
            self.text(value)
        elif isinstance(value, Raw):
            value.write(self)
        else:
            self._container(value)

    def _container(self, value: Any) -> None:
        if isinstance(value, dict):
            self._dict(value)
        elif isinstance(value, list):
            self.emit(b"]")
            self.memoize()
            self._batches(value, b"a", b"e")
        elif isinstance(value, tuple):
            self.tuple(value)
        elif isinstance(value, np.ndarray):
            self._array(value)
        elif isinstance(value, bytes):
            self.data(value)
        else:
            raise WireError(f"a {type(value).__name__} cannot be sent", "type")

    def _int(self, value: int) -> None:
        if 0 <= value < 1 << 8:
            self.emit(b"K" + bytes([value]))
        elif 0 <= value < 1 << 16:
            self.emit(b"M" + struct.pack("<H", value))
        elif -(1 << 31) <= value < 1 << 31:
            self.emit(b"J" + struct.pack("<i", value))
        else:
            data = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
            self.emit(b"\x8a" + bytes([len(data)]) + data)

    def text(self, value: str) -> None:
        """A string; written out once, then referred to."""
        if self.again(("str", value)):
            return
        data = value.encode()
        head = b"\x8c" + bytes([len(data)]) if len(data) < _SHORT else b"X" + struct.pack("<I", len(data))
        self.emit(head + data)
        self.memoize(("str", value))

    def tuple(self, value: tuple[Any, ...]) -> None:
        """A tuple."""
        if not value:
            self.emit(b")")
            return
        if len(value) > 3:
            self.emit(b"(")
        for item in value:
            self.value(item)
        self.emit({1: b"\x85", 2: b"\x86", 3: b"\x87"}.get(len(value), b"t"))
        self.memoize()

    def _dict(self, value: dict[Any, Any]) -> None:
        self.emit(b"}")
        self.memoize()
        items = list(value.items())
        for start in range(0, len(items), 1000):
            batch = items[start : start + 1000]
            self.emit(b"(" if len(batch) > 1 else b"")
            for key, item in batch:
                self.value(key)
                self.value(item)
            self.emit(b"u" if len(batch) > 1 else b"s")

    def _batches(self, items: list[Any], one: bytes, many: bytes) -> None:
        for start in range(0, len(items), 1000):
            batch = items[start : start + 1000]
            self.emit(b"(" if len(batch) > 1 else b"")
            for item in batch:
                self.value(item)
            self.emit(many if len(batch) > 1 else one)

    def name(self, module: str, name: str) -> None:
        """A class or function."""
        if self.again(("global", module, name)):
            return
        self.text(module)
        self.text(name)
        self.emit(b"\x93")
        self.memoize(("global", module, name))

    def data(self, value: Piece, *, inline: bool = False) -> None:
        """Bytes; large ones stay a piece of their own unless `inline`."""
        size = len(value)
        if size < FRAME_BYTES or inline:
            head = b"C" + bytes([size]) if size < _SHORT else b"B" + struct.pack("<I", size)
            self.emit(head + bytes(value))
        else:
            self._commit()
            head = b"B" + struct.pack("<I", size) if size < 1 << 32 else b"\x8e" + struct.pack("<Q", size)
            self._pieces += [head, value]
        self.memoize()

    def _dtype(self, dtype: np.dtype[Any]) -> None:
        if self.again(("dtype", dtype.str)):
            return
        self.name("numpy", "dtype")
        self.text(dtype.str[1:])
        self.emit(b"\x89\x88\x87")
        self.memoize()
        self.emit(b"R")
        self.memoize(("dtype", dtype.str))
        self.emit(b"(K\x03")
        self.text(dtype.str[0])
        self.emit(b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00t")
        self.memoize()
        self.emit(b"b")

    def _array(self, array: npy.Array) -> None:
        data = npy.flat(array)
        self.name(self._numpy_module, "_reconstruct")
        self.name("numpy", "ndarray")
        self.emit(b"K\x00\x85")
        self.memoize()
        if not self.again("b"):
            self.emit(b"C\x01b")
            self.memoize("b")
        self.emit(b"\x87")
        self.memoize()
        self.emit(b"R")
        self.memoize()
        self.emit(b"(K\x01")
        self.tuple(array.shape)
        self._dtype(array.dtype)
        self.emit(b"\x89")
        self.data(data)
        self.emit(b"t")
        self.memoize()
        self.emit(b"b")


def dumps(value: Any, numpy_module: str = "numpy.core.multiarray") -> list[Piece]:
    """`value` as pieces of one pickle.

    Raises:
        WireError: something in it cannot be sent.
    """
    writer = Writer(numpy_module)
    writer.value(value)
    return writer.finish()
