"""What numpy and torch leave in a pickle, turned into arrays by our own hands."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from policies.encoding import npy
from policies.encoding.limits import Limits, WireError
from policies.pickles.machine import Machine, Name, Named, Persistent
from policies.pickles.reader import Builder, Builders, PerLoad

_NDARRAY: Name = ("numpy", "ndarray")
STORAGES = {
    "FloatStorage": "float32",
    "DoubleStorage": "float64",
    "HalfStorage": "float16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
    "BFloat16Storage": "uint16",
}
"""Torch's storage classes, and what numpy reads them as; it has no bfloat16, the first half of a float32."""
_MAGIC = 0x1950A86A20F9469CFC6C
_TORCH_VERSION = 1001
_COMPARED = 1 << 20
"""Storages of fewer bytes are told by these; larger ones only by where they are."""


def _never(args: tuple[Any, ...], state: Any) -> Any:
    raise WireError("a class that is only passed around is called", "forbidden")


_STORAGE_CLASSES = {("torch", name): _never for name in STORAGES}


def _integers(value: Any) -> tuple[int, ...]:
    if not isinstance(value, tuple | list) or not all(type(n) is int for n in value):
        raise WireError("an array's shape is not integers", "shape")
    return tuple(value)


def _dtype(args: tuple[Any, ...], state: Any) -> np.dtype[Any]:
    made = npy.short_dtype(args[0] if args else None)
    order = state[1] if isinstance(state, tuple) and len(state) > 1 else "="
    if not isinstance(order, str) or order not in ("<", ">", "|", "="):
        raise WireError("an array's byte order is none of < > | =")
    return np.dtype(order + made.str[1:]) if order in "<>" else made


def _bytes(value: Any) -> memoryview:
    if not isinstance(value, memoryview | bytes | bytearray):
        raise WireError("an array's data is not bytes")
    return value if isinstance(value, memoryview) else memoryview(value)


def _array(args: tuple[Any, ...], state: Any) -> npy.Array:
    if len(args) != 3 or not isinstance(args[0], Named) or args[0].name != _NDARRAY:
        raise WireError("an array of a class that is not numpy's", "forbidden")
    if not isinstance(state, tuple) or len(state) != 5 or not isinstance(state[2], np.dtype):
        raise WireError("an array without shape, dtype and data")
    shape = _integers(state[1])
    if state[3] is True:
        return npy.view(_bytes(state[4]), state[2], shape[::-1]).transpose()
    return npy.view(_bytes(state[4]), state[2], shape)


def _from_buffer(args: tuple[Any, ...], state: Any) -> npy.Array:
    if len(args) != 4 or not isinstance(args[1], np.dtype):
        raise WireError("an array without data, dtype, shape and order")
    shape = _integers(args[2])
    if isinstance(args[3], str) and args[3] == "F":
        return npy.view(_bytes(args[0]), args[1], shape[::-1]).transpose()
    return npy.view(_bytes(args[0]), args[1], shape)


def _scalar(args: tuple[Any, ...], state: Any) -> Any:
    if len(args) != 2 or not isinstance(args[0], np.dtype):
        raise WireError("a scalar without dtype and data")
    return npy.view(_bytes(args[1]), args[0], ())[()]


NUMPY: Mapping[Name, Builder] = {
    _NDARRAY: _never,
    ("numpy", "dtype"): _dtype,
    ("numpy.core.multiarray", "_reconstruct"): _array,
    ("numpy._core.multiarray", "_reconstruct"): _array,
    ("numpy.core.multiarray", "scalar"): _scalar,
    ("numpy._core.multiarray", "scalar"): _scalar,
    ("numpy.core.numeric", "_frombuffer"): _from_buffer,
    ("numpy._core.numeric", "_frombuffer"): _from_buffer,
}


class _Storages:
    """The storages of one message, each read once, and all with the operations that one pickle may have.

    LeRobot sends the same whole storage with every row; an attacker may name a large one thousands of times.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._by_view: dict[int, tuple[memoryview, npy.Array]] = {}
        self._by_bytes: dict[bytes, npy.Array] = {}

    def __call__(self, args: tuple[Any, ...], state: Any) -> npy.Array:
        if len(args) != 1:
            raise WireError("a tensor's storage is not bytes")
        view = _bytes(args[0])
        known = self._by_view.get(id(view))
        if known is not None:
            return known[1]
        found = self._same(view) if len(view) < _COMPARED else self._read(view)
        self._by_view[id(view)] = view, found
        return found

    def _same(self, view: memoryview) -> npy.Array:
        key = bytes(view)
        if key not in self._by_bytes:
            self._by_bytes[key] = self._read(memoryview(key))
        return self._by_bytes[key]

    def _read(self, view: memoryview) -> npy.Array:
        """``torch.save``'s legacy layout: four pickles (magic, version, system, object), keys, raw data."""
        values = []
        for _ in range(5):
            machine = Machine(view, _STORAGE_CLASSES, self._limits)
            values.append(machine.run())
            view = view[machine.at :]
            self._limits = replace(self._limits, items=self._limits.items - machine.steps)
        return _storage(values, view)


