"""Data sets, trainings, evaluations and runs as a page sees them, over real sockets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from dexrun.panel.server import results
from tests.annotation.drawn import drawn, run_of
from tests.panel.server_rig import Panel, serve


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    run_of(tmp_path / "runs" / "2026-11-27T10-00-00", drawn())
    return tmp_path


async def got(panel: Panel, path: str) -> dict[str, Any]:
    answer = await panel.http.get(path)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def test_a_recording_is_listed_plotted_and_seen(folder: Path) -> None:
    async def script(panel: Panel) -> None:
        (only,) = (await got(panel, "/api/data"))["data"]
        assert (only["path"], only["kind"]) == ("runs/2026-11-27T10-00-00", "recording")
        base = f"/api/data/{only['id']}/episodes"
        about = await got(panel, base)
        assert about["format"] == "mcap"
        (episode,) = about["episodes"]
        plots = await got(panel, f"{base}/0")
        state = plots["series"]["observation.state"]
        assert len(state["values"]) == len(plots["rows"]) == len(plots["t_s"]) <= 600
        assert len(state["names"]) == len(state["values"][0])
        assert plots["rows"][-1] == episode["rows"] - 1
        camera = plots["cameras"][0]
        picture = await panel.http.get(f"{base}/0/picture", params={"camera": camera, "row": "5"})
        assert picture.headers["content-type"] == "image/jpeg"
        assert cv2.imdecode(np.frombuffer(picture.content, np.uint8), 1) is not None
        for wrong in (
            "camera=none&row=1",
            f"camera={camera}&row=99999999",
            f"camera={camera}&row=-1",
            "row=x",
        ):
            assert (await panel.http.get(f"{base}/0/picture?{wrong}")).status_code in (400, 404)
        assert (await panel.http.get(f"{base}/7")).status_code == 404
        assert (await panel.http.get("/api/data/..%2F..%2Fetc/episodes")).status_code == 404

    serve(folder, script)


def test_what_is_edited_is_opened_anew_and_what_is_damaged_is_said(folder: Path) -> None:
    async def script(panel: Panel) -> None:
        (only,) = (await got(panel, "/api/data"))["data"]
        path = f"/api/data/{only['id']}/episodes"
        assert len((await got(panel, path))["episodes"]) == 1
        file = folder / "runs/2026-11-27T10-00-00/episodes/episode_000000.mcap"
        file.rename(file.with_name("episode_000003.mcap"))
        (file.parent / "episode_000001.mcap").write_bytes(b"nothing")
        assert (await got(panel, path))["left_out"].keys() == {"2026-11-27T10-00-00/episode_000001.mcap"}

    serve(folder, script)


def test_files_outside_a_run_are_not_given(folder: Path) -> None:
    run = folder / "runs/2026-11-27T10-00-00"
    (run / "planner").mkdir()
    cv2.imwrite(str(run / "planner/0001-mark-0.jpg"), np.zeros((8, 8, 3), np.uint8))
    secret = folder / "secret.jpg"
    secret.write_bytes(b"secret")
    (run / "planner/link.jpg").symlink_to(secret)
    (folder / "runs/out").symlink_to(folder)
    (run / "log.txt").write_text("words")

    async def script(panel: Panel) -> None:
        base = "/api/runs/2026-11-27T10-00-00/file"
        assert (await panel.http.get(f"{base}/planner/0001-mark-0.jpg")).status_code == 200
        for path in (
            "planner/link.jpg",
            "log.txt",
            "..%2F..%2Fsecret.jpg",
            "%2e%2e/%2e%2e/secret.jpg",
            "planner/..%2f..%2f..%2fsecret.jpg",
            str(secret).replace("/", "%2F"),
            "planner",
            "planner/none.jpg",
            "%00.jpg",
            "a" * 5000 + ".jpg",
        ):
            assert (await panel.http.get(f"{base}/{path}")).status_code == 404, path
        for name in ("..", "%2e%2e", ".", "out"):
            assert (await panel.http.get(f"/api/runs/{name}/file/secret.jpg")).status_code == 404, name
        assert (await panel.http.get("/page/..%2Fserver%2Fguard.py")).status_code == 404
        runs = (await got(panel, "/api/runs"))["runs"]
        assert [(each["name"], each["episodes"]) for each in runs] == [("2026-11-27T10-00-00", 1)]

    serve(folder, script)


def test_a_training_is_followed_while_it_writes(tmp_path: Path) -> None:
    assert results.training(tmp_path) is None
    file = tmp_path / "figures.csv"
    rows = "".join(f"{step},{1 / step},nan\n" for step in range(1, 2501))
    file.write_text(f"step,loss,validation_loss\n{rows}2501,0.")
    found = results.training(tmp_path)
    assert found is not None
    assert found["columns"] == ["step", "loss", "validation_loss"]
    assert found["rows"][-1] == [2500.0, 0.0004, None]  # what is half written is left for the next time
    assert len(found["rows"]) <= results.MOST_POINTS


def test_an_evaluation_is_followed_scene_by_scene(tmp_path: Path) -> None:
    assert results.evaluation(tmp_path) is None
    scenes = [
        {"candidate": "act", "seed": 1, "success": True},
        {"candidate": "act", "seed": 2, "success": False},
    ]
    lines = "".join(json.dumps(each) + "\n" for each in scenes)
    (tmp_path / "results.jsonl").write_text(lines + '{"candidate": "a')
    run = tmp_path / "runs/act-2/2026-11-27T10-00-00/episodes"
    run.mkdir(parents=True)
    found = results.evaluation(tmp_path)
    assert found is not None
    assert [each["recordings"] for each in found["scenes"]] == [[], [str(run.parent)]]
    assert (found["table"], found["summary"]) == ("", None)
    (tmp_path / "table.txt").write_text("act 1/2\n")
    (tmp_path / "summary.json").write_text("{}")
    found = results.evaluation(tmp_path)
    assert found is not None
    assert (found["table"], found["summary"]) == ("act 1/2\n", {})
