"""ACT's messages: pickles of plain values and numpy arrays, read without being executed.

``'RESET'`` or ``{qpos, images}`` in, ``{status, action}`` out. The community's variant names a command and
answers ``{joint_positions}`` and ``{status: RESET_OK}``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from policies.remote import pickle_reader, pickle_writer
from policies.remote.limits import DEFAULT_LIMITS, Limits, WireError
from policies.remote.msgpack_views import Piece
from policies.remote.pickle_arrays import NUMPY
from runtime.messages import Floats

RESET = "RESET"
STATE = "qpos"


def encode(value: Any) -> list[Piece]:
    """`value` as pieces of one message."""
    return pickle_writer.dumps(value)


def decode(message: bytes | memoryview, limits: Limits = DEFAULT_LIMITS) -> Any:
    """The value of `message`; arrays are views into it.

    Raises:
        WireError: it is not plain values and numpy arrays, or is over a limit.
    """
    return pickle_reader.load(message, NUMPY, limits)


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
    if status not in ("OK", "RESET_OK"):
        raise WireError(f"the server answered: {str(value.get('message', status))[:300]}", "refused")
    return value


def matrix(value: Any) -> Floats:
    """An action ``[A]`` or a chunk ``[T, A]``, an array or lists, as float64 ``[T, A]``.

    Raises:
        WireError: kind ``shape``.
    """
    if isinstance(value, list | tuple):
        try:
            value = np.array(value, dtype=np.float64)
        except (ValueError, TypeError):
            raise WireError("an action is not numbers", "shape") from None
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "fiu":
        raise WireError(f"an action is a {type(value).__name__}; numbers are wanted", "shape")
    if value.ndim not in (1, 2) or 0 in value.shape:
        raise WireError(f"an action of shape {list(value.shape)}; [size] or [steps, size] is wanted", "shape")
    return np.atleast_2d(value).astype(np.float64)
