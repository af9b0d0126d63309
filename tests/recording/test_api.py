"""The HTTP API over real sockets, with real episodes behind it."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dexrun.config.recording_options import RecordingOptions
from dexrun.episodes.api import EpisodeApi, check_body, check_origin, parse_body
from dexrun.episodes.episodes import Episodes
from runtime.clock import RealClock
from runtime.http_server import RefusedError
from runtime.recording.recorder import Recorder

Ask = Callable[..., Awaitable[tuple[int, dict[str, Any]]]]


def serve(folder: Path, script: Callable[[Ask, int, Episodes], Awaitable[None]]) -> None:
    clock = RealClock()
    options = RecordingOptions(min_free_mib=0, warn_free_mib=0, settle_s=0.0, episodes=5)
    recorder = Recorder(clock, options, folder, [])

    async def main() -> None:
        recorder.start()
        episodes = Episodes(recorder, options, now_ns=clock.now_ns)
        api = EpisodeApi(episodes)
        port = await api.open(0)

        async def ask(method: str, path: str, body: Any = None, raw: bytes = b"", **headers: str) -> Any:
            data = raw or (b"" if body is None else json.dumps(body).encode())
            head = {"Host": f"127.0.0.1:{port}", **{k.replace("_", "-"): v for k, v in headers.items()}}
            if data:
                head = {"Content-Type": "application/json", "Content-Length": str(len(data)), **head}
            lines = [f"{method} {path} HTTP/1.1", *(f"{k}: {v}" for k, v in head.items()), "", ""]
            return await exchange(port, "\r\n".join(lines).encode() + data)

        try:
            await script(ask, port, episodes)
        finally:
            await api.close()
            await recorder.close()

    clock.run(main)


async def exchange(port: int, data: bytes) -> tuple[int, dict[str, Any]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(data)
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)


def test_a_button_box_drives_a_session(tmp_path: Path) -> None:
    async def script(ask: Ask, port: int, episodes: Episodes) -> None:
        assert (await ask("GET", "/"))[1]["state"] == "ready"
        status, state = await ask("POST", "/start", {"task": "pour"})
        assert (status, state["state"], state["task"], state["episode"]) == (200, "recording", "pour", 0)
        assert (await ask("POST", "/start"))[0] == 409
        assert (await ask("POST", "/stop"))[1]["state"] == "review"
        status, state = await ask("POST", "/label", {"label": "failure"})
        assert (status, state["recorded"], state["last_label"], state["state"]) == (
            200,
            1,
            "failure",
            "ready",
        )
        assert (await ask("POST", "/discard"))[0] == 409
        await ask("POST", "/start")
        assert (await ask("POST", "/discard"))[1]["recorded"] == 1
        await ask("POST", "/start")
        assert (await ask("POST", "/stop", {"label": "success"}))[1]["recorded"] == 2
        assert (await ask("POST", "/quit"))[0] == 200
        assert episodes.quitting

    serve(tmp_path, script)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["episode_000000.mcap", "episode_000001.mcap"]


def test_pages_of_other_sites_may_do_nothing(tmp_path: Path) -> None:
    async def script(ask: Ask, port: int, episodes: Episodes) -> None:
        assert (await ask("POST", "/start", Host="rebound.example:80"))[0] == 403
        assert (await ask("POST", "/start", Host=f"127.0.0.1:{port + 1}"))[0] == 403
        assert (await ask("POST", "/start", Origin="https://evil.example"))[0] == 403
        assert (await ask("POST", "/start", Origin="null"))[0] == 403
        assert (await ask("POST", "/start", Sec_Fetch_Site="cross-site"))[0] == 403
        form = await ask("POST", "/start", raw=b"task=x", Content_Type="text/plain")
        assert form[0] == 415
        assert not episodes.recording
        own = await ask("POST", "/start", Origin=f"http://localhost:{port}", Host=f"localhost:{port}")
        assert own[0] == 200

    serve(tmp_path, script)


def test_bad_requests_get_one_line(tmp_path: Path) -> None:
    async def script(ask: Ask, port: int, episodes: Episodes) -> None:
        for status, answer in (
            await ask("GET", "/nothing"),
            await ask("GET", "/start"),
            await ask("POST", "/state"),
            await ask("POST", "/start", {"tusk": "x"}),
            await ask("POST", "/start", ["x"]),
            await ask("POST", "/start", {"task": "x" * 2000}),
            await ask("POST", "/start", {"task": "half a pair: \ud800"}),
            await ask("POST", "/start", raw=b"{not json"),
            await ask("POST", "/start", raw=b"x" * 20000),
            await ask("POST", "/start", Transfer_Encoding="chunked"),
            await ask("GET", "/", X="y" * 10000),
            await exchange(port, b"hello\r\n\r\n"),
            await exchange(port, b"GET / HTTP/2\r\n\r\n"),
        ):
            assert 400 <= status < 500
            assert answer["error"]
            assert "\n" not in answer["error"]
        assert not episodes.recording
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.close()  # somebody who hangs up at once
        await writer.wait_closed()
        del reader
        assert (await ask("GET", "/state"))[0] == 200

    serve(tmp_path, script)


@given(st.dictionaries(st.sampled_from(["host", "origin", "content-length", "content-type"]), st.text()))
def test_any_headers_are_taken_or_refused(headers: dict[str, str]) -> None:
    with contextlib.suppress(RefusedError):
        check_body(headers)
        check_origin(headers, 80)
        assert headers["host"] in ("127.0.0.1", "localhost", "[::1]") or headers["host"].endswith(":80")


@given(st.binary(max_size=100))
def test_any_body_is_parsed_or_refused(data: bytes) -> None:
    with contextlib.suppress(RefusedError):
        assert set(parse_body(data, ("label",))) <= {"label"}


def test_a_deeply_nested_body_is_refused() -> None:
    with pytest.raises(RefusedError):
        parse_body(b"[" * 16000, ())
