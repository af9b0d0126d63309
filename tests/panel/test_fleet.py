"""``dexrun fleet status`` asks panels over sockets; ``docs/grafana`` asks for what they tell."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from dexrun.lab.fleet import main
from tests.dexrun.rig import ROOT
from tests.panel.server_rig import Panel, hear, published, serve
from tests.panel.test_metrics import STATUS


@contextlib.contextmanager
def answering(answer: bytes) -> Iterator[str]:
    """A server that is none of ours; empty: it takes connections and says nothing."""
    listening = socket.create_server(("127.0.0.1", 0))
    held = []

    def serve_all() -> None:
        with contextlib.suppress(OSError):
            while True:
                peer, _ = listening.accept()
                held.append(peer)
                if answer:
                    peer.recv(4096)
                    peer.sendall(answer)

    thread = threading.Thread(target=serve_all)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()
        thread.join()
        for peer in held:
            peer.close()


def test_a_robot_that_runs_and_one_that_is_stopped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with contextlib.closing(published(tmp_path)) as run:

        async def script(panel: Panel) -> None:
            robot = f"left=http://127.0.0.1:{panel.server.port}"
            async with panel.page() as page:
                run.say(1, STATUS)
                await hear(page, "status")
                assert await asyncio.to_thread(main, ["status", robot]) == 0
                lines = capsys.readouterr().out.splitlines()
                assert lines[0].split()[:5] == ["robot", "mode", "state", "drives", "Hz"]
                told = ["left", "up", "rollout", "running", "policy", "30.0", "0.40", "1", "3", "1/2", "41"]
                assert lines[1].split() == told
                assert lines[2] == "1 of 1 up"
                run.say(2, {**STATUS, "latched": True, "reason": "a person stopped it"})
                await hear(page, "status")
                assert await asyncio.to_thread(main, ["status", robot, "--json"]) == 1
            said = json.loads(capsys.readouterr().out)["left"]
            assert not said["up"]
            assert said["trouble"].endswith("a person stopped it")
            assert said["faults_by_device"] == {"arm": 3}

        serve(tmp_path, script)


def test_a_panel_with_a_token_gets_it_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def script(panel: Panel) -> None:
        address = f"http://127.0.0.1:{panel.server.port}"
        listed = tmp_path / "fleet.toml"
        listed.write_text(f'[robots]\na = "{address}"\nb = {{ url = "{address}", token_env = "FLEET_B" }}\n')
        monkeypatch.setenv("FLEET_B", "-".join(["so", "secret"]))
        assert await asyncio.to_thread(main, ["status", "--robots", str(listed)]) == 1
        lines = capsys.readouterr().out.splitlines()
        assert lines[1].split(maxsplit=2) == ["a", "DOWN", "it wants a token: token_env"]
        assert lines[2].split(maxsplit=2) == ["b", "DOWN", "no run is alive"]

    serve(tmp_path, script, token="-".join(["so", "secret"]))


def test_whoever_does_not_answer_as_a_panel_is_down_and_keeps_nobody_waiting(
    capsys: pytest.CaptureFixture[str],
) -> None:
    page = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello"
    away = b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n"
    with contextlib.ExitStack() as stack:
        names = {"text": page, "away": away, "noise": b"\x00\xff\r\n\r\n", "silent": b""}
        robots = [f"{name}={stack.enter_context(answering(said))}" for name, said in names.items()]
        free = socket.create_server(("127.0.0.1", 0))
        nobody = f"127.0.0.1:{free.getsockname()[1]}"
        free.close()
        assert main(["status", *robots, nobody, "--timeout", "0.3"]) == 1
    told = {
        line.split()[0]: line.split("DOWN", 1)[1].strip()
        for line in capsys.readouterr().out.splitlines()[1:-1]
    }
    assert told == {
        "text": "no metrics: could not convert string to float: 'hello'",
        "away": "no panel of dexrun: /metrics answers 302, 0 bytes",
        "noise": "BadStatusLine",
        "silent": "no answer within 0.3 s",
        nobody: "Connection refused",
    }


def test_what_a_robot_does_not_know_of_itself_is_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with contextlib.closing(published(tmp_path)) as run:

        async def script(panel: Panel) -> None:
            async with panel.page() as page:
                run.say(1, {"mode": "teleop", "state": "running", "faults": {"arm": {"late": None}}})
                await hear(page, "status")
                robot = f"left=http://127.0.0.1:{panel.server.port}"
                assert await asyncio.to_thread(main, ["status", robot]) == 0
            told = capsys.readouterr().out.splitlines()[1].split()
            assert told == ["left", "up", "teleop", "running", "-", "-", "0", "0", "-", "-"]

        serve(tmp_path, script)


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ([], "no robots: give NAME=http://HOST:8470"),
        (["a=ftp://there"], "a: 'ftp://there' is no address"),
        (["a=http://x:99999"], "a: 'http://x:99999': Port out of range"),
        (["a=http://me:word@x"], "is no address"),
        (["--robots", "nowhere.toml"], "nowhere.toml: No such file"),
        (["x", "--timeout", "0"], "--timeout 0: more than 0"),
    ],
)
def test_what_cannot_be_meant_is_one_line(
    words: list[str], why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["status", *words]) == 2
    error = capsys.readouterr().err
    assert why in error
    assert error.count("\n") == 1


def test_the_dashboard_asks_for_metrics_that_there_are(tmp_path: Path) -> None:
    dashboard = json.loads((ROOT / "docs/grafana/dexrun.json").read_text())
    asked = {
        name
        for panel in dashboard["panels"]
        for target in panel.get("targets", ())
        for name in re.findall(r"dexrun_\w+", target["expr"])
    }
    assert len(asked) > 10
    with contextlib.closing(published(tmp_path)) as run:

        async def script(panel: Panel) -> None:
            async with panel.page() as page:
                run.say(1, STATUS)
                await hear(page, "status")
            text = (await panel.http.get("/metrics")).text
            there = set(re.findall(r"^(dexrun_\w+)", text, re.MULTILINE))
            assert asked <= there

        serve(tmp_path, script)
