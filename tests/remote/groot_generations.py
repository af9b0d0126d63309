"""GR00T's peers of three generations: how each writes and reads arrays, with the packages that theirs use.

What they do is what ``gr00t/policy/server_client.py`` of NVIDIA/Isaac-GR00T did at that time; msgpack and
msgpack_numpy are the real ones.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import partial
from typing import Any

import msgpack
import msgpack_numpy
import numpy as np

from tests.remote.rep_server import RepServer

Config = dict[str, Any]


def config(keys: list[str], steps: list[int]) -> Config:
    """A modality configuration as the peer's own class has it."""
    return {"ModalityConfig": True, "delta_indices": steps, "modality_keys": keys}


def _write_npy(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        out = io.BytesIO()
        np.save(out, value, allow_pickle=False)
        return {"__ndarray_class__": True, "as_npy": out.getvalue()}
    raise TypeError(type(value))


def _read_npy(value: Any) -> Any:
    if "__ModalityConfig_class__" in value:
        return config(value["as_json"]["modality_keys"], value["as_json"]["delta_indices"])
    if "__ndarray_class__" in value:
        return np.load(io.BytesIO(value["as_npy"]), allow_pickle=False)
    return value


def _read_packed_config(value: Any) -> Any:
    if "__ModalityConfig__" in value or "__ModalityConfig_class__" in value:
        return config(value["as_json"]["modality_keys"], value["as_json"]["delta_indices"])
    return value


def _read_either(value: Any) -> Any:
    if "__ndarray_class__" in value:
        return _read_npy(value)
    return msgpack_numpy.decode(value, chain=_read_packed_config)


GENERATIONS: dict[str, tuple[str, Callable[[Any], Any], Callable[[Any], Any]]] = {
    "npy": ("__ModalityConfig_class__", _write_npy, _read_npy),
    "packed": (
        "__ModalityConfig__",
        msgpack_numpy.encode,
        partial(msgpack_numpy.decode, chain=_read_packed_config),
    ),
    "newest": ("__ModalityConfig__", msgpack_numpy.encode, _read_either),
}
"""The marker of a configuration, what writes and what reads: the first, the one between, the newest."""


class Generation:
    """One generation's serialiser."""

    def __init__(self, name: str) -> None:
        self._marker, self._write, self._read = GENERATIONS[name]

    def dump(self, value: Any) -> bytes:
        return bytes(msgpack.packb(self._marked(value), default=self._write))

    def _marked(self, value: Any) -> Any:
        if isinstance(value, dict) and "ModalityConfig" in value:
            return {self._marker: True, "as_json": {k: v for k, v in value.items() if k != "ModalityConfig"}}
        if isinstance(value, dict):
            return {k: self._marked(v) for k, v in value.items()}
        return value

    def load(self, message: bytes) -> Any:
        return msgpack.unpackb(message, object_hook=self._read, raw=False)


class GenerationServer(RepServer):
    """NVIDIA's loop around a policy that adds to the state; of each of `errors` it prints a traceback."""

    def __init__(self, name: str, modalities: Any) -> None:
        self.name, self.wire = name, Generation(name)
        self.errors: list[str] = []
        self.info = {} if name == "npy" else {"seconds": np.float32(0.25)}
        self.modalities = modalities
        super().__init__(self._reply)

    def _reply(self, message: bytes) -> bytes:
        try:
            request = self.wire.load(message)
            return self.wire.dump(self._called(request["endpoint"], request.get("data") or {}))
        except Exception as error:
            self.errors.append(str(error))
            return self.wire.dump({"error": str(error)})

    def _called(self, endpoint: str, data: dict[str, Any]) -> Any:
        if endpoint == "ping":
            return {"status": "ok", "message": "Server is running"}
        if endpoint == "get_modality_config":
            return self.modalities
        if endpoint == "reset":
            return {}
        if endpoint != "get_action":
            raise ValueError(f"Unknown endpoint: {endpoint}")
        video, state = data["observation"]["video"], data["observation"]["state"]
        for key, value in (*video.items(), *state.items()):
            assert isinstance(value, np.ndarray), f"{key!r} must be a numpy array. Got {type(value)}"
        ramp = (np.arange(4, dtype=np.float32) / 8)[None, :, None]
        return [{k: v + ramp for k, v in state.items()}, self.info]
