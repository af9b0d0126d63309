"""LeRobot's asynchronous inference around any policy, every client with a queue and rules of its own."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import grpc
import numpy as np

from policies.encoding.limits import WireError
from policies.remote import jpeg
from policies.remote.extras import LONGEST_WHY, read_extras
from policies.remote.hosts import address_to_bind, in_url
from policies.remote.lerobot import codec, rpc
from policies.remote.serving.hang_up import by_peer, hang_up, is_hostile, peer_of, peers
from policies.remote.serving.service import Client, Service, told
from runtime.clock import NS_PER_S
from runtime.interfaces import PolicyError
from runtime.messages import Floats, Observation

MEMORY = "lerobot"
KEPT_TIMESTEPS = 256
BODY_S = 10.0
"""How long the pieces of one observation may take to arrive."""
LAST_REPLIES_S = 0.5
"""How long calls may take once they had `drain_s`."""
MAX_PIECES = 4096
_REASONING = 150
WAITING_CALLS = 4
"""Calls of one connection at the same time, beyond those that may wait for inference."""
Handler = Callable[[Client, Any, Any], Awaitable[bytes]]


@dataclass(slots=True)
class _Asked:
    timed: codec.TimedObservation
    observation: Observation


@dataclass(slots=True)
class _Memory:
    """One client's: the newest observation, what was predicted, and what it asked for.

    Attributes:
        steps: of a chunk, at most; 0 for all.
        renamed: the client's own names of cameras by the policy's.
    """

    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    newest: _Asked | None = None
    processed: Floats | None = None
    predicted: dict[int, None] = field(default_factory=dict)
    steps: int = 0
    renamed: Mapping[str, str] = field(default_factory=dict)


class _TokenFirst(grpc.aio.ServerInterceptor):  # type: ignore[misc]  # grpc has no types
    """Refuses a call without the token before its message is read, which may be a large one."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def intercept_service(self, continuation: Callable[[Any], Awaitable[Any]], details: Any) -> Any:
        """The call's own handler, or one that reads nothing."""
        given = dict(details.invocation_metadata or ()).get("authorization", "")
        if self._service.allowed(given.removeprefix("Bearer ") if isinstance(given, str) else None):
            return await continuation(details)
        self._service.metrics.refuse("token")
        return grpc.stream_unary_rpc_method_handler(_unauthenticated)


async def _unauthenticated(request: Any, context: Any) -> bytes:
    await context.abort(grpc.StatusCode.UNAUTHENTICATED, "a valid token is needed")
    raise AssertionError("abort raises")


