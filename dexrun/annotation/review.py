"""``dexrun annotate RUN --review``: a page on this machine, on which a person corrects masks by a click.

``GET /`` is the page and holds nothing of the recordings; all else wants the token that the printed address
has behind ``#``, which browsers send nowhere: ``GET /state``, ``GET /picture/EPISODE/FRAME`` (PNG), and
``POST /correct``, which alone changes anything. Requests must name this machine as their host and origin.
"""

from __future__ import annotations

import contextlib
import getpass
import json
import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from dexrun.annotation.corrections import CorrectionError, Reviewed
from dexrun.annotation.errors import AnnotateError
from dexrun.annotation.options import AnnotateOptions
from dexrun.annotation.stretches import runs_of
from dexrun.exit_codes import OK
from dexrun.printing import say
from runtime.clock import NS_PER_S, Clock, RealClock
from runtime.http_checks import check_body, check_origin, check_token
from runtime.http_server import HttpLimits, HttpRequest, HttpResponse, HttpServer, RefusedError
from runtime.recording.reader import RecordingError

HOST = "127.0.0.1"
TOKEN_HEADER = "x-dexrun-token"  # noqa: S105 - its name
_PAGE = Path(__file__).with_name("review.html")
_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'; "
    "img-src blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = (
    ("x-content-type-options", "nosniff"),
    ("cache-control", "no-store"),
    ("content-security-policy", _POLICY),
    ("referrer-policy", "no-referrer"),
)


class ReviewPage:
    """The server. Opened and closed on the loop; pictures and corrections are made on their own threads."""

    def __init__(
        self, episodes: Sequence[Reviewed], options: AnnotateOptions, person: str, clock: Clock
    ) -> None:
        self.token = secrets.token_urlsafe(24)
        self._episodes = list(episodes)
        self._options = options
        self._person = person
        self._clock = clock
        self._busy = self._problem = ""
        self._server = HttpServer(
            self._answer, HttpLimits(body_bytes=65_536, keep_alive=True), check=self._check, refusal=_refusal
        )

    async def open(self, port: int) -> str:
        """Listen on `port` of the loopback interface, 0 for any; the address for a person.

        Raises:
            OSError: it is taken.
        """
        return f"http://{HOST}:{await self._server.open(HOST, port)}/#token={self.token}"

    async def close(self) -> None:
        """Stop listening and hang up."""
        await self._server.close()

    def _check(self, request: HttpRequest) -> None:
        check_origin(request.headers, self._server.port)
        check_body(request.headers)
        if request.path != "/":
            check_token(request.headers.get(TOKEN_HEADER, ""), self.token)

    async def _answer(self, request: HttpRequest) -> HttpResponse:
        path = request.path
        wanted = "POST" if path == "/correct" else "GET"
        if path not in ("/", "/state", "/correct") and not path.startswith("/picture/"):
            raise RefusedError(404, f"no {path}")
        if request.method != wanted:
            raise RefusedError(405, f"{path} is for {wanted}")
        if path == "/":
            return HttpResponse(200, _PAGE.read_bytes(), "text/html; charset=utf-8", _HEADERS)
        if path == "/state":
            return _response(200, self._state())
        if path == "/correct":
            return await self._correct(request.body)
        return await self._picture(path)

    def _state(self) -> dict[str, Any]:
        episodes = [
            {
                "name": each.name,
                "frames": each.frames,
                "phrase": "" if each.annotation is None else each.annotation.phrase,
                "low": list(each.low),
                "runs": runs_of(each.low),
            }
            for each in self._episodes
        ]
        return {"episodes": episodes, "busy": self._busy, "problem": self._problem}

    async def _picture(self, path: str) -> HttpResponse:
        _, _, which = path.removeprefix("/").partition("/")
        number, _, frame = which.partition("/")
        known = re.fullmatch(r"\d{1,9}", number) and re.fullmatch(r"\d{1,9}", frame)
        if not known or int(number) >= len(self._episodes):
            raise RefusedError(404, f"no {path[:100]}")
        shown = self._episodes[int(number)]
        try:
            data = await self._clock.run_blocking(lambda: shown.picture(int(frame)))
        except RecordingError as error:
            raise RefusedError(404, str(error)) from None
        return HttpResponse(200, data, "image/png", _HEADERS)

    async def _correct(self, body: bytes) -> HttpResponse:
        if self._busy:
            raise RefusedError(409, f"{self._busy}: one correction after the other")
        number, said = _parsed(body, len(self._episodes))
        shown = self._episodes[number]
        try:
            correction = shown.correction(said, self._person)
            self._busy, self._problem = f"following the object of {shown.name}", ""
            follow: Callable[[], Reviewed] = lambda: shown.corrected(correction, self._options)  # noqa: E731
            self._episodes[number] = await self._clock.run_blocking(follow)
        except CorrectionError as error:
            self._problem = str(error)
            raise RefusedError(409, str(error)) from None
        finally:
            self._busy = ""
        return _response(200, self._state())


def _parsed(body: bytes, episodes: int) -> tuple[int, Mapping[str, Any]]:
    try:
        said = json.loads(body)
        number = said["episode"]
    except (ValueError, LookupError, TypeError, RecursionError):
        raise RefusedError(400, "the body is not a JSON object with an episode") from None
    if not isinstance(said, dict) or type(number) is not int or not 0 <= number < episodes:
        raise RefusedError(404, f"no such episode; there are {episodes}")
    return number, said


def _response(status: int, answer: Mapping[str, Any]) -> HttpResponse:
    return HttpResponse(status, json.dumps(answer).encode() + b"\n", "application/json", _HEADERS)


def _refusal(status: int, message: str) -> HttpResponse:
    return _response(status, {"error": message})


def _user() -> str:
    """Who corrects.

    Raises:
        AnnotateError: this machine does not know, as in a container.
    """
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):
        raise AnnotateError("this machine has no name for its user; say who corrects with --person") from None


def review(paths: Sequence[Path], options: AnnotateOptions, port: int, person: str) -> int:
    """Serve the page until Ctrl-C.

    Raises:
        AnnotateError: the port is taken, or there is no episode to show.
    """
    episodes = [each for path in paths if (each := Reviewed.of(path, options)) is not None]
    if not episodes:
        raise AnnotateError("no episode that could be shown")
    clock = RealClock()
    page = ReviewPage(episodes, options, person or _user(), clock)

    async def serve() -> None:
        try:
            address = await page.open(port)
        except OSError as error:
            raise AnnotateError(f"--port {port}: {error.strerror or error}") from None
        say(f"look at the masks on {address} (Ctrl-C ends it)\n")
        try:
            while True:
                await clock.sleep_until_ns(clock.now_ns() + 3600 * NS_PER_S)
        finally:
            await page.close()

    with contextlib.suppress(KeyboardInterrupt):
        clock.run(serve)
    return OK
