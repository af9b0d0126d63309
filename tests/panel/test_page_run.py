"""A person drives simulated arms from the browser: each is started there, and what it did is looked at.

With ``PAGE_PICTURES=docs/pictures`` in the environment, the pages are drawn for the docs on the way.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from dexrun.panel.link import AttachedRun, live_runs
from runtime.clock import RealClock
from runtime.recording.reader import Recording
from runtime.ring import Sample
from runtime.tick import TickFlag
from tests.panel.browser_rig import (
    CHROMIUM,
    DRAWING,
    LAPTOP,
    PHONE,
    PICTURES,
    QUIETLY,
    chromium,
    fill_in,
    keep,
    opened,
)
from tests.panel.server_rig import Panel, serve

pytest.importorskip("playwright.async_api", reason="no playwright: pip install playwright")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CHROMIUM, reason="no chromium: apt-get install chromium"),
]

NS_PER_MS = 1_000_000
CONFIG = Path(__file__).parents[2] / "config.toml"
CLOCK = RealClock()
Drive = Callable[["Person"], Awaitable[None]]


class Person:
    """At the page, beside the run whose rings a test reads."""

    def __init__(self, panel: Panel, browser: Any, page: Any) -> None:
        self.panel, self.browser, self.page = panel, browser, page
        self.run: AttachedRun | None = None
        self.folder = Path()
        self.records: list[Sample] = []

    async def starts(self, mode: str, **fields: str) -> None:
        """A run, by the form; until it is there."""
        page = self.page
        await page.click("#tabs a[data-view=start]")
        await page.click(f".mode[data-mode={mode}]")
        await page.locator("#view-start [data-argument=config]").wait_for()
        await fill_in(page.locator("#view-start form.job-form"), fields)
        await page.click("#view-start form.job-form button[type=submit]")
        await page.locator("#view-live").wait_for(timeout=120_000)
        self.run = AttachedRun.attach(live_runs(self.panel.folder / "runs")[0])
        self.folder = self.run.folder

    async def sees(self, true: Callable[[dict[str, Any]], Any], within_s: float = 90) -> dict[str, Any]:
        """What the run says of itself once that is true."""
        assert self.run is not None
        async with asyncio.timeout(within_s):
            while not ((status := self.run.status()) and true(status)):
                await CLOCK.sleep_until_ns(CLOCK.now_ns() + 20 * NS_PER_MS)
        return status

    async def makes(self, true: Callable[[dict[str, Any]], Any], press: Callable[[], Awaitable[Any]]) -> None:
        """Presses until that is true: a page that has not heard of the run for a second does nothing."""
        async with asyncio.timeout(90):
            while True:
                await press()
                with contextlib.suppress(TimeoutError):
                    await self.sees(true, 3)
                    return

    async def watches(self, seconds: float) -> list[Sample]:
        """The ticks of so long."""
        assert self.run is not None
        first = self.run.ticks_since(-1)[-1].index
        await CLOCK.sleep_until_ns(CLOCK.now_ns() + round(seconds * 1e9))
        return self.run.ticks_since(first)

    async def hears_of_the_end(self) -> tuple[dict[str, Any], int]:
        """The run's summary, and its exit code as the panel has it."""
        async with asyncio.timeout(60):
            while (job := (await self.panel.http.get("/api/jobs")).json()["jobs"][0])["code"] is None:
                await CLOCK.sleep_until_ns(CLOCK.now_ns() + 200 * NS_PER_MS)
        return json.loads((self.folder / "summary.json").read_text()), job["code"]

    async def ends(self) -> tuple[dict[str, Any], int]:
        """End run, of a run that is stopped; and as `hears_of_the_end`."""
        await self.page.locator("#controls [data-do=reset]").wait_for()
        async with asyncio.timeout(90):
            while live_runs(self.panel.folder / "runs"):
                await self.page.locator("#controls [data-do=quit]").click(force=True)
                await CLOCK.sleep_until_ns(CLOCK.now_ns() + 1000 * NS_PER_MS)
        return await self.hears_of_the_end()

    def newest(self) -> int:
        """The place of the newest tick."""
        assert self.run is not None
        return self.run.ticks_since(-1)[-1].index

    def since(self, first: int) -> list[Sample]:
        """The ticks from there on, as far as they are kept."""
        assert self.run is not None
        return self.run.ticks_since(first)

    async def draws(self, name: str, page: Any = None) -> None:
        """The page as it is now, for the documentation."""
        if PICTURES:
            keep(await (page or self.page).screenshot(timeout=120_000), Path(PICTURES) / f"{name}.png")


def _state(name: str) -> Callable[[dict[str, Any]], Any]:
    return lambda now: now["episodes"]["state"] == name


def _label(name: str) -> Callable[[dict[str, Any]], Any]:
    return lambda now: now["episodes"]["last_label"] == name


