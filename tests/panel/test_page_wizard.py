"""Set-up in the page, by clicks alone: what the emulated servos' registers hold afterwards is the proof."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from drivers.arms.so100 import JOINT_NAMES
from drivers.feetech import registers as reg
from drivers.feetech.emulator import FeetechEmulator
from drivers.feetech.servo import EmulatedServo, SimpleServoBank
from runtime.stepped import SteppedClock
from tests.panel.browser_rig import CHROMIUM, LAPTOP, PHONE, PICTURES, chromium, fill_in, keep, opened
from tests.panel.server_rig import Panel, serve

pytest.importorskip("playwright.async_api", reason="no playwright: pip install playwright")
pytestmark = pytest.mark.skipif(not CHROMIUM, reason="no chromium: apt-get install chromium")

ALL = set(range(1, 7))
KEPT = (reg.ID, reg.BAUD_RATE, reg.RETURN_DELAY_TIME)
SET = [[number, 0, 0] for number in range(1, 7)]
NEW = [1, 0, 250]
MIDDLE, REACH = 2047, 900
PORT = "data/ports/arm"
EEPROM_ENDS = 40


class Bench:
    """Servos on an emulated line, and what was written to them.

    Attributes:
        written: ``(servo, address)`` of every write.
    """

    def __init__(self, folder: Path, registers: dict[int, dict[reg.Register, int]]) -> None:
        self.bank = SimpleServoBank(SteppedClock(), dict.fromkeys(ALL, MIDDLE))
        self.emulator = FeetechEmulator(self.bank, folder, registers=registers)
        self.written: list[tuple[int, int]] = []

    def connect(self, *servos: int) -> None:
        """Only these hang on the line."""
        self.emulator.faults.silent = ALL - set(servos)

    def turn(self, ticks: int, *servos: int) -> None:
        """A hand turns them there."""
        for servo in servos or ALL:
            self.bank.override(servo, position=ticks)

    def holds(self, *registers: reg.Register) -> list[list[int]]:
        return [[servo.get(register) for register in registers] for servo in self.emulator.servos.values()]

    def in_eeprom(self) -> list[tuple[int, int]]:
        """The writes that stay when the power is off."""
        return [each for each in self.written if each[1] < EEPROM_ENDS]


class Newcomer:
    """At the page. Reads what it says, and clicks."""

    def __init__(self, page: Any) -> None:
        self.page = page

    async def sets_up(self) -> None:
        await self.page.click("#tabs a[data-view=setup]")
        await self.page.click("[data-road=arm]")

    async def begins(self, step: str, **fields: str) -> None:
        await self.page.click(f"[data-step={step}]")
        form = self.page.locator(f"#view-setup form[data-kind={step}]")
        await fill_in(form, fields)
        await form.locator("button[type=submit]").click()

    def asked(self, text: str) -> Any:
        return self.page.locator("#view-setup .question p", has_text=text)

    async def answers(self, text: str, answer: str = "enter") -> None:
        """Waits to be asked that, and clicks."""
        await self.asked(text).wait_for()
        await self.page.click(f"#view-setup .question [data-answer='{answer}']")

    async def reads(self, text: str) -> None:
        await self.page.locator("#view-setup .output", has_text=text).wait_for()

    async def sees(self, state: str, kind: str) -> None:
        await self.page.locator(f"#view-setup .job[data-state={state}][data-kind={kind}]").wait_for()

    async def draws(self, name: str) -> None:
        if PICTURES:
            keep(await self.page.screenshot(timeout=120_000), Path(PICTURES) / f"{name}.png")

    async def goes_on(self) -> None:
        await self.page.click("#view-setup .job .next .go")


@contextlib.contextmanager
def bench(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    registers: dict[int, dict[reg.Register, int]] | None = None,
) -> Iterator[Bench]:
    monkeypatch.chdir(folder)
    (folder / PORT).parent.mkdir(parents=True)
    made = Bench(folder / PORT, registers or {})
    write = EmulatedServo.write

    def noted(servo: EmulatedServo, start: int, data: bytes) -> None:
        made.written.append((servo.servo_id, start))
        write(servo, start, data)

    monkeypatch.setattr(EmulatedServo, "write", noted)
    with contextlib.closing(made.emulator):
        yield made


def sit_down(folder: Path, do: Callable[[Panel, Any, Newcomer], Awaitable[None]]) -> None:
    async def script(panel: Panel) -> None:
        async with chromium() as browser:
            page, said = await opened(browser, str(panel.http.base_url), LAPTOP)
            newcomer = Newcomer(page)
            await newcomer.sets_up()
            await do(panel, browser, newcomer)
            assert not said

    serve(folder, script, patience_s=300)


def test_new_servos_get_their_ids_by_clicks_and_a_page_that_is_left_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shipped = {number: {reg.ID: 1} for number in ALL}
    with bench(tmp_path, monkeypatch, shipped) as table:

        async def plugs(newcomer: Newcomer, name: str) -> None:
            number = JOINT_NAMES.index(name) + 1
            await newcomer.asked(f"the servo of {name} alone").wait_for()
            table.connect(number)
            await newcomer.answers(f"the servo of {name} alone")
            await newcomer.reads(f"{name}: id 1 -> {number}" if number > 1 else f"{name}: response delay")

        async def do(panel: Panel, browser: Any, newcomer: Newcomer) -> None:
            table.connect()
            await newcomer.begins("setup-motors", port=PORT, model="so101")
            await newcomer.answers("the servo of gripper alone")  # before it was plugged in
            await newcomer.reads("no servo answers at any speed")
            assert table.written == []
            for name in ("gripper", "wrist_roll"):
                await plugs(newcomer, name)
            await newcomer.asked("the servo of wrist_flex alone").wait_for()
            before = list(table.written)
            await newcomer.page.close()  # in the middle of it, with the next servo plugged in
            table.connect(4)
            context = await browser.new_context(viewport=PHONE)
            phone = Newcomer(await context.new_page())
            await phone.page.goto(str(panel.http.base_url))
            await phone.sets_up()
            await phone.asked("the servo of wrist_flex alone").wait_for()
            assert table.written == before
            assert table.holds(*KEPT)[:4] == [NEW] * 4
            for name in reversed(JOINT_NAMES[:4]):
                await plugs(phone, name)
            table.connect(*ALL)
            await phone.answers("Connect all servos in their order")
            await phone.sees("done", "setup-motors")
            await phone.reads("all set: 6 servos at 1000000 bit/s")
            await phone.page.locator(".next", has_text="Next: calibrate").wait_for()

        sit_down(tmp_path, do)
        table.emulator.power_cycle()
        assert table.holds(*KEPT) == SET


def test_an_arm_is_calibrated_looked_at_and_written_into_a_configuration_by_clicks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = (reg.HOMING_OFFSET, reg.MIN_POSITION_LIMIT, reg.MAX_POSITION_LIMIT)

    def written() -> dict[str, dict[str, int]]:
        """The calibration's file."""
        file = tmp_path / "calibration/follower.json"
        return dict(json.loads(file.read_text())) if file.exists() else {}

    with bench(tmp_path, monkeypatch) as table:
        for servo in table.emulator.servos.values():
            servo.write(reg.TORQUE_ENABLE.address, b"\x01")
        as_it_was = table.holds(*limits)
        table.written.clear()

        async def moves_to_both_ends(newcomer: Newcomer) -> None:
            await newcomer.answers("Press Enter to let it go")
            await newcomer.answers("about its middle")
            await newcomer.asked("The table below is live").wait_for()
            for place in (MIDDLE - REACH, MIDDLE + REACH):
                table.turn(place)
                await newcomer.reads(f" {place}")
            await newcomer.draws("calibrate")
            table.turn(MIDDLE)
            await newcomer.answers("The table below is live")
            await newcomer.asked("Close gripper").wait_for()

        async def do(panel: Panel, browser: Any, newcomer: Newcomer) -> None:
            del panel, browser
            page = newcomer.page
            await newcomer.begins("calibrate", port=PORT, model="so101")  # its name stands there
            await newcomer.asked("Hold the arm").wait_for()
            await page.click("#language")
            await newcomer.asked("请扶住机械臂").wait_for()
            await page.click("#language")
            await newcomer.asked("Hold the arm").wait_for()
            assert table.written == []
            assert table.holds(reg.TORQUE_ENABLE) == [[1]] * 6
            await moves_to_both_ends(newcomer)
            await page.click("#view-setup [data-word=stop_job]")
            await newcomer.sees("stopped", "calibrate")
            assert table.holds(*limits) == as_it_was
            assert not written()

            await newcomer.begins("calibrate", port=PORT, model="so101")
            await moves_to_both_ends(newcomer)
            table.turn(MIDDLE - REACH, 6)
            await newcomer.answers("Close gripper")
            await newcomer.sees("done", "calibrate")
            table.written.clear()

            await newcomer.goes_on()  # to the joints, with the port that was named
            await newcomer.begins("joints", calibration="calibration/follower.json")
            for place in (MIDDLE + 100, MIDDLE + 300):
                table.turn(place)
                await newcomer.reads(f" {place} ")
            await newcomer.answers("The table below is live")
            await newcomer.sees("done", "joints")
            assert table.written == []

            await newcomer.begins("init", **{"from": "data/ports"})
            await newcomer.asked("Which arm").wait_for()
            await page.click("#language")
            await newcomer.answers("哪种机械臂", "1")
            await newcomer.answers("有几条从臂", "1")
            await newcomer.asked("哪个是从臂").wait_for()
            await newcomer.page.locator("[data-answer=m]", has_text="移动来辨认").wait_for()
            await page.click("#language")
            await newcomer.answers("Which is the follower", "1")
            await newcomer.asked("Calibration file of the follower").wait_for()
            await page.press("#view-setup .question .answer", "Enter")
            await newcomer.answers("Which is the leader", "0")
            await newcomer.asked("What is done in the episodes").wait_for()
            await page.fill("#view-setup .question .answer", "put the cube in the tray")
            await page.press("#view-setup .question .answer", "Enter")
            await newcomer.sees("done", "init")
            await newcomer.goes_on()
            await newcomer.begins("doctor")
            await newcomer.reads("PASS  arm.calibration")
            assert table.written == []

        sit_down(tmp_path, do)
        said = [
            [each[key] for key in ("homing_offset", "range_min", "range_max")] for each in written().values()
        ]
        assert said == table.holds(*limits)
        assert table.holds(*limits)[2][1:] == [MIDDLE - REACH, MIDDLE + REACH]
        config = (tmp_path / "config.toml").read_text()
        assert PORT in config
        assert 'task = "put the cube in the tray"' in config


