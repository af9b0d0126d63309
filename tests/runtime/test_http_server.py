"""The small HTTP server over real sockets: what it takes, what it refuses, what it gives up on."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.http_server import HttpLimits, HttpRequest, HttpResponse, HttpServer, RefusedError

LIMITS = HttpLimits(head_bytes=1000, body_bytes=100, patience_s=30.0, connections=2)


async def echo(request: HttpRequest) -> HttpResponse:
    if request.path == "/refuse":
        raise RefusedError(404, "not here")
    if request.path == "/break":
        raise ZeroDivisionError("in here")
    return HttpResponse(200, request.body or request.path.encode())


@asynccontextmanager
async def opened(limits: HttpLimits, refused: Callable[[int], None]) -> AsyncIterator[int]:
    server = HttpServer(echo, limits, refused=refused)
    port = await server.open("127.0.0.1", 0)
    try:
        yield port
    finally:
        await server.close()
        await server.close()


def run(script: Callable[[int], Awaitable[None]], limits: HttpLimits = LIMITS) -> list[int]:
    """What was refused while `script` talked to the server at the port that it is given."""
    statuses: list[int] = []

    async def main() -> None:
        async with opened(limits, statuses.append) as port:
            await script(port)

    asyncio.run(main())
    return statuses


async def sent(port: int, data: bytes) -> bytes:
    """All that is answered to `data` and the end of it."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(data)
    writer.write_eof()
    try:
        return await reader.read()
    finally:
        writer.close()
        await writer.wait_closed()


def request(path: str = "/", *headers: str, body: bytes = b"") -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: x", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (request(body=b"x" * 100), 200),
        (request(body=b"x" * 101), 413),
        (request("/", "X: " + "y" * 1000), 431),
        (request("/refuse"), 404),
        (request("/break"), 500),
        (b"hello\r\n\r\n", 400),
        (b"GET / HTTP/2\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),  # no host
        (b"GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: " + b"9" * 900 + b"\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n65\r\n" + b"x" * 101, 413),
    ],
)
def test_every_request_is_answered_once(data: bytes, status: int) -> None:
    async def script(port: int) -> None:
        answer = await sent(port, data)
        assert answer.startswith(f"HTTP/1.1 {status} ".encode())
        assert answer.count(b"HTTP/1.1") == 1
        assert b"connection: close" in answer.lower()

    assert run(script) == ([] if status == 200 else [status])


def test_a_repeated_header_is_one_value_that_no_check_takes_for_either() -> None:
    seen: list[str] = []

    async def answer(asked: HttpRequest) -> HttpResponse:
        seen.append(asked.headers["origin"])
        return HttpResponse(200, b"")

    async def main() -> None:
        server = HttpServer(answer, LIMITS)
        port = await server.open("127.0.0.1", 0)
        await sent(port, request("/", "Origin: http://a", "Origin: http://b"))
        await server.close()

    asyncio.run(main())
    assert seen == ["http://a, http://b"]


def test_a_check_comes_before_the_body() -> None:
    def check(asked: HttpRequest) -> None:
        raise RefusedError(403, f"not for {asked.headers['host']}")

    async def main() -> None:
        server = HttpServer(echo, LIMITS, check=check)
        port = await server.open("127.0.0.1", 0)
        answer = await sent(port, request(body=b"x" * 50)[:-50])  # the body never comes
        assert answer.startswith(b"HTTP/1.1 403 ")
        assert answer.endswith(b"not for x\n")
        await server.close()

    asyncio.run(main())


