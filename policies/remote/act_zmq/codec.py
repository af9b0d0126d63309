"""ACT's messages: pickles of plain values and numpy arrays, read without being executed.

``'RESET'`` or ``{qpos, images}`` in, ``{status, action}`` out. The community's variant names a command and
answers ``{joint_positions}`` and ``{status: RESET_OK}``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from policies.encoding.limits import DEFAULT_LIMITS, Limits, WireError
from policies.encoding.msgpack_views import Piece
from policies.pickles import reader, writer
from policies.pickles.arrays import NUMPY
from runtime.messages import Floats

RESET = "RESET"
STATE = "qpos"
OURS = "dexrun"
"""Where our own ends put what they say beyond the protocol: our server first, in its answer to a reset."""
MAX_NUMBERS = 100_000
"""In a vector or matrix that is lists."""


def encode(value: Any) -> list[Piece]:
    """`value` as pieces of one message."""
    return writer.dumps(value)


def decode(message: bytes | memoryview, limits: Limits = DEFAULT_LIMITS) -> Any:
    """The value of `message`; arrays are views into it.

    Raises:
        WireError: it is not plain values and numpy arrays, or is over a limit.
    """
    return reader.load(message, NUMPY, limits)


def state_key(keys: Iterable[str]) -> str:
    """What the one state vector is called: as the only one of `keys`; ``qpos`` where several are joined."""
    first, *more = keys
    return STATE if more else first


def reply(message: bytes | memoryview, limits: Limits = DEFAULT_LIMITS) -> Mapping[str, Any]:
    """A server's answer.

    Raises:
        WireError: kind ``refused`` if it is an error, ``malformed`` if it is not an answer.
    """
    value = decode(message, limits)
    if not isinstance(value, dict):
        raise WireError(f"the server answered with a {type(value).__name__}, not a dictionary")
    status = value.get("status", "OK")
    if not isinstance(status, str) or status not in ("OK", "RESET_OK"):
        said = value.get("message", status)
        text = said if isinstance(said, str) else f"a {type(said).__name__}"
        raise WireError(f"the server answered: {text[:300]}", "refused")
    return value


def _numbers(value: list[Any] | tuple[Any, ...]) -> Floats:
    """Rows of numbers as an array. A pickle may name one large row often: it is counted first."""
    rows = [row if isinstance(row, list | tuple) or _is_vector(row) else [row] for row in value]
    if sum(map(len, rows)) > MAX_NUMBERS:
        raise WireError(f"more than {MAX_NUMBERS} numbers", "too_large")
    if not all(isinstance(item, int | float | np.number) for row in rows for item in row):
        raise WireError("an action is not numbers", "shape")
    try:
        return np.array(value, dtype=np.float64)
    except ValueError:
        raise WireError("an action's rows are of different lengths", "shape") from None


def _is_vector(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.ndim == 1


def matrix(value: Any) -> Floats:
    """An action ``[A]`` or a chunk ``[T, A]``, an array or lists, as float64 ``[T, A]``.

    Raises:
        WireError: kind ``shape``.
    """
    if isinstance(value, list | tuple):
        value = _numbers(value)
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "fiu":
        raise WireError(f"an action is a {type(value).__name__}; numbers are wanted", "shape")
    if value.ndim not in (1, 2) or 0 in value.shape:
        raise WireError(f"an action of shape {list(value.shape)}; [size] or [steps, size] is wanted", "shape")
    return np.atleast_2d(value).astype(np.float64)
