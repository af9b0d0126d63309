"""The set-up commands as a page's wizard: children on terminals of their own, against emulated servos."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest

from drivers.feetech.emulator import FeetechEmulator
from drivers.feetech.servo import SimpleServoBank
from runtime.stepped import SteppedClock
from tests.panel.server_rig import Panel, serve
from tests.panel.test_jobs import ended, enter, started, told

REACH = 900


def test_an_arm_is_found_and_calibrated_from_a_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data/ports").mkdir(parents=True)
    bank = SimpleServoBank(SteppedClock(), dict.fromkeys(range(1, 7), 2047))

    def moved_to(place: int) -> None:
        for number in range(1, 7):
            bank.override(number, position=place)

    async def found(panel: Panel) -> None:
        job = await started(panel, "find-ports", **{"from": "data/ports"})
        await told(panel, job["id"], "Enter ends this")
        assert (await panel.post("/api/jobs", {"kind": "joints", "args": {}})).status_code == 409
        await told(panel, job["id"], "as it was")
        moved_to(2200)
        await told(panel, job["id"], "MOVED")
        await enter(panel, job["id"])
        assert (await ended(panel, job["id"]))["code"] == 0

    async def calibrated(panel: Panel) -> None:
        moved_to(2047)
        job = await started(panel, "calibrate", port="data/ports/arm", name="follower", model="so101")
        await told(panel, job["id"], "Press Enter to let it go")
        await enter(panel, job["id"])
        await told(panel, job["id"], "about its middle")
        await enter(panel, job["id"])
        await told(panel, job["id"], "minimum")  # the middle was taken
        for place in (2047 - REACH, 2047 + REACH):
            moved_to(place)
            await told(panel, job["id"], f" {place}", lines=5)
        moved_to(2047)
        await enter(panel, job["id"])
        await told(panel, job["id"], "Close gripper")
        bank.override(6, position=2047 - REACH)
        await enter(panel, job["id"])
        done = await ended(panel, job["id"])
        assert done["code"] == 0, done["output"]
        # a table that is drawn over itself stands there once, or twice if Enter came in between
        assert sum(line.split()[:2] == ["joint", "minimum"] for line in done["output"]) <= 2, done["output"]

    async def script(panel: Panel) -> None:
        await found(panel)
        await calibrated(panel)

    with contextlib.closing(FeetechEmulator(bank, tmp_path / "data/ports/arm")):
        serve(tmp_path, script)
    (file,) = tmp_path.rglob("follower.json")
    assert json.loads(file.read_text())["elbow_flex"]["range_min"] == 2047 - REACH
