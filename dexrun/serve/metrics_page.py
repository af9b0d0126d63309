"""``GET /metrics`` and ``GET /healthz``, nothing else."""

from __future__ import annotations

from policies.remote.hosts import address_to_bind, in_url
from policies.remote.serving.metrics import Metrics
from runtime.http_server import HttpLimits, HttpRequest, HttpResponse, HttpServer, RefusedError

_LIMITS = HttpLimits(body_bytes=0, patience_s=5.0)


class MetricsPage:
    """A listener for Prometheus, on the server's own address."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._server = HttpServer(self._answer, _LIMITS, refused=lambda status: self._count())
        self.address = ""

    async def open(self, host: str, port: int) -> None:
        """Bind and listen.

        Raises:
            OSError: the address is taken.
        """
        taken = await self._server.open(address_to_bind(host, port), port)
        self.address = f"http://{in_url(host)}:{taken}/metrics"

    async def close(self) -> None:
        """Stop listening."""
        await self._server.close()

    def _count(self) -> None:
        self._metrics.refuse("http")

    async def _answer(self, request: HttpRequest) -> HttpResponse:
        page = self._metrics.page(request.path) if request.method == "GET" else None
        if page is None:
            raise RefusedError(404, "there is /metrics and /healthz")
        return HttpResponse(200, page.encode(), self._metrics.CONTENT_TYPE)
