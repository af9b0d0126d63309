"""Forms and results of the page: what a form asks the server for, and how what came of it is shown."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from tests.panel.browser_rig import CHROMIUM, LAPTOP, chromium, opened
from tests.panel.server_rig import Panel, serve

pytest.importorskip("playwright.async_api", reason="no playwright: pip install playwright")
pytestmark = pytest.mark.skipif(not CHROMIUM, reason="no chromium: apt-get install chromium")

JOB = {
    "id": 7,
    "args": {},
    "asks": False,
    "moves": False,
    "state": "running",
    "code": None,
    "output": ["..."],
}
SCENES = [{"candidate": "act", "seed": seed, "success": seed != 3, "recordings": []} for seed in range(4)]


class JobDesk:
    """Stands where the server takes jobs: a training of an hour is no test.

    Attributes:
        asked: bodies that came. job: what is told of the job.
    """

    def __init__(self, page: Any) -> None:
        self.page = page
        self.asked: list[dict[str, Any]] = []
        self.came = asyncio.Event()
        self.job: dict[str, Any] = dict(JOB)

    async def opens(self) -> None:
        await self.page.route("**/api/jobs", self._start)
        await self.page.route("**/api/jobs/7", self._tell)
        await self.page.route("**/api/jobs/7/input", self._start)

    async def _start(self, route: Any) -> None:
        self.asked.append(route.request.post_data_json)
        self.job["kind"] = self.asked[-1].get("kind", self.job.get("kind"))
        self.came.set()
        await self._tell(route)

    async def _tell(self, route: Any) -> None:
        await route.fulfill(status=200, content_type="application/json", body=json.dumps(self.job))

    async def next(self) -> dict[str, Any]:
        async with asyncio.timeout(20):
            await self.came.wait()
        self.came.clear()
        return self.asked[-1]


async def fill(page: Any, view: str, **fields: str) -> None:
    await page.click(f"#tabs a[data-view={view}]")
    for name, value in fields.items():
        field = page.locator(f"#view-{view} [data-argument={name}]")
        choice = await field.evaluate("(node) => node.tagName == 'SELECT'")
        await (field.select_option(value) if choice else field.fill(value))
    await page.click(f"#view-{view} form.job-form button[type=submit]")


def test_forms_ask_with_numbers_and_words_and_results_are_drawn(tmp_path: Path) -> None:
    (tmp_path / "data" / "cups" / "meta").mkdir(parents=True)
    (tmp_path / "data" / "cups" / "meta" / "info.json").write_text("{}")
    (tmp_path / "runs").mkdir()
    (tmp_path / "config.toml").write_text("")
    cups = str(tmp_path / "data" / "cups")

    async def script(panel: Panel) -> None:
        async with chromium() as browser:
            page, said = await opened(browser, str(panel.http.base_url), LAPTOP)
            desk = JobDesk(page)
            await desk.opens()

            await fill(page, "train", steps="100")
            await page.locator("#view-train .trouble", has_text="data set is needed").wait_for()
            assert desk.asked == []
            await fill(page, "train", data=cups, to="cups-act", steps="500")
            args = {"data": cups, "policy": "act", "steps": 500, "to": "cups-act", "device": "auto"}
            asked = await desk.next()
            assert asked["kind"] == "train"
            assert asked["args"] == args  # and not the arm's configuration, which is none of a training's
            desk.job["figures"] = {
                "columns": ["step", "loss", "lr"],
                "rows": [[10, 2.5, 0.1], [20, 1.25, 0.1]],
            }
            await page.locator("#view-train .plot[data-points='2']").wait_for()
            await page.locator("#view-train .loss", has_text="loss 1.25").wait_for()

            desk.job["evaluation"] = {"table": "act 3/4", "summary": None, "scenes": SCENES}
            await fill(page, "evaluate", policy="geometric", to="geo", scenes="4")
            asked = await desk.next()
            assert (asked["kind"], asked["args"]["scenes"], asked["args"]["policy"]) == (
                "eval",
                4,
                "geometric",
            )
            await page.locator(".success", has_text="3 / 4 · 75 %").wait_for()
            assert await page.locator(".film").count() == 1
            assert await page.locator(".film").is_disabled()
            assert "keep" in (await page.locator(".film").get_attribute("title") or "")

            await page.click("#tabs a[data-view=setup]")
            await page.click("[data-road=arm]")
            await page.click("[data-step=joints]")
            desk.job |= {"asks": True, "output": ["which arm?"]}
            desk.job["asked"] = {"line": "which arm?", "choices": [], "question": 4}
            await fill(page, "setup", port="/dev/ttyACM0", model="so101")
            assert (await desk.next())["args"] == {"port": "/dev/ttyACM0", "model": "so101"}
            await page.locator("#view-setup .question", has_text="which arm?").wait_for()
            await page.fill("#view-setup .answer", "so101")
            await page.press("#view-setup .answer", "Enter")
            assert await desk.next() == {"line": "so101", "question": 4}
            desk.job |= {"state": "failed", "code": 1}
            await page.locator("#view-setup .job[data-state=failed]").wait_for()
            assert not said

    serve(tmp_path, script)


def test_tables_of_earlier_days_are_there(tmp_path: Path) -> None:
    folder = tmp_path / "outputs" / "old"
    folder.mkdir(parents=True)
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "table.txt").write_text("no")
    scenes = [
        {"candidate": "act", "seed": seed, "success": seed == 0, "picture": "end.jpg"} for seed in (0, 1)
    ]
    (folder / "results.jsonl").write_text("".join(json.dumps(each) + "\n" for each in scenes))
    (folder / "table.txt").write_text("act 1/2\n")
    cv2.imwrite(str(folder / "end.jpg"), np.zeros((6, 8, 3), np.uint8))

    async def script(panel: Panel) -> None:
        async with chromium() as browser:
            page, said = await opened(browser, f"{panel.http.base_url}/#evaluate", LAPTOP)
            await page.click("[data-evaluation=old]")
            await page.locator(".success", has_text="1 / 2 · 50 %").wait_for()
            assert await page.inner_text(".results .output") == "act 1/2\n"
            await page.locator(".film img[src^=blob]").wait_for()
            assert not said
        for name in ("new", "..", "..%2Fsecret", "%2e%2e%2fsecret"):
            answer = await panel.http.get(f"/api/evaluations/{name}")
            assert answer.status_code == 404, name

    serve(tmp_path, script)