def _storage(values: list[Any], data: memoryview) -> npy.Array:
    magic, version, system, stored, _ = values
    if magic != _MAGIC or version != _TORCH_VERSION or not isinstance(system, dict):
        raise WireError("a tensor's storage is not in torch's legacy format", "version")
    key = stored.key if isinstance(stored, Persistent) else None
    if not isinstance(key, tuple) or len(key) < 5 or key[0] != "storage" or not isinstance(key[1], Named):
        raise WireError("a tensor's storage is not a storage")
    if key[3] != "cpu":
        raise WireError("a tensor on another device than the cpu", "forbidden")
    count = key[4]
    if type(count) is not int or int.from_bytes(data[:8], "little") != count:
        raise WireError("a tensor's storage has another length than it says", "shape")
    kind = key[1].name[1]
    stored_as = npy.view(data[8:], np.dtype(STORAGES[kind]).newbyteorder("<"), (count,))
    if kind == "BFloat16Storage":
        return (stored_as.astype(np.uint32) << 16).view(np.float32)
    return stored_as


def check_reach(offset: Any, size: Any, stride: Any, count: int) -> None:
    """That a tensor stays within its storage of `count` elements, and has no more of them.

    Raises:
        WireError: kind ``shape``.
    """
    size, stride = _integers(size), _integers(stride)
    if type(offset) is not int or len(size) != len(stride) or len(size) > npy.MAX_DIMENSIONS:
        raise WireError("a tensor's offset, size and stride do not fit", "shape")
    if min((*size, *stride, offset, 0)) < 0:
        raise WireError("a tensor's offset, size or stride is negative", "shape")
    last = offset + sum((n - 1) * s for n, s in zip(size, stride, strict=True))
    if 0 not in size and (last >= count or math.prod(size) > count):
        raise WireError("a tensor reaches beyond its storage", "shape")


def _tensor(args: tuple[Any, ...], state: Any) -> npy.Array:
    if len(args) < 4 or not isinstance(args[0], np.ndarray) or type(args[1]) is not int:
        raise WireError("a tensor without storage, offset, size and stride")
    storage, offset, size, stride = args[0], args[1], _integers(args[2]), _integers(args[3])
    if stride == (1,) and len(size) == 1 and 0 <= offset <= offset + size[0] <= storage.size:
        return storage[offset : offset + size[0]]
    check_reach(offset, size, stride, storage.size)
    if 0 in size:
        return npy.view(memoryview(b""), storage.dtype, size)
    strides = tuple(s * storage.itemsize if n > 1 else 0 for n, s in zip(size, stride, strict=True))
    return np.lib.stride_tricks.as_strided(storage[offset:], size, strides, writeable=False)


def _ordered(args: tuple[Any, ...], state: Any) -> dict[str, Any]:
    if args or state is not None:
        raise WireError("a tensor with hooks", "forbidden")
    return {}


TORCH: Builders = {
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch.storage", "_load_from_bytes"): PerLoad(_Storages),
    ("collections", "OrderedDict"): _ordered,
}


def storage_bytes(values: npy.Array) -> bytes:
    """A float32 vector as torch's `_load_from_bytes` takes it, without torch.

    The layout is that of ``torch.save(storage, _use_new_zipfile_serialization=False)``.
    """
    if sys.byteorder != "little":
        raise WireError("tensors are only written on little-endian machines", "type")
    data = np.ascontiguousarray(values, "<f4")
    count = data.size
    return b"".join(
        (
            b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.",
            b"\x80\x02M\xe9\x03.",
            b"\x80\x02}q\x00(X\x10\x00\x00\x00protocol_versionq\x01M\xe9\x03",
            b"X\x0d\x00\x00\x00little_endianq\x02\x88X\x0a\x00\x00\x00type_sizesq\x03}q\x04(",
            b"X\x05\x00\x00\x00shortq\x05K\x02X\x03\x00\x00\x00intq\x06K\x04X\x04\x00\x00\x00longq\x07K\x04uu.",
            b"\x80\x02(X\x07\x00\x00\x00storageq\x00ctorch\nFloatStorage\nq\x01X\x01\x00\x00\x000q\x02",
            b"X\x03\x00\x00\x00cpuq\x03J" + count.to_bytes(4, "little") + b"Ntq\x04Q.",
            b"\x80\x02]q\x00X\x01\x00\x00\x000q\x01a.",
            count.to_bytes(8, "little"),
            data.tobytes(),
        )
    )
