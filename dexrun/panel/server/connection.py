"""One page's WebSocket, from its first message to its end."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Mapping
from typing import Any

import anyio
from loguru import logger
from starlette.websockets import WebSocket, WebSocketDisconnect

from dexrun.panel.server import messages
from dexrun.panel.server.following import Following
from dexrun.panel.server.mail import PageMail
from runtime.clock import Clock
from runtime.http_checks import check_token
from runtime.http_server import RefusedError

MOST_PAGES, MOST_UNKNOWN = 32, 16
"""Pages that are open, and connections that have not sent their token yet."""
TOKEN_S, SEND_S = 5.0, 20.0
"""So long a page may take to send its token, and to take a message in."""
_REFUSED, _FULL = 1008, 1013


class Connections:
    """Takes pages in.

    Args:
        token: what the first message must hold; empty: none is needed.
        more: further messages that every page gets at first, by their key (see `PageMail.put`).
    """

    def __init__(
        self, following: Following, clock: Clock, token: str, more: Callable[[], Mapping[str, str]]
    ) -> None:
        self._following = following
        self._clock = clock
        self._token = token
        self._more = more
        self._numbers = itertools.count(1)
        self._unknown = 0

    async def serve(self, websocket: WebSocket) -> None:
        """The endpoint of ``/ws``."""
        if messages.PROTOCOL not in websocket.scope.get("subprotocols", ()):
            await websocket.close(_REFUSED, f"the protocol is {messages.PROTOCOL}")
            return
        await websocket.accept(messages.PROTOCOL)
        try:
            if not self._token or await self._known(websocket):
                await self._admitted(websocket)
        except WebSocketDisconnect:
            pass
        except TimeoutError:
            logger.info("a page took too long and is left alone")

    async def _known(self, websocket: WebSocket) -> bool:
        """Whether its first message is the token; else it is closed."""
        if self._unknown >= MOST_UNKNOWN:  # who has the token waits for a moment and comes again
            await websocket.close(_FULL, "too many connections without a token")
            return False
        self._unknown += 1
        try:
            async with asyncio.timeout(TOKEN_S):
                said = messages.parsed(await websocket.receive_text())
            check_token(str(said.get("token", "")), self._token)
        except (RefusedError, TimeoutError, messages.BadMessageError, KeyError) as error:
            await websocket.close(_REFUSED, str(error)[:100] or "no token came")
            return False
        finally:
            self._unknown -= 1
        return True

    async def _admitted(self, websocket: WebSocket) -> None:
        if len(self._following.pages) >= MOST_PAGES:
            await websocket.close(_FULL, f"{MOST_PAGES} pages are open already")
            return
        peer = websocket.client.host if websocket.client else "?"
        page = PageMail(f"page {next(self._numbers)} ({peer})", self._clock.now_ns())
        page.put("hello", self._following.hello())
        for key, message in self._more().items():
            page.put(key, message)
        self._following.pages.add(page)
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(_send, websocket, page, group.cancel_scope)
                await self._receive(websocket, page)
                group.cancel_scope.cancel()
        finally:
            self._following.pages.discard(page)

    async def _receive(self, websocket: WebSocket, page: PageMail) -> None:
        while True:
            came = await websocket.receive()
            if came["type"] == "websocket.disconnect":
                return
            try:
                self._take(page, messages.parsed(came.get("text") or ""))
            except messages.BadMessageError as error:
                page.put("error", messages.text("error", {"error": str(error)}))

    def _take(self, page: PageMail, said: Mapping[str, Any]) -> None:
        kind = said["type"]
        if kind == "command":
            self._following.command(page, messages.command(said))
        elif kind == "seen":
            page.seen(str(said.get("stream")))
        elif kind == "ping":
            self._following.beat(page)
            number = said.get("n")
            page.put("pong", messages.text("pong", {"n": number if type(number) is int else None}))
        elif kind == "watch":
            page.watch(messages.watched(said))
        elif kind != "token":  # which is not needed here
            raise messages.BadMessageError(f"unknown type {kind[:40]!r}")


async def _send(websocket: WebSocket, page: PageMail, scope: anyio.CancelScope) -> None:
    """Whatever waits for the page, until it is gone or takes nothing in any more."""
    try:
        while True:
            for message in await page.next():
                async with asyncio.timeout(SEND_S):
                    if isinstance(message, bytes):
                        await websocket.send_bytes(message)
                    else:
                        await websocket.send_text(message)
    except (TimeoutError, WebSocketDisconnect, RuntimeError):  # the last of a connection that is closed
        scope.cancel()
