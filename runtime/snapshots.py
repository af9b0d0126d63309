"""What an object remembers from tick to tick, as plain data, so that a replay can begin in the middle."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

State = dict[str, Any]


def remember(owner: object, names: Sequence[str]) -> State:
    """The attributes `names` of `owner`; arrays and deques are copied."""
    return {name: _copied(vars(owner)[name]) for name in names}


def recall(owner: object, names: Sequence[str], state: Mapping[str, Any]) -> None:
    """Give `owner` back what `remember` took."""
    for name in names:
        value, present = state[name], vars(owner)[name]
        if isinstance(present, deque):
            present.clear()
            present.extend(value)
        else:
            vars(owner)[name] = _copied(value)


def recall_known(owner: object, names: Sequence[str], state: Mapping[str, Any]) -> None:
    """`recall` those of `names` that are in `state`, which an earlier version may have made without some."""
    recall(owner, [name for name in names if name in state], state)


def _copied(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.copy()
    return list(value) if isinstance(value, deque) else value


def to_json(state: Any) -> Any:
    """`state` as JSON has it, every bit of its arrays kept."""
    if isinstance(state, Mapping):
        return {key: to_json(value) for key, value in state.items()}
    if isinstance(state, np.ndarray):
        return {"dtype": state.dtype.str, "shape": list(state.shape), "hex": state.tobytes().hex()}
    if isinstance(state, np.generic):
        return state.item()
    return [to_json(each) for each in state] if isinstance(state, (list, tuple)) else state


def from_json(value: Any) -> Any:
    """The inverse of `to_json`."""
    if isinstance(value, Mapping):
        if set(value) == {"dtype", "shape", "hex"}:
            flat = np.frombuffer(bytes.fromhex(value["hex"]), value["dtype"])
            return flat.reshape(value["shape"]).copy()
        return {key: from_json(each) for key, each in value.items()}
    return [from_json(each) for each in value] if isinstance(value, list) else value
