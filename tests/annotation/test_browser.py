"""The page on which a person corrects masks, in a real browser (Debian's chromium, by playwright)."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

CHROMIUM = shutil.which("chromium") or ""
playwright = pytest.importorskip("playwright.async_api", reason="no playwright: pip install playwright")
pytestmark = pytest.mark.skipif(not CHROMIUM, reason="no chromium: apt-get install chromium")

from dexrun.annotation.corrections import Reviewed  # noqa: E402
from dexrun.annotation.options import AnnotateOptions  # noqa: E402
from dexrun.annotation.review import ReviewPage  # noqa: E402
from runtime.clock import RealClock  # noqa: E402
from runtime.recording.reader import Episode  # noqa: E402
from tests.annotation.drawn import overlap, place  # noqa: E402
from tests.annotation.test_review import WRONG, recording  # noqa: E402, F401 - a fixture

QUIETLY = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]


async def corrected(page: Any, said: list[str]) -> None:
    """A person looks at the first doubtful frame, clicks on the object, and has it followed."""
    page.on("console", lambda message: said.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: said.append(f"error: {error}"))
    await page.wait_for_selector("#runs button")
    assert "11 doubtful" in await page.inner_text("#episodes li")
    await page.click("#runs button")
    await page.locator("#at", has_text=f"frame {WRONG}").wait_for()
    # the picture of 128x96 is shown five times as large
    y, x = place(WRONG)
    await page.click("#view", position={"x": 5 * (x + 7), "y": 5 * (y + 7)})
    await page.click("#correct")
    await page.locator("#episodes", has_text=", 0 doubtful").wait_for(timeout=60_000)


def test_a_person_corrects_a_mask(recording: Path) -> None:  # noqa: F811 - the fixture
    options = AnnotateOptions(moment=0.1)
    shown = Reviewed.of(recording, options)
    assert shown is not None
    said: list[str] = []

    async def main() -> None:
        review = ReviewPage([shown], options, "Ann", RealClock())
        try:
            address = await review.open(0)
            async with playwright.async_playwright() as driver:
                browser = await driver.chromium.launch(executable_path=CHROMIUM, args=QUIETLY)
                try:
                    page = await browser.new_page()
                    await page.goto(address)
                    await corrected(page, said)
                    stranger = await browser.new_page()
                    await stranger.goto(address.split("#")[0])
                    await stranger.locator("#said", has_text="token").wait_for()
                    assert await stranger.query_selector("#episodes li") is None
                finally:
                    await browser.close()
        finally:
            await review.close()

    RealClock().run(main)
    assert not said
    y, x = place(WRONG)
    whole = np.zeros((96, 128), np.uint8)
    whole[y : y + 14, x : x + 14] = 1
    with Episode(recording) as episode:
        assert overlap(episode.mask("head", WRONG), whole) > 0.9
