"""A run and its panel: what is shared, what is obeyed, and how soon, on a stepped clock."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dexrun.data.recorded import recorded_settings
from dexrun.data.verify import verify
from dexrun.exit_codes import NOT_DONE, OK, STOPPED
from dexrun.panel.link import AttachedRun, NoRunError, live_runs
from runtime.following import pilot_of
from runtime.pilot import Pilot
from runtime.recording.reader import Recording
from tests.dexrun.rig import Stage, newest, perform, records
from tests.rollout.test_rollout_run import TASK, Wander, roll_out, wander

__all__ = ["wander"]

SHARED = {"panel__share": "always"}


@contextlib.contextmanager
def attached(runs: Path) -> Iterator[AttachedRun]:
    with contextlib.closing(AttachedRun.attach(live_runs(runs)[0])) as run:
        yield run


class Person:
    """Asks, and waits for the answer."""

    def __init__(self, stage: Stage, run: AttachedRun) -> None:
        self.stage, self.run = stage, run
        self._place, _ = run.answers_since(-1)

    async def says(self, name: str, **args: Any) -> str:
        number = self.run.send(name, args, "laptop")
        while True:
            await self.stage.up.control.ticked()
            self._place, answers = self.run.answers_since(self._place)
            for answer in answers:
                if answer["id"] == number:
                    assert answer["ok"] == (not answer["error"])
                    return str(answer["error"])

    async def sees(self, condition: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        while True:
            status = self.run.status()
            if status is not None and condition(status):
                return status
            await self.stage.up.control.ticked()


def ticks_to_rest(stage: Stage, asked_tick: int) -> int:
    """Ticks from the one after which a stop was written to the last that moved a target."""
    after = [sample for sample in records(stage.up) if int(sample["tick"]) >= asked_tick]
    moved = [
        int(now["tick"])
        for before, now in itertools.pairwise(after)
        if np.abs(now["clipped"] - before["clipped"]).max() > 1e-9
    ]
    return max(moved, default=asked_tick) - asked_tick


def fastest(stage: Stage, tick: int) -> float:
    """Of any joint, rad/s, in the tick before."""
    ring = stage.up.records
    newest = ring.newest()
    if newest is None:
        return 0.0
    at = newest.index - (int(newest["tick"]) - tick)  # on the stepped clock none is skipped
    two = [sample for index in (at - 1, at) if index >= 0 and (sample := ring.read(index)) is not None]
    assert all(int(sample["tick"]) in (tick - 1, tick) for sample in two)
    if len(two) < 2:
        return 0.0
    return float(np.abs(two[1]["clipped"] - two[0]["clipped"])[:5].max() * 30)


STATES: dict[str, tuple[str, Pilot]] = {
    "led": ("teleop", Pilot.PERSON),
    "engaging": ("teleop", Pilot.MOTION),
    "homing": ("grasp", Pilot.MOTION),
}


@pytest.mark.parametrize(
    "state", [pytest.param(state, marks=[pytest.mark.slow] * (state == "engaging")) for state in STATES]
)
def test_a_stop_latches_in_the_next_tick_and_the_arm_rests_within_its_braking(
    tmp_path: Path, state: str
) -> None:
    mode, pilot = STATES[state]
    asked: list[int] = []
    speeds: list[float] = []
    last: dict[str, Any] = {}

    async def script(stage: Stage) -> None:
        control = stage.up.control
        await stage.until(lambda: pilot_of(control.source) is pilot)
        await stage.until(lambda: fastest(stage, control._tick) > 0.4)
        with attached(tmp_path) as run:
            asked.append(control._tick)
            speeds.append(fastest(stage, asked[0]))
            run.send("stop", client="phone")
            await control.ticked()
            await control.ticked()
            assert control.state == "stopped"
            await stage.rest(1.0)
            run.send("quit")  # else it waits for a reset
            with contextlib.suppress(NoRunError):
                while True:
                    last.update(run.status() or {})
                    await control.ticked()

    stage = perform(tmp_path, script, mode=mode, **SHARED)
    assert (stage.code, stage.summary["outcome"]) == (STOPPED, "stopped")
    assert stage.summary["stop_reason"].startswith("stopped by phone")
    first = next(each for each in stage.up.control.transitions if each.state == "stopped")
    assert first.tick <= asked[0] + 2  # read after the tick in which it was written
    brake = 0.9 * 20 / 30
    assert ticks_to_rest(stage, asked[0]) <= 2 + np.ceil(speeds[0] / brake) + 1
    assert list(newest(tmp_path).glob("panel.json")) == []


def test_a_rollout_is_driven_by_its_panel_and_verifies_target_by_target(
    tmp_path: Path, wander: Wander
) -> None:
    seen: dict[str, Any] = {}

    async def script(stage: Stage) -> None:
        runs = tmp_path / "runs"
        await stage.until(lambda: stage.mode is not None and bool(live_runs(runs)))
        with attached(runs) as run:
            person = Person(stage, run)
            assert run.link["cameras"]["wrist"]["width"] == 160
            status = await person.sees(lambda now: now["driving"] == "policy")
            assert status["prompt"] == status["instruction"] == TASK
            assert {"stop", "end", "tell", "pause", "hold"} <= set(status["can"])
            assert "take" not in status["can"]
            assert run.newest_picture("wrist") is None  # nobody had looked
            assert await person.says("speed", value=0.1) == ""
            status = await person.sees(lambda now: now["speed"] == 0.1)
            for _ in range(20):
                await stage.up.control.ticked()
            seen["slow"] = stage.up.control._tick
            picture = run.newest_picture("wrist")
            assert picture is not None
            assert picture["color"].any()
            assert picture.stamp_ns <= stage.up.clock.now_ns()
            seen["path"] = (await person.sees(lambda now: len(now["path"]) > 2))["path"]
            assert "temperature_c" in status["servos"]["gripper"]
            assert (await person.says("speed", value=2)).startswith("a speed of 2; from 0.05 to 1")
            assert await person.says("home") == (
                "the arm is driven; pause it first, or wait until the episode is over"
            )
            assert await person.says("tell", text="put the cube where it was") == ""
            await person.sees(lambda now: now["instruction"] == "put the cube where it was")
            assert await person.says("hold") == ""
            await person.sees(lambda now: now["state"] == "holding")
            assert await person.says("resume") == ""
            assert await person.says("speed", value=1.0) == ""
            assert await person.says("pause") == ""
            status = await person.sees(lambda now: now["driving"] == "paused")
            assert await person.says("home") == ""
            await person.sees(lambda now: now["driving"] == "motion")
            await person.sees(lambda now: now["driving"] == "paused" and now["state"] == "idle")
            seen["home"] = stage.up.control.target
            assert await person.says("take") == (
                "nothing to take over with: rollout.take_over = true opens the leader arm"
            )
            assert await person.says("start", speed=1) == "start: no 'speed'; accepted: task"
            assert await person.says("dance") == "'dance' is no command"
            assert await person.says("reset") == "no stop is latched"
            assert await person.says("end", label="success") == ""
            await person.sees(lambda now: now["episodes"]["recorded"] == 1)
            assert await person.says("quit") == ""

    stage = roll_out(tmp_path, script, recording__episodes="2", recording__episode_s="60", **SHARED)
    assert stage.code == OK  # the second episode began by itself, and was kept when the run was to end
    assert fastest(stage, seen["slow"]) <= 0.1 * 2.5 + 1e-6
    assert np.abs(seen["home"] - stage.up.description.home)[:5].max() < 0.01
    with Recording(newest(tmp_path / "runs")) as recording:
        for episode in recording.episodes[:1]:
            comparison = verify(episode, recorded_settings(episode))
            assert comparison.same, comparison.difference
            assert comparison.ticks > 60


@pytest.mark.parametrize("gone", [pytest.param("go_on", marks=pytest.mark.slow), "hold", "stop"])
def test_a_page_that_goes_away_does_what_is_configured(tmp_path: Path, gone: str) -> None:
    """Only one that has sent a command counts."""
    states: list[str] = []

    async def script(stage: Stage) -> None:
        await stage.until(lambda: "following" in stage.step)
        control = stage.up.control
        with attached(tmp_path) as run:
            for beat in range(1, 4):
                run.beat(1, beat)
                await control.ticked()
            await stage.rest(1.0)
            states.append(control.state)  # nobody was in control
            run.send("speed", {"value": 0.5})
            for beat in range(4, 20):
                run.beat(1, beat)
                await stage.rest(0.1)
            states.append(control.state)
            run.beat(0, 0)
            await stage.rest(0.7)
            states.append(control.state)
            if gone == "hold":
                run.send("resume")
                await stage.rest(0.1)
                states.append(control.state)
            run.send("quit")
            await stage.rest(5)

    keys = {"panel__gone": gone, "panel__heartbeat_s": "0.5", "recording__teleop": "false"}
    stage = perform(tmp_path, script, mode="teleop", teleop__scripted="false", **keys, **SHARED)
    after = {"go_on": ["running"], "hold": ["holding", "running"], "stop": []}[gone]  # it ends the run
    assert states == ["running", "running", *after]
    if gone == "stop":
        assert stage.summary["stop_reason"].startswith("the panel was not heard of for 0.5 s")
    else:
        assert (stage.code, stage.summary["stop_reason"]) == (NOT_DONE, "asked to quit by the panel")


def test_a_prompt_typed_anew_breaks_off_the_attempt_and_is_planned_from_where_the_arm_is(
    tmp_path: Path,
) -> None:
    seen: dict[str, Any] = {}

    async def script(stage: Stage) -> None:
        control = stage.up.control
        await stage.until(lambda: pilot_of(control.source) is Pilot.POLICY and len(control.horizon) > 0)
        with attached(tmp_path) as run:
            person = Person(stage, run)
            seen.update(await person.sees(lambda now: bool(now["box"])))
            picture = run.newest_picture("head")
            assert picture is None or picture["masked"]
            assert await person.says("tell", text=" ") == "no prompt: nothing is said"
            assert await person.says("tell", text="put the banana in the tray") == ""
            assert (control.source, control.resting) == (None, True) or not control.resting
            after = await person.sees(lambda now: now["plan"][-1].startswith("home"))
            assert after["prompt"] == "put the banana in the tray"
            with contextlib.suppress(NoRunError):
                while True:
                    seen["questions"] = (run.status() or seen)["questions"]
                    await control.ticked()

    stage = perform(tmp_path, script, mode="grasp", planner__prompt="put the red cube in the tray", **SHARED)
    assert (stage.code, stage.summary["outcome"]) == (NOT_DONE, "incomplete")
    assert "banana" in stage.summary["stop_reason"] or "fits the prompt" in stage.summary["stop_reason"]
    assert [each["completed"] for each in stage.summary["attempts"]] == [False]
    x0, y0, x1, y1 = seen["box"]["head"]
    assert 0 <= x0 < x1 <= 320
    assert 0 <= y0 < y1 <= 240
    for said in seen["questions"]:
        assert all((stage.folder / "planner" / name).is_file() for name in said["files"])
    assert len(seen["questions"]) >= 4
