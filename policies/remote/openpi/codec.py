"""openpi's messages: msgpack, arrays as raw bytes with a dtype and a shape, keys of that as ``bin``.

Source: ``openpi_client/msgpack_numpy.py`` of Physical-Intelligence/openpi (PyPI: openpi-client 0.1.2).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from policies.encoding import npy
from policies.encoding.limits import DEFAULT_LIMITS, Limits, WireError
from policies.encoding.msgpack_views import Bin, Piece, pack, unpack

ARRAY = b"__ndarray__"
SCALAR = b"__npgeneric__"
OURS = "dexrun"
"""In the metadata: what our own server can do beyond openpi's. In a message: what is asked of it."""


def _encode(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        data = Bin((npy.flat(value),))
        return {ARRAY: True, b"data": data, b"dtype": value.dtype.str, b"shape": value.shape}
    if isinstance(value, np.generic):
        npy.check_dtype(value.dtype)
        return {SCALAR: True, b"data": value.item(), b"dtype": value.dtype.str}
    raise WireError(f"a {type(value).__name__} cannot be sent", "type")


def _decode(value: dict[Any, Any]) -> Any:
    if ARRAY in value:
        data, shape = value.get(b"data"), value.get(b"shape")
        if not isinstance(data, memoryview) or not isinstance(shape, list):
            raise WireError("an array without data or shape")
        if not all(type(n) is int for n in shape):
            raise WireError("an array's shape is not integers", "shape")
        return npy.view(data, npy.short_dtype(value.get(b"dtype")), tuple(shape))
    if SCALAR in value:
        data = value.get(b"data")
        if not isinstance(data, bool | int | float):
            raise WireError("a scalar without a number")
        try:
            return npy.short_dtype(value.get(b"dtype")).type(data)
        except (OverflowError, ValueError):
            raise WireError("a scalar does not fit its dtype") from None
    return value


def encode(value: Any) -> list[Piece]:
    """`value` (arrays, numpy scalars and plain values) as pieces of one message."""
    return pack(value, _encode)


def decode(message: bytes | memoryview, limits: Limits = DEFAULT_LIMITS) -> Any:
    """The value of `message`; arrays are views into it.

    Raises:
        WireError: it is not one, or is over a limit.
    """
    return unpack(message, limits, _decode)
