"""What every request and every connection must pass before anything looks at it."""

from __future__ import annotations

import json
from collections.abc import Mapping

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dexrun.panel.server.options import PanelServerOptions, names_of
from runtime.http_checks import check_body, check_host, check_origin, check_token
from runtime.http_server import RefusedError

TOKEN_HEADER = "x-dexrun-token"  # noqa: S105 - its name
BODY_BYTES = 65_536
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self' ws://{host}; "
    "img-src 'self' blob: data:; media-src 'self' blob:; font-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)
_OPEN = ("/healthz", "/favicon.ico")
"""Without a token: they say next to nothing. So does the page, which holds nothing of the robot."""


class Guard:
    """An ASGI application around another one: Host, Origin, token, body, and the headers of every answer.

    A WebSocket's token is its first message (`dexrun.panel.server.connection`): a browser's page cannot give
    it a header.

    Args:
        port: where the server listens, once it does.
    """

    def __init__(self, app: ASGIApp, options: PanelServerOptions) -> None:
        self._app = app
        self._options = options
        self.port = options.port

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        try:
            self._check(scope, headers)
        except RefusedError as error:
            await _refuse(scope, receive, send, error)
            return
        await self._app(scope, receive, _guarded(send, headers.get("host", "")))

    def _check(self, scope: Scope, headers: Mapping[str, str]) -> None:
        names = names_of(self._options.host, headers.get("host", "").rpartition(":")[0])
        names |= frozenset(name.lower() for name in self._options.names)
        path = str(scope["path"])
        if scope["type"] == "websocket":
            check_origin(headers, self.port, names)
            return
        page = path == "/" or path.startswith("/page/")
        if page and scope["method"] in ("GET", "HEAD"):
            check_host(headers, self.port, names)  # a link to it may stand anywhere
            return
        check_origin(headers, self.port, names)
        check_body(headers)
        if int(headers.get("content-length", "0")) > BODY_BYTES:
            raise RefusedError(413, f"a body has at most {BODY_BYTES} bytes")
        if self._options.token and path not in _OPEN:
            bearer = headers.get("authorization", "").removeprefix("Bearer ")
            check_token(headers.get(TOKEN_HEADER, bearer), self._options.token)


def _guarded(send: Send, host: str) -> Send:
    """`send` that puts the headers which keep others out into every answer."""

    async def with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            headers["x-content-type-options"] = "nosniff"
            headers["referrer-policy"] = "no-referrer"
            headers["cross-origin-resource-policy"] = "same-origin"
            headers.setdefault("content-security-policy", _POLICY.format(host=host))
            headers.setdefault("cache-control", "no-store")
        await send(message)

    return with_headers


async def _refuse(scope: Scope, receive: Receive, send: Send, error: RefusedError) -> None:
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.close", "code": 1008, "reason": str(error)[:100]})
        return
    body = json.dumps({"error": str(error)}).encode() + b"\n"
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    headers += [(b"x-content-type-options", b"nosniff"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
