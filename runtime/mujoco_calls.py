"""MuJoCo's two queries of the safety stage, called without giving up the GIL.

MuJoCo's own Python functions let the GIL go around every call. Where another thread wants it, the caller
then waits for one switch interval to have it back: 0.2 ms for a query of a few microseconds, and the control
loop makes at least two in each tick. Called through ``ctypes.PyDLL`` they keep it.

What the bindings would turn into an exception ends the process here; the one error these two functions have
is a full arena, of which they use less than a hundredth.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any


@cache
def _library() -> ctypes.PyDLL:
    """The library that the bindings have loaded: the same file is the same instance."""
    import mujoco

    (path,) = Path(mujoco.__file__).parent.glob("libmujoco.so*")
    return ctypes.PyDLL(str(path))


def query(name: str, model: Any, data: Any) -> Callable[[], None]:
    """``mujoco.<name>(model, data)`` with the GIL held; both must outlive the result.

    Elsewhere than on Linux, where the library has another name, the bindings' own function is called.
    """
    import mujoco

    try:
        function = getattr(_library(), name)
    except (OSError, ValueError):
        return lambda: getattr(mujoco, name)(model, data)
    function.argtypes, function.restype = [ctypes.c_void_p, ctypes.c_void_p], None
    addresses = [ctypes.c_void_p(each._address) for each in (model, data)]  # noqa: SLF001 - its only name
    return lambda: function(*addresses)
