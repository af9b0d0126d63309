"""A person's stop is reset, and the run goes on: what the arm was told meanwhile, in each mode."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dexrun.data.recorded import recorded_settings
from dexrun.data.verify import verify
from dexrun.episodes.actions import RunActions
from dexrun.episodes.episodes import EpisodeError
from dexrun.episodes.keys import press
from dexrun.exit_codes import NOT_DONE, STOPPED
from dexrun.modes import grasp_moves, homing
from dexrun.modes.homing import way_home
from dexrun.modes.one_episode import OneEpisode
from dexrun.panel import commands
from dexrun.robot import Robot
from policies import handling
from runtime.clock import NS_PER_S
from runtime.following import pilot_of
from runtime.messages import Floats
from runtime.pilot import Pilot
from runtime.recording.reader import Recording
from runtime.tick import TickFlag
from tests.dexrun.rig import Stage, newest
from tests.dexrun.rig import perform as perform_whole
from tests.dexrun.small_run import Moment, Small, perform
from tests.dexrun.test_person_first import driven

RATE = 30
ENGAGE = 0.8
MOVING = ("hold", "home", "pause", "take", "give", "start", "end", "tell")


async def latched(small: Small) -> None:
    """Until a stop can be reset: the arm stands, and what it did is broken off."""
    await small.until(lambda: not small.up.stopping.unresettable(), 5)


async def stopped(small: Small) -> None:
    """A page stops the arm."""
    small.asks("stop")
    await latched(small)


async def goes_on(small: Small, number: int) -> None:
    """A page resets that stop, and has the run go on."""
    for name in ("reset", "resume"):
        assert await small.says(name, number) == "", name


def spread(moments: list[Moment]) -> float:
    return float(np.ptp([each.target for each in moments], axis=0).max())


def engaging(moments: list[Moment]) -> list[float]:
    """Speeds, rad/s, of the fastest joint but the gripper, as long as the loop says that it engages."""
    pairs = itertools.pairwise(moments)
    blending = [(a, b) for a, b in pairs if int(b.record["flags"]) & TickFlag.BLENDING]
    return [float(np.abs(b.target - a.target)[:5].max() * RATE) for a, b in blending]


def test_a_rollout_is_stopped_looked_at_reset_and_goes_on(tmp_path: Path) -> None:
    seen: dict[str, Any] = {}

    async def script(small: Small) -> None:
        await driven(small)
        assert await small.says("reset", 0) == "no stop is latched"
        assert await small.says("stop") == ""
        assert (await small.says("reset", 1)).startswith("the arm is being braked")
        await latched(small)
        stands = len(small.moments)
        for name in MOVING:
            assert "reset the stop first" in await small.says(name, 1), name
        assert await small.says("resume", 1) == "no stop was reset"
        assert await small.says("label", 1, label="success") == ""
        assert (await small.says("reset")).startswith("say which stop is meant")
        assert (
            await small.says("reset", 0) == "reset was asked for before the arm was stopped, and is not done"
        )
        await small.pass_ticks(2 * RATE)
        assert await small.says("reset", 1) == ""
        for name in MOVING:
            assert await small.says(name, 1) == "the stop was reset: resume first", name
        assert await small.says("reset", 1) == "no stop is latched"
        await small.pass_ticks(2 * RATE)
        assert small.up.control.state == "holding"
        assert (await small.says("resume")).startswith("say which stop is meant")
        seen["stood"] = small.moments[stands:]
        assert await small.says("resume", 1) == ""
        went_on = len(small.moments)
        await small.until(lambda: pilot_of(small.up.control.source) is Pilot.POLICY)
        await small.pass_ticks(RATE)
        seen["went on"] = small.moments[went_on:]
        assert await small.says("quit", 1) == ""
        await small.pass_ticks(100)

    small = perform(tmp_path, script)
    assert (small.code, small.summary["outcome"]) == (NOT_DONE, "incomplete")
    assert spread(seen["stood"]) == 0.0
    assert {moment.pilot for moment in seen["stood"]} == {Pilot.NOBODY}
    engaged = engaging(seen["went on"])
    assert engaged
    assert max(engaged) <= ENGAGE + 1e-9
    (stop,) = small.summary["stops"]
    assert [stop[name] for name in ("by", "reset_by", "resumed_by")] == ["laptop"] * 3
    assert stop["t_s"] < stop["reset_s"] < stop["resumed_s"]
    first, second = small.summary["rollout"]["episodes"]
    assert (first["outcome"], first["why"]) == ("success", "stopped by laptop")  # he has said so since
    assert second["why"] == "asked to quit"


def test_an_episode_that_was_stopped_is_a_failure_and_may_be_discarded(tmp_path: Path) -> None:
    async def script(small: Small) -> None:
        await driven(small)
        await stopped(small)
        assert small.run is not None
        while not ((status := small.run.status()) and "reset" in status["can"]):
            await small.pass_ticks(1)
        assert status["latched"]
        assert {"stop", "quit", "reset", "discard", "label"} <= set(status["can"])
        assert not {"start", "take", "resume", "home", "tell"} & set(status["can"])
        assert status["stop"]["number"] == 1
        assert (status["stop"]["phase"], status["stop"]["unresettable"]) == ("latched", "")
        assert status["episodes"]["last_label"] == "failure"
        assert await small.says("discard", 1) == ""
        await goes_on(small, 1)
        await driven(small)
        await stopped(small)
        assert await small.says("quit", 2) == ""
        await small.pass_ticks(100)

    small = perform(tmp_path, script)
    assert (small.code, small.summary["stop_reason"]) == (STOPPED, "stopped by laptop")
    (kept,) = small.summary["rollout"]["episodes"]
    assert (kept["episode"], kept["outcome"], kept["why"]) == (0, "failure", "stopped by laptop")
    assert [sorted(stop) for stop in small.summary["stops"]] == [
        ["by", "reset_by", "reset_s", "resumed_by", "resumed_s", "t_s"],
        ["by", "t_s"],
    ]


def test_what_was_asked_for_before_the_stop_has_no_effect_after_its_reset(tmp_path: Path) -> None:
    """Of two who have a page, one stops and resets; what the other had pressed before comes late."""
    pilots: list[Pilot] = []

    async def script(small: Small) -> None:
        await driven(small)
        await stopped(small)
        # A reset and a newer stop in one look: the stop is not undone.
        small.asks("reset", 1)
        assert await small.says("stop") == ""
        await small.pass_ticks(5)
        assert str(small.up.stopping.phase) == "latched"
        assert (
            await small.says("reset", 1) == "reset was asked for before the arm was stopped, and is not done"
        )
        await latched(small)
        assert await small.says("reset", 2) == ""
        for seen in (0, 1):
            assert "was asked for before the arm was stopped" in await small.says("resume", seen)
        await small.pass_ticks(RATE)
        pilots.extend(moment.pilot for moment in small.moments[-RATE:])
        assert await small.says("quit", 0) == ""  # that is right in any case
        await small.pass_ticks(100)

    small = perform(tmp_path, script)
    assert set(pilots) == {Pilot.NOBODY}
    assert (small.code, small.summary["stop_reason"]) == (
        NOT_DONE,
        "asked to quit after the stop was reset",
    )


def test_a_way_home_that_was_planned_before_the_stop_is_not_made_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def slowly(robot: Robot) -> Floats:
        rows = await way_home(robot)
        await robot.clock.sleep_until_ns(robot.clock.now_ns() + 2 * NS_PER_S)
        return rows

    monkeypatch.setattr(commands, "way_home", slowly)
    stood: list[Moment] = []

    async def script(small: Small) -> None:
        await driven(small)
        assert await small.says("pause") == ""
        await small.pass_ticks(15)
        asked = small.asks("home")
        await small.pass_ticks(2)
        await stopped(small)
        assert await small.says("reset", 1) == ""
        await small.pass_ticks(1)
        assert await small.says("resume", 1) == ""
        assert await small.says("pause", 1) == ""
        await small.pass_ticks(10)
        first = len(small.moments)
        await small.until(lambda: asked in small.answers)
        assert small.answers[asked] == "the arm was stopped meanwhile"
        await small.pass_ticks(RATE)
        stood.extend(small.moments[first:])
        small.asks("quit")
        await small.pass_ticks(100)

    perform(tmp_path, script)
    assert spread(stood) == 0.0
    assert homing.way_home is way_home


def test_teleoperation_goes_on_slowly_from_where_the_arm_is_to_where_the_leader_has_gone(
    tmp_path: Path,
) -> None:
    seen: dict[str, Any] = {}

    async def script(small: Small) -> None:
        await small.until(lambda: pilot_of(small.up.control.source) is Pilot.PERSON)
        assert await small.says("start") == ""
        small.leader.hand = np.array([0.9, 0.0, 0.0, 0.0, 0.0, 0.0])
        await small.pass_ticks(RATE)
        small.leader.hand = np.array([0.5, 0.0, 0.0, 0.0, 0.0, 0.0])  # while the person looks at the table
        await stopped(small)
        stands = len(small.moments)
        assert await small.says("reset", 1) == ""
        await small.pass_ticks(RATE)
        small.leader.hand = np.zeros(6)
        seen["stood"] = small.moments[stands:]
        assert await small.says("resume", 1) == ""
        went_on = len(small.moments)
        await small.until(lambda: pilot_of(small.up.control.source) is Pilot.PERSON)
        await small.pass_ticks(RATE)
        seen["went on"] = small.moments[went_on:]
        seen["ahead"] = float(small.leader.position[0] - seen["stood"][-1].target[0])
        assert small.up.control.target is not None
        seen["off"] = float(np.abs(small.up.control.target - small.leader.position).max())
        assert await small.says("start", 1) == ""
        await small.pass_ticks(RATE)
        assert await small.says("end", 1, label="success") == ""
        assert await small.says("quit", 1) == ""
        await small.pass_ticks(100)

    small = perform(tmp_path, script, mode="teleop", recording__teleop="true")
    assert spread(seen["stood"]) == 0.0
    assert seen["ahead"] > 0.4
    steps = np.diff([moment.target for moment in seen["went on"]], axis=0)
    assert np.abs(steps[:, :5]).max() * RATE <= ENGAGE + 1e-6
    assert seen["off"] < 1e-6
    with Recording(newest(tmp_path / "runs")) as recording:
        first, second = recording.episodes
        assert (first.label, second.label) == ("failure", "success")
        flags = first.array("/ticks", "flags")
        assert flags[-1] & TickFlag.STOPPED  # it has the arm until it stands
        targets = first.array("/ticks", "clipped")
        np.testing.assert_array_equal(targets[-1], targets[-2])
        for episode in (first, second):
            comparison = verify(episode, recorded_settings(episode))
            assert comparison.same, comparison.difference
    assert small.summary["recording"]["episodes"][0]["stop_reason"] == "stopped by laptop"


def test_without_recordings_teleoperation_is_stopped_and_goes_on_for_what_is_left_of_its_time(
    tmp_path: Path,
) -> None:
    async def script(small: Small) -> None:
        await small.until(lambda: pilot_of(small.up.control.source) is Pilot.PERSON)
        await small.pass_ticks(RATE)
        await stopped(small)
        await small.pass_ticks(10 * RATE)
        await goes_on(small, 1)
        await small.pass_ticks(20 * RATE)

    small = perform(tmp_path, script, mode="teleop", teleop__duration_s="3")
    assert (small.code, small.summary["outcome"]) == (0, "completed")
    led = [moment for moment in small.moments if moment.pilot is Pilot.PERSON and moment.state == "running"]
    assert len(led) == pytest.approx(3 * RATE, abs=3)


def test_a_fault_that_comes_while_a_stop_is_latched_ends_the_run_and_says_so(tmp_path: Path) -> None:
    refused: list[str] = []

    async def script(small: Small) -> None:
        await driven(small)
        await stopped(small)
        small.arm.unplugged = True
        await small.pass_ticks(5)
        refused.append(await small.says("reset", 1))
        await small.pass_ticks(100)

    small = perform(tmp_path, script, control__stop_after_hold_s="2")
    assert refused == ["it is not known where the arm is: the stop cannot be reset"]
    assert (small.code, small.summary["outcome"]) == (STOPPED, "stopped")
    reason = small.summary["stop_reason"]
    assert reason.startswith("stopped by laptop; arm at a desk: gone")
    assert reason.endswith("(held for 2 s)")


def test_a_stop_by_the_safety_stage_or_a_fault_is_none_that_can_be_reset(tmp_path: Path) -> None:
    async def script(small: Small) -> None:
        await driven(small)
        stopping, control = small.up.stopping, small.up.control
        control.stop("force above 20 N for 3 s")
        stopping.stop("laptop")
        why = stopping.unresettable()
        assert why.startswith("force above 20 N for 3 s: that is no stop to be reset, and ends the run")
        with pytest.raises(EpisodeError, match="no stop to be reset"):
            stopping.reset("laptop", 1)
        await small.pass_ticks(100)

    small = perform(tmp_path, script)
    assert (small.code, small.summary["stop_reason"]) == (STOPPED, "force above 20 N for 3 s")


def test_the_terminals_keys_and_http_stop_reset_and_go_on(tmp_path: Path) -> None:
    async def script(small: Small) -> None:
        await driven(small)
        stopping, mode = small.up.stopping, small.mode
        episodes, requests = mode.controls()  # type: ignore[union-attr]
        api = RunActions(episodes, requests, "api", stopping)

        def key(command: str) -> None:
            press(episodes, command, mode.commands(), stopping)  # type: ignore[union-attr]

        key("reset")  # there is nothing to be reset
        key("estop")
        await latched(small)
        for command in ("toggle", "pause", "take", "go_on"):
            key(command)
        assert str(stopping.phase) == "latched"
        assert not episodes.recording
        key("reset")
        assert str(stopping.phase) == "reset"
        for command in ("toggle", "pause", "take", "reset"):
            key(command)
        assert str(stopping.phase) == "reset"
        assert small.up.control.source is None
        key("go_on")
        await driven(small)
        assert {"/estop", "/reset", "/resume"} <= set(api.known)
        api.act("/estop", {})
        await latched(small)
        for path, said, why in (
            ("/start", {}, "reset the stop first"),
            ("/resume", {"stop": "2"}, "reset the stop first"),
            ("/reset", {}, "say which stop is meant: the newest is number 2"),
            ("/reset", {"stop": "1"}, "stop number 1 is not the newest, which is 2"),
            ("/reset", {"stop": "two"}, "the number of the newest stop is wanted"),
        ):
            with pytest.raises(EpisodeError, match=why):
                api.act(path, said)
        api.act("/reset", {"stop": "2"})
        assert api.state()["stop"]["phase"] == "reset"
        api.act("/resume", {"stop": "2"})
        await driven(small)
        api.act("/pause", {})
        api.act("/resume", {})  # which is the mode's own
        key("estop")
        await latched(small)
        key("quit")
        await small.pass_ticks(100)

    small = perform(tmp_path, script)
    assert (small.code, small.summary["stop_reason"]) == (STOPPED, "stopped by the terminal")
    assert [stop["by"] for stop in small.summary["stops"]] == ["the terminal", "api", "the terminal"]


def test_a_person_who_drives_drives_no_longer_once_the_stop_is_reset(tmp_path: Path) -> None:
    async def script(small: Small) -> None:
        await driven(small)
        assert await small.says("take") == ""
        await small.until(lambda: small.leader.held)
        await stopped(small)
        await small.pass_ticks(3)
        assert not small.leader.held  # its motors let go
        await goes_on(small, 1)
        await driven(small)
        small.asks("quit")
        await small.pass_ticks(100)

    perform(tmp_path, script, rollout__take_over="true")


@pytest.mark.parametrize("faults", [True, False])
def test_what_lasted_too_long_is_no_persons_stop_also_on_the_way_to_where_it_parks(
    tmp_path: Path, faults: bool
) -> None:
    async def script(small: Small) -> None:
        await driven(small)
        if faults:
            small.up.drivers["wrist"].unplugged = True  # type: ignore[attr-defined]
            await small.until(lambda: small.up.control.state == "parking", 10)
        small.asks("stop")
        await small.pass_ticks(30)
        if not faults:
            assert not small.up.control.final
            small.asks("quit")
            await small.pass_ticks(100)

    keys = {"control__stop_after_hold_s": "1", "control__park_rad": "[0.3, -1.0, 1.0, 0.5, 0.0]"}
    small = perform(tmp_path, script, **keys)
    reason = small.summary["stop_reason"]
    assert small.code == STOPPED
    assert reason.endswith("not parked: stopped by laptop" if faults else "stopped by laptop")


def test_a_grasp_that_was_stopped_has_failed_and_the_run_clears_the_table_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, Any] = {}
    planned_on: list[Any] = []

    def plan_home(arm: Any, *given: Any) -> Floats:
        planned_on.append(arm)
        return handling.plan_home(arm, *given)

    monkeypatch.setattr(grasp_moves, "plan_home", plan_home)

    async def script(stage: Stage) -> None:
        control, stopping = stage.up.control, stage.up.stopping
        await stage.until(lambda: pilot_of(control.source) is Pilot.POLICY and len(control.horizon) > 0)
        await stage.rest(0.5)
        stopping.stop("laptop")
        await stage.until(lambda: not stopping.unresettable())
        stood = control.target
        assert stood is not None
        await stage.rest(1.0)
        stopping.reset("laptop", 1)
        await stage.rest(1.0)
        assert control.target is not None
        seen["moved"] = float(np.abs(control.target - stood).max())
        assert stage.mode is not None
        seen["attempts"] = stage.mode.attempts()
        stopping.go_on("laptop", 1)

    stage = perform_whole(tmp_path, script, mode="grasp")
    assert stage.code == 0, stage.summary["stop_reason"]
    # A plan that was broken off is still being made while the next one is: each has a model of its own.
    assert isinstance(stage.mode, OneEpisode)
    assert len({id(arm) for arm in planned_on}) == len(planned_on) >= 3
    assert seen["moved"] == 0.0
    assert [each["grasped"] for each in seen["attempts"]] == [False]
    first, *more = stage.summary["attempts"]
    assert (first["grasped"], first["completed"]) == (False, False)
    assert more[-1]["completed"]
    with Recording(stage.folder) as recording:
        assert [episode.label for episode in recording.episodes] == ["failure", "success"]
