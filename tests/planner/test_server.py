"""The scene reader's HTTP side, byte by byte."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from planner.config import SceneReaderConfig
from planner.images import encode
from planner.scene_reader.chat import complete
from planner.scene_reader.faults import Spoiler
from planner.scene_reader.server import SceneReader
from tests.planner.pictures import table

JPEG = "data:image/jpeg;base64," + base64.b64encode(encode(table(), 80, 640).jpeg).decode()


@asynccontextmanager
async def connected(**options: Any) -> AsyncIterator[tuple[SceneReader, Peer]]:
    server = SceneReader(SceneReaderConfig(**options))
    await server.start()
    port = int(server.base_url.split(":")[2].split("/")[0])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield server, Peer(reader, writer)
    finally:
        writer.close()
        await writer.wait_closed()
        await server.close()
        await server.close()


class Peer:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.host = f"127.0.0.1:{writer.get_extra_info('peername')[1]}"
        self.type = "application/json"

    def write(self, method: str, path: str, body: bytes = b"", headers: str = "") -> None:
        kind = f"content-type: {self.type}\r\n" if self.type else ""
        length = f"content-length: {len(body)}\r\n"
        head = f"{method} {path} HTTP/1.1\r\nhost: {self.host}\r\n{length}{kind}{headers}\r\n"
        self.writer.write(head.encode() + body)

    async def read(self) -> tuple[int, dict[str, str], bytes]:
        lines = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines[1:] if line)
        return (
            int(lines[0].split()[1]),
            headers,
            await self.reader.readexactly(int(headers["content-length"])),
        )

    async def ask(self, method: str, path: str, body: bytes = b"", headers: str = "") -> tuple[int, Any]:
        self.write(method, path, body, headers)
        status, _, answer = await self.read()
        return status, json.loads(answer)

    async def chat(self, body: Any, headers: str = "") -> tuple[int, Any]:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        return await self.ask("POST", "/v1/chat/completions", data, headers)


def request(*parts: Any) -> dict[str, Any]:
    return {"model": "any", "messages": [{"role": "user", "content": list(parts)}]}


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words}


def picture(url: str = JPEG) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


def test_a_conversation_on_one_connection() -> None:
    async def main() -> None:
        async with connected() as (server, peer):
            status, models = await peer.ask("GET", "/v1/models")
            assert status == 200
            assert [each["id"] for each in models["data"]] == ["scene-reader"]
            status, reply = await peer.chat(request(text("Is the table empty?"), picture()))
            assert status == 200
            assert reply["object"] == "chat.completion"
            assert reply["choices"][0]["message"] == {"role": "assistant", "content": "True"}
            assert reply["choices"][0]["finish_reason"] == "stop"
            status, reply = await peer.chat(
                {"model": "m", "messages": [{"role": "user", "content": "hello"}]}
            )
            assert status == 200
            assert "not this one" in reply["choices"][0]["message"]["content"]
            assert server.requests == 2

    asyncio.run(main())


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "body"),
        (b"{", "body"),
        (b"\xff\xfe", "body"),
        ({"model": "m"}, "messages"),
        ({"model": "m", "messages": []}, "messages"),
        ({"model": "m", "messages": [{"role": "system", "content": "x"}]}, "role user"),
        (request({"type": "audio"}), "messages.0.content"),
        (request(text("empty?"), picture("http://example.com/a.jpg")), "data URL"),
        (request(text("empty?"), picture("data:image/jpeg;base64,%%%")), "base64"),
        (request(text("empty?"), picture("data:image/jpeg;base64,aGVsbG8=")), "not a JPEG"),
        (request(text("empty?"), picture("data:image/jpeg;base64,/9j/4AAQ")), "cannot be decoded"),
    ],
)
def test_bad_requests_are_told_what_is_wrong(body: Any, said: str) -> None:
    async def main() -> None:
        async with connected() as (_, peer):
            status, reply = await peer.chat(body)
            assert status == 400
            assert said in reply["error"]["message"]
            assert (await peer.ask("GET", "/v1/models"))[0] == 200  # the connection goes on

    asyncio.run(main())


def test_unknown_places() -> None:
    async def main() -> None:
        async with connected() as (_, peer):
            assert (await peer.ask("GET", "/"))[0] == 404
            assert (await peer.ask("GET", "/v1/chat/completions"))[0] == 404
            assert (await peer.ask("DELETE", "/v1/models"))[0] == 404

    asyncio.run(main())


def test_a_body_that_is_too_long_is_refused() -> None:
    async def main() -> None:
        async with connected(max_body_bytes=1000) as (_, peer):
            status, reply = await peer.chat(b" " * 1001)
            assert status == 413
            assert "1000 bytes" in reply["error"]["message"]
            assert await peer.reader.read() == b""

    asyncio.run(main())


def test_what_is_not_http_is_refused() -> None:
    async def main() -> None:
        async with connected() as (_, peer):
            peer.writer.write(b"\x16\x03\x01 hello\r\n\r\n")
            assert (await peer.read())[0] == 400
            assert await peer.reader.read() == b""

    asyncio.run(main())


def test_a_peer_that_leaves_in_the_middle() -> None:
    async def main() -> None:
        async with connected() as (server, peer):
            peer.writer.write(
                b"POST /v1/chat/completions HTTP/1.1\r\nhost: " + peer.host.encode() + b"\r\n"
                b"content-type: application/json\r\ncontent-length: 9\r\n\r\nab"
            )
            peer.writer.close()
            await peer.writer.wait_closed()
            again = Peer(*await asyncio.open_connection("127.0.0.1", int(server.base_url.split(":")[2][:-3])))
            assert (await again.ask("GET", "/v1/models"))[0] == 200
            again.writer.close()
            await again.writer.wait_closed()

    asyncio.run(main())


def test_expect_continue() -> None:
    async def main() -> None:
        async with connected() as (_, peer):
            peer.writer.write(
                b"POST /v1/chat/completions HTTP/1.1\r\nhost: " + peer.host.encode() + b"\r\n"
                b"content-type: application/json\r\n"
                b"expect: 100-continue\r\ncontent-length: 2\r\n\r\n"
            )
            assert b"100" in await peer.reader.readuntil(b"\r\n\r\n")
            peer.writer.write(b"{}")
            assert (await peer.read())[0] == 400

    asyncio.run(main())


def test_a_hang_ends_when_the_server_closes() -> None:
    async def main() -> None:
        server = SceneReader(SceneReaderConfig(fault="hang"))
        await server.start()
        reader, writer = await asyncio.open_connection("127.0.0.1", int(server.base_url.split(":")[2][:-3]))
        peer = Peer(reader, writer)
        peer.write("POST", "/v1/chat/completions", json.dumps(request(text("empty?"), picture())).encode())
        while server.requests == 0:  # noqa: ASYNC110 - the server shares this loop and is let come that far
            await asyncio.sleep(0)
        await server.close()
        assert await reader.read() == b""  # nothing was answered, and the connection has ended
        writer.close()
        await writer.wait_closed()

    asyncio.run(main())


def test_delays_are_told_to_whom_time_is_simulated() -> None:
    async def main() -> None:
        async with connected(fault="slow", slow_s=7) as (_, peer):
            body = json.dumps(request(text("empty?"), picture())).encode()
            peer.write("POST", "/v1/chat/completions", body, "x-dexrun-simulated-time: 1\r\n")
            status, headers, _ = await peer.read()
            assert (status, headers["x-dexrun-simulated-latency-s"]) == (200, "7.0")

    asyncio.run(main())


def test_a_fault_lasts_as_long_as_it_was_told() -> None:
    async def main() -> None:
        async with connected() as (server, peer):
            server.inject("error_500", 2)
            asked = request(text("empty?"), picture())
            assert [(await peer.chat(asked))[0] for _ in range(4)] == [500, 500, 200, 200]
            server.inject("error_500")
            assert [(await peer.chat(asked))[0] for _ in range(3)] == [500, 500, 500]
            server.inject("none")
            assert (await peer.chat(asked))[0] == 200

    asyncio.run(main())


def test_a_fault_begins_after_what_was_answered_well() -> None:
    async def main() -> None:
        async with connected(fault="error_500", fault_after=2, fault_requests=1) as (_, peer):
            asked = request(text("empty?"), picture())
            assert [(await peer.chat(asked))[0] for _ in range(4)] == [200, 200, 500, 200]

    asyncio.run(main())


@pytest.mark.parametrize(("said", "instead"), [("It is gone.\nTrue", "False"), ("False: two cubes", "True")])
def test_a_wrong_answer_is_in_good_form_and_says_the_contrary(said: str, instead: str) -> None:
    answer = Spoiler("wrong")(said)
    assert answer == said.replace("True" if "True" in said else "False", instead)
    box = json.loads(Spoiler("wrong")('{"bbox_2d": [60, 60, 90, 90], "label": "red cube"}'))
    assert box["label"] == "red cube"
    assert box["bbox_2d"] != [60, 60, 90, 90]


def test_a_start_that_is_cancelled_leaves_no_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    listen = asyncio.Server._start_serving  # type: ignore[attr-defined]
    heard: list[asyncio.Server] = []

    async def main() -> None:
        reader = SceneReader(SceneReaderConfig())
        with anyio.CancelScope() as scope:

            def listening(server: asyncio.Server) -> None:
                listen(server)
                heard.append(server)
                scope.cancel()

            monkeypatch.setattr(asyncio.Server, "_start_serving", listening)
            await reader.start()
        await reader.close()

    anyio.run(main)
    assert [server.is_serving() for server in heard] == [False]


@pytest.mark.parametrize(
    ("change", "headers", "status"),
    [
        ({"host": "evil.example"}, "", 403),
        ({"host": "127.0.0.1"}, "", 403),
        ({}, "origin: http://evil.example\r\n", 403),
        ({}, "sec-fetch-site: cross-site\r\n", 403),
        ({"type": "text/plain"}, "", 415),
        ({"type": ""}, "", 415),
    ],
)
def test_pages_of_other_sites_may_ask_nothing(change: dict[str, str], headers: str, status: int) -> None:
    async def main() -> None:
        async with connected() as (server, peer):
            vars(peer).update(change)
            assert (await peer.chat(request(text("empty?"), picture()), headers))[0] == status
            assert server.requests == 0

    asyncio.run(main())


def test_the_planners_own_reader_answers_nobody_else() -> None:
    async def main() -> None:
        server = SceneReader(SceneReaderConfig(), "right")
        await server.start()
        port = int(server.base_url.split(":")[2].split("/")[0])
        for headers, status in (
            ("", 401),
            ("authorization: Bearer wrong\r\n", 401),
            ("authorization: Bearer right\r\n", 200),
        ):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            assert (await Peer(reader, writer).ask("GET", "/v1/models", b"", headers))[0] == status
            writer.close()
            await writer.wait_closed()
        await server.close()

    asyncio.run(main())


def bomb(height: int, width: int) -> str:
    """A JPEG whose header says so."""
    jpeg = bytearray(encode(table(), 80, 640).jpeg)
    at = jpeg.index(b"\xff\xc0")
    jpeg[at + 5 : at + 9] = height.to_bytes(2, "big") + width.to_bytes(2, "big")
    return "data:image/jpeg;base64," + base64.b64encode(jpeg).decode()


@pytest.mark.parametrize(
    ("urls", "said"),
    [
        ([bomb(65_500, 65_500)], "larger than 4096 pixels"),
        ([bomb(4000, 4000)], "more than 4194304 pixels together"),
        ([bomb(1500, 1500)] * 2, "more than 4194304 pixels together"),
        ([JPEG] * 33, "at most 32"),
    ],
)
def test_what_would_unfold_is_refused_by_its_header(
    urls: list[str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import cv2

    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("it was decoded"))

    async def main() -> None:
        async with connected() as (_, peer):
            status, reply = await peer.chat(request(text("empty?"), *map(picture, urls)))
            assert (status, said in reply["error"]["message"]) == (400, True), reply

    asyncio.run(main())


def test_three_hundred_silent_connections_and_half_requests_starve_nobody() -> None:
    async def main() -> None:
        async with connected() as (_, peer):
            port = int(peer.host.split(":")[1])
            held = []
            assert (await peer.ask("GET", "/v1/models"))[0] == 200
            for index in range(300):
                held.append(await asyncio.open_connection("127.0.0.1", port))
                if index % 2:
                    held[-1][1].write(b"POST /v1/chat/completions HTTP/1.1\r\nhost: x")
            async with asyncio.timeout(10):
                assert (await peer.ask("GET", "/v1/models"))[0] == 200
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                assert (await Peer(reader, writer).ask("GET", "/v1/models"))[0] == 200
            for _, each in [*held, (reader, writer)]:
                each.transport.abort()

    asyncio.run(main())


@pytest.mark.parametrize(
    "piece", ["<<<", "<<<a>>>", "arm is ", "description ", "user prompt", "whether ", " "]
)
def test_a_long_question_is_read_in_time(piece: str) -> None:
    """Patterns that look for an end that does not come take the square of a text."""
    words = "Is the table empty? " + piece * (9_000 // len(piece))
    body = json.dumps({"model": "m", "messages": [{"role": r, "content": words} for r in ("system", "user")]})
    start = time.process_time()
    assert "no picture" in complete(body.encode()).body
    assert time.process_time() - start < 1.0
    assert complete(body.replace("empty", "empty" * 500).encode()).status == 400
