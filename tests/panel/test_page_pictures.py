"""The live page, drawn for the docs: a recorded run of grasp mode plays again, and the arm has the processor.

``PAGE_PICTURES=docs/pictures PAGE_RECORDING=runs/latest pytest tests/panel/test_page_pictures.py``
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dexrun.panel.shared import SharedCamera, SharedFacts
from runtime.recording.reader import Episode, Recording
from tests.panel.browser_rig import CHROMIUM, DRAWING, LAPTOP, PlayedRun, chromium, keep, opened, playing
from tests.panel.server_rig import Panel, serve

pytest.importorskip("playwright.async_api", reason="no playwright: pip install playwright")
PICTURES, RECORDING = os.environ.get("PAGE_PICTURES", ""), os.environ.get("PAGE_RECORDING", "")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CHROMIUM, reason="no chromium: apt-get install chromium"),
    pytest.mark.skipif(not (PICTURES and RECORDING), reason="no PAGE_PICTURES and PAGE_RECORDING"),
]
BEGINS_S = 4.0
"""Where the recording is taken up; the picture is drawn some 20 s later, with the second object in hand."""


class RecordedRun(PlayedRun):
    """Shares what a recording holds, tick by tick."""

    def __init__(self, folder: Path, recorded: Path, episode: Episode) -> None:
        robot = episode.robot
        joints, ranges, units = robot["joint_names"], robot["ranges_rad"], robot["units"]
        cameras = {name: _camera(episode, name) for name in episode.cameras}
        facts = SharedFacts("grasp", 30.0, joints, units, ranges, (5,), 3, cameras=cameras)
        super().__init__(folder, facts=facts)
        shutil.copy(recorded / "config.json", self.folder)
        self._episode = episode
        self._rows = episode.columns("/ticks")
        self._masks = episode.times("/mask/head") if "/mask/head" in episode.topics else np.zeros(0)
        self._summary = json.loads((recorded / "summary.json").read_text())
        self._tick = round(BEGINS_S * 30)

    def _say(self) -> None:
        now, tick = self.clock.now_ns(), min(self._tick, len(self._rows["tick"]) - 1)
        self._tick += 1
        row = {name: self._rows[name][tick] for name in ("position", "clipped", "force")}
        self.shared.ticks.push(now, tick=tick, **row)
        if tick % 3 == 0:
            self.shared.say(now, self._status(tick))
            for name in self._episode.cameras:
                self._show(name, now, tick)

    def _show(self, name: str, now: int, tick: int) -> None:
        index = min(tick, self._episode.topics[f"/cameras/{name}/color"] - 1)
        color = self._episode.color(name, index)
        more: dict[str, Any] = {"mask": np.zeros(color.shape[:2], np.uint8), "masked": 0}
        if name == "head" and len(self._masks):
            time = self._episode.times("/cameras/head/color")[index]
            nearest = int(np.searchsorted(self._masks, time))
            more = {"mask": self._episode.mask(name, min(nearest, len(self._masks) - 1)), "masked": 1}
        if name in self._episode.depth_cameras:
            more["depth"] = self._episode.depth(name, index)
        self.shared.cameras[name].push(now, color=color, **more)

    def _status(self, tick: int) -> dict[str, Any]:
        """The summary's own figures; what is done at `BEGINS_S` is the second object."""
        summary, doing = self._summary, self._summary["attempts"][1]["instruction"]
        same = ("sensor_rates_hz", "period_error_us", "work_us", "clips")
        return {
            **{key: summary[key] for key in same},
            "faults": summary["device_faults"],
            "missed": summary["missed_ticks"],
            "starved": summary["starved_ticks"],
            "state": "running",
            "driving": "policy",
            "step": f"grasp {doing}",
            "elapsed_s": tick / 30,
            "ticks": tick,
            "rate_hz": 30.0,
            "horizon": int(self._rows["horizon"][tick]),
            "speed": 1.0,
            "prompt": summary["prompt"],
            "instruction": doing,
            "policy": {"type": "geometric", "name": "geometric"},
            "attempts": [{**summary["attempts"][0], "attempt": 1}],
            "can": ["stop", "quit", "speed", "hold", "tell", "pause"],
        }


def _camera(episode: Episode, name: str) -> SharedCamera:
    info, (height, width) = episode.camera_info(name), episode.color_size(name)
    lens, pose = info.intrinsics, info.base_from_camera
    return SharedCamera(
        width,
        height,
        name in episode.depth_cameras,
        info.depth_scale_m,
        {key: getattr(lens, key) for key in ("fx", "fy", "cx", "cy")},
        None if pose is None else pose.tolist(),
    )


def test_the_live_page_is_drawn(tmp_path: Path) -> None:
    with Recording(RECORDING) as recording:
        run = RecordedRun(tmp_path, Path(RECORDING), recording.episodes[0])

        async def script(panel: Panel) -> None:
            async with playing(run), chromium(DRAWING) as browser:
                page, said = await opened(browser, str(panel.http.base_url), LAPTOP, color_scheme="dark")
                await page.locator("#arm canvas").wait_for(timeout=60_000)
                await page.locator(".camera:not([data-stale])").nth(1).wait_for()
                await run.rests(12)
                await page.evaluate("window.requestAnimationFrame = () => 0")  # the arm stands still
                await run.rests(6)
                await page.locator(".camera:not([data-stale])").nth(1).wait_for()
                keep(await page.screenshot(timeout=120_000), Path(PICTURES) / "live.png")
                assert not [line for line in said if "404" not in line]

        serve(tmp_path, script, patience_s=300)
