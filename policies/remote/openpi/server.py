"""openpi's websocket around any policy; ``/healthz`` and ``/metrics`` on the same port."""

from __future__ import annotations

import asyncio
import http
from collections.abc import Mapping
from typing import Any

import numpy as np
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from policies.encoding.limits import WireError
from policies.remote import jpeg
from policies.remote.extras import Extras, read_extras
from policies.remote.hosts import address_to_bind, in_url
from policies.remote.openpi import codec
from policies.remote.openpi.reader import Connection
from policies.remote.serving.service import Client, Service, told
from runtime.clock import NS_PER_S
from runtime.messages import Observation

MAX_WAITING = 1
"""Messages of one connection that are read ahead; others wait in its socket. Each may be a large one."""
CLOSE_S = 1.0


class OpenpiFront:
    """One task per connection; requests of one connection are answered in order."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._server: Server | None = None
        self.address = ""

    async def open(self) -> None:
        """See `Front`."""
        options = self._service.options
        self._server = await serve(
            self._connection,
            address_to_bind(options.host, options.port),
            options.port,
            compression=None,
            max_size=self._service.limits.size_bytes,
            max_queue=MAX_WAITING,
            close_timeout=CLOSE_S,
            process_request=self._before,
            logger=_quiet_logger(),
            server_header=None,
            create_connection=Connection,
        )
        host, port = next(iter(self._server.sockets)).getsockname()[:2]
        self.address = f"ws://{in_url(host)}:{port}"

    def _before(self, connection: ServerConnection, request: Request) -> Response | None:
        page = self._service.metrics.page(request.path)
        if page is not None:
            return connection.respond(http.HTTPStatus.OK, page)
        given = request.headers.get("Authorization", "")
        scheme, _, token = given.partition(" ")
        if not self._service.allowed(token if scheme in ("Api-Key", "Bearer") else None):
            self._service.metrics.refuse("token")
            return connection.respond(http.HTTPStatus.UNAUTHORIZED, "a valid Api-Key is needed\n")
        return None

    async def _connection(self, connection: ServerConnection) -> None:
        name = str(connection.id)
        try:
            self._service.client(name)
            await connection.send(b"".join(codec.encode(self._metadata())))
            while True:
                message = await connection.recv()
                client = self._service.client(name)  # another one, if it was forgotten meanwhile
                await connection.send(b"".join(await self._answer(client, message)))
        except ConnectionClosed:
            pass
        except Exception as error:
            self._service.refused(name, error)
            await _goodbye(connection, told(error))
        finally:
            self._service.forget(name)

    def _metadata(self) -> dict[str, Any]:
        ours = {"jpeg": self._service.options.jpeg, "prefix": self._service.takes_prefix, "reset": True}
        return {"policy": self._service.policy_name, "horizon": self._service.chunk_steps, codec.OURS: ours}

    async def _answer(self, client: Client, message: str | bytes) -> list[Any]:
        if isinstance(message, str):
            raise WireError("a text frame; an observation is a binary one")
        started = self._service.clock.now_ns()
        value = await self._service.read(client.name, lambda: codec.decode(message, self._service.limits))
        if not isinstance(value, dict):
            raise WireError(f"an observation is a map, not a {type(value).__name__}")
        extra = read_extras(value.pop(codec.OURS, None))
        with self._service.request(client, "reset" if extra.reset else "infer"):
            if extra.reset:
                await self._service.reset(client)
                return codec.encode({"status": "ok"})
            images = [v for v in value.values() if isinstance(v, dict | np.ndarray)]
            made = await self._service.built(lambda: self._observation(client, value, extra), images)
            (answer,) = await self._service.infer(client, [made])
        parts = self._service.side.actions(answer.rows)
        reply: dict[str, Any] = {key: part.astype(np.float32) for key, part in parts.items()}
        reply["server_timing"] = {"infer_ms": (self._service.clock.now_ns() - started) / (NS_PER_S / 1000)}
        if extra.asked:
            reply[codec.OURS] = dict(answer.status)
        return codec.encode(reply)

    def _observation(self, client: Client, value: Mapping[Any, Any], extra: Extras) -> Observation:
        keys = self._service.side.keys
        wanted = (*keys.cameras.values(), *keys.depths.values(), *keys.masks.values())
        images = {key: self._image(value[key]) for key in wanted if key in value}
        text = value.get(keys.instruction, "") if keys.instruction else ""
        if not isinstance(text, str):
            raise WireError(f"{keys.instruction!r} is a {type(text).__name__}; text is wanted", "shape")
        client.step += 1
        return self._service.side.observation(
            {key: _vector(value[key]) for key in keys.state if key in value},
            images,
            text,
            step=client.step - 1 if extra.step is None else extra.step,
            stamp_ns=self._service.clock.now_ns(),
            prefix=extra.prefix,
            frozen=extra.frozen,
        )

    def _image(self, value: Any) -> Any:
        if isinstance(value, dict) and self._service.options.jpeg:
            return jpeg.decode(value.get(jpeg.KEY))
        return value

    async def refuse_new(self) -> None:
        """See `Front`."""
        if self._server is not None:
            self._server.close(close_connections=False)

    async def close(self) -> None:
        """See `Front`."""
        if self._server is not None:
            self._server.close()
            await asyncio.gather(*(connection.close(1001) for connection in self._server.connections))
            await self._server.wait_closed()


def _vector(value: Any) -> Any:
    """A list of numbers as openpi's own policies take it, an array; anything else as it is."""
    if isinstance(value, list) and all(type(each) in (int, float) for each in value):
        return np.array(value, np.float64)
    return value


async def _goodbye(connection: ServerConnection, text: str) -> None:
    try:
        await connection.send(text)
        await connection.close(1011, "the reason is in the previous frame")
    except ConnectionClosed:
        pass


def _quiet_logger() -> Any:
    """Websockets' own log, silent: it writes a traceback for every handshake that somebody gets wrong."""
    import logging

    logger = logging.getLogger("dexrun.websockets")
    logger.setLevel(logging.CRITICAL)
    return logger
