"""A small HTTP/1.1 server for pages on the side: `h11` reads the protocol; sizes and waits are bounded.

For what a run serves on the loop that it has anyway: a few requests a second from a button box, a scraper or
the planner. Whoever needs a framework's routes, forms and templates runs it in a process of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import h11
from loguru import logger

_READ_BYTES = 65_536


@dataclass(frozen=True, slots=True)
class HttpLimits:
    """What a peer may ask for.

    Attributes:
        head_bytes: request line and headers; more is answered with 431.
        body_bytes: of one request; more is answered with 413.
        patience_s: how long a request may take to arrive: the first one of a connection from the connection
            on, later ones from their first byte on. Then the connection is closed.
        connections: at the same time; one more takes the place of the one that is silent for longest, and is
            answered with 503 where all are being answered.
        keep_alive: whether another request may follow on a connection.
        idle_s: how long a kept connection may wait for it.
    """

    head_bytes: int = 8192
    body_bytes: int = 16_384
    patience_s: float = 10.0
    connections: int = 16
    keep_alive: bool = False
    idle_s: float = 60.0


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """One request. Header names are in lower case; the values of a repeated one are joined with a comma."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """One response; `headers` beyond type, length and connection."""

    status: int
    body: bytes
    content_type: str = "text/plain; charset=utf-8"
    headers: tuple[tuple[str, str], ...] = ()


class RefusedError(Exception):
    """A request that is not carried out: HTTP status and one line."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def plain_refusal(status: int, message: str) -> HttpResponse:
    """A refusal as text."""
    return HttpResponse(status, f"{message}\n".encode())


HttpHandler = Callable[[HttpRequest], Awaitable[HttpResponse]]


class HttpServer:
    """One listening socket, on the event loop that opens it.

    Args:
        answer: gives the response to a whole request; may raise `RefusedError`.
        limits: what a peer may ask for.
        check: looks at a request before its body is read; may raise `RefusedError`.
        refusal: makes a response of a refusal's status and line.
        refused: called with the status of everything that is refused, and with 408 for a peer that was too
            slow.
    """

    def __init__(
        self,
        answer: HttpHandler,
        limits: HttpLimits,
        *,
        check: Callable[[HttpRequest], None] = lambda request: None,
        refusal: Callable[[int, str], HttpResponse] = plain_refusal,
        refused: Callable[[int], None] = lambda status: None,
    ) -> None:
        self._answer = answer
        self._limits = limits
        self._check = check
        self._refusal = refusal
        self._refused = refused
        self._server: asyncio.Server | None = None
        self._connections: dict[asyncio.Task[None], _Connection] = {}  # the longest silent first

    async def open(self, host: str, port: int) -> int:
        """Listen on `port`, 0 for any; returns the port.

        Raises:
            OSError: it is taken.
        """
        # In two steps: who is cancelled in the second one has something to close.
        self._server = await asyncio.start_server(self._accept, host, port, start_serving=False)
        await self._server.start_serving()
        return self.port

    @property
    def port(self) -> int:
        """Where it listens, once opened."""
        assert self._server is not None, "the server is not opened"  # noqa: S101 - a caller's mistake
        return int(self._server.sockets[0].getsockname()[1])

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
        connection = _Connection(reader, writer, self._limits)
        if len(self._connections) >= self._limits.connections:
            self._make_room()
        self._connections[task] = connection
        try:
            await self._converse(connection)
        except TimeoutError:
            self._refused(408)
            writer.transport.abort()  # which does not wait for a peer that reads nothing
        except ConnectionError:
            pass  # the peer went away
        except asyncio.CancelledError:
            writer.transport.abort()  # another took its place, or `close` ends us
        finally:
            self._connections.pop(task, None)
            writer.close()
            with contextlib.suppress(ConnectionError, asyncio.CancelledError):
                await writer.wait_closed()

    def _make_room(self) -> None:
        """End the connection that is silent for longest: first of those that never asked anything."""
        silent = [task for task, each in self._connections.items() if not each.answering]
        new = [task for task in silent if not self._connections[task].asked]
        for task in (new or silent)[:1]:
            del self._connections[task]
            task.cancel()

    async def _converse(self, connection: _Connection) -> None:
        while True:
            try:
                if len(self._connections) > self._limits.connections:
                    raise RefusedError(503, "too many connections")
                async with asyncio.timeout(self._limits.patience_s):
                    request = await connection.receive(self._check)
                if request is None:
                    return
                connection.answering = connection.asked = True
                response = await self._answered(request)
            except RefusedError as error:
                self._refused(error.status)
                await connection.send(self._refusal(error.status, str(error)), last=True)
                return
            await connection.send(response, last=not self._limits.keep_alive)
            self._now_silent(connection)
            if not connection.reusable() or not await connection.another():
                return

    def _now_silent(self, connection: _Connection) -> None:
        """It is the last to make room now."""
        connection.answering = False
        task = asyncio.current_task()
        if task is not None and self._connections.pop(task, None) is not None:
            self._connections[task] = connection

    async def _answered(self, request: HttpRequest) -> HttpResponse:
        try:
            return await self._answer(request)
        except RefusedError as error:  # the request was read whole: the connection can go on
            self._refused(error.status)
            return self._refusal(error.status, str(error))
        except Exception:
            logger.exception("{} {} raised", request.method, request.path)
            self._refused(500)
            return self._refusal(500, "internal error of the server")