def test_torque_goes_off_only_where_it_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with bench(tmp_path, monkeypatch) as table:
        for servo in table.emulator.servos.values():
            servo.write(reg.MIN_POSITION_LIMIT.address, (MIDDLE - REACH).to_bytes(2, "little"))
            servo.write(reg.TORQUE_ENABLE.address, b"\x01")
        table.written.clear()

        async def do(panel: Panel, browser: Any, newcomer: Newcomer) -> None:
            del panel, browser
            await newcomer.begins("joints", port=PORT, model="so101")
            await newcomer.reads("torque is on: shoulder_pan")
            await newcomer.answers("The table below is live")
            await newcomer.sees("done", "joints")
            assert table.written == []
            await newcomer.begins("joints", port=PORT, model="so101", let_go="yes")
            await newcomer.asked("The table below is live").wait_for()
            assert table.holds(reg.TORQUE_ENABLE) == [[0]] * 6
            assert table.in_eeprom() == []

        sit_down(tmp_path, do)


_CLICKS_AT_ONCE = """() => {
  const place = document.querySelector("#view-setup .question");
  const look = new MutationObserver(() => {
    if (!place.textContent.includes("middle")) return;
    look.disconnect();
    place.querySelector("[data-answer=enter]").click();
    place.dataset.clicked = "yes";
  });
  look.observe(place, {childList: true});
}"""
"""As the second half of a double click may fall on what stands there by then."""


