"""Moving the gripper from the page, in a real browser: pads, a gamepad, a headset as WebXR tells of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.panel.browser_rig import CHROMIUM, PlayedRun
from tests.panel.test_page import visit

pytest.importorskip("playwright.async_api", reason="no playwright: pip install playwright")
pytestmark = pytest.mark.skipif(not CHROMIUM, reason="no chromium: apt-get install chromium")

GAMEPAD = """() => {
  const buttons = Array.from({length: 17}, (_, at) => ({value: at === 7 ? 1 : 0}));
  const pad = {connected: true, mapping: "standard", axes: [-1, 0.1, 0, -1], buttons};
  navigator.getGamepads = () => [null, pad];
}"""
HEADSET = """() => {
  const pose = {transform: {position: {x: 1, y: 2, z: 3}, orientation: {x: 0, y: 0.6, z: 0, w: 0.8}}};
  const source = {gripSpace: {}, gamepad: {buttons: [{value: 0.25}, {value: 1}]}};
  const session = {
    inputSources: [source],
    updateRenderState: async () => {},
    requestReferenceSpace: async () => ({}),
    requestAnimationFrame: (each) => setTimeout(() => each(performance.now(), {getPose: () => pose}), 20),
  };
  window.XRWebGLLayer = class {};
  const xr = {isSessionSupported: async () => true, requestSession: async () => session};
  Object.defineProperty(navigator, "xr", {value: xr});
  document.getElementById("jog-xr").hidden = false;
}"""


async def still(run: PlayedRun) -> None:
    """The last that is sent is standing still."""

    async def stands() -> bool:
        return run.asked[-1:] == [("jog", {"twist": [0] * 6, "grip": 0})]

    await run.until(stands)
    run.asked.clear()


def test_of_two_arms_the_one_that_is_chosen_moves(tmp_path: Path) -> None:
    async def look(page: Any, run: PlayedRun) -> None:
        run.can += ["jog", "hand"]
        run.status["jogged"] = ["left", "right"]
        opens = page.locator("#jog-open")
        await page.locator(".arms [data-arm=left][aria-pressed]").wait_for()
        await opens.dispatch_event("pointerdown")
        assert (await run.wait_for("jog"))["arm"] == "left"
        await page.locator(".arms [data-arm=right]").dispatch_event("click")

        async def the_other() -> bool:
            return ("jog", {"twist": [0] * 6, "grip": 1, "arm": "right"}) in run.asked

        await run.until(the_other)
        of_left = [args for _, args in run.asked if args["arm"] == "left"]
        assert of_left[-1] == {"twist": [0] * 6, "grip": 0, "arm": "left"}  # and stands still
        await opens.dispatch_event("pointerup")
        run.status["jogged"] = ["leader"]
        await page.locator(".arms [data-arm]").first.wait_for(state="detached")
        run.asked.clear()
        await opens.dispatch_event("pointerdown")
        assert "arm" not in await run.wait_for("jog")

    visit(tmp_path, look)


def test_pads_a_gamepad_and_a_headset_move_the_gripper(tmp_path: Path) -> None:
    async def look(page: Any, run: PlayedRun) -> None:
        assert await page.locator(".card.jog").is_hidden()
        run.can += ["jog", "hand"]
        await page.locator("#jog-plane").wait_for()
        await page.locator("#jog-plane").scroll_into_view_if_needed()
        box = await page.locator("#jog-plane").bounding_box()
        await page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 1)
        await page.mouse.down()
        forward = await run.wait_for("jog")
        assert forward["twist"][0] == pytest.approx(0.15, abs=0.01)
        assert forward["twist"][1:] == pytest.approx([0] * 5, abs=0.01)
        await page.mouse.up()
        await still(run)
        await page.locator("#jog-open").dispatch_event("pointerdown")
        assert (await run.wait_for("jog"))["grip"] == 1
        await page.locator("#jog-open").dispatch_event("pointerup")
        await page.evaluate(GAMEPAD)
        await page.check("#jog-gamepad")
        while (pad := await run.wait_for("jog"))["twist"][1] == 0:
            pass
        assert pad["twist"] == pytest.approx([0, 0.15, 0.15, 0, 0, 0])
        assert pad["grip"] == 1
        await page.evaluate("Object.defineProperty(document, 'hidden', {value: true, configurable: true})")
        await still(run)
        await page.evaluate("delete document.hidden")
        assert (await run.wait_for("jog"))["grip"] == 1
        await page.uncheck("#jog-gamepad")
        await still(run)
        await page.evaluate(HEADSET)
        await page.click("#jog-xr")
        hand = await run.wait_for("hand")
        assert hand["position"] == [-3, -1, 2]
        assert hand["quaternion"] == pytest.approx([0, 0, 0.6, 0.8])
        assert (hand["grip"], hand["clutch"]) == (0.75, True)

    visit(tmp_path, look)
