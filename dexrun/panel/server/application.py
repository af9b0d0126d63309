"""The routes of the panel's server, and its life."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import anyio
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles

from dexrun.panel.server import messages
from dexrun.panel.server.api import Api
from dexrun.panel.server.connection import Connections
from dexrun.panel.server.data_sets import DataSets
from dexrun.panel.server.following import Following
from dexrun.panel.server.guard import Guard
from dexrun.panel.server.jobs import Jobs
from dexrun.panel.server.metrics import CONTENT_TYPE, RunMetrics
from dexrun.panel.server.options import PanelServerOptions
from dexrun.panel.server.places import Places
from runtime.clock import Clock
from runtime.http_server import RefusedError

PAGE = Path(__file__).parents[1] / "page"
_HEAD_BYTES, _CONNECTIONS, _GRACE_S = 16_384, 128, 2


class PanelServer:
    """Serves the page, and what it shows.

    Attributes:
        port: where it listens, once it runs.
    """

    def __init__(self, options: PanelServerOptions, clock: Clock) -> None:
        self._options = options
        self._clock = clock
        about = {"version": version("dexrun"), "language": options.language}
        self.following = Following(options, clock, about)
        self._metrics = RunMetrics(self.following, clock)
        places = Places(options)
        self.jobs = Jobs(places, clock, self._live, self._tell_jobs)
        self.data = DataSets(places)
        self._api = Api(places, self.jobs, self.data)
        self._connections = Connections(self.following, clock, options.token, self._first)
        refused = {RefusedError: _refusal}
        self._guard = Guard(Starlette(routes=self._routes(), exception_handlers=refused), options)

    @property
    def port(self) -> int:
        """See the class."""
        return self._guard.port

    def _routes(self) -> list[BaseRoute]:
        return [
            Route("/", self._index),
            Mount("/page", StaticFiles(directory=PAGE)),
            WebSocketRoute("/ws", self._connections.serve),
            Route("/metrics", self._metrics_page),
            Route("/healthz", self._health),
            Route("/api/model", self._model),
            *self._api.routes(),
        ]

    def _live(self) -> str:
        run = self.following.run
        return "" if run is None else f"the run {run.folder.name}"

    def _first(self) -> dict[str, str]:
        return {"jobs": messages.text("jobs", {"jobs": self.jobs.as_json()})}

    def _tell_jobs(self) -> None:
        for page in self.following.pages:
            for key, said in self._first().items():
                page.put(key, said)

    async def run(
        self, listening: socket.socket, ready: Callable[[], None], ended: Callable[[], Awaitable[object]]
    ) -> None:
        """Serve at a socket of `listen` until `ended()` returns; `ready` is called once it is done."""
        self._guard.port = int(listening.getsockname()[1])
        server = _Server(self._configuration())
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(self.following.forever)
                await group.start(self.jobs.forever)
                group.start_soon(_until, ended, server)
                ready()
                await server.serve([listening])
                group.cancel_scope.cancel()
        finally:
            listening.close()
            self.following.close()
            self.data.close()

    def _configuration(self) -> uvicorn.Config:
        return uvicorn.Config(
            self._guard,
            http="h11",
            ws="websockets-sansio",
            ws_max_size=messages.MESSAGE_BYTES,
            ws_per_message_deflate=False,  # pictures are compressed, and the rest is small
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            limit_concurrency=_CONNECTIONS,
            h11_max_incomplete_event_size=_HEAD_BYTES,
            timeout_graceful_shutdown=_GRACE_S,
        )

    async def _index(self, request: Request) -> Response:
        del request
        return FileResponse(PAGE / "index.html")

    async def _metrics_page(self, request: Request) -> Response:
        del request
        return Response(self._metrics.page(), media_type=CONTENT_TYPE)

    async def _health(self, request: Request) -> Response:
        del request
        healthy, line = self._metrics.health()
        return PlainTextResponse(f"{line}\n", 200 if healthy else 503)

    async def _model(self, request: Request) -> Response:
        del request
        bodies = self.following.bodies.described()
        if bodies is None:
            return JSONResponse({"error": "no model of an arm: no run, or it is not ready yet"}, 404)
        return JSONResponse({"bodies": bodies})


async def _refusal(request: Request, error: Exception) -> Response:
    del request
    return JSONResponse({"error": str(error)}, getattr(error, "status", 500))


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Whoever runs it says when it ends."""
        yield


async def _until(ended: Callable[[], Awaitable[object]], server: uvicorn.Server) -> None:
    await ended()
    server.should_exit = True


def listen(host: str, port: int) -> socket.socket:
    """A socket that takes connections at `host`, port 0 for any.

    Raises:
        OSError: the address is taken, or is not this machine's.
    """
    bare = "127.0.0.1" if host.lower() == "localhost" else host.removeprefix("[").removesuffix("]")
    family, *_, address = socket.getaddrinfo(bare, port, type=socket.SOCK_STREAM)[0]
    return socket.create_server((str(address[0]), port), family=family, backlog=128)
