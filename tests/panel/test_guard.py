"""Who may not drive an arm through the panel's server, over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from dexrun.panel.server.connection import MOST_PAGES, MOST_UNKNOWN
from dexrun.panel.server.messages import MESSAGE_BYTES
from dexrun.panel.server.options import PanelServerOptions, link_of, names_of, new_token
from tests.panel.server_rig import Panel, hear, published, say, serve


async def status_of(panel: Panel, **headers: str) -> int:
    said = {name.replace("_", "-"): value for name, value in headers.items()}
    return (await panel.http.get("/api/jobs", headers=said)).status_code


def test_requests_of_other_sites_are_refused(tmp_path: Path) -> None:
    async def script(panel: Panel) -> None:
        port = panel.server.port
        assert await status_of(panel) == 200
        assert await status_of(panel, origin=f"http://127.0.0.1:{port}") == 200
        assert await status_of(panel, origin="http://evil.example") == 403
        assert await status_of(panel, origin="null") == 403
        assert await status_of(panel, host=f"evil.example:{port}") == 403
        assert await status_of(panel, host=f"127.0.0.1:{port + 1}") == 403
        assert await status_of(panel, sec_fetch_site="cross-site") == 403
        page = await panel.http.get("/", headers={"sec-fetch-site": "cross-site"})  # a link to it, somewhere
        assert page.status_code != 403
        assert "frame-ancestors 'none'" in page.headers["content-security-policy"]
        assert (await panel.http.get("/", headers={"host": "evil.example"})).status_code == 403

    serve(tmp_path, script)


def test_what_changes_something_is_a_post_of_json_and_short(tmp_path: Path) -> None:
    async def script(panel: Panel) -> None:
        for path in ("/api/jobs", "/api/jobs/1/stop", "/api/jobs/1/input"):
            assert (await panel.http.get(path)).status_code in (200, 404, 405)
            form = {"content-type": "application/x-www-form-urlencoded"}
            assert (await panel.http.post(path, content=b"kind=run", headers=form)).status_code == 415
            assert (await panel.post(path, {}, headers={"origin": "http://evil.example"})).status_code == 403
        long = json.dumps({"kind": "x" * 70_000}).encode()
        typed = {"content-type": "application/json"}
        assert (await panel.http.post("/api/jobs", content=long, headers=typed)).status_code == 413
        for nonsense in (b"{", b"[]", b"[" * 60_000, b"\xff"):
            assert (await panel.http.post("/api/jobs", content=nonsense, headers=typed)).status_code == 400
        assert panel.server.jobs.as_json() == []

    serve(tmp_path, script)


@pytest.mark.parametrize(
    "wrong",
    [
        {"origin": "http://evil.example"},
        {"additional_headers": {"Host": "evil.example"}},
        {"subprotocols": ["other"]},
        {"subprotocols": None},
    ],
)
def test_a_websocket_of_another_site_is_refused(tmp_path: Path, wrong: dict[str, Any]) -> None:
    async def script(panel: Panel) -> None:
        with pytest.raises((InvalidStatus, ConnectionClosed)):
            async with panel.page(**wrong) as page:
                await page.recv()
        assert not panel.server.following.pages

    serve(tmp_path, script)


def test_a_server_answers_to_the_names_that_it_is_given(tmp_path: Path) -> None:
    async def script(panel: Panel) -> None:
        port = panel.server.port
        assert await status_of(panel, host=f"robot.lab:{port}", origin=f"http://robot.lab:{port}") == 200
        assert await status_of(panel, host=f"robot.evil:{port}") == 403

    serve(tmp_path, script, names=("robot.lab",))


def test_with_a_token_nothing_is_said_without_it(tmp_path: Path) -> None:
    token = "t" * 32

    async def script(panel: Panel) -> None:
        assert (await panel.http.get("/api/jobs")).status_code == 403
        assert (await panel.http.get("/metrics")).status_code == 403
        assert (await panel.http.get("/healthz")).status_code == 503  # says that there is no run
        assert (await panel.http.get("/api/jobs", headers={"x-dexrun-token": "t" * 31})).status_code == 403
        assert (await panel.http.get("/api/jobs", headers={"x-dexrun-token": token})).status_code == 200
        bearer = {"authorization": f"Bearer {token}"}
        assert (await panel.http.get("/metrics", headers=bearer)).status_code == 200
        for first in ({"type": "token", "token": "wrong"}, {"type": "ping", "n": 1}, "no"):
            async with panel.page() as page:
                await page.send(json.dumps(first))
                with pytest.raises(ConnectionClosed):
                    await page.recv()
        async with contextlib.AsyncExitStack() as silent:
            for _ in range(MOST_UNKNOWN + 10):
                await silent.enter_async_context(panel.page())
            assert not panel.server.following.pages
        async with panel.page() as page:
            await say(page, "token", token=token)
            assert (await hear(page, "hello"))["run"] is None

    serve(tmp_path, script, token=token)


def test_huge_messages_and_many_pages_end_themselves_alone(tmp_path: Path) -> None:
    with contextlib.closing(published(tmp_path)) as run:

        async def script(panel: Panel) -> None:
            async with panel.page() as page:
                await page.send("x" * (MESSAGE_BYTES + 1))
                with pytest.raises(ConnectionClosed):
                    await hear(page, "pong")
            async with contextlib.AsyncExitStack() as stack:
                pages = [await stack.enter_async_context(panel.page()) for _ in range(50)]
                let_in = await asyncio.gather(
                    *(hear(page, "hello") for page in pages), return_exceptions=True
                )
                assert sum(isinstance(each, dict) for each in let_in) == MOST_PAGES
                run.say(1, {"state": "running"})
                assert (await hear(pages[0], "status"))["state"] == "running"
                await say(pages[0], "watch", streams={f"c{n}": 1 for n in range(99)})
                assert "streams" in (await hear(pages[0], "error"))["error"]
                await say(pages[0], "command", id=1, name="tell", args={"text": "x" * 5000})
                assert "args" in (await hear(pages[0], "error"))["error"]

        serve(tmp_path, script)


def test_a_server_that_listens_everywhere_is_called_by_its_addresses_and_no_other_name() -> None:
    everywhere = "0.0.0.0"  # noqa: S104
    assert "192.168.1.7" in names_of(everywhere, "192.168.1.7")
    assert "[fe80::1]" in names_of("::", "[fe80::1]")
    assert "evil.example" not in names_of(everywhere, "evil.example")
    assert names_of("192.168.1.7", "10.0.0.1") == {"192.168.1.7"}
    assert "10.0.0.1" not in names_of("127.0.0.1", "10.0.0.1")


def test_a_token_is_needed_beyond_this_machine_and_stands_behind_the_hash() -> None:
    assert new_token("127.0.0.1") == new_token("localhost") == new_token("::1") == ""
    token = new_token("192.168.1.7")
    assert len(token) >= 32
    assert link_of(PanelServerOptions(host="192.168.1.7", token=token), 8470).endswith(
        f":8470/#token={token}"
    )
    assert token not in repr(PanelServerOptions(token=token))
