"""Servers that answer what no chat completion server would."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Callable

import pytest

from planner.bounded import MAX_REPLY_BYTES
from planner.client import Planner
from planner.config import PlannerConfig
from planner.errors import PlannerError
from planner.questions.check_prompt import CheckPrompt
from runtime.stepped import SteppedClock
from tests.planner.test_client import JSON, SEEN, Canned, chat, http


@pytest.mark.parametrize(
    ("answer", "what"),
    [
        (http("200 OK", "<html>a web page</html>", "content-type: text/html; charset=utf-8"), "text/html"),
        (http("200 OK", '["m"]', JSON), "application/json"),
        (http("200 OK", '"m"', JSON), "application/json"),
        (http("200 OK", "null", JSON), "application/json"),
        (http("200 OK", '{"data": "m"}', JSON), "application/json"),
        (http("200 OK", '{"data": ["m"]}', JSON), "application/json"),
        (http("200 OK", '{"data": {"m": 1}}', JSON), "application/json"),
        (http("200 OK", '{"data": [{}]}', JSON), "application/json"),
        (http("200 OK", "[" * 100_000, JSON), "application/json"),
    ],
)
def test_what_is_no_list_of_models_is_named_with_its_address(answer: bytes, what: str) -> None:
    """As of a web page that answers whatever it is asked, at the address of a server that it belongs to."""

    async def main() -> None:
        canned = Canned(answer)
        async with canned as url, Planner(PlannerConfig(base_url=f"{url}/"), clock) as planner:
            with pytest.raises(PlannerError) as error:
                await planner.ask(CheckPrompt(), SEEN)
            assert planner.statistics()["errors"] == 1
        assert error.value.kind == "malformed"
        assert (
            error.value.detail == f"asked twice; {url}/models answered with {what} that is no list of models"
        )
        assert {request.split(b" HTTP")[0] for request in canned.heard} == {b"GET /v1/models"}

    clock = SteppedClock()
    clock.run(main)


def test_a_server_without_a_model() -> None:
    async def main() -> None:
        canned = Canned(http("200 OK", '{"data": []}', JSON))
        async with canned as url, Planner(PlannerConfig(base_url=url), clock) as planner:
            with pytest.raises(
                PlannerError, match=r"malformed: .*lists no model; name one with planner\.model"
            ):
                await planner.ask(CheckPrompt(), SEEN)

    clock = SteppedClock()
    clock.run(main)


class Endless(Canned):
    """Goes on with its answer, in chunks, for as long as somebody listens."""

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n" + JSON.encode() + b"\r\n\r\n")
        try:
            while True:
                writer.write(b"10000\r\n" + b"x" * 0x10000 + b"\r\n")
                await writer.drain()
        except ConnectionError:
            self.hung_up.set()
        finally:
            writer.close()


def packed(answer: bytes) -> bytes:
    """`answer` with its body compressed."""
    body = gzip.compress(answer.partition(b"\r\n\r\n")[2], mtime=0)
    lines = ["HTTP/1.1 200 OK", f"content-length: {len(body)}", "connection: close", "content-encoding: gzip"]
    return "\r\n".join([*lines, JSON, "", ""]).encode() + body


LONG = "x" * (MAX_REPLY_BYTES + 1)


@pytest.mark.parametrize("model", ["m", None], ids=["completion", "models"])
@pytest.mark.parametrize(
    "serve",
    [
        lambda: Endless(b""),
        lambda: Canned(chat(LONG)),
        lambda: Canned(packed(chat(LONG))),
        lambda: Canned(http("500 Internal Server Error", LONG, "content-type: text/plain")),
    ],
    ids=["chunked", "whole", "compressed", "status"],
)
def test_a_reply_is_read_so_far_and_no_further(serve: Callable[[], Canned], model: str | None) -> None:
    """On the real clock a reply of 50 MB, read and parsed whole, costs the control loop its ticks."""

    async def main() -> None:
        server = serve()
        async with server as url, Planner(PlannerConfig(base_url=url, model=model), clock) as planner:
            with pytest.raises(PlannerError) as error:
                await planner.ask(CheckPrompt(), SEEN)
            if isinstance(server, Endless):
                await server.hung_up.wait()
        assert error.value.kind == "malformed"
        assert (
            error.value.detail == "asked twice; not a chat completion: the reply has more than 1048576 bytes"
        )

    clock = SteppedClock()
    clock.run(main)


def test_a_compressed_reply_is_read() -> None:
    async def main() -> None:
        server = Canned(packed(chat("True: nothing is left")))
        async with server as url, Planner(PlannerConfig(base_url=url, model="m"), clock) as planner:
            assert (await planner.ask(CheckPrompt(), SEEN)).value

    clock = SteppedClock()
    clock.run(main)


@pytest.mark.parametrize("status", ["301 Moved Permanently", "302 Found", "307 Temporary Redirect"])
@pytest.mark.parametrize("model", ["m", None], ids=["completion", "models"])
def test_neither_key_nor_pictures_follow_a_redirect_to_another_server(
    status: str, model: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEXRUN_PLANNER_API_KEY", "sk-secret")

    async def main() -> None:
        stranger = Canned(chat("True"))
        async with stranger as elsewhere:
            server = Canned(http(status, "", f"location: {elsewhere.replace('//', '//me:word@')}/x"))
            async with server as url, Planner(PlannerConfig(base_url=url, model=model), clock) as planner:
                with pytest.raises(PlannerError, match=r"redirects to http://\*\*\*@127") as error:
                    await planner.ask(CheckPrompt(), SEEN)
            assert error.value.kind == "redirected"
            assert "word" not in str(error.value)
            assert (len(server.heard), stranger.heard) == (1, [])

    clock = SteppedClock()
    clock.run(main)


class Moved(Canned):
    """Answers at one path, and sends whoever asks at another one there."""

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.answer = chat("True") if self.heard else http("308 Permanent Redirect", "", "location: /v2/x")
        await super()._serve(reader, writer)


def test_a_redirect_on_the_same_server_is_followed() -> None:
    async def main() -> None:
        server = Moved(b"")
        async with server as url, Planner(PlannerConfig(base_url=url, model="m"), clock) as planner:
            assert (await planner.ask(CheckPrompt(), SEEN)).value
        first, second = server.heard
        assert second.startswith(b"POST /v2/x HTTP")
        assert second.partition(b"\r\n\r\n")[2] == first.partition(b"\r\n\r\n")[2]

    clock = SteppedClock()
    clock.run(main)
