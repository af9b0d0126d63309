"""The panel's page in a real browser (Debian's chromium, by playwright), and a run that answers it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from dexrun.panel.link import PublishedRun
from dexrun.panel.shared import SharedCamera, SharedFacts
from runtime.clock import RealClock

CHROMIUM = shutil.which("chromium") or ""
QUIETLY = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
DRAWING = [
    "--no-sandbox",
    "--disable-dev-shm-usage",
    "--use-angle=swiftshader-webgl",
    "--enable-unsafe-swiftshader",
]
"""With WebGL by the processor, which takes long."""
LAPTOP, PHONE = {"width": 1440, "height": 900}, {"width": 390, "height": 844}
PICTURES = os.environ.get("PAGE_PICTURES", "")
"""Where the pages are drawn for the documentation, if anywhere."""
JOINTS = ("shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper")
HEAD = SharedCamera(
    320,
    240,
    depth=True,
    depth_scale_m=0.001,
    intrinsics={"fx": 300.0, "fy": 300.0, "cx": 160.0, "cy": 120.0},
    pose=[[1, 0, 0, 0.17], [0, -1, 0, 0], [0, 0, -1, 0.62], [0, 0, 0, 1]],
)
FACTS = SharedFacts(
    mode="rollout",
    rate_hz=30.0,
    joints=JOINTS,
    units=("rad",) * 5 + ("0..1",),
    ranges_rad=((-1.9, 1.9),) * 5 + ((0.0, 1.0),),
    grippers=(5,),
    force_channels=3,
    cameras={"head": HEAD, "wrist": SharedCamera(320, 240)},
)
EVERYTHING = (
    "stop",
    "hold",
    "resume",
    "home",
    "quit",
    "tell",
    "speed",
    "start",
    "end",
    "label",
    "discard",
    "keep",
    "take",
    "give",
    "pause",
)


class PlayedRun:
    """A run whose rings are filled by this test, and which does what it is asked for: it writes it down.

    Attributes:
        asked: the commands that came, ``(name, args)``. can: what it says is possible now.
        refuse: errors by the command's name. status: what it says of itself besides. stops: how often it was
            stopped. seen: the newest stop that whoever asked knew of, by command.
    """

    def __init__(self, folder: Path, facts: SharedFacts = FACTS) -> None:
        self.folder = folder / "runs" / "2026-11-27T10-00-00"
        self.folder.mkdir(parents=True)
        self.shared = PublishedRun(self.folder, facts)
        self.clock = RealClock()
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.can: list[str] = list(EVERYTHING)
        self.refuse: dict[str, str] = {}
        self.status: dict[str, Any] = {}
        self.stops, self.seen = 0, list[int | None]()
        self.hangs = False
        self._tick = 0

    def close(self) -> None:
        """It has ended."""
        self.hangs = True
        self.shared.close()

    async def play(self) -> None:
        """30 ticks a second until cancelled."""
        while True:
            if not self.hangs:
                self._answer()
                self._say()
            await self.clock.sleep_until_ns(self.clock.now_ns() + 33_333_333)

    def _answer(self) -> None:
        while (command := self.shared.next_command()) is not None:
            error = self.refuse.get(command.name, "")
            self.shared.answer(self.clock.now_ns(), command.id, error)
            self.asked.append((command.name, dict(command.args)))
            self.seen.append(command.seen)
            if command.name == "stop":
                self.stops += 1
                self.status |= {"latched": True, "state": "stopped", "reason": "a person stopped it"}
                self._stands("latched", ["stop", "quit", "reset"])
            elif command.name == "reset":
                self.status |= {"latched": False, "state": "holding", "reason": "the stop was reset"}
                self._stands("reset", ["stop", "quit", "resume"])
            elif command.name == "resume":
                self.status |= {"state": "running", "reason": ""}
                self._stands("ready", list(EVERYTHING))

    def _stands(self, phase: str, can: list[str]) -> None:
        """How its newest stop stands, and what is possible by that."""
        self.can = can
        if self.stops:
            self.status["stop"] = {"number": self.stops, "phase": phase, "by": "page", "unresettable": ""}

    def _say(self) -> None:
        now, tick = self.clock.now_ns(), self._tick
        self._tick += 1
        phase = tick / 25 + np.arange(6)
        position = np.append(0.9 * np.sin(phase[:5]) * np.linspace(1, 0.3, 5), 0.5 + 0.5 * np.sin(tick / 40))
        target = position + 0.05 * np.cos(phase)
        force = [1.2 + np.sin(tick / 9), 0.3 * np.cos(tick / 14), 0.1]
        self.shared.ticks.push(now, tick=tick, position=position, clipped=target, force=force)
        if tick % 3 == 0:
            self.shared.say(now, {**_status(tick), "can": self.can, **self.status})
            color, mask = _scene(tick)
            depth = np.full((240, 320), 610, np.uint16) - 40 * (mask > 0)
            self.shared.cameras["head"].push(now, color=color, depth=depth, mask=mask, masked=1)
            self.shared.cameras["wrist"].push(now, color=color[::-1, ::-1].copy(), mask=mask, masked=0)

    async def rests(self, seconds: float) -> None:
        """For so long."""
        await self.clock.sleep_until_ns(self.clock.now_ns() + round(seconds * 1e9))

    async def wait_for(self, name: str) -> dict[str, Any]:
        """The arguments of the next command `name`; what came is forgotten."""

        async def came() -> bool:
            return any(each == name for each, _ in self.asked)

        await self.until(came)
        args = next(args for each, args in self.asked if each == name)
        self.asked.clear()
        return args

    async def until(self, true: Callable[[], Awaitable[Any]]) -> None:
        """Wait for it."""
        async with asyncio.timeout(20):
            while not await true():
                await self.clock.sleep_until_ns(self.clock.now_ns() + 20_000_000)


def _scene(tick: int) -> tuple[Any, Any]:
    """A grey table with a cube that moves, and the cube's mask."""
    color = np.full((240, 320, 3), (196, 190, 180), np.uint8)
    cv2.rectangle(color, (200, 60), (300, 180), (120, 128, 140), -1)
    mask = np.zeros((240, 320), np.uint8)
    x, y = 90 + int(40 * np.sin(tick / 20)), 120 + int(30 * np.cos(tick / 20))
    cv2.rectangle(mask, (x - 16, y - 16), (x + 16, y + 16), 255, -1)
    color[mask > 0] = (200, 60, 50)
    return color, mask