def _moving(ticks: list[Sample]) -> list[Sample]:
    """Those whose target differs from the one before."""
    pairs = itertools.pairwise(ticks)
    return [now for before, now in pairs if np.abs(now["clipped"] - before["clipped"]).max() > 1e-9]


def _engages_slowly(ticks: list[Sample]) -> None:
    """After the stop, until the arm has met what it follows, no joint is faster than at a run's beginning."""
    pairs = itertools.pairwise(ticks)
    engaging = [now["clipped"] - then["clipped"] for then, now in pairs if now["flags"] & TickFlag.BLENDING]
    assert engaging
    assert np.abs(engaging)[:, :5].max() * 30 <= 0.8 + 1e-6


SHARED = """
[panel]
share = "always"          # on a stepped clock, too: the arms of a busy machine wait for it
"""


def sit_down(folder: Path, drive: Drive, arguments: Sequence[str] = QUIETLY, **look: Any) -> None:
    text = CONFIG.read_text(encoding="utf-8")
    for key, value in (
        ("scripted = true", "scripted = false"),
        ('# phrase = "the red cube"', 'phrase = "red cylinder"'),
        ('clock = "real"', 'clock = "stepped"'),
        ("jpeg_quality = 90", "jpeg_quality = 90\nepisode_s = 600"),
    ):
        assert key in text
        text = text.replace(key, value)
    (folder / "config.toml").write_text(text + SHARED, encoding="utf-8")

    async def script(panel: Panel) -> None:
        async with chromium(arguments) as browser:
            page, said = await opened(browser, str(panel.http.base_url), LAPTOP, **look)
            person = Person(panel, browser, page)
            try:
                await drive(person)
            finally:
                if person.run is not None:
                    person.run.close()
            assert not [line for line in said if "404" not in line]  # the arm's model takes a moment

    serve(folder, script, patience_s=400)


def test_episodes_of_a_teleoperation_are_recorded_judged_and_discarded(tmp_path: Path) -> None:
    async def drive(person: Person) -> None:
        page = person.page
        await person.starts("teleop", task="stack the cups")
        await person.sees(lambda now: "start" in now["can"])
        await page.locator("[data-do=start]:not([aria-disabled])").wait_for()
        keys, controls = page.keyboard, page.locator("#controls")
        await person.makes(_state("recording"), lambda: keys.press("Space"))
        await page.locator(".dot[data-on]").wait_for()
        await person.makes(_state("review"), lambda: controls.locator("[data-do=end]").click())
        await page.locator("#episode", has_text="to be judged").wait_for()
        await person.makes(_label("success"), lambda: controls.locator("[data-word=do_success]").click())
        await person.makes(_state("recording"), lambda: controls.locator("[data-do=start]").click())
        await person.makes(_state("ready"), lambda: keys.press("d"))
        await person.sees(lambda now: now["episodes"]["recorded"] == 1)
        await person.makes(_state("recording"), lambda: controls.locator("[data-do=start]").click())
        await person.makes(_label("failure"), lambda: keys.press("f"))
        await page.click("[data-do=quit]")
        await person.hears_of_the_end()
        await page.locator("#view-live .empty").wait_for()
        with Recording(person.folder) as recording:
            assert [each.label for each in recording.episodes] == ["success", "failure"]
        await page.click("#tabs a[data-view=data]")
        await page.click("#sets .item")
        await page.click("tr.pick >> nth=1")
        await page.locator(".playback .plot").first.wait_for()
        await page.check("tr.pick >> nth=1 >> input")
        await person.draws("data")
        await page.click("text=Drop 1 chosen")
        await page.locator("#view-data .job[data-state=done]").wait_for()
        await page.locator("tr.pick >> nth=1").wait_for(state="detached")

    sit_down(tmp_path, drive)


