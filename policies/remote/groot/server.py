"""GR00T's endpoints around any policy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from policies.encoding.limits import WireError
from policies.remote import jpeg
from policies.remote.extras import Extras, read_extras
from policies.remote.groot import codec
from policies.remote.serving.service import Client, Service
from policies.remote.serving.zmq_front import ZmqFront
from runtime.messages import Observation

MAX_BATCH = 64
WIRE = "wire"
UNAUTHORIZED = {"error": "Unauthorized: Invalid API token"}


class GrootFront(ZmqFront):
    """``ping``, ``kill``, ``get_action``, ``reset`` and ``get_modality_config`` over ZeroMQ."""

    def __init__(self, service: Service) -> None:
        super().__init__(service, self._reply, lambda text: codec.encode({"error": text}))
        self._service = service
        self._endpoints = {
            "ping": self._ping,
            "kill": self._kill,
            "get_action": self._get_action,
            "reset": self._reset,
            "get_modality_config": self._modalities,
        }

    async def _reply(self, name: str, message: memoryview) -> list[Any]:
        read = await self._service.read(name, lambda: codec.read(message, self._service.limits))
        return codec.encode(*await self._handle(name, read))

    async def _handle(self, name: str, message: codec.Decoded) -> tuple[Any, codec.ArrayForm | None]:
        """The answer, and the form of the client's own arrays, of this message or of an earlier one."""
        request = message.value
        if not isinstance(request, dict):
            raise WireError(f"a request is a map, not a {type(request).__name__}")
        if not self._service.allowed(request.get("api_token")):
            self._service.metrics.refuse("token")
            return UNAUTHORIZED, None
        endpoint = request.get("endpoint", "get_action")
        handler = self._endpoints.get(endpoint) if isinstance(endpoint, str) else None
        if handler is None:
            raise WireError(f"Unknown endpoint: {str(endpoint)[:100]}", "endpoint")
        data = request.get("data")
        if data is not None and not isinstance(data, dict):
            raise WireError(f"data is a {type(data).__name__}; a map is wanted")
        client = self._service.client(name)
        wire = message.wire or client.memory.get(WIRE)
        with self._service.request(client, endpoint):
            answer = await handler(client, data or {})
        if wire is not None:
            client.memory[WIRE] = wire
        return answer, wire

    async def _ping(self, client: Client, data: Mapping[Any, Any]) -> Any:
        ours = {"jpeg": self._service.options.jpeg, "prefix": self._service.takes_prefix}
        return {"status": "ok", "message": "Server is running", codec.OURS: ours}

    async def _kill(self, client: Client, data: Mapping[Any, Any]) -> Any:
        if not self._service.options.allow_kill:
            raise WireError("kill is not enabled on this server", "endpoint")
        self._service.kill()
        return None

    async def _reset(self, client: Client, data: Mapping[Any, Any]) -> Any:
        await self._service.reset(client)
        return {}

    async def _modalities(self, client: Client, data: Mapping[Any, Any]) -> Any:
        keys = self._service.side.keys
        wanted = {
            "video": ([0], list(keys.cameras.values())),
            "state": ([0], list(keys.state)),
            "action": (list(range(self._service.chunk_steps)), list(keys.action)),
            "language": ([0], [keys.instruction] if keys.instruction else []),
        }
        return {name: codec.ModalityConfig(steps, named) for name, (steps, named) in wanted.items() if named}

    async def _get_action(self, client: Client, data: Mapping[Any, Any]) -> Any:
        observation = data.get("observation")
        if not isinstance(observation, dict):
            raise WireError("get_action needs an observation map", "keys")
        flat = "video" not in observation and any(
            str(k).startswith(("video.", "state.")) for k in observation
        )
        nested = _nested(observation, self._service.side.keys.instruction) if flat else observation
        extra = read_extras(data.get("options"))
        video = _group(nested, "video")
        batch = await self._service.built(lambda: self._batch(nested, extra, client), video.values())
        answers = await self._service.infer(client, batch)
        rows = [answer.rows for answer in answers]
        parts = [self._service.side.actions(r) for r in rows]
        steps = min(len(r) for r in rows)
        name = "action.{}" if flat else "{}"
        actions = {
            name.format(key): np.stack([p[key][:steps] for p in parts]).astype(np.float32) for key in parts[0]
        }
        return [actions, dict(answers[0].status) if extra.asked else {}]

    def _batch(self, observation: Mapping[Any, Any], extra: Extras, client: Client) -> list[Observation]:
        keys = self._service.side.keys
        groups = {name: _group(observation, name) for name in ("video", "state")}
        language = _group(observation, "language") if keys.instruction else {}
        names = {
            "video": [*keys.cameras.values(), *keys.depths.values(), *keys.masks.values()],
            "state": list(keys.state),
        }
        sizes = {f"{g} {k}": _length(groups[g], k, g) for g, wanted in names.items() for k in wanted}
        if keys.instruction:
            sizes[f"language {keys.instruction}"] = _length(language, keys.instruction, "language")
        count = _agreed(sizes)
        client.step += 1

        def element(i: int) -> Observation:
            return self._service.side.observation(
                {k: _step(groups["state"][k], i, 3, "state", k) for k in names["state"]},
                {k: self._image(groups["video"][k], i, k) for k in names["video"]},
                _text(language.get(keys.instruction), i) if keys.instruction else "",
                step=client.step - 1 if extra.step is None else extra.step,
                stamp_ns=self._service.clock.now_ns(),
                prefix=extra.prefix if count == 1 else None,
                frozen=extra.frozen,
            )

        return [element(i) for i in range(count)]

    def _image(self, value: Any, index: int, key: str) -> Any:
        if isinstance(value, dict) and self._service.options.jpeg:
            return jpeg.decode(value.get(jpeg.KEY))
        dims = value.ndim if isinstance(value, np.ndarray) and value.ndim == 4 else 5  # planes have no C
        return _step(value, index, dims, "video", key)


