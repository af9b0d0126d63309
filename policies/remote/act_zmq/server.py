"""The ACT server's protocol around any policy, with its temporal aggregation, per client."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from policies.encoding.limits import WireError
from policies.remote import jpeg
from policies.remote.act_zmq import codec
from policies.remote.extras import Extras, read_extras
from policies.remote.serving.service import Client, Service
from policies.remote.serving.zmq_front import ZmqFront
from runtime.messages import Floats, Observation

CHUNKS = "chunks"


class ActFront(ZmqFront):
    """``RESET`` and steps over ZeroMQ."""

    def __init__(self, service: Service) -> None:
        super().__init__(
            service, self._reply, lambda text: codec.encode({"status": "ERROR", "message": text})
        )
        self._service = service
        self._state_key = codec.state_key(service.side.keys.state)
        sizes = [len(entries) for entries in service.side.map.state.values()]
        self._ends = np.cumsum(sizes)
        self._action_key = service.one_action_key()

    async def _reply(self, name: str, message: memoryview) -> list[Any]:
        return codec.encode(await self._handle(name, message))

    async def _handle(self, name: str, message: memoryview) -> Mapping[str, Any]:
        value = await self._service.read(name, lambda: codec.decode(message, self._service.limits))
        asked = {"command": value} if isinstance(value, str) and value == codec.RESET else value
        if not isinstance(asked, dict):
            raise WireError(f"a request is 'RESET' or a dictionary, not a {type(asked).__name__}")
        if not self._service.allowed(asked.get("token")):
            raise WireError("a valid token is needed", "token")
        client = self._service.client(name)
        command = asked.get("command", "")
        if not isinstance(command, str):
            raise WireError(f"the command is a {type(command).__name__}; text is wanted", "endpoint")
        if command in (codec.RESET, "reset_policy"):
            with self._service.request(client, "reset"):
                await self._service.reset(client)
            ours = {"jpeg": self._service.options.jpeg, "prefix": self._service.takes_prefix}
            return {"status": "OK" if command == codec.RESET else "RESET_OK", codec.OURS: ours}
        if command not in ("", "step"):
            raise WireError(f"unknown command {command[:100]!r}", "endpoint")
        extra = read_extras(asked.get(codec.OURS))
        with self._service.request(client, "step"):
            images = asked.get("images")
            made = await self._service.built(
                lambda: self._observation(client, asked, extra),
                images.values() if isinstance(images, dict) else (),
            )
            (answer,) = await self._service.infer(client, [made])
        rows = answer.rows
        if extra.steps:
            action = self._wire(rows[: extra.steps])
        else:
            action = self._wire(aggregate(client, rows, self._service.options.aggregation)[None])[0]
        reply = (
            {"joint_positions": action} if command == "step" else {"status": "OK", self._action_key: action}
        )
        return {**reply, codec.OURS: dict(answer.status)} if extra.asked else reply

    def _wire(self, rows: Floats) -> Any:
        return self._service.side.actions(rows)[self._action_key].astype(np.float32)

    def _observation(self, client: Client, asked: Mapping[str, Any], extra: Extras) -> Observation:
        images = asked.get("images", {})
        if not isinstance(images, dict):
            raise WireError("images is not a dictionary", "shape")
        keys = self._service.side.keys
        text = asked.get(keys.instruction, "") if keys.instruction else ""
        wanted = keys.cameras.values() if self._service.options.jpeg else ()
        packed = {k: images[k] for k in wanted if isinstance(images.get(k), memoryview)}
        return self._service.side.observation(
            self._state(asked.get(self._state_key)),
            {**images, **{k: jpeg.decode(v) for k, v in packed.items()}},
            text if isinstance(text, str) else "",
            step=client.step if extra.step is None else extra.step,
            stamp_ns=self._service.clock.now_ns(),
            prefix=extra.prefix,
            frozen=extra.frozen,
        )

    def _state(self, value: Any) -> dict[str, Any]:
        """The one vector by the configured keys, whose parts it joins."""
        if isinstance(value, list):
            value = codec.matrix(value)[0] if value else None
        keys = list(self._service.side.keys.state)
        if value is None or len(keys) == 1:
            return {} if value is None else {keys[0]: value}
        if not isinstance(value, np.ndarray) or value.shape != (self._ends[-1],):
            form = value.shape if isinstance(value, np.ndarray) else type(value).__name__
            raise WireError(
                f"state {self._state_key!r} is {form}; {self._ends[-1]} numbers are wanted", "shape"
            )
        return dict(zip(keys, np.split(value, self._ends[:-1]), strict=True))


def aggregate(client: Client, rows: Floats, decay: float) -> Floats:
    """The client's present step as ACT averages it (Zhao et al. 2023, section IV-B).

    All chunks that reach this step are weighted ``exp(-decay * i)``, `i` = 0 for the oldest. Counts one
    step of the client's.
    """
    chunks: list[tuple[int, Floats]] = client.memory.setdefault(CHUNKS, [])
    step = client.step
    client.step += 1
    chunks.append((step, rows))
    chunks[:] = [(start, chunk) for start, chunk in chunks if step - start < len(chunk)]
    votes = np.array([chunk[step - start] for start, chunk in chunks])
    weights = np.exp(-decay * np.arange(len(votes)))
    return np.asarray((votes * (weights / weights.sum())[:, None]).sum(axis=0))
