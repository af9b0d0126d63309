"""numpy's ``.npy`` format (version 1.0) as views: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html."""

from __future__ import annotations

import functools
import io
import math
import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from policies.encoding.limits import WireError

Array = NDArray[Any]

KINDS = "biuf"
_SHORT = re.compile(r"[<>|=]?(\?|[biuf]\d{1,2})")
MAGIC = b"\x93NUMPY"
MAX_DIMENSIONS = 8


def check_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Only booleans, integers and floats cross the wire.

    Raises:
        WireError: kind ``forbidden`` for anything else (objects, structures, text).
    """
    if dtype.kind not in KINDS:
        raise WireError(f"array of dtype {dtype}; booleans, integers and floats are taken", "forbidden")
    return dtype


def short_dtype(name: Any) -> np.dtype[Any]:
    """The dtype of one of numpy's short names (``<f4``, ``|u1``), and of nothing else: numpy's own parser
    takes whole structures.

    Raises:
        WireError: kind ``forbidden``.
    """
    if not isinstance(name, str):
        raise WireError("a dtype that is not text", "forbidden")
    return _short_dtype(name)


@functools.lru_cache(maxsize=256)
def _short_dtype(name: str) -> np.dtype[Any]:
    if not _SHORT.fullmatch(name):
        raise WireError("a dtype that is not a boolean's, an integer's or a float's short name", "forbidden")
    try:
        return check_dtype(np.dtype(name))
    except TypeError:
        raise WireError(f"unknown dtype {name!r}", "forbidden") from None


def flat(array: Array) -> memoryview:
    """The bytes of `array` in C order; a view unless it was not contiguous."""
    check_dtype(array.dtype)
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def view(buffer: memoryview, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Array:
    """`buffer` as an array, not copied.

    Raises:
        WireError: the sizes do not agree.
    """
    check_dtype(dtype)
    if len(shape) > MAX_DIMENSIONS or any(n < 0 for n in shape):
        raise WireError(
            f"array of shape {list(shape)}; at most {MAX_DIMENSIONS} dimensions are taken", "shape"
        )
    if math.prod(shape) * dtype.itemsize != buffer.nbytes:
        raise WireError(f"array of shape {list(shape)} and dtype {dtype} in {buffer.nbytes} bytes", "shape")
    try:
        return np.frombuffer(buffer, dtype).reshape(shape)
    except (ValueError, OverflowError):  # no elements, and other dimensions beyond what numpy counts
        raise WireError("an empty array whose other dimensions are too large", "shape") from None


@functools.lru_cache(maxsize=256)
def header(dtype: np.dtype[Any], shape: tuple[int, ...]) -> bytes:
    """What `numpy.save` writes before the data of a C-ordered array."""
    out = io.BytesIO()
    described = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(out, described)
    return out.getvalue()


_HEADER = re.compile(
    rb"\{'descr': '([<>|=]?[A-Za-z?]\d{0,3})', 'fortran_order': (True|False), "
    rb"'shape': \(((?:\d{1,12}(?:, ?|(?=\))))*)\),? ?\} *\n"
)
"""What `numpy.save` writes for a plain array; numpy's own reader evaluates whatever is there."""


@functools.lru_cache(maxsize=256)
def _parse(head: bytes) -> tuple[np.dtype[Any], tuple[int, ...], bool]:
    found = _HEADER.fullmatch(head)
    if found is None:
        raise WireError("the header of an .npy array is not that of a plain array")
    shape = tuple(int(n) for n in found[3].replace(b",", b" ").split())
    return short_dtype(found[1].decode()), shape, found[2] == b"True"


def load(buffer: memoryview) -> Array:
    """The array in `buffer`, as a view of it.

    Raises:
        WireError: not a version 1.0 ``.npy``, a forbidden dtype, or a length that does not fit.
    """
    if len(buffer) < 12 or bytes(buffer[:8]) != MAGIC + b"\x01\x00":
        raise WireError("an array is not in .npy format, version 1.0")
    start = 10 + int.from_bytes(buffer[8:10], "little")
    if start > min(len(buffer), 1034):
        raise WireError("the header of an .npy array is cut off or longer than 1024 bytes")
    dtype, shape, fortran = _parse(bytes(buffer[10:start]))
    if not fortran:
        return view(buffer[start:], dtype, shape)
    return view(buffer[start:], dtype, shape[::-1]).transpose()
