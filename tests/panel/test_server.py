"""The panel's server over real sockets, and a run of which only the rings are there."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import cv2
import numpy as np
from websockets.exceptions import ConnectionClosed

from dexrun.panel.server.drawing import depth_in_colors
from tests.panel.server_rig import Panel, hear, picture, published, say, serve


def test_a_page_sees_what_the_run_shares(tmp_path: Path) -> None:
    with contextlib.closing(published(tmp_path)) as run:

        async def script(panel: Panel) -> None:
            async with panel.page() as page:
                hello = await hear(page, "hello")
                if hello["run"] is None:
                    hello = await hear(page, "hello")
                assert hello["run"]["run"] == "2026-11-27T10-00-00"
                assert "rings" not in hello["run"]
                run.say(1, {"state": "running", "prompt": "杯子"})
                assert (await hear(page, "status"))["prompt"] == "杯子"
                for tick in range(3):
                    values = {"position": [0.1 * tick, np.nan], "clipped": [0.5, 1.0], "force": [2.0]}
                    run.ticks.push(1_000_000_000 + tick * 33_000_000, tick=tick, **values)
                ticks = await hear(page, "ticks")
                assert ticks["tick"][-1] == 2
                assert ticks["position"][-1] == [0.2, None]
                assert ticks["target"][-1] == [0.5, 1.0]
                assert ticks["period_ms"][-1] == 33.0 or len(ticks["tick"]) == 1

        serve(tmp_path, script)


def test_pictures_come_one_at_a_time_and_the_newest(tmp_path: Path) -> None:
    with contextlib.closing(published(tmp_path)) as run:

        async def script(panel: Panel) -> None:
            async with panel.page() as page:
                run.say(1, {"state": "running", "box": {"head": [4, 4, 30, 30]}})
                await hear(page, "status")
                await say(page, "watch", streams={"head.color": 60, "head.depth": 60, "head.mask": 60})
                picture(run, 10, 50)
                got = {(came := await hear(page, "picture"))["stream"]: came for _ in range(3)}
                assert set(got) == {"head.color", "head.depth", "head.mask"}
                color = cv2.imdecode(np.frombuffer(got["head.color"]["payload"], np.uint8), 1)
                assert color.shape == (48, 64, 3)
                assert abs(int(color[20, 20, 0]) - 50) < 4
                assert got["head.color"]["stamp_ns"] == 10
                for value in range(60, 66):
                    picture(run, value, value)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(0.3):
                        raise AssertionError(await hear(page, "picture"))
                await say(page, "seen", stream="head.color")
                newest = await hear(page, "picture")
                assert (newest["stream"], newest["stamp_ns"]) == ("head.color", 65)

        serve(tmp_path, script)


def test_a_stream_is_encoded_once_for_all_pages(tmp_path: Path) -> None:
    with contextlib.closing(published(tmp_path)) as run:

        async def script(panel: Panel) -> None:
            made = []
            async with panel.page() as one, panel.page() as other:
                for page in (one, other):
                    await say(page, "watch", streams={"head.color": 60})
                run.say(1, {})
                await hear(one, "status")
                await hear(other, "status")
                picture(run, 10, 50)
                made = [await hear(page, "picture") for page in (one, other)]
            assert made[0]["payload"] == made[1]["payload"]
            assert panel.server.following.encoded == 1

        serve(tmp_path, script)


def test_the_cloud_lies_where_the_camera_looks(tmp_path: Path) -> None:
    with contextlib.closing(published(tmp_path)) as run:

        async def script(panel: Panel) -> None:
            async with panel.page() as page:
                await say(page, "watch", cloud=True)
                picture(run, 10, 50)
                cloud = await hear(page, "cloud")
            count = cloud["points"]
            assert count == 48 * 64
            points = np.frombuffer(cloud["payload"][: 12 * count], "<f4").reshape(-1, 3)
            colors = np.frombuffer(cloud["payload"][12 * count :], np.uint8).reshape(-1, 3)
            np.testing.assert_allclose(points[:, 2], 0.1, atol=1e-6)  # half a metre above it, and 0.4 m away
            np.testing.assert_allclose(points[32 + 24 * 64, :2], 0, atol=1e-6)
            assert (colors == 50).all()

        serve(tmp_path, script)


def test_a_command_reaches_the_run_and_its_answer_the_page_that_asked(tmp_path: Path) -> None:
    with contextlib.closing(published(tmp_path)) as run:

        async def script(panel: Panel) -> None:
            async with panel.page() as page, panel.page() as other:
                run.say(1, {})
                await hear(page, "status")
                await say(page, "command", id=7, name="tell", args={"text": "the cup"})
                command = None
                while command is None:
                    await asyncio.sleep(0.005)
                    command = run.next_command()
                assert (command.name, command.args) == ("tell", {"text": "the cup"})
                assert command.client.startswith("page ")
                run.answer(2, command.id, "not now")
                answer = await hear(page, "answer")
                assert (answer["id"], answer["ok"], answer["error"]) == (7, False, "not now")
                await say(page, "ping", n=3)
                assert (await hear(page, "pong"))["n"] == 3
                pages, beat_ns = run.heartbeat()
                while pages < 2 or not beat_ns:
                    await asyncio.sleep(0.02)
                    pages, beat_ns = run.heartbeat()
                del other

        serve(tmp_path, script)


def test_what_is_not_understood_ends_nothing(tmp_path: Path) -> None:
    with contextlib.closing(published(tmp_path)) as run:

        async def script(panel: Panel) -> None:
            async with panel.page() as page:
                run.say(1, {"state": "running"})
                await hear(page, "status")
                panel.server.following.run._rings["answers"].push(1, length=3)  # type: ignore[union-attr]
                await say(page, "ping", n=1)
                assert (await hear(page, "pong"))["n"] == 1
                run.say(2, {"state": "holding"})
                while (await hear(page, "status"))["state"] != "holding":
                    pass

        serve(tmp_path, script)


def test_a_command_without_a_run_is_answered(tmp_path: Path) -> None:
    async def script(panel: Panel) -> None:
        async with panel.page() as page:
            await say(page, "command", id=1, name="stop")
            assert (await hear(page, "answer"))["error"] == "no run is alive"
            await say(page, "nonsense")
            assert "nonsense" in (await hear(page, "error"))["error"]

    serve(tmp_path, script)


def test_a_run_that_ends_is_gone_and_the_next_one_is_followed(tmp_path: Path) -> None:
    run = published(tmp_path)

    async def script(panel: Panel) -> None:
        async with panel.page() as page:
            run.say(1, {})
            await hear(page, "status")
            run.close()
            assert "ended" in (await hear(page, "gone"))["reason"]
            assert (await hear(page, "hello"))["run"] is None
            with contextlib.closing(published(tmp_path, "2026-11-27T11-00-00")):
                assert (await hear(page, "hello"))["run"]["run"] == "2026-11-27T11-00-00"

    serve(tmp_path, script)


def test_depth_is_red_near_blue_far_and_black_where_nothing_was_read() -> None:
    near, far, none = depth_in_colors(np.array([[200, 1400, 0]], np.uint16), 0.001)[0].astype(int)
    assert near[0] > near[2] + 50
    assert far[2] > far[0]
    assert none.tolist() == [0, 0, 0]


def test_a_page_that_never_reads_costs_the_others_nothing(tmp_path: Path) -> None:
    with contextlib.closing(published(tmp_path)) as run:

        async def script(panel: Panel) -> None:
            async with panel.page(max_queue=1) as lazy, panel.page() as page:
                for each in (lazy, page):
                    await say(each, "watch", streams={"head.color": 60})
                for count in range(20):
                    run.say(count, {"step": "x" * 100_000})
                    picture(run, count + 1, count)
                    got = await hear(page, "picture")
                    assert got["stamp_ns"] == count + 1
                    await say(page, "seen", stream="head.color")
                mail = [each for each in panel.server.following.pages if each.in_control is False]
                assert len(mail) == 2
                assert all(each.waiting() < 10 for each in mail)
                with contextlib.suppress(ConnectionClosed):
                    lazy.transport.abort()

        serve(tmp_path, script)
