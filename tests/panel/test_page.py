"""The page in a real browser, against the real server and a run that writes down what it is asked for."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.panel.browser_rig import CHROMIUM, LAPTOP, PHONE, PlayedRun, chromium, opened, playing
from tests.panel.server_rig import Panel, serve

pytest.importorskip("playwright.async_api", reason="no playwright: pip install playwright")
pytestmark = pytest.mark.skipif(not CHROMIUM, reason="no chromium: apt-get install chromium")

VIEWS = ("live", "start", "data", "train", "evaluate", "setup")
Visit = Callable[[Any, PlayedRun], Awaitable[None]]


def visit(folder: Path, look: Visit, size: dict[str, int] = LAPTOP, **more: Any) -> None:
    """Open the page beside a run that plays, and let `look` use it; the page complains of nothing."""
    run = PlayedRun(folder)

    async def script(panel: Panel) -> None:
        async with playing(run), chromium() as browser:
            page, said = await opened(browser, str(panel.http.base_url), size, **more)
            await page.locator("#state", has_text="running").wait_for()
            await look(page, run)
            assert not [line for line in said if "404" not in line]  # the run has no model of an arm

    serve(folder, script)


BUTTONS = {
    "[data-do=hold]": ("hold", {}),
    "[data-do=resume]": ("resume", {}),
    "[data-do=home]": ("home", {}),
    "[data-do=pause]": ("pause", {}),
    "[data-do=take]": ("take", {}),
    "[data-do=give]": ("give", {}),
    "[data-do=keep]": ("keep", {}),
    "[data-do=start]": ("start", {"task": "stack the cups"}),
    "[data-word=do_success]": ("label", {"label": "success"}),
    "[data-word=do_failure]": ("label", {"label": "failure"}),
    "[data-word=do_discard]": ("discard", {}),
    "[data-do=quit]": ("quit", {}),
}
KEYS = {
    " ": ("start", {"task": "stack the cups"}),
    "s": ("label", {"label": "success"}),
    "f": ("label", {"label": "failure"}),
    "d": ("discard", {}),
    "Enter": ("keep", {}),
    "Tab": ("give", {}),
    "p": ("pause", {}),
    "q": ("quit", {}),
    "F": ("label", {"label": "failure"}),
    "P": ("pause", {}),
}


def test_each_control_and_key_sends_its_command(tmp_path: Path) -> None:
    async def look(page: Any, run: PlayedRun) -> None:
        await page.fill("#task", "stack the cups")
        for selector, (name, args) in BUTTONS.items():
            await page.locator(f"#controls {selector}").first.click()
            assert await run.wait_for(name) == args, selector
        for key, (name, args) in KEYS.items():
            await page.keyboard.press(key)
            assert await run.wait_for(name) == args, key
        await page.fill("#prompt", "the blue one")
        await page.press("#prompt", "Enter")
        assert await run.wait_for("tell") == {"text": "the blue one"}
        await page.locator("#speed").fill("35")
        assert await run.wait_for("speed") == {"value": 0.35}
        await page.keyboard.press("p")  # the slider has the focus, and wants no letters
        assert await run.wait_for("pause") == {}
        await page.click("[data-word=do_again]")
        assert await run.wait_for("start") == {"task": "stack the cups"}
        run.status["episodes"] = {
            "state": "recording",
            "episode": 3,
            "elapsed_s": 1.0,
            "recorded": 2,
            "wanted": 0,
        }
        await page.locator("#episode", has_text="recording").wait_for()
        await page.keyboard.press("f")
        assert await run.wait_for("end") == {"label": "failure"}
        await page.press("#prompt", "q")  # a letter in a field is no key
        assert run.asked == []
        run.refuse["home"] = "the arm is too far away"
        await page.click("[data-do=home]")
        await page.locator("#said", has_text="too far away").wait_for()

    visit(tmp_path, look)


def test_the_stop_is_always_there_and_what_cannot_be_done_says_why(tmp_path: Path) -> None:
    async def look(page: Any, run: PlayedRun) -> None:
        for view in VIEWS:
            await page.click(f"#tabs a[data-view={view}]")
            await page.locator(f"#view-{view}").wait_for()
            assert await page.evaluate(_STOP_IS_IN_REACH), view
            assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth"), view
        await page.focus("#view-setup input, #view-setup select, #view-setup button")
        await page.keyboard.press("Escape")
        await run.wait_for("stop")
        await page.click("#tabs a[data-view=live]")
        await page.locator("#state", has_text="STOPPED").wait_for()
        hold = page.locator("[data-do=hold]")
        assert await hold.get_attribute("aria-disabled") == "true"
        await hold.evaluate("(node) => node.scrollIntoView({block: 'center'})")  # from under the stop
        await hold.click(force=True)
        await page.locator("#said", has_text="the stop is latched; reset it first").wait_for()
        assert run.asked == []
        await page.click("#estop")  # once more does no harm
        await run.wait_for("stop")
        assert run.seen[-1] == 1
        run.close()
        await page.locator("#view-live .empty").wait_for()
        assert await page.inner_text("#state") == "STOPPED"  # the run has ended, and it is said why
        await page.locator("#reason", has_text="a person stopped it").wait_for()

    visit(tmp_path, look, PHONE, has_touch=True)


def test_a_stop_is_reset_by_a_button_of_its_own_and_the_run_goes_on_by_another(tmp_path: Path) -> None:
    async def look(page: Any, run: PlayedRun) -> None:
        reset, controls = page.locator("#controls [data-do=reset]"), page.locator("#controls")
        assert not await reset.is_visible()
        await page.click("#estop")
        await run.wait_for("stop")
        await reset.wait_for()
        assert await page.evaluate(_IS_APART)
        for key in "rg ":  # no key of the page resets, and none is pressed by the focus
            await page.keyboard.press(key)
        await page.click("#tabs a[data-view=data]")
        await page.locator("#estop-note", has_text="reset it on “Live”").wait_for()
        await page.click("#tabs a[data-view=live]")
        assert run.asked == []
        await reset.click()
        assert await run.wait_for("reset") == {}
        assert run.seen[-1] == 1
        await page.locator("#reset-next", has_text="until you press Resume").wait_for()
        assert not await reset.is_visible()
        start = controls.locator("[data-do=start]")
        await start.evaluate("(node) => node.scrollIntoView({block: 'center'})")
        await start.click(force=True)
        await page.locator("#said", has_text="press Resume first").wait_for()
        await page.click("#language")
        await page.locator("#reset-next", has_text="急停已复位").wait_for()
        await controls.locator("[data-do=resume]").click()
        assert await run.wait_for("resume") == {}
        await page.locator("#reset-next").wait_for(state="hidden")
        await page.click("#estop")
        await run.wait_for("stop")
        await reset.click()
        await run.wait_for("reset")
        assert run.seen[-1] == 2

    visit(tmp_path, look, PHONE, has_touch=True)


_IS_APART = """() => {
  const stop = document.querySelector("#estop").getBoundingClientRect();
  const reset = document.querySelector("#controls [data-do=reset]").getBoundingClientRect();
  const beside = reset.right < stop.left || stop.right < reset.left;
  return beside || reset.bottom < stop.top || stop.bottom < reset.top;
}"""
_STOP_IS_IN_REACH = """() => {
  const box = document.querySelector("#estop").getBoundingClientRect();
  const there = document.elementFromPoint(box.x + box.width / 2, box.y + box.height / 2);
  const large = box.height >= 70 && box.width >= 200;
  return large && box.top >= 0 && box.bottom <= innerHeight && there.closest("#estop") !== null;
}"""


def test_a_page_that_hears_nothing_looks_it(tmp_path: Path) -> None:
    async def look(page: Any, run: PlayedRun) -> None:
        await page.locator(".camera:not([data-stale])").nth(1).wait_for()
        run.hangs = True
        await page.locator("#link", has_text="nothing new for").wait_for()
        await page.locator(".camera[data-stale] .age", has_text="s old").first.wait_for()
        grey = "getComputedStyle(document.querySelector('.camera canvas')).filter"
        assert "grayscale(1)" in await page.evaluate(grey)
        assert await page.locator("[data-do=hold]").get_attribute("aria-disabled") == "true"
        run.hangs = False
        await page.locator(".camera:not([data-stale])").nth(1).wait_for()
        await page.click(".camera [data-kind=depth]")
        await run.until(lambda: page.evaluate(_DEPTH_IS_DRAWN))
        run.close()
        await page.locator("#state", has_text="no run").wait_for()
        await page.locator("#view-live .empty").wait_for()
        assert await page.locator(".camera canvas").first.is_visible()  # the last pictures stay, grey
        await page.click("[data-do=hold]", force=True)
        await page.locator("#said", has_text="no run is alive").wait_for()

    visit(tmp_path, look)


_DEPTH_IS_DRAWN = """() => {
  const canvas = document.querySelector("[data-camera=head]");
  const [r, g, b] = canvas.getContext("2d").getImageData(5, 5, 1, 1).data;
  return Math.max(r, g, b) - Math.min(r, g, b) > 60; // the table is grey in colour
}"""


def test_a_page_without_its_server_says_so_and_stops_once_it_is_back(tmp_path: Path) -> None:
    async def look(page: Any, run: PlayedRun) -> None:
        hangs = [False]

        async def routed(socket: Any) -> None:
            if hangs[0]:
                await socket.close()
                return
            server = socket.connect_to_server()
            socket.on_message(lambda said: hangs[0] or server.send(said))
            server.on_message(lambda said: hangs[0] or socket.send(said))

        await page.route_web_socket("**/ws", routed)
        await page.reload()
        await page.locator("#state", has_text="running").wait_for()
        await page.locator("#estop-note", has_text="stops and latches").wait_for()
        hangs[0] = True  # the connection is open, and nothing comes through it
        await page.locator("#estop-note", has_text="NO ANSWER").wait_for()
        await page.locator("#link", has_text="nothing new for").wait_for()
        assert await page.locator("[data-do=hold]").get_attribute("aria-disabled") == "true"
        await page.click("#estop")
        await page.locator("#said", has_text="was not confirmed").wait_for()
        await page.locator("#estop-note", has_text="use the power switch").wait_for()
        await page.locator("#link", has_text="disconnected").wait_for()
        assert run.asked == []
        hangs[0] = False
        await run.wait_for("stop")  # what was pressed while nobody heard it

    visit(tmp_path, look)


@pytest.mark.slow
def test_both_languages_and_both_themes(tmp_path: Path) -> None:
    async def look(page: Any, run: PlayedRun) -> None:
        assert await page.inner_text("#estop strong") == "E-STOP"
        await page.click("#language")
        assert await page.inner_text("#estop strong") == "急停"
        await page.locator("#state", has_text="运行中").wait_for()
        for view in VIEWS:
            await page.click(f"#tabs a[data-view={view}]")
        assert await page.evaluate(_ENGLISH_LEFT) == []
        before = await page.evaluate("getComputedStyle(document.body).backgroundColor")
        await page.click("#theme")
        assert await page.evaluate("getComputedStyle(document.body).backgroundColor") != before
        await page.click("#tabs a[data-view=live]")
        await page.reload()
        await page.locator("#state", has_text="运行中").wait_for()  # it is remembered

    visit(tmp_path, look)


_ENGLISH_LEFT = """() => [...document.querySelectorAll("[data-word]")]
  .filter((node) => node.offsetParent !== null && !/[\\u4e00-\\u9fff]/.test(node.textContent))
  .map((node) => node.dataset.word)"""
