"""Episodes over HTTP, for a button box or a page on this machine.

``GET /`` (or ``/state``) answers the session's state as JSON; ``POST /start``, ``/stop``, ``/discard``,
``/label``, ``/keep``, ``/quit`` change it and answer the new state. A body, where there is one, is a JSON
object: ``{"task": "..."}`` for start, ``{"label": "success"}`` for stop and label.

Only this machine can connect. So that no page of another site can act through a person's browser, a
request must name this machine as its host (which a rebound name does not), must not come from another
origin, and must have the type ``application/json`` if it has a body (which a form cannot).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from runtime.recording.recorder import EpisodeError

if TYPE_CHECKING:
    from dexrun.episodes.episodes import Episodes

HOST = "127.0.0.1"
_NAMES = {"127.0.0.1", "localhost", "[::1]"}
_HEAD_BYTES = 8192
_BODY_BYTES = 16384
_PATIENCE_S = 10.0
_CONNECTIONS = 16
_REASONS = {200: "OK", 400: "Bad Request", 403: "Forbidden", 404: "Not Found", 405: "Method Not Allowed"}
_REASONS |= {
    409: "Conflict",
    413: "Content Too Large",
    415: "Unsupported Media Type",
    431: "Headers Too Large",
}
_REASONS |= {503: "Service Unavailable"}


class RefusedError(Exception):
    """A request that is not carried out: HTTP status and one line."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """One request; header names in lower case."""

    method: str
    path: str
    headers: Mapping[str, str]


def parse_head(head: bytes) -> HttpRequest:
    """A request's line and headers, without the empty line that ends them.

    Raises:
        RefusedError: it is not HTTP/1.
    """
    try:
        first, *lines = head.decode("latin-1").split("\r\n")
        method, target, version = first.split(" ")
        headers = {
            name.strip().lower(): value.strip() for name, _, value in (x.partition(":") for x in lines)
        }
        path = urlsplit(target).path
    except ValueError:
        raise RefusedError(400, "not an HTTP request") from None
    if version not in ("HTTP/1.1", "HTTP/1.0"):
        raise RefusedError(400, f"{version} is not spoken here, HTTP/1.1 is")
    if len(headers) != len(lines):
        raise RefusedError(400, "a header is given twice")
    return HttpRequest(method, path, headers)


def check_origin(headers: Mapping[str, str], port: int) -> None:
    """Refuse what a page of another site makes a browser send.

    Raises:
        RefusedError: the host is not this machine, or the origin is not the host.
    """
    host = headers.get("host", "")
    if host not in {f"{name}:{port}" for name in _NAMES} | (_NAMES if port == 80 else set()):
        raise RefusedError(403, f"Host: {host!r} is not this server; use {HOST}:{port}")
    origin = headers.get("origin")
    if origin is not None and origin not in {f"http://{name}:{port}" for name in _NAMES}:
        raise RefusedError(403, f"Origin: {origin!r} may not do this")
    if headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
        raise RefusedError(403, "a page of another site may not do this")


def body_size(request: HttpRequest) -> int:
    """Bytes of the body.

    Raises:
        RefusedError: it is too large, chunked, or not JSON by its type.
    """
    if "transfer-encoding" in request.headers:
        raise RefusedError(400, "a body needs a Content-Length")
    text = request.headers.get("content-length", "0")
    if not (text.isascii() and text.isdigit()) or len(text) > 9:
        raise RefusedError(400, f"Content-Length: {text!r} is not a number")
    size = int(text)
    if size > _BODY_BYTES:
        raise RefusedError(413, f"a body of {size} bytes; at most {_BODY_BYTES}")
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if size and kind != "application/json":
        raise RefusedError(415, f"Content-Type: {kind!r}; a body is application/json")
    return size


def parse_body(body: bytes, allowed: tuple[str, ...]) -> dict[str, str]:
    """A JSON object of texts with the keys `allowed`; an empty body is an empty object.

    Raises:
        RefusedError: it is not.
    """
    try:
        values = json.loads(body) if body else {}
    except (ValueError, RecursionError):
        raise RefusedError(400, "the body is not JSON") from None
    if not isinstance(values, dict) or not all(
        isinstance(v, str) and len(v) <= 1000 for v in values.values()
    ):
        raise RefusedError(400, "the body is not a JSON object of short texts")
    try:
        "".join(values.values()).encode()
    except UnicodeEncodeError:  # JSON can spell what no file holds: "\ud800"
        raise RefusedError(400, "the body has half of a surrogate pair, which is not UTF-8") from None
    if unknown := sorted(set(values) - set(allowed)):
        known = ", ".join(allowed) or "none"
        raise RefusedError(400, f"unknown key {unknown[0]!r}; accepted: {known}")
    return values


Action = Callable[["Episodes", dict[str, str]], object]

_ACTIONS: dict[str, tuple[tuple[str, ...], Action]] = {
    "/start": (("task",), lambda episodes, body: episodes.start(body.get("task"))),
    "/stop": (("label",), lambda episodes, body: episodes.stop(body.get("label"), "api")),
    "/discard": ((), lambda episodes, body: episodes.discard("api")),
    "/label": (("label",), lambda episodes, body: episodes.label(body.get("label", "none"))),
    "/keep": ((), lambda episodes, body: episodes.settle()),
    "/quit": ((), lambda episodes, body: episodes.quit()),
}


class EpisodeApi:
    """The server. Opened and closed on the loop; a request takes microseconds of it."""

    def __init__(self, episodes: Episodes) -> None:
        self._episodes = episodes
        self._server: asyncio.Server | None = None
        self._port = 0
        self._writers: set[asyncio.StreamWriter] = set()

    async def open(self, port: int) -> int:
        """Listen on `port` of the loopback interface, 0 for any; returns the port.

        Raises:
            OSError: it is taken.
        """
        self._server = await asyncio.start_server(self._serve, HOST, port, limit=_HEAD_BYTES)
        self._port = self._server.sockets[0].getsockname()[1]
        return self._port

    async def close(self) -> None:
        """Stop listening and hang up."""
        if self._server is None:
            return
        self._server.close()
        for writer in list(self._writers):
            writer.close()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            status, answer = 503, {"error": "too many connections"}
            if len(self._writers) <= _CONNECTIONS:
                async with asyncio.timeout(_PATIENCE_S):
                    status, answer = await self._answer(reader)
            writer.write(_response(status, answer))
            await writer.drain()
        except (ConnectionError, TimeoutError, asyncio.IncompleteReadError):
            pass
        finally:
            self._writers.discard(writer)
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    async def _answer(self, reader: asyncio.StreamReader) -> tuple[int, dict[str, Any]]:
        try:
            try:
                head = await reader.readuntil(b"\r\n\r\n")
            except asyncio.LimitOverrunError:
                raise RefusedError(431, f"more than {_HEAD_BYTES} bytes of headers") from None
            request = parse_head(head[:-4])
            check_origin(request.headers, self._port)
            body = await reader.readexactly(body_size(request))
            self._act(request, body)
            return 200, self._episodes.status().as_json()
        except RefusedError as error:
            return error.status, {"error": str(error)}
        except EpisodeError as error:
            return 409, {"error": str(error), **self._episodes.status().as_json()}

    def _act(self, request: HttpRequest, body: bytes) -> None:
        if request.path in ("/", "/state"):
            if request.method != "GET":
                raise RefusedError(405, f"{request.path} is for GET")
            return
        if request.path not in _ACTIONS:
            raise RefusedError(404, f"no {request.path}; there are /state, {', '.join(_ACTIONS)}")
        if request.method != "POST":
            raise RefusedError(405, f"{request.path} is for POST")
        allowed, action = _ACTIONS[request.path]
        action(self._episodes, parse_body(body, allowed))


def _response(status: int, answer: Mapping[str, Any]) -> bytes:
    body = json.dumps(answer).encode() + b"\n"
    head = (
        f"HTTP/1.1 {status} {_REASONS[status]}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\nX-Content-Type-Options: nosniff\r\nCache-Control: no-store\r\n"
        "Connection: close\r\n\r\n"
    )
    return head.encode() + body