def test_two_fast_clicks_answer_one_question(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second of them must not say that the arm stands in its middle."""
    with bench(tmp_path, monkeypatch) as table:

        async def do(panel: Panel, browser: Any, newcomer: Newcomer) -> None:
            del browser
            await newcomer.begins("calibrate", port=PORT, model="so101")
            await newcomer.asked("Hold the arm").wait_for()
            (job,) = (await panel.http.get("/api/jobs")).json()["jobs"]
            asked = (await panel.http.get(f"/api/jobs/{job['id']}")).json()["asked"]
            await newcomer.page.evaluate(_CLICKS_AT_ONCE)
            await newcomer.page.dblclick("#view-setup .question [data-answer=enter]")
            await newcomer.page.locator("#view-setup .question[data-clicked]").wait_for()
            path = f"/api/jobs/{job['id']}/input"
            late = await panel.post(path, {"line": "", "question": asked["question"]})
            assert late.status_code == 409
            assert "it asks something else by now" in late.json()["error"]
            assert (await panel.post(path, {"line": ""})).status_code == 400
            now = (await panel.http.get(f"/api/jobs/{job['id']}")).json()["asked"]
            assert (now["question"], "middle" in now["enter"]) == (asked["question"] + 1, True)
            assert table.in_eeprom() == []

        sit_down(tmp_path, do)
