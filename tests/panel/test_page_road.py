"""The road of somebody who has nothing but a laptop and a browser: an empty folder, and at its end a table.

``dexrun panel`` is a process as a person starts it; everything after that is clicked and typed in its page.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from runtime.recording.reader import Recording
from tests.panel.browser_rig import CHROMIUM, LAPTOP, chromium, fill_in, opened

pytest.importorskip("playwright.async_api", reason="no playwright: pip install playwright")
pytest.importorskip("torch", reason="no torch")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CHROMIUM, reason="no chromium: apt-get install chromium"),
]

PATIENCE_MS = 600_000
"""For a step of the road on a busy machine."""


@contextlib.asynccontextmanager
async def panel_in(folder: Path) -> AsyncIterator[str]:
    """``dexrun panel`` in that folder; its address, as it is printed. Ctrl-C ends it."""
    environment = {**os.environ, "TORCHINDUCTOR_CACHE_DIR": str(folder / "torch")}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "dexrun", "panel", "--port", "0"),
        cwd=folder,
        env=environment,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    assert process.stdout is not None
    try:
        said = (await process.stdout.readline()).decode()
        link = re.search(r"http://\S+", said)
        assert link is not None, said
        yield link[0]
    finally:
        process.send_signal(signal.SIGINT)
        rest, _ = await process.communicate()
    assert (process.returncode, rest) == (0, b"")


class Newcomer:
    """Knows nothing; presses what the page says comes next."""

    def __init__(self, page: Any) -> None:
        self.page = page

    async def goes_on(self, view: str, says: str) -> None:
        """By the button that a finished step offers first."""
        await self.page.locator(f"#view-{view} .next .go", has_text=says).click()

    async def fills_in(self, view: str, **fields: str) -> None:
        await fill_in(self.page.locator(f"#view-{view} form.job-form"), fields)

    async def begins(self, view: str) -> None:
        await self.page.click(f"#view-{view} form.job-form button[type=submit]")

    async def is_told(self, view: str, kind: str, text: str) -> None:
        """Waits until that has ended well, and reads what it said."""
        job = self.page.locator(f"#view-{view} .job[data-kind={kind}]:not([data-state=running])")
        await job.wait_for(timeout=PATIENCE_MS)
        said = await job.inner_text()
        assert await job.get_attribute("data-state") == "done", said
        assert text in said, said


async def walk(newcomer: Newcomer) -> None:
    page = newcomer.page
    await page.click("text=Next: set up")
    await page.click("text=No arm yet")
    await newcomer.begins("setup")
    await newcomer.is_told("setup", "init", "written to config.toml")

    await newcomer.goes_on("setup", "check that a run would work")
    await newcomer.begins("setup")
    await newcomer.is_told("setup", "doctor", " 0 FAIL")

    await newcomer.goes_on("setup", "collect episodes")
    await newcomer.fills_in("setup", episodes="10", to="pick")
    await newcomer.begins("setup")
    await page.locator("#view-setup .job .output", has_text="of 10 demonstrations").wait_for(
        timeout=PATIENCE_MS
    )
    await newcomer.is_told("setup", "collect", "10 demonstrations in")

    await newcomer.goes_on("setup", "look at the episodes")
    await page.locator("#view-data tr.pick >> nth=9").wait_for()
    await page.click("#view-data tr.pick >> nth=9")
    await page.locator("#view-data .playback img[src^=blob]").first.wait_for()
    await page.click("#view-data [data-word=job_check]")
    await newcomer.is_told("data", "check", "10 episodes looked at")
    report = await page.locator("#view-data [data-word=open_report]").get_attribute("href")
    async with page.context.expect_page() as opening:
        await page.click("#view-data [data-word=open_report]")
    tab = await opening.value
    assert tab.url.endswith(report)
    await tab.locator("svg, img").first.wait_for()
    await tab.close()

    await newcomer.goes_on("data", "train a policy")
    await newcomer.fills_in("train", steps="2", batch="2", log_every="1")
    await newcomer.begins("train")
    await newcomer.is_told("train", "train", "trained: ")
    await page.locator("#view-train .plot[data-points='2']").wait_for()

    await newcomer.goes_on("train", "evaluate a policy")
    await newcomer.fills_in("evaluate", scenes="1", engine="fast", objects="1")
    await newcomer.begins("evaluate")
    await newcomer.is_told("evaluate", "eval", "summary.json")


def test_from_an_empty_folder_to_an_evaluation_table_in_the_browser(tmp_path: Path) -> None:
    shown: list[str] = []

    async def road() -> None:
        async with panel_in(tmp_path) as address, chromium() as browser:
            page, said = await opened(browser, address, LAPTOP, color_scheme="dark")
            page.set_default_timeout(120_000)
            await walk(Newcomer(page))
            shown.append(await page.inner_text("#view-evaluate .results .output"))
            shown.append(await page.inner_text("#view-evaluate .success output"))
            assert not said

    asyncio.run(road())
    assert json.loads((tmp_path / "data/pick/config.json").read_text())["mode"]
    with Recording(tmp_path / "data/pick") as recording:
        assert len(recording.episodes) == 10
        assert {each.label for each in recording.episodes} <= {"success", "failure"}
    assert (tmp_path / "outputs/pick-policy/last").is_dir()
    table = tmp_path / "outputs/pick-policy-table"
    assert shown[0].strip() == (table / "table.txt").read_text().strip()
    (scene,) = [json.loads(line) for line in (table / "results.jsonl").read_text().splitlines()]
    assert shown[1] == f"{int(scene['success'])} / 1 · {100 * scene['success']:.0f} %"
    (candidate,) = json.loads((table / "summary.json").read_text())["candidates"].values()
    assert (candidate["errors"], candidate["scenes"]["count"], candidate["objects"]["count"]) == (0, 1, 1)
    assert candidate["attempts"] > 0