def _group(observation: Mapping[Any, Any], name: str) -> Mapping[str, Any]:
    group = observation.get(name)
    if not isinstance(group, dict):
        raise WireError(f"Observation must contain a '{name}' key with a map", "keys")
    return group


def _length(group: Mapping[str, Any], key: str, name: str) -> int:
    if key not in group:
        have = ", ".join(sorted(str(k) for k in group)) or "none"
        raise WireError(f"{name} key {key!r} must be in observation (there is: {have[:200]})", "keys")
    value = group[key]
    if isinstance(value, dict):
        return 1
    if isinstance(value, list) or (isinstance(value, np.ndarray) and value.ndim):
        return len(value)
    raise WireError(f"{name} key {key!r} is a {type(value).__name__} without a batch dimension", "shape")


def _agreed(sizes: Mapping[str, int]) -> int:
    counts = set(sizes.values())
    if len(counts) != 1:
        raise WireError(f"batch sizes differ: {dict(sizes)}", "shape")
    count = counts.pop()
    if not 1 <= count <= MAX_BATCH:
        raise WireError(f"a batch of {count}; 1 to {MAX_BATCH} are taken", "shape")
    return count


def _step(value: Any, index: int, dims: int, name: str, key: str) -> Any:
    """One element of the batch, without its time axis, which must have one step."""
    if not isinstance(value, np.ndarray):
        raise WireError(f"{name} key {key!r} must be an array, got {type(value).__name__}", "shape")
    if name == "state" and value.dtype != np.float32:
        raise WireError(f"{name} key {key!r} must be float32, got {value.dtype}", "shape")
    if value.ndim != dims or value.shape[1] != 1:
        layout = "(B, 1, D)" if name == "state" else "(B, 1, H, W, C)"
        raise WireError(f"{name} key {key!r} must be of shape {layout}, got {value.shape}", "shape")
    return value[index, 0]


def _text(value: Any, index: int) -> str:
    item = value[index] if isinstance(value, list) else None
    if not isinstance(item, list) or len(item) != 1 or not isinstance(item[0], str):
        raise WireError("language must be a list, for each of the batch, of one string", "shape")
    return item[0]


def _nested(flat: Mapping[Any, Any], instruction: str) -> dict[str, Any]:
    out: dict[str, Any] = {"video": {}, "state": {}, "language": {}}
    for key, value in flat.items():
        group, _, name = str(key).partition(".")
        if group in ("video", "state"):
            out[group][name] = value
        elif key == instruction:
            out["language"][key] = [[v] for v in value] if isinstance(value, list) else value
    return out