def _status(tick: int) -> dict[str, Any]:
    seconds = tick / 30
    return {
        "mode": "rollout",
        "step": "the policy works",
        "state": "running",
        "reason": "",
        "latched": False,
        "driving": "policy",
        "elapsed_s": seconds,
        "rate_hz": 30.0,
        "period_error_us": {"p50": 40.0, "p99": 210.0, "max": 900.0},
        "work_us": {"p50": 420.0, "p99": 1150.0, "max": 2000.0},
        "horizon": 12,
        "ticks": tick,
        "missed": 0,
        "starved": 0,
        "sensor_rates_hz": {"arm": 100.0, "force": 100.0, "head": 30.0, "wrist": 30.0},
        "force_n": [1.2, 0.3, 0.1],
        "clips": {"velocity": 4},
        "faults": {"arm": {"elbow_flex.no_reply": 1}},
        "instruction": "put the red cube in the tray",
        "prompt": "put the red cube in the tray",
        "plan": ["grasp the red cube", "put it in the tray"],
        "attempts": [
            {"instruction": "the blue cube", "attempt": 1, "grasped": True, "completed": True},
            {"instruction": "the red cube", "attempt": 1, "grasped": False, "completed": False},
        ],
        "questions": [
            {
                "id": 1,
                "question": "which object next?",
                "answer": "the red cube",
                "latency_s": 0.8,
                "error": "",
                "files": ["planner/1.png"],
            }
        ],
        "servos": {
            name: {"temperature_c": 34 + 6 * index, "voltage_v": 7.4, "load": 0.1 * index}
            for index, name in enumerate(JOINTS)
        },
        "speed": 1.0,
        "policy": {"type": "act", "name": "act.safetensors"},
        "box": {"head": [70, 100, 150, 170]},
        "path": [[0.10 + 0.01 * k, 0.02 * np.sin(k / 3), 0.05] for k in range(20)],
        "episodes": {
            "state": "ready",
            "episode": 3,
            "elapsed_s": 0.0,
            "recorded": 3,
            "wanted": 10,
            "task": "put the red cube in the tray",
            "last_label": "success",
            "trouble": "",
            "made": "recorded",
        },
    }


@contextlib.asynccontextmanager
async def chromium(arguments: Sequence[str] = QUIETLY) -> AsyncIterator[Any]:
    """A browser."""
    from playwright.async_api import async_playwright

    async with async_playwright() as driver:
        browser = await driver.chromium.launch(executable_path=CHROMIUM, args=list(arguments))
        try:
            yield browser
        finally:
            await browser.close()


@contextlib.asynccontextmanager
async def playing(run: PlayedRun) -> AsyncIterator[None]:
    """While this is open, the run lives."""
    task = asyncio.create_task(run.play())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        run.close()


async def fill_in(form: Any, fields: Mapping[str, str]) -> None:
    """Type or choose what belongs into a form's fields; those under "More" are looked for there."""
    for name, value in fields.items():
        field = form.locator(f"[data-argument={name}]")
        await field.wait_for(state="attached")
        if not await field.is_visible():
            await form.locator("summary").click()
        if await field.evaluate("(node) => node.tagName == 'SELECT'"):
            await field.select_option(value)
        elif await field.get_attribute("type") == "checkbox":
            await field.set_checked(value == "yes")
        else:
            await field.fill(value)


def keep(png: bytes, path: Path) -> None:
    """In few colours: a picture for a page of text is small."""
    import io

    from PIL import Image

    image = Image.open(io.BytesIO(png)).convert("RGB")
    path.parent.mkdir(parents=True, exist_ok=True)
    image.quantize(256, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE).save(path, optimize=True)


def listened(page: Any) -> list[str]:
    """What the page complains of, from now on."""
    said: list[str] = []
    page.on("console", lambda message: message.type == "error" and said.append(message.text))
    page.on("pageerror", lambda error: said.append(f"error: {error}"))
    return said


async def opened(browser: Any, address: str, size: dict[str, int], **more: Any) -> tuple[Any, list[str]]:
    """A page at `address`, and what it complains of."""
    context = await browser.new_context(viewport=size, **more)
    page = await context.new_page()
    page.set_default_timeout(60_000)  # of a browser that others leave a tenth of a processor
    said = listened(page)
    await page.goto(address)
    return page, said
