"""From a page to an arm and back: a run that a page starts, sees, and stops, over every process there is."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.panel.server_rig import Panel, hear, say, serve
from tests.panel.test_jobs import ended, started

CONFIG = Path(__file__).parents[2] / "config.toml"


def test_a_run_is_started_seen_and_stopped_from_a_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.toml").write_text(CONFIG.read_text())

    async def script(panel: Panel) -> None:
        async with panel.page() as page:
            await say(page, "watch", streams={"head.color": 30, "head.depth": 30}, bodies=True, cloud=True)
            job = await started(panel, "run", mode="rollout", policy="still", task="stand still")
            hello = await hear(page, "hello")
            while hello["run"] is None:
                hello = await hear(page, "hello")
            assert hello["run"]["mode"] == "rollout"
            color = cv2.imdecode(np.frombuffer((await hear(page, "picture"))["payload"], np.uint8), 1)
            assert color.shape == (
                hello["run"]["cameras"]["head"]["height"],
                hello["run"]["cameras"]["head"]["width"],
                3,
            )
            assert (await hear(page, "cloud"))["points"] > 100
            poses = (await hear(page, "bodies"))["poses"]
            bodies = (await panel.http.get("/api/model")).json()["bodies"]
            assert len(poses) == len(bodies) > 5
            status = await hear(page, "status")
            assert "stop" in status["can"]
            assert (await panel.http.get("/healthz")).status_code == 200
            assert "dexrun_run_up 1.0" in (await panel.http.get("/metrics")).text
            await say(page, "command", id=5, name="stop")
            answer = await hear(page, "answer")
            assert (answer["id"], answer["ok"]) == (5, True)
            await say(page, "command", id=6, name="quit")
            done = await ended(panel, job["id"])
            assert done["code"] == 3, done["output"]
            assert (await hear(page, "gone"))["reason"]
            (run,) = (await panel.http.get("/api/runs")).json()["runs"]
            assert run["mode"] == "rollout"

    serve(tmp_path, script, config=Path("config.toml"))