class _Connection:
    """One HTTP/1.1 connection.

    Attributes:
        answering: a whole request is there and not answered yet.
        asked: there was a whole request before.
    """

    answering = False
    asked = False
    _head_only = False

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, limits: HttpLimits
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._limits = limits
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=limits.head_bytes)

    async def receive(self, check: Callable[[HttpRequest], None]) -> HttpRequest | None:
        """The next request, whole; ``None`` if the peer has closed.

        Raises:
            RefusedError: it is not HTTP, is too long, or `check` refuses its head.
        """
        try:
            return await self._receive(check)
        except h11.RemoteProtocolError as error:
            raise RefusedError(error.error_status_hint, f"not HTTP as it is spoken here: {error}") from None

    async def _receive(self, check: Callable[[HttpRequest], None]) -> HttpRequest | None:
        head = await self._event()
        if not isinstance(head, h11.Request):
            return None
        self._head_only = head.method == b"HEAD"
        if head.method == b"CONNECT":
            raise RefusedError(405, "no way through to others")
        headers: dict[str, str] = {}
        for name, value in head.headers:
            key, text = name.decode("latin-1"), value.decode("latin-1")
            headers[key] = f"{headers[key]}, {text}" if key in headers else text
        if (
            len(head.target) + sum(len(name) + len(value) for name, value in head.headers)
            > self._limits.head_bytes
        ):
            raise RefusedError(
                431, f"the head is longer than {self._limits.head_bytes} bytes"
            )  # and came at once
        path = head.target.decode("latin-1").partition("?")[0]
        request = HttpRequest(head.method.decode("latin-1"), path, headers)
        check(request)
        self._check_length(headers)
        body = bytearray()
        while isinstance(event := await self._event(), h11.Data):
            body += event.data
            self._check_size(len(body))
        return HttpRequest(request.method, path, headers, bytes(body))

    def _check_length(self, headers: Mapping[str, str]) -> None:
        """Of what is announced, before any of it is read; h11 takes digits only."""
        self._check_size(int(headers.get("content-length", "0")))

    def _check_size(self, size: int) -> None:
        if size > self._limits.body_bytes:
            raise RefusedError(413, f"the body is longer than {self._limits.body_bytes} bytes")

    async def _event(self) -> Any:
        while (event := self._http.next_event()) is h11.NEED_DATA:
            if self._http.they_are_waiting_for_100_continue:
                await self._write(h11.InformationalResponse(status_code=100, headers=[]))
            self._http.receive_data(await self._reader.read(_READ_BYTES))
        return event

    async def send(self, response: HttpResponse, *, last: bool) -> None:
        """Send all of `response`, as far as the protocol still allows; `last` closes the connection after it.

        Raises:
            TimeoutError: the peer does not read it.
        """
        if self._http.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            return
        headers = [("content-type", response.content_type), ("content-length", str(len(response.body)))]
        if last:
            headers.append(("connection", "close"))
        headers += response.headers
        async with asyncio.timeout(self._limits.patience_s):
            reason = HTTPStatus(response.status).phrase
            await self._write(h11.Response(status_code=response.status, headers=headers, reason=reason))
            if not self._head_only:
                await self._write(h11.Data(data=response.body))
            await self._write(h11.EndOfMessage())

    def reusable(self) -> bool:
        """Whether another request can follow, and makes ready for it."""
        if self._http.our_state is not h11.DONE or self._http.their_state is not h11.DONE:
            return False
        self._http.start_next_cycle()
        self._head_only = False  # the next one may be refused before it is known what it is
        return True

    async def another(self) -> bool:
        """Wait for the next request's first bytes; ``False`` if the peer has closed or there are none."""
        if self._http.trailing_data[0]:
            return True
        try:
            async with asyncio.timeout(self._limits.idle_s):
                data = await self._reader.read(_READ_BYTES)
        except TimeoutError:
            return False
        self._http.receive_data(data)
        return bool(data)

    async def _write(self, event: Any) -> None:
        data = self._http.send(event)
        if data:
            self._writer.write(data)
            await self._writer.drain()
