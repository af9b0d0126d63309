"""What the running robot does when a device fails: it holds inside its limits, and says so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dexrun.exit_codes import OK, STOPPED
from dexrun.modes.motion_source import MotionSource
from dexrun.robot import Robot
from tests.dexrun.rig import GRASPED_S, PATIENT, Stage, assert_tame, drive, inject, perform, rest, targets


def wave(robot: Robot, seconds: float = 6.0) -> MotionSource:
    """A slow swing of the first joint, starting where the arm is asked to be."""
    assert robot.control.target is not None
    steps = np.arange(round(seconds * 30))
    rows = np.tile(robot.control.target, (len(steps), 1))
    rows[:, 0] += 0.3 * (1 - np.cos(2 * np.pi * steps / 90))
    return MotionSource(rows)


CUBE = '[{shape = "cube", color = "red", x_m = 0.2, y_m = -0.05, yaw_rad = 0.3}]'
SLOW_PLANNER = {"planner__scene_reader__fault": "slow", "planner__scene_reader__slow_s": "2"}


def test_lost_corrupt_and_late_packets_are_survived(tmp_path: Path) -> None:
    states: list[str] = []

    async def script(robot: Robot) -> None:
        robot.control.follow(wave(robot))
        for kind in ("lose", "corrupt", "delay"):
            inject(robot, "follower", kind, count=4)
            await rest(robot, 0.5)
            states.append(f"{robot.control.state} {robot.control.reason}".rstrip())

    robot = drive(tmp_path, script)
    assert states == ["running"] * 3
    kinds = {kind.split(".")[-1] for kind in robot.survived()["arm"]}
    assert {"no_reply", "bad_packet", "late"} <= kinds
    assert robot.faults.log.summary() == {}
    assert_tame(robot)


def test_one_silent_servo_holds_the_arm_until_it_is_back(tmp_path: Path) -> None:
    states: list[tuple[str, str]] = []

    async def script(robot: Robot) -> None:
        robot.control.follow(wave(robot))
        await rest(robot, 1.0)
        inject(robot, "follower", "silent", servo=3)
        await rest(robot, 1.5)
        states.append((robot.control.state, robot.control.reason))
        inject(robot, "follower", "clear")
        await rest(robot, 3.0)
        states.append((robot.control.state, robot.control.reason))

    robot = drive(tmp_path, script)
    assert states[0][0] == "holding"
    assert states[1] == ("running", "")
    assert robot.faults.log.counts["arm"]["no_reply"] >= 1
    assert_tame(robot)


@pytest.mark.parametrize(
    ("fault", "kind", "said"),
    [
        ({"kind": "overload", "servo": 2}, "torque_lost", "torque is off"),
        ({"kind": "brownout"}, "restarted", "lost power for a moment"),
    ],
)
def test_lost_torque_holds_the_arm_and_comes_back_where_it_is(
    tmp_path: Path, fault: dict[str, Any], kind: str, said: str
) -> None:
    states: list[str] = []
    where: list[float] = []

    async def script(robot: Robot) -> None:
        robot.control.follow(wave(robot))
        await rest(robot, 1.0)
        inject(robot, "follower", **fault)
        await robot.control.changed()
        states.append(robot.control.state)
        assert said in robot.control.reason
        await rest(robot, 2.0)
        states.append(robot.control.state)
        state, sent = robot.arm.states.newest(), robot.arm.sent.newest()
        assert state is not None
        assert sent is not None
        where.append(float(np.abs(sent["position"] - state["position"])[:5].max()))

    robot = drive(tmp_path, script)
    assert states == ["holding", "running"]
    assert robot.faults.log.counts["arm"] == {kind: 1}
    (gap,) = [gap for gap in robot.faults.log.gaps if gap.device == "arm"]
    assert gap.to_ns is not None
    assert where[0] < 0.1  # every joint obeys again
    # Over the gap, in which nothing is sent, the arm may have fallen; no step leads across it.
    steps = np.abs(np.diff(targets(robot)[:, :5], axis=0))
    limit = robot.settings.safety.max_velocity_rad_s / robot.settings.control.rate_hz
    assert np.nanmax(steps) <= limit + 1e-9


def test_bus_unplugged_and_back(tmp_path: Path) -> None:
    states: list[str] = []

    async def script(robot: Robot) -> None:
        robot.control.follow(wave(robot))
        await rest(robot, 1.0)
        inject(robot, "follower", "unplug")
        await rest(robot, 1.5)
        states.append(robot.control.state)
        inject(robot, "follower", "plug")
        await rest(robot, 4.0)
        states.append(robot.control.state)

    robot = drive(tmp_path, script, arm__baudrate="500000")  # and the simulated servos are set to it
    assert states == ["holding", "running"]
    gaps = [gap for gap in robot.faults.log.gaps if gap.device == "arm"]
    assert gaps
    assert all(gap.to_ns is not None for gap in gaps)
    assert_tame(robot)


def test_bus_that_stays_away_latches_a_stop(tmp_path: Path) -> None:
    async def script(stage: Stage) -> None:
        await stage.until(lambda: stage.step.startswith("grasp") and len(stage.up.control.horizon) > 0)
        stage.inject("follower", "unplug")

    stage = perform(tmp_path, script, control__stop_after_hold_s="2")
    assert stage.code == STOPPED
    assert stage.summary["outcome"] == "stopped"
    assert stage.summary["stop_reason"].startswith("arm at /")
    assert "/follower: not_found: no such port" in stage.summary["stop_reason"]
    assert stage.summary["stop_reason"].endswith("(held for 2 s)")
    assert stage.summary["device_faults"]["arm"]["gone"] == 1
    (gap,) = [gap for gap in stage.summary["gaps"] if gap["device"] == "arm"]
    assert gap["to_ns"] is None
    assert stage.summary["attempts"][0]["completed"] is False
    assert_tame(stage.up)


def test_a_camera_that_stays_away_parks_the_arm(tmp_path: Path) -> None:
    """Over the table when it happens; in the end it is where it was told to go, the gripper as it was."""
    pose, before = [1.57, -3.05, 2.7, 1.2, 0.0], []

    async def script(stage: Stage) -> None:
        await stage.until(lambda: stage.step.startswith("grasp") and len(stage.up.control.horizon) > 0)
        await stage.rest(1.0)
        stage.inject("head", "gone")
        await stage.until(lambda: stage.up.control.state == "parking")
        assert stage.up.control.target is not None
        before.append(stage.up.control.target.copy())

    stage = perform(tmp_path, script, control__stop_after_hold_s="2", control__park_rad=json.dumps(pose))
    assert stage.code == STOPPED
    assert stage.summary["outcome"] == "stopped"
    assert stage.summary["stop_reason"].startswith("head")
    assert stage.summary["stop_reason"].endswith("(held for 2 s); parked")
    target = stage.up.control.target
    assert target is not None
    assert np.abs(before[0][:5] - pose).max() > 0.3
    np.testing.assert_allclose(target[:5], pose, atol=2e-3)
    assert target[5] == before[0][5]
    assert_tame(stage.up)


@pytest.mark.slow
def test_a_bad_day(tmp_path: Path) -> None:
    """One thing after the other fails and comes back; the object ends up in the tray all the same."""

    async def script(stage: Stage) -> None:
        control = stage.up.control

        async def outage(device: str, kind: str, back: str) -> None:
            stage.inject(device, kind)
            await stage.until(lambda: control.state == "holding")
            assert control.reason.startswith(device.replace("follower", "arm"))
            await stage.rest(0.7)
            stage.inject(device, back)
            await stage.until(lambda: control.state == "running")

        await stage.until(lambda: stage.step.startswith("home"))
        for kind in ("lose", "corrupt", "delay"):
            stage.inject("follower", kind, count=3)
        await stage.until(lambda: stage.step.startswith("grasp") and control.state == "running")
        await stage.rest(0.5)
        await outage("head", "freeze", "back")
        await stage.until(lambda: stage.step.startswith("place") and len(control.horizon) > 20)
        await outage("follower", "unplug", "plug")
        await stage.until(lambda: stage.step.startswith("home (placed)") and len(control.horizon) > 10)
        await outage("force", "gone", "back")

    stage = perform(tmp_path, script)
    assert stage.code == OK, stage.summary["stop_reason"]
    assert stage.summary["judge"]["success"]
    assert stage.summary["held_ticks"] > 60
    faults = stage.summary["device_faults"]
    assert {"gone", "late"} <= set(faults["arm"])
    assert set(faults["head"]) & {"timeout", "no_frame", "silent"}
    assert faults["force"]
    assert {gap["device"] for gap in stage.summary["gaps"]} == {"arm", "head", "force"}
    assert all(gap["to_ns"] > gap["from_ns"] for gap in stage.summary["gaps"])
    assert stage.servos is not None
    assert stage.servos.holding()
    assert_tame(stage.up)


@pytest.mark.parametrize("kind", [pytest.param("freeze", marks=pytest.mark.slow), "gone"])
def test_head_camera_lost_and_back(tmp_path: Path, kind: str) -> None:
    states: list[tuple[str, str]] = []

    async def script(robot: Robot) -> None:
        robot.control.follow(wave(robot))
        await rest(robot, 1.0)
        inject(robot, "head", kind)
        await rest(robot, 1.5)
        states.append((robot.control.state, robot.control.reason))
        inject(robot, "head", "back")
        await rest(robot, 4.0)
        states.append((robot.control.state, robot.control.reason))

    robot = drive(tmp_path, script)
    assert states[0][0] == "holding"
    assert "head" in states[0][1]
    assert states[1] == ("running", "")
    assert sum(robot.faults.log.counts["head"].values()) >= 1


def test_torn_head_pairs_are_left_out(tmp_path: Path) -> None:
    async def script(robot: Robot) -> None:
        robot.control.follow(wave(robot))
        for _ in range(3):
            inject(robot, "head", "torn")
            await rest(robot, 0.5)

    robot = drive(tmp_path, script)
    assert robot.control.transitions[-1].state == "running"
    assert robot.survived()["head"]["unpaired"] >= 1


@pytest.mark.slow
def test_the_planner_is_not_asked_about_a_picture_of_before(tmp_path: Path) -> None:
    """Another object comes while the head camera is away: whether the table is empty is seen afterwards."""

    async def script(stage: Stage) -> None:
        await stage.until(lambda: stage.step.startswith("planner: has"))
        stage.inject("head", "gone")
        await stage.until(lambda: stage.step.startswith("planner: is the table"))
        stage.inject("table", "add")
        await stage.rest(4.0)
        assert stage.step.startswith("planner: is the table")  # nothing that was seen before counts
        stage.inject("head", "back")

    stage = perform(tmp_path, script, world__placed=CUBE, **SLOW_PLANNER)
    assert (stage.summary["judge"]["objects_in_tray"], stage.summary["judge"]["success"]) == (2, True)
    assert len(stage.summary["attempts"]) == 2


def test_a_head_camera_that_shows_nothing_while_the_planner_is_asked_ends_the_run(tmp_path: Path) -> None:
    """Whatever the rules say: here no fault is in force, and nothing is followed that a watch would hold."""

    async def script(stage: Stage) -> None:
        await stage.until(lambda: stage.step.startswith("planner: what next"))
        stage.inject("head", "gone")

    keys = {"control__stop_after_hold_s": "2", "faults__rules": '{"head.*" = "retry"}'}
    stage = perform(tmp_path, script, world__placed=CUBE, **SLOW_PLANNER, **keys)
    assert (stage.code, stage.summary["outcome"]) == (STOPPED, "stopped")
    assert stage.summary["stop_reason"].startswith("head")
    assert stage.summary["stop_reason"].endswith("(held for 2 s)")


@pytest.mark.slow
def test_a_grasp_is_checked_without_a_wrist_camera_that_is_gone(tmp_path: Path) -> None:
    """Where the run may go on without it; its last picture shows open jaws."""

    async def script(stage: Stage) -> None:
        await stage.until(lambda: stage.step.startswith("grasp") and len(stage.up.control.horizon) > 0)
        stage.inject("wrist", "gone")

    keys = {"faults__rules": '{"wrist.*" = "retry"}', "grasp__time_limit_s": GRASPED_S}
    stage = perform(tmp_path, script, world__placed=CUBE, **keys)
    assert stage.summary["outcome"] == "incomplete", stage.summary["stop_reason"]
    assert [attempt["grasped"] for attempt in stage.summary["attempts"]] == [True]


def test_wrist_camera_lost_does_not_stop_the_arm_where_it_may_not(tmp_path: Path) -> None:
    states: list[str] = []

    async def script(robot: Robot) -> None:
        robot.control.follow(wave(robot))
        inject(robot, "wrist", "gone")
        await rest(robot, 2.0)
        states.append(robot.control.state)
        inject(robot, "wrist", "back")
        await rest(robot, 3.0)
        states.append(robot.control.state)

    robot = drive(tmp_path, script, faults__rules='{"wrist.*" = "retry"}')
    assert states == ["running", "running"]
    assert sum(robot.faults.log.counts["wrist"].values()) >= 1


@pytest.mark.parametrize("decision", ["hold", pytest.param("retry", marks=pytest.mark.slow)])
def test_force_sensor_gone_holds_until_it_is_back(tmp_path: Path, decision: str) -> None:
    states: list[str] = []

    async def script(robot: Robot) -> None:
        robot.control.follow(wave(robot))
        await rest(robot, 0.5)
        inject(robot, "force", "gone")
        await rest(robot, 1.5)
        states.append(robot.control.state)
        inject(robot, "force", "back")
        await rest(robot, 4.0)
        states.append(robot.control.state)

    drive(tmp_path, script, faults__rules=f'{{"force.*" = "{decision}"}}')
    assert states == ["holding", "running"]


def test_force_above_the_limit_stops_the_arm(tmp_path: Path) -> None:
    ended: list[tuple[str, str]] = []

    async def script(robot: Robot) -> None:
        robot.control.follow(wave(robot, 10.0))
        await rest(robot, 1.0)
        inject(robot, "force", "constant", value_n=45.0)
        await rest(robot, 4.5)
        ended.append((robot.control.state, robot.control.reason))

    robot = drive(tmp_path, script)
    assert ended[0][0] == "stopped"
    assert "force" in ended[0][1]
    assert robot.statistics.clips["force"] > 0


def test_a_saturated_force_counts_as_above_the_limit(tmp_path: Path) -> None:
    """Full scale is 20 N, the limit 30 N: a sensor at its full scale may hide anything."""
    ended: list[tuple[str, str]] = []

    async def script(robot: Robot) -> None:
        robot.control.follow(wave(robot, 10.0))
        await rest(robot, 1.0)
        inject(robot, "force", "saturated")
        await rest(robot, 4.5)
        ended.append((robot.control.state, robot.control.reason))

    robot = drive(tmp_path, script, force__full_scale_counts="2000")
    assert ended == [("stopped", "force above 30 N for 3 s")]
    assert robot.survived()["force"] == {"saturated": 1}
    assert robot.statistics.clips["force"] > 60
    assert_tame(robot)


def test_a_tabletop_that_dies_ends_the_run_with_a_summary(tmp_path: Path) -> None:
    async def script(stage: Stage) -> None:
        await stage.until(lambda: stage.step.startswith("grasp"))
        assert stage.up.world is not None
        stage.up.world.process.kill()

    stage = perform(tmp_path, script)
    assert stage.code == STOPPED
    assert stage.summary["outcome"] == "stopped"
    assert stage.summary["stop_reason"] == "the simulated world's process ended (status -9)"
    assert stage.summary["judge_missing"] == stage.summary["stop_reason"]
    assert stage.summary["attempts"][0]["completed"] is False


def test_a_tabletop_that_dies_on_the_real_clock_stops_the_arm_at_once(tmp_path: Path) -> None:
    """Nothing waits for what its devices do then, which would be held for, and named, one by one."""

    async def script(stage: Stage) -> None:
        await stage.until(lambda: stage.step.startswith("home"))
        assert stage.up.world is not None
        stage.up.world.process.kill()

    stage = perform(tmp_path, script, **PATIENT)
    assert stage.code == STOPPED
    assert stage.summary["stop_reason"] == "the simulated world's process ended (status -9)"
    assert stage.up.control.reason == stage.summary["stop_reason"]
