"""``GET /metrics`` and ``GET /healthz``, nothing else."""

from __future__ import annotations

import asyncio

from policies.remote.serving.service import Service

MAX_REQUEST_BYTES = 8192
READ_TIMEOUT_S = 5.0


class MetricsHttp:
    """An HTTP/1.0 listener for Prometheus, on the server's own address."""

    def __init__(self, service: Service, port: int) -> None:
        self._service = service
        self._port = port
        self._server: asyncio.Server | None = None
        self.address = ""

    async def open(self) -> None:
        """Bind and listen."""
        self._server = await asyncio.start_server(
            self._answer, self._service.options.host, self._port, limit=MAX_REQUEST_BYTES
        )
        host, port = self._server.sockets[0].getsockname()[:2]
        self.address = f"http://{host}:{port}/metrics"

    async def close(self) -> None:
        """Stop listening."""
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(READ_TIMEOUT_S):
                head = await reader.readuntil(b"\r\n\r\n")
                writer.write(self._response(head.split(b"\r\n", 1)[0]))
                await writer.drain()
        except (TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, OSError):
            self._service.metrics.refuse("http")
        finally:
            writer.close()

    def _response(self, line: bytes) -> bytes:
        status, body = "404 Not Found", "there is /metrics and /healthz\n"
        if line.startswith(b"GET /metrics "):
            status, body = "200 OK", self._service.metrics.text()
        elif line.startswith(b"GET /healthz "):
            status, body = "200 OK", "OK\n"
        head = f"HTTP/1.0 {status}\r\nContent-Type: text/plain; version=0.0.4\r\n"
        return f"{head}Content-Length: {len(body.encode())}\r\nConnection: close\r\n\r\n{body}".encode()
