"""What the running robot does when a device fails: it holds inside its limits, and says so."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dexrun.assembly import Robot
from dexrun.motion_source import MotionSource
from runtime.messages import DeviceError
from tests.dexrun.rig import drive, inject, rest


def wave(robot: Robot, seconds: float = 6.0) -> MotionSource:
    """A slow swing of the first joint, starting where the arm is asked to be."""
    assert robot.control.target is not None
    steps = np.arange(round(seconds * 30))
    rows = np.tile(robot.control.target, (len(steps), 1))
    rows[:, 0] += 0.3 * (1 - np.cos(2 * np.pi * steps / 90))
    return MotionSource(rows)


def fastest(robot: Robot) -> float:
    """The largest joint step between two neighbouring posted targets, rad."""
    sent = []
    for index in range(max(0, robot.records.published - robot.records.capacity + 1), robot.records.published):
        sample = robot.records.read(index)
        assert sample is not None
        sent.append(sample["clipped"].copy())
    targets = np.array(sent)
    targets = targets[np.isfinite(targets).all(axis=1)]
    return float(np.abs(np.diff(targets[:, :5], axis=0)).max())


def assert_tame(robot: Robot) -> None:
    assert fastest(robot) <= robot.settings.safety.max_velocity_rad_s / 30 + 1e-9


def test_lost_corrupt_and_late_packets_are_survived(tmp_path: Path) -> None:
    states: list[str] = []

    async def script(robot: Robot) -> None:
        robot.control.follow(wave(robot))
        inject(robot, "follower", "lose", fraction=0.05)
        await rest(robot, 1.0)
        inject(robot, "follower", "corrupt", fraction=0.05)
        await rest(robot, 1.0)
        inject(robot, "follower", "clear")
        await rest(robot, 1.0)
        states.append(robot.control.state)

    robot = drive(tmp_path, script)
    assert states == ["running"]
    counted = robot.survived()["arm"]
    assert any(kind.endswith("no_reply") for kind in counted)
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

    robot = drive(tmp_path, script)
    assert states == ["holding", "running"]
    gaps = [gap for gap in robot.faults.log.gaps if gap.device == "arm"]
    assert gaps
    assert all(gap.to_ns is not None for gap in gaps)
    assert_tame(robot)


def test_bus_that_stays_away_latches_a_stop(tmp_path: Path) -> None:
    ended: list[tuple[str, str]] = []

    async def script(robot: Robot) -> None:
        robot.control.follow(wave(robot, 20.0))
        await rest(robot, 0.5)
        inject(robot, "follower", "unplug")
        await rest(robot, 4.0)
        ended.append((robot.control.state, robot.control.reason))

    drive(tmp_path, script, control__stop_after_hold_s="2")
    assert ended[0][0] == "stopped"
    assert "arm" in ended[0][1]


@pytest.mark.parametrize("kind", ["freeze", "gone"])
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


def test_force_sensor_gone_holds_until_it_is_back(tmp_path: Path) -> None:
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

    drive(tmp_path, script)
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


def test_saturated_force_is_counted(tmp_path: Path) -> None:
    async def script(robot: Robot) -> None:
        inject(robot, "force", "saturated")
        await rest(robot, 1.0)

    robot = drive(tmp_path, script, force__full_scale_counts="3000")
    assert robot.survived()["force"].get("saturated", 0) > 0


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"arm__port": "/dev/nowhere"}, "/dev/nowhere"),
        ({"cameras__head__serial": "123456"}, "123456"),
        ({"cameras__wrist__source": "http://127.0.0.1:9/none"}, "127.0.0.1:9"),
        ({"force__port": "/dev/nowhere"}, "/dev/nowhere"),
        ({"arm__port": "world:follwer"}, "world:follower"),
    ],
)
def test_a_device_that_is_not_there_is_named(tmp_path: Path, keys: dict[str, str], message: str) -> None:
    async def script(robot: Robot) -> None:
        raise AssertionError("the robot came up")

    with pytest.raises(DeviceError, match=message):
        drive(tmp_path, script, **keys)
