"""The scene reader's HTTP side: the part of the OpenAI API that the planner uses, on loopback.

``GET /v1/models`` and ``POST /v1/chat/completions``, with pictures as JPEG data URLs.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json

from planner.config import FaultName, SceneReaderConfig
from planner.scene_reader import chat
from planner.scene_reader.faults import spoil
from planner.scene_reader.response import Response
from runtime.http_checks import check_body, check_origin
from runtime.http_server import HttpLimits, HttpRequest, HttpResponse, HttpServer, RefusedError

_HOST = "127.0.0.1"
_HEAD_BYTES = 16_384
_MAX_CONNECTIONS = 16
_PATIENCE_S = 30.0


class SceneReader:
    """The server. `start` and `close` on one event loop, which it then shares.

    Args:
        config: port, limits, and the fault to begin with.
        key: what a request must show as its bearer token, before its body is read; empty asks for none.

    `fault` and `fault_requests` may be changed from any thread at any time.
    """

    def __init__(self, config: SceneReaderConfig, key: str = "") -> None:
        self._config = config
        self._key = key
        self.fault: FaultName = config.fault
        self.fault_requests = config.fault_requests
        self.requests = 0
        limits = HttpLimits(
            _HEAD_BYTES, config.max_body_bytes, _PATIENCE_S, _MAX_CONNECTIONS, keep_alive=True
        )
        self._server = HttpServer(
            self._answer,
            limits,
            check=self._check,
            refusal=lambda status, message: _sent(chat.failure(status, message)),
        )

    def inject(self, fault: FaultName, requests: int = 0) -> None:
        """Do `fault` for the next `requests` completions, or until told otherwise if 0."""
        self.fault_requests = requests
        self.fault = fault

    @property
    def base_url(self) -> str:
        """``http://127.0.0.1:<port>/v1``, once started."""
        return f"http://{_HOST}:{self._server.port}/v1"

    async def start(self) -> None:
        """Listen.

        Raises:
            OSError: the port is in use.
        """
        await self._server.open(_HOST, self._config.port)

    async def close(self) -> None:
        """Stop listening and end every connection. Idempotent."""
        await self._server.close()

    def _check(self, request: HttpRequest) -> None:
        check_origin(request.headers, self._server.port)
        given = request.headers.get("authorization", "").encode()
        if self._key and not hmac.compare_digest(given, f"Bearer {self._key}".encode()):
            raise RefusedError(401, "this scene reader is another process's own")
        check_body(request.headers)

    async def _answer(self, request: HttpRequest) -> HttpResponse:
        route = (request.method, request.path)
        if route == ("GET", "/v1/models"):
            return _sent(Response(200, json.dumps(chat.models())))
        if route == ("POST", "/v1/chat/completions"):
            return _sent(await self._complete(request.body, "x-dexrun-simulated-time" in request.headers))
        return _sent(chat.failure(404, f"no {route[0]} {route[1]} here"))

    async def _complete(self, body: bytes, simulated: bool) -> Response:
        self.requests += 1
        response = spoil(self._next_fault(), body, self._config.slow_s)
        if simulated:
            response = response.telling_its_delay()
        if response.delay_s > 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(response.delay_s):
                    await asyncio.Event().wait()
        return response

    def _next_fault(self) -> FaultName:
        fault = self.fault
        if self.requests <= self._config.fault_after:
            return "none"
        if fault != "none" and self.fault_requests > 0:
            self.fault_requests -= 1
            if self.fault_requests == 0:
                self.fault = "none"
        return fault


def _sent(response: Response) -> HttpResponse:
    return HttpResponse(response.status, response.body.encode(), response.content_type, response.headers)
