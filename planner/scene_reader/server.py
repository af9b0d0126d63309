"""The scene reader's HTTP side: the part of the OpenAI API that the planner uses, on loopback.

``GET /v1/models`` and ``POST /v1/chat/completions``, with pictures as JPEG data URLs. Protocol parsing is
`h11`'s; a request's size is limited; one request at a time is answered.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Any

import anyio
import h11

from planner.config import FaultName, SceneReaderConfig
from planner.scene_reader import chat
from planner.scene_reader.faults import spoil
from planner.scene_reader.response import Response

_READ_BYTES = 65_536
_MAX_CONNECTIONS = 32
_BODY_TIMEOUT_S = 30.0


class SceneReader:
    """The server. `start` and `close` on one event loop, which it then shares.

    Args:
        config: port, limits, and the fault to begin with.

    `fault` and `fault_requests` may be changed from any thread at any time.
    """

    def __init__(self, config: SceneReaderConfig) -> None:
        self._config = config
        self.fault: FaultName = config.fault
        self.fault_requests = config.fault_requests
        self.requests = 0
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    def inject(self, fault: FaultName, requests: int = 0) -> None:
        """Do `fault` for the next `requests` completions, or until told otherwise if 0."""
        self.fault_requests = requests
        self.fault = fault

    @property
    def base_url(self) -> str:
        """``http://127.0.0.1:<port>/v1``, once started."""
        assert self._server is not None, "the scene reader is not started"  # noqa: S101 - a caller's mistake
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/v1"

    async def start(self) -> None:
        """Listen.

        Raises:
            OSError: the port is in use.
        """
        with anyio.CancelScope(shield=True):  # cancelled on its way, asyncio leaves the socket to nobody
            self._server = await asyncio.start_server(self._accept, "127.0.0.1", self._config.port)

    async def close(self) -> None:
        """Stop listening and end every connection. Idempotent."""
        if self._server is None:
            return
        self._server.close()
        while self._connections:
            for task in self._connections:
                task.cancel()
            await asyncio.wait(tuple(self._connections), timeout=0.1)
        await self._server.wait_closed()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - start_server runs this as a task
        self._connections.add(task)
        try:
            if len(self._connections) <= _MAX_CONNECTIONS:
                await self._converse(_Connection(reader, writer, self._config.max_body_bytes))
        except (ConnectionError, TimeoutError, asyncio.CancelledError):
            pass  # the peer went away, dawdled, or `close` ends us: nothing to answer
        finally:
            self._connections.discard(task)
            writer.close()
            with contextlib.suppress(ConnectionError, asyncio.CancelledError):
                await writer.wait_closed()

    async def _converse(self, connection: _Connection) -> None:
        while True:
            try:
                request = await connection.receive()
            except h11.RemoteProtocolError as error:
                await connection.refuse(error.error_status_hint, str(error))
                return
            if request is None:
                return
            await self._answer(connection, *request)
            if not connection.reusable():
                return

    async def _answer(self, connection: _Connection, request: h11.Request, body: bytes) -> None:
        route = (request.method.decode(), request.target.decode(errors="replace").split("?")[0])
        if route == ("GET", "/v1/models"):
            await connection.send(Response(200, json.dumps(chat.models())))
        elif route == ("POST", "/v1/chat/completions"):
            told = any(name == b"x-dexrun-simulated-time" for name, _ in request.headers)
            await self._complete(connection, body, told)
        else:
            await connection.send(chat.failure(404, f"no {route[0]} {route[1]} here"))

    async def _complete(self, connection: _Connection, body: bytes, simulated: bool) -> None:
        self.requests += 1
        response = spoil(self._next_fault(), body, self._config.slow_s)
        if simulated:
            response = response.telling_its_delay()
        if response.delay_s > 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(response.delay_s):
                    await asyncio.Event().wait()
        await connection.send(response)

    def _next_fault(self) -> FaultName:
        fault = self.fault
        if fault != "none" and self.fault_requests > 0:
            self.fault_requests -= 1
            if self.fault_requests == 0:
                self.fault = "none"
        return fault


class _Connection:
    """One HTTP/1.1 connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, max_body: int) -> None:
        self._reader = reader
        self._writer = writer
        self._max_body = max_body
        self._http = h11.Connection(h11.SERVER)

    async def receive(self) -> tuple[h11.Request, bytes] | None:
        """The next request and its body; ``None`` if the peer has closed.

        Raises:
            h11.RemoteProtocolError: it is not HTTP, or too long.
        """
        request = await self._event()
        if not isinstance(request, h11.Request):
            return None
        body = bytearray()
        async with asyncio.timeout(_BODY_TIMEOUT_S):
            while isinstance(event := await self._event(), h11.Data):
                body += event.data
                if len(body) > self._max_body:
                    message = f"the body is longer than {self._max_body} bytes"
                    raise h11.RemoteProtocolError(message, error_status_hint=413)
        return request, bytes(body)

    async def _event(self) -> Any:
        while (event := self._http.next_event()) is h11.NEED_DATA:
            if self._http.they_are_waiting_for_100_continue:
                await self._write(h11.InformationalResponse(status_code=100, headers=[]))
            self._http.receive_data(await self._reader.read(_READ_BYTES))
        return event

    async def send(self, response: Response) -> None:
        """Send all of `response`."""
        body = response.body.encode()
        headers = [("content-type", response.content_type), ("content-length", str(len(body)))]
        headers += response.headers
        await self._write(h11.Response(status_code=response.status, headers=headers))
        await self._write(h11.Data(data=body))
        await self._write(h11.EndOfMessage())

    async def refuse(self, status: int, message: str) -> None:
        """Answer what could not be read, as far as the protocol still allows."""
        if self._http.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            await self.send(chat.failure(status, message))

    def reusable(self) -> bool:
        """Whether another request can follow, and makes ready for it."""
        if self._http.our_state is not h11.DONE or self._http.their_state is not h11.DONE:
            return False
        self._http.start_next_cycle()
        return True

    async def _write(self, event: Any) -> None:
        data = self._http.send(event)
        if data:
            self._writer.write(data)
            await self._writer.drain()