class LerobotFront:
    """The four calls of ``transport.AsyncInference``."""

    def __init__(self, service: Service) -> None:
        self._service = service
        service.gone = _gone
        self._server: Any = None
        self._ending: set[asyncio.Future[None]] = set()
        self.address = ""
        robot = service.side.map.robot
        spans = robot.ranges[:, 1] - robot.ranges[:, 0]
        spans[list(robot.grippers)] = 1.0
        self._spans = spans
        self._action_key = service.one_action_key()
        able = {"jpeg": service.options.jpeg, "prefix": service.takes_prefix}
        self._capabilities = " ".join(name for name, yes in able.items() if yes) or "none"

    async def open(self) -> None:
        """See `Front`."""
        options = self._service.options
        host = in_url(address_to_bind(options.host, options.port))  # before there is anything to close
        streams = ("grpc.max_concurrent_streams", options.max_pending + WAITING_CALLS)
        channel = rpc.channel_options(self._service.limits.size_bytes)
        token = _TokenFirst(self._service)
        self._server = grpc.aio.server(options=[*channel, streams], interceptors=[token])
        unary = grpc.unary_unary_rpc_method_handler
        handlers = {
            "Ready": unary(self._guarded(self._ready)),
            "SendPolicyInstructions": unary(self._guarded(self._instructions)),
            "SendObservations": grpc.stream_unary_rpc_method_handler(self._guarded(self._observations)),
            "GetActions": unary(self._guarded(self._actions)),
        }
        generic = grpc.method_handlers_generic_handler(rpc.SERVICE, handlers)
        self._server.add_generic_rpc_handlers((generic,))
        try:
            port = self._server.add_insecure_port(f"{host}:{options.port}")
        except RuntimeError as error:
            await self.close()
            raise OSError(f"{host}:{options.port}: {error}") from None
        await self._server.start()
        self.address = f"grpc://{host}:{port}"

    def _guarded(self, handler: Handler) -> Callable[[Any, Any], Awaitable[bytes]]:
        """Around every call: the client's state, and errors as gRPC's statuses."""

        async def answer(request: Any, context: Any) -> bytes:
            await context.send_initial_metadata(((rpc.CAPABILITIES, self._capabilities),))
            try:
                return await handler(self._service.client(context.peer()), request, context)
            except Exception as error:
                self._service.refused(context.peer(), error)
                if is_hostile(error):
                    self._hang_up(context.peer())
                await context.abort(_status_of(error), told(error))
            raise AssertionError("abort raises")

        return answer

    def _hang_up(self, peer: str) -> None:
        """Beside the call, which is answered first."""
        ending = asyncio.ensure_future(hang_up(by_peer(peer), self._service.clock))
        self._ending.add(ending)
        ending.add_done_callback(self._ending.discard)

    def _memory(self, client: Client) -> _Memory:
        memory: _Memory | None = client.memory.get(MEMORY)
        if memory is None:
            memory = client.memory[MEMORY] = _Memory()
        return memory

    async def _ready(self, client: Client, request: bytes, context: Any) -> bytes:
        with self._service.request(client, "Ready"):
            waiting = self._memory(client)
            await self._service.reset(client)
            # what the client asked for in its instructions holds for later episodes, too
            client.memory[MEMORY] = _Memory(steps=waiting.steps, renamed=waiting.renamed)
            waiting.arrived.set()  # who still waits for an observation of the last episode gets none
        return b""

    async def _instructions(self, client: Client, request: bytes, context: Any) -> bytes:
        with self._service.request(client, "SendPolicyInstructions"):
            limits = self._service.limits
            setup = await self._service.read(
                client.name, lambda: codec.decode_setup(rpc.read_data(request), limits)
            )
            if not 1 <= setup.actions_per_chunk <= 10_000:
                raise WireError(f"actions_per_chunk {setup.actions_per_chunk}; 1 to 10000 are taken", "shape")
            memory = self._memory(client)
            memory.steps = setup.actions_per_chunk
            memory.renamed = codec.renamed_cameras(setup.rename_map)
            self._check_features(setup.lerobot_features, memory.renamed)
        return b""

    def _check_features(self, features: Mapping[str, Any], renamed: Mapping[str, str]) -> None:
        """The client's features must have what the policy wants; what it has beyond that is ignored."""
        keys = self._service.side.keys
        state = features.get("observation.state")
        named = state.get("names") if isinstance(state, dict) else ()
        if not isinstance(named, list | tuple | dict):
            raise WireError(f"the names of observation.state are a {type(named).__name__}", "keys")
        missing = [k for k in keys.state if k not in named]
        cameras = keys.cameras.values()
        missing += [k for k in cameras if f"{codec.IMAGES}{renamed.get(k, k)}" not in features]
        if missing:
            raise WireError(f"the client's features lack {', '.join(missing)}", "keys")

    async def _observations(self, client: Client, request: AsyncIterator[bytes], context: Any) -> bytes:
        try:
            async with asyncio.timeout(BODY_S):
                body = await self._body(request)
        except TimeoutError:
            raise WireError(f"the pieces of an observation took more than {BODY_S:g} s", "slow") from None
        with self._service.request(client, "SendObservations"):
            limits = self._service.limits
            timed = await self._service.read(client.name, lambda: codec.decode_observation(body, limits))
            images = [v for v in timed.observation.values() if isinstance(v, memoryview | np.ndarray)]
            memory = self._memory(client)
            made = await self._service.built(lambda: self._observation(timed, memory.renamed), images)
            asked = _Asked(timed, made)
            if self._goes_through(asked, memory):
                memory.newest = asked  # the latest wins
                memory.arrived.set()
            else:
                self._service.metrics.refuse("filtered")
        return b""

    async def _body(self, request: AsyncIterator[bytes]) -> memoryview:
        pieces: list[memoryview] = []
        size = 0
        async for message in request:
            state, data = rpc.read_observation(message)
            if state == rpc.BEGIN:
                pieces, size = [], 0
            if not len(data) or len(pieces) >= MAX_PIECES:
                raise WireError(f"an empty piece of an observation, or more than {MAX_PIECES}")
            pieces.append(data)
            size += len(data)
            self._service.limits.check_size(size)
            if state == rpc.END:
                return pieces[0] if len(pieces) == 1 else memoryview(b"".join(pieces))
        raise WireError("a stream of observations ended before its END")

    def _observation(self, timed: codec.TimedObservation, renamed: Mapping[str, str]) -> Observation:
        side, sent = self._service.side, timed.observation
        values = {**sent, **{now: sent[was] for now, was in renamed.items() if was in sent}}
        state = {}
        for key in side.keys.state:
            value = values.get(key)
            if not isinstance(value, int | float | np.number | np.ndarray):
                have = ", ".join(sorted(str(k) for k in values))[:200]
                raise WireError(f"observation {key!r} is not a number (there is: {have})", "keys")
            state[key] = np.asarray(value, np.float64).reshape(-1)
        task = values.get(side.keys.instruction, "") if side.keys.instruction else ""
        images = {k: v for k, v in values.items() if isinstance(v, np.ndarray)}
        if self._service.options.jpeg:
            wanted = side.keys.cameras.values()
            images |= {k: jpeg.decode(values[k]) for k in wanted if isinstance(values.get(k), memoryview)}
        extra = read_extras(values.get(rpc.CAPABILITIES))
        return side.observation(
            state,
            images,
            task if isinstance(task, str) else "",
            step=timed.timestep,
            stamp_ns=self._service.clock.now_ns(),
            prefix=extra.prefix,
            frozen=extra.frozen,
        )

    def _goes_through(self, asked: _Asked, memory: _Memory) -> bool:
        """LeRobot's rule, with a scale: a joint must have moved by a fraction of its own range."""
        if asked.timed.must_go or memory.processed is None:
            return True
        if asked.timed.timestep in memory.predicted:
            return False
        moved = np.abs(asked.observation.arm.position - memory.processed) / self._spans
        return bool(moved.max() >= self._service.options.similar_fraction)

    async def _actions(self, client: Client, request: bytes, context: Any) -> bytes:
        memory = self._memory(client)
        asked = await self._next(memory)
        if asked is None:
            self._service.metrics.request("GetActions_empty")
            return b""
        with self._service.request(client, "GetActions"):
            memory.predicted[asked.timed.timestep] = None
            while len(memory.predicted) > KEPT_TIMESTEPS:
                del memory.predicted[next(iter(memory.predicted))]
            memory.processed = asked.observation.arm.position
            try:
                (answer,) = await self._service.infer(client, [asked.observation])
            except PolicyError as error:  # the protocol's way of saying so
                self._service.refused(client.name, error)
                said = {"refused": str(error)[:LONGEST_WHY]}
                context.set_trailing_metadata(((rpc.STATUS, json.dumps(said)),))
                return b""
        if answer.status:
            context.set_trailing_metadata(((rpc.STATUS, json.dumps(_short(answer.status))),))
        actions = self._service.side.actions(answer.rows)[self._action_key]
        actions = actions[: memory.steps or len(actions)]
        timed = asked.timed
        step_s = 1 / self._service.options.fps
        return rpc.data_message(
            codec.encode_actions(actions, timed.timestamp, timed.timestep, step_s, timed.module)
        )

    async def _next(self, memory: _Memory) -> _Asked | None:
        """The newest observation, waited for; ``None`` if none comes or the server stops."""
        if memory.newest is None:
            memory.arrived.clear()
            stop = asyncio.ensure_future(self._service.stopping_asked.wait())
            arrived = asyncio.ensure_future(memory.arrived.wait())
            end = self._service.clock.now_ns() + round(self._service.options.observation_wait_s * NS_PER_S)
            late = asyncio.ensure_future(self._service.clock.sleep_until_ns(end))
            waits = (stop, arrived, late)
            try:
                await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in waits:
                    task.cancel()
        asked, memory.newest = memory.newest, None
        return asked

    async def refuse_new(self) -> None:
        """See `Front`."""

    async def close(self) -> None:
        """See `Front`."""
        server, self._server = self._server, None  # its handlers hold us: both would wait for a collection
        if server is not None:
            await server.stop(LAST_REPLIES_S)  # calls had `drain_s`
        for ending in list(self._ending):
            ending.cancel()
        await asyncio.gather(*self._ending, return_exceptions=True)


def _gone(names: Iterable[str]) -> list[str]:
    """Of clients by gRPC's name of their connection, which have none: gRPC itself does not tell."""
    present = peers()
    return [] if present is None else [name for name in names if peer_of(name) not in present]


def _short(said: Mapping[str, Any]) -> dict[str, Any]:
    """What fits into a header, whatever the letters: no latent, and no long reasoning."""
    short = {key: value for key, value in said.items() if key != "latent"}
    return {**short, "reasoning": said["reasoning"][:_REASONING]} if "reasoning" in said else short


def _status_of(error: Exception) -> grpc.StatusCode:
    if isinstance(error, WireError) and error.kind in ("busy", "stopping"):
        return grpc.StatusCode.UNAVAILABLE
    if isinstance(error, WireError | PolicyError):
        return grpc.StatusCode.INVALID_ARGUMENT
    return grpc.StatusCode.INTERNAL