def test_a_policy_is_paused_slowed_told_and_stopped(tmp_path: Path) -> None:
    async def drive(person: Person) -> None:
        page = person.page
        await person.starts("rollout", task="put the red cylinder in the tray", count="3")
        await person.sees(lambda now: now["driving"] == "policy" and now["horizon"] > 0)
        assert _moving(await person.watches(2))
        keys, controls = page.keyboard, page.locator("#controls")
        await person.makes(
            lambda now: now["state"] == "holding", lambda: controls.locator("[data-do=hold]").click()
        )
        await person.watches(1)
        assert not _moving(await person.watches(1))
        await person.makes(
            lambda now: now["state"] == "running", lambda: controls.locator("[data-do=resume]").click()
        )
        await person.makes(lambda now: now["speed"] == 0.2, lambda: controls.locator("#speed").fill("20"))
        await person.makes(lambda now: now["driving"] == "paused", lambda: keys.press("p"))
        await page.locator("#driving", has_text="paused").wait_for()
        await person.makes(lambda now: now["driving"] == "policy", lambda: keys.press("p"))
        await page.fill("#prompt", "put the green cube in the tray")
        await person.makes(lambda now: "green" in now["instruction"], lambda: page.press("#prompt", "Enter"))
        await page.locator("#instruction", has_text="green").wait_for()
        await page.click("#estop")
        await page.locator("#state", has_text="STOPPED").wait_for()
        reset = controls.locator("[data-do=reset]")
        await reset.wait_for()
        await person.watches(1)
        stood = await person.watches(1)
        await person.makes(lambda now: now["stop"]["phase"] == "reset", reset.click)
        await page.locator("#reset-next", has_text="until you press Resume").wait_for()
        assert not await reset.is_visible()
        stood += await person.watches(2)
        assert not _moving(stood)
        first = person.newest()
        await person.makes(
            lambda now: now["driving"] == "policy", lambda: controls.locator("[data-do=resume]").click()
        )
        await person.sees(lambda now: now["horizon"] > 0)
        await person.watches(2)
        ticks = person.since(first)
        assert _moving(ticks)
        _engages_slowly(ticks)
        await page.keyboard.press("Escape")
        await page.locator("#state", has_text="STOPPED").wait_for()
        summary, code = await person.ends()
        assert (summary["outcome"], code) == ("stopped", 3)
        assert summary["stop_reason"].startswith("stopped by page")
        assert len(summary["stops"]) == 2
        assert summary["stops"][0]["resumed_by"].startswith("page")
        outcomes = [each["outcome"] for each in summary["rollout"]["episodes"]]
        assert outcomes == ["failure", "failure"]
        await page.locator("#state", has_text="STOPPED").wait_for()

    sit_down(tmp_path, drive)


def _red(png: bytes) -> int:
    """How many pixels of a picture are red."""
    blue, green, red = np.moveaxis(cv2.imdecode(np.frombuffer(png, np.uint8), 1).astype(int), 2, 0)
    return int((red > 60 + np.maximum(blue, green)).sum())


def test_the_table_is_seen_in_depth_beside_the_arm(tmp_path: Path) -> None:
    """What the simulated depth camera sees stands beside the arm: its red cylinder, where little red was."""

    async def drive(person: Person) -> None:
        page = person.page
        await person.starts("rollout", task="stand still", policy="still", count="1")
        canvas = page.locator("#arm canvas")
        await canvas.wait_for(timeout=120_000)
        await page.check("#cloud")
        await page.locator("#arm[data-points]").wait_for(timeout=120_000)
        assert int(await page.locator("#arm").get_attribute("data-points") or 0) > 1000
        async with asyncio.timeout(120):
            while True:
                shown = _red(await canvas.screenshot(timeout=120_000))
                await page.uncheck("#cloud")
                await CLOCK.sleep_until_ns(CLOCK.now_ns() + 200 * NS_PER_MS)
                hidden = _red(await canvas.screenshot(timeout=120_000))  # an axis, unless the arm covers it
                await page.check("#cloud")
                if shown >= hidden + 20:
                    break
                await CLOCK.sleep_until_ns(CLOCK.now_ns() + 200 * NS_PER_MS)
        await page.click("#estop")
        await person.ends()

    sit_down(tmp_path, drive, DRAWING)


def test_a_table_is_cleared_under_a_persons_eyes(tmp_path: Path) -> None:
    async def drive(person: Person) -> None:
        page = person.page
        await person.starts("grasp", prompt="clear the table")
        await person.sees(lambda now: now["plan"] and now["horizon"] > 0)
        await page.locator("#plan li").first.wait_for()
        await page.locator(".camera:not([data-stale])").nth(1).wait_for()
        phone, said = await opened(
            person.browser, str(person.panel.http.base_url), PHONE, color_scheme="light"
        )
        await phone.locator(".camera:not([data-stale])").first.wait_for()
        await person.draws("phone", phone)
        if PICTURES:  # with the arm in three dimensions, by a processor that has other things to do
            async with chromium(DRAWING) as another:
                drawn, _ = await opened(another, str(person.panel.http.base_url), LAPTOP, color_scheme="dark")
                await drawn.locator("#arm canvas").wait_for(timeout=60_000)
                await person.watches(10)
                await drawn.evaluate("window.requestAnimationFrame = () => 0")  # the arm stands still
                await person.watches(8)
                await drawn.locator(".camera:not([data-stale])").nth(1).wait_for()
                await person.draws("live", drawn)
        await phone.click("#estop")
        summary, code = await person.ends()
        assert (summary["outcome"], code) == ("stopped", 3)
        assert not [line for line in said if "404" not in line]
        await page.click("#tabs a[data-view=setup]")
        await page.click("[data-road=simulated]")
        await page.click("[data-step=doctor]")
        await page.click("#view-setup form.job-form button[type=submit]")
        await page.locator("#view-setup .job[data-state=done]").wait_for(timeout=90_000)

    sit_down(tmp_path, drive, color_scheme="dark")