def test_who_is_too_slow_is_closed() -> None:
    async def script(port: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nab")
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()

    assert run(script, HttpLimits(patience_s=0.05)) == [408]


def test_a_connection_too_many_takes_the_place_of_the_one_silent_for_longest() -> None:
    async def script(port: int) -> None:
        held = [await asyncio.open_connection("127.0.0.1", port) for _ in range(3)]
        for _, writer in held[1:]:
            writer.write(request("/still-here"))
        answers = [await reader.read() for reader, _ in held[1:]]
        assert all(each.endswith(b"/still-here") for each in answers)
        with contextlib.suppress(ConnectionError):
            assert await held[0][0].read() == b""
        for _, writer in held:
            writer.transport.abort()

    assert run(script) == []


def test_where_all_are_being_answered_one_more_is_told_so() -> None:
    async def main() -> None:
        entered, let_go = asyncio.Semaphore(0), asyncio.Event()

        async def slow(asked: HttpRequest) -> HttpResponse:
            entered.release()
            await let_go.wait()
            return await echo(asked)

        server = HttpServer(slow, LIMITS)
        port = await server.open("127.0.0.1", 0)
        busy = [asyncio.create_task(sent(port, request("/a"))) for _ in range(2)]
        for _ in busy:
            await entered.acquire()
        assert (await sent(port, b"")).startswith(b"HTTP/1.1 503 ")
        let_go.set()
        assert all(answer.endswith(b"/a") for answer in await asyncio.gather(*busy))
        await server.close()

    asyncio.run(main())


def test_a_kept_connection_waits_so_long_and_no_longer() -> None:
    async def script(port: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request("/a"))
        assert (await reader.read()).endswith(b"/a")
        writer.close()
        await writer.wait_closed()

    assert run(script, HttpLimits(keep_alive=True, idle_s=0.05)) == []


def test_requests_follow_each_other_on_a_connection_that_is_kept() -> None:
    async def script(port: int) -> None:
        answer = await sent(port, request("/a") + request("/refuse") + request("/b", body=b"last"))
        assert [each[:3] for each in answer.split(b"HTTP/1.1 ")[1:]] == [b"200", b"404", b"200"]
        assert answer.endswith(b"last")

    assert run(script, HttpLimits(keep_alive=True)) == [404]


def heard_of_errors() -> list[object]:
    """What the running loop is told of tasks that ended in an error, from now on."""
    told: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: told.append(context))
    return told


def test_who_asks_for_the_head_alone_gets_no_body_and_may_go_on() -> None:
    """Monitors do, and every one of them left a traceback."""

    async def script(port: int) -> None:
        told = heard_of_errors()
        head = b"HEAD /a HTTP/1.1\r\nHost: x\r\n\r\n"
        refused = head.replace(b"/a", b"/refuse")
        answer = await sent(port, head + refused + request("/b", body=b"last"))
        first, second, third = answer.split(b"HTTP/1.1 ")[1:]
        assert (first[:3], second[:3], third[:3]) == (b"200", b"404", b"200")
        assert b"content-length: 2\r\n" in first.lower()
        assert first.endswith(b"\r\n\r\n")
        assert second.endswith(b"\r\n\r\n")
        assert third.endswith(b"last")
        assert told == []

    assert run(script, HttpLimits(keep_alive=True)) == [404]


def test_what_is_no_request_after_one_for_the_head_is_refused_in_words() -> None:
    async def script(port: int) -> None:
        told = heard_of_errors()
        answer = await sent(port, b"HEAD /a HTTP/1.1\r\nHost: x\r\n\r\nno HTTP\r\n\r\n")
        first, second = answer.split(b"HTTP/1.1 ")[1:]
        assert (first[:3], second[:3]) == (b"200", b"400")
        assert b"not HTTP as it is spoken here" in second
        assert told == []

    assert run(script, HttpLimits(keep_alive=True)) == [400]


def test_nobody_is_let_through_to_others() -> None:
    async def script(port: int) -> None:
        told = heard_of_errors()
        answer = await sent(port, b"CONNECT elsewhere:443 HTTP/1.1\r\nHost: x\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 405 ")
        assert told == []

    assert run(script) == [405]


@settings(max_examples=30, deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_are_answered_or_refused(data: bytes) -> None:
    async def script(port: int) -> None:
        answer = await sent(port, data)
        assert answer == b"" or answer.startswith(b"HTTP/1.1 ")
        assert (await sent(port, request())).startswith(b"HTTP/1.1 200 ")

    run(script)
