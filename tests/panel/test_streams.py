"""A live run in other people's viewers, over their own wire: Foxglove's WebSocket, and Rerun's file."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from websockets.sync.client import connect
from websockets.typing import Subprotocol

from dexrun.panel.link import PublishedRun
from dexrun.panel.rerun_view import main as show_in_rerun
from runtime.clock import NS_PER_S, RealClock
from tests.export.test_view import column, rows
from tests.panel.test_link import FACTS

CLOCK = RealClock()
COLOR = np.full((4, 6, 3), (200, 20, 20), np.uint8)


def goes_on(run: PublishedRun) -> None:
    """A tick, a picture, what the run says."""
    now_ns = CLOCK.now_ns()
    run.ticks.push(now_ns, tick=5, position=[0.5, 1.0], velocity=0.1, load=0.2, clipped=0.6, requested=0.7)
    run.cameras["head"].push(now_ns, color=COLOR, depth=np.full((4, 6), 700), mask=1, masked=1)
    run.say(now_ns, {"state": "running", "step": "grasp the cube", "instruction": "the cube", "reason": ""})


@pytest.fixture
def run(tmp_path: Path) -> Iterator[PublishedRun]:
    published = PublishedRun(tmp_path, FACTS)
    yield published
    published.close()


def subscribed(socket: Any) -> dict[int, str]:
    """By our number, the topics that are offered, all subscribed to."""
    topics: dict[int, str] = {}
    while len(topics) < 5:
        said = json.loads(socket.recv(timeout=30))
        if said["op"] == "advertise":
            asked = [{"id": each["id"] + 100, "channelId": each["id"]} for each in said["channels"]]
            topics.update({each["id"] + 100: each["topic"] for each in said["channels"]})
            socket.send(json.dumps({"op": "subscribe", "subscriptions": asked}))
        elif said["op"] == "serverInfo":
            assert said["capabilities"] == []
    return topics


def test_foxglove_gets_joints_pictures_and_status_while_it_has_subscribed(
    run: PublishedRun, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "dexrun.panel.foxglove_server", str(tmp_path), "--port", "0"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    link = server.stdout.readline().removeprefix("foxglove at ").strip()
    got: dict[str, bytes] = {}
    try:
        with connect(link, subprotocols=[Subprotocol("foxglove.sdk.v1")]) as socket:
            topics = subscribed(socket)
            while len(got) < 5:
                goes_on(run)
                message = socket.recv(timeout=30)
                if isinstance(message, bytes) and message[0] == 1:
                    number, stamp_ns = struct.unpack("<IQ", message[1:13])
                    got[topics[number]] = message[13:]
                    assert abs(stamp_ns - CLOCK.wall_ns()) < 60 * NS_PER_S
    finally:
        run.close()
        said, _ = server.communicate()
    assert (server.returncode, said) == (0, f"{tmp_path.name} has ended\n")
    assert set(got) == {"/joints", "/ticks", "/status", "/cameras/head/color", "/cameras/head/depth"}
    tick = json.loads(got["/ticks"])
    assert (tick["tick"], tick["position"], tick["clipped"]["pan"]) == (5, {"pan": 0.5, "jaw": 1.0}, 0.6)
    assert json.loads(got["/status"])["step"] == "grasp the cube"
    assert b"pan" in got["/joints"]
    assert b"\xff\xd8\xff" in got["/cameras/head/color"]
    assert struct.pack("<H", 700) * 24 in got["/cameras/head/depth"]


def test_rerun_has_it_under_the_names_of_a_recording(run: PublishedRun, tmp_path: Path) -> None:
    file = tmp_path / "live.rrd"
    looked = run.looks_at_pictures()
    codes: list[int] = []
    thread = threading.Thread(
        target=lambda: codes.append(show_in_rerun([str(tmp_path), "--save", str(file)]))
    )
    goes_on(run)
    thread.start()
    while run.looks_at_pictures() < looked + 3:
        CLOCK.wait_until_ns(CLOCK.now_ns() + NS_PER_S // 100)
    run.close()
    thread.join()
    assert codes == [0]
    got = rows(file)
    assert column(got["/joints/pan/position"], "Scalars:scalars") == [[0.5]]
    assert column(got["/joints/pan/clipped"], "Scalars:scalars") == [[0.6]]
    assert len(column(got["/cameras/head/color"], "blob")) == 1
    assert "/cameras/head/depth" in got
    assert ["step: grasp the cube"] in column(got["/events"], "TextLog:text")


def test_a_run_that_is_not_there_is_said_in_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert show_in_rerun([str(tmp_path), "--save", str(tmp_path / "x.rrd")]) == 2
    assert capsys.readouterr().err.endswith("shares nothing, or has ended\n")
