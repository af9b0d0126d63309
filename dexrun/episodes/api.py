"""Episodes over HTTP, for a button box or a page on this machine.

``GET /`` (or ``/state``) answers the session's state as JSON; ``POST /start``, ``/stop``, ``/discard``,
``/label``, ``/keep``, ``/quit`` change it and answer the new state. A body, where there is one, is a JSON
object: ``{"task": "..."}`` for start, ``{"label": "success"}`` for stop and label. A mode may have more
paths (``/pause``, ``/resume``, ``/take``, ``/give`` of a rollout, ``/tell`` with ``{"instruction": "..."}``)
and more to say in its state; in grasp mode, whose episodes are its own, these are all, and ``/quit``.

``POST /estop`` stops the arm and latches; ``/reset`` and then ``/resume``, each with ``{"stop": "1"}``, the
number of the newest stop as the state's ``stop`` has it, release the latch and have the run go on.

Only this machine can connect. So that no page of another site can act through a person's browser, a
request must name this machine as its host (which a rebound name does not), must not come from another
origin, and must have the type ``application/json`` if it has a body (which a form cannot).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from dexrun.episodes.actions import ModeRequests, RunActions
from runtime.http_checks import check_body, check_origin
from runtime.http_server import HttpLimits, HttpRequest, HttpResponse, HttpServer, RefusedError
from runtime.recording.recorder import EpisodeError

if TYPE_CHECKING:
    from dexrun.episodes.episodes import Episodes
    from dexrun.stopping import PersonsStop

HOST = "127.0.0.1"


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


class EpisodeApi:
    """The server. Opened and closed on the loop; a request takes microseconds of it."""

    def __init__(
        self,
        episodes: Episodes | None,
        mode: ModeRequests | None = None,
        stopping: PersonsStop | None = None,
    ) -> None:
        self._actions = RunActions(episodes, mode, "api", stopping)
        self._server = HttpServer(self._answer, HttpLimits(), check=self._check, refusal=_refusal)

    async def open(self, port: int) -> int:
        """Listen on `port` of the loopback interface, 0 for any; returns the port.

        Raises:
            OSError: it is taken.
        """
        return await self._server.open(HOST, port)

    async def close(self) -> None:
        """Stop listening and hang up."""
        await self._server.close()

    def _check(self, request: HttpRequest) -> None:
        check_origin(request.headers, self._server.port)
        check_body(request.headers)

    async def _answer(self, request: HttpRequest) -> HttpResponse:
        try:
            self._act(request)
        except EpisodeError as error:
            return _response(409, {"error": str(error), **self._actions.state()})
        return _response(200, self._actions.state())

    def _act(self, request: HttpRequest) -> None:
        if request.path in ("/", "/state"):
            if request.method != "GET":
                raise RefusedError(405, f"{request.path} is for GET")
            return
        known = self._actions.known
        if request.path not in known:
            raise RefusedError(404, f"no {request.path}; there are /state, {', '.join(known)}")
        if request.method != "POST":
            raise RefusedError(405, f"{request.path} is for POST")
        said = parse_body(request.body, self._actions.allowed(request.path))
        self._actions.act(request.path, said)


def _response(status: int, answer: Mapping[str, Any]) -> HttpResponse:
    headers = (("x-content-type-options", "nosniff"), ("cache-control", "no-store"))
    return HttpResponse(status, json.dumps(answer).encode() + b"\n", "application/json", headers)


def _refusal(status: int, message: str) -> HttpResponse:
    return _response(status, {"error": message})
