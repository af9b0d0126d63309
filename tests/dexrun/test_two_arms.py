"""Two simulated arms as one robot: teleoperated, recorded, verified, exported; kept apart; held together."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Awaitable, Callable
from pathlib import Path

import numpy as np
import pytest

from dexrun.app import run, ticking
from dexrun.assembly import open_robot
from dexrun.config.checks import scripted_operator
from dexrun.config.load import ConfigError, load
from dexrun.config.settings import Settings
from dexrun.data.replay import main as replay
from dexrun.export.command import main as export
from dexrun.modes.motion_source import MotionSource
from dexrun.robot import Robot
from drivers.arms.choice import robot_of_all
from drivers.world.layout import draw_objects
from drivers.world.physics import Tabletop
from policies.motion import MotionLimits, plan_joint_move
from runtime.messages import Clip, Floats
from runtime.recording.reader import Recording
from runtime.stepped import SteppedClock
from tests.dexrun.rig import ROOT, inject, records, rest
from tests.runtime.control_rig import finished

JOINTS = ("shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper")
NAMES = [f"{arm}.{joint}" for arm in ("left", "right") for joint in JOINTS]
LIGHT = {
    "realtime.clock": "stepped",
    "terminal.style": "none",
    "recording.api": "false",
    "cameras.head.width": "160",
    "cameras.head.height": "120",
    "cameras.head.fps": "5",
    "arms.left.state_rate_hz": "60",
    "arms.right.state_rate_hz": "50",
    "leaders.left.state_rate_hz": "60",
    "leaders.right.state_rate_hz": "60",
    "world.force.rate_hz": "20",
    "world.wrist.fps": "1",
}


def arguments(runs: Path, **keys: str) -> list[str]:
    given = {**LIGHT, "runs": str(runs), **{name.replace("__", "."): value for name, value in keys.items()}}
    words = ["--config", str(ROOT / "docs/examples/two-arms.toml")]
    for name, value in given.items():
        words += [f"--{name}", value]
    return words


def settings(runs: Path, **keys: str) -> Settings:
    return load(arguments(runs, **keys), {})


def drive(runs: Path, script: Callable[[Robot], Awaitable[None]], **keys: str) -> None:
    """Bring the robot up, let its control loop tick, run `script`, take it down again."""
    clock = SteppedClock()

    async def main() -> None:
        async with open_robot(settings(runs, **keys), clock) as robot, ticking(robot):
            await script(robot)

    clock.run(main)


async def move(robot: Robot, goal: Floats) -> None:
    """Ask for `goal`, through safety and the wire, and wait until that was asked for."""
    while robot.control.target is None:
        await robot.control.ticked()
    limits = MotionLimits.uniform(robot.model, 0.8)
    robot.control.follow(MotionSource(plan_joint_move(robot.control.target.copy(), goal, limits)))
    assert await finished(robot.control)


def test_both_are_teleoperated_recorded_verified_and_exported(tmp_path: Path) -> None:
    assert run(settings(tmp_path, world__operator__speed="3.0")) == 0
    folder = (tmp_path / "latest").resolve()
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["judge"]["objects_in_tray"] == 2, summary
    assert {"arms.left", "arms.right", "leaders.left", "leaders.right"} <= set(summary["sensor_rates_hz"])
    with Recording(folder) as recording:
        first, second = recording.episodes
        assert first.robot["joint_names"] == NAMES
        assert first.arms == ("arms.left", "arms.right")
        assert set(first.calibration) == {"arms.left", "arms.right", "leaders.left", "leaders.right"}
        for topic in ("arms/left/state", "arms/right/sent", "arms/left/health", "leaders/right/state"):
            assert first.topics[f"/{topic}"] > 0
        turned = [np.ptp(each.array("/ticks", "position"), axis=0) for each in (first, second)]
        assert turned[0][0] > 0.5 > 0.01 > turned[0][6]  # the nearer arm took each
        assert turned[1][6] > 0.5 > 0.01 > turned[1][0]
        leader = first.array("/ticks", "leader")
        assert leader.shape[1] == 12
        assert np.isfinite(leader).all()
    assert replay([str(folder), "--verify"]) == 0
    assert export([str(folder), "--format", "lerobot-v3", "--to", str(tmp_path / "v3"), "--jobs", "1"]) == 0
    info = json.loads((tmp_path / "v3/meta/info.json").read_text())
    assert info["robot_type"] == "bi_so100_follower"
    assert info["features"]["action"]["names"] == [f"{name.replace('.', '_')}.pos" for name in NAMES]
    assert export([str(folder), "--format", "act-hdf5", "--to", str(tmp_path / "act"), "--jobs", "1"]) == 0
    import h5py

    with h5py.File(tmp_path / "act/episode_1.hdf5") as file:
        assert file.attrs["sim"]
        qpos, action = file["observations/qpos"][:], file["action"][:]
    assert qpos.shape[1] == action.shape[1] == 12
    assert np.ptp(action[:, 6]) > 0.5 > 0.01 > np.ptp(action[:, 0])
    assert np.abs(action - qpos).max() < 0.4


TOWARDS = [1.5, -1.9, 1.6, 0.9, 0.0, 0.3, -1.5, -1.9, 1.6, 0.9, 0.0, 0.3]
AHEAD = "[0.0, -1.9, 1.6, 0.9, 0.0, 0.0, -1.9, 1.6, 0.9, 0.0]"


def test_two_arms_that_are_driven_into_each_other_stop_short(tmp_path: Path) -> None:
    async def script(robot: Robot) -> None:
        await move(robot, np.array(TOWARDS))
        await rest(robot, 1.0)
        ticks = list(records(robot))
        clipped = [sample for sample in ticks if Clip(int(sample["clips"])) & Clip.COLLISION]
        assert len(clipped) > 10
        assert robot.world is not None
        assert robot.world.judge().arms_pressed_n == 0.0
        position = np.array([sample["position"] for sample in ticks])
        assert (np.ptp(position[:, [0, 6]], axis=0) > 0.2).all()  # both were on their way
        assert (np.abs(position[-1] - TOWARDS)[[0, 6]] > 0.1).any()  # and did not get there
        own = min(robot.model.clearances(row)[0] for row in position)
        assert own > 0.0

    drive(tmp_path, script, world__start_rad=AHEAD)


def test_without_the_safety_stage_they_hit(tmp_path: Path) -> None:
    given = settings(tmp_path, world__start_rad=AHEAD)
    robot = robot_of_all(given.followers())
    table = Tabletop(given.world, draw_objects(given.world), robot)
    goal = robot.to_native(np.array(TOWARDS))
    for bank, part in zip(table.banks.arms.values(), (goal[:6], goal[6:]), strict=True):
        for servo in bank.ids:
            bank.set_torque(servo, True)
            bank.set_goal(servo, bank.encoders.ticks(servo - 1, float(part[servo - 1])))
    table.advance(2_000_000_000)
    assert table.arms_pressed_n > 1.0


@pytest.mark.slow
def test_a_fault_of_one_arm_holds_both_and_is_named(tmp_path: Path) -> None:
    async def script(robot: Robot) -> None:
        control = robot.control
        while control.target is None:
            await control.ticked()
        goal = control.target.copy()
        goal[[0, 6]] = 0.0
        limits = MotionLimits.uniform(robot.model, 0.5)
        control.follow(MotionSource(plan_joint_move(control.target.copy(), goal, limits)))
        await rest(robot, 0.5)
        inject(robot, "left", "unplug")
        while control.state == "running":
            await control.ticked()
        assert control.reason.startswith("arms.left")
        await rest(robot, 0.3)
        before = robot.arms["arms.right"].sent.newest()
        await rest(robot, 1.0)
        after = robot.arms["arms.right"].sent.newest()
        assert before is not None
        assert after is not None
        np.testing.assert_array_equal(before["position"], after["position"])
        assert abs(after["position"][0]) > 0.2  # far from where it was going
        inject(robot, "left", "plug")
        while control.state != "running":
            await control.ticked()
        assert await finished(control)

    drive(tmp_path, script)


@pytest.mark.slow
def test_one_of_two_arms_grasps_and_the_other_holds_still(tmp_path: Path) -> None:
    keys = {
        "mode": "grasp",
        "grasp.arm": "right",
        "world.sensing_arm": "right",
        "cameras.wrist.driver": "opencv",
        "cameras.wrist.source": "world:wrist",
        "cameras.wrist.width": "160",
        "cameras.wrist.height": "120",
        "cameras.wrist.fps": "6",
        "planner.prompt": "put the red cube into the tray",
        "cameras.head.width": "640",
        "cameras.head.height": "480",
        "world.placed": '[{shape="cube", color="red", x_m=0.2, y_m=-0.05, yaw_rad=0.3}]',
    }
    assert run(settings(tmp_path, **keys)) == 0
    summary = json.loads((tmp_path / "latest/summary.json").read_text())
    assert summary["judge"]["success"], summary
    with Recording((tmp_path / "latest").resolve()) as recording:
        (episode,) = recording.episodes
        asked = np.ptp(episode.array("/ticks", "clipped"), axis=0)
    assert asked[6:].max() > 1.0
    assert asked[:6].max() < 1e-3


BASE = "{position_m=[0.0,0.4,0.0]}"


@pytest.mark.parametrize(
    ("keys", "line"),
    [
        ({"arm.port": "world:follower"}, "arms.left: there is [arm], too"),
        ({"leader.port": "world:leader"}, "leader: the leader of one of several arms is [leaders.<name>]"),
        ({"leaders.middle.port": "world:x"}, "leaders: left, right, middle are not the arms that follow"),
        ({"arms.Left.port": "world:left", "arms.Left.base": BASE}, "arms.Left"),
        ({"arms.middle.port": "world:m", "leaders.middle.port": "world:l"}, "arms.middle.base is required"),
        (
            {"arms.left.base": "{ position_m = [0.0, 0.0, 0.0] }"},
            "arms.right.base.position_m: arms.left stands there already",
        ),
        ({"safety.joints.shoulder_pan.max_velocity_rad_s": "1"}, "safety.joints.shoulder_pan: no such joint"),
        ({"arms.left.zero_rad": '{"left.gripper"=0.1}'}, "arms.left.zero_rad.left.gripper: no such joint"),
        ({"faults.rules": '{"arms.up.gone"="stop"}'}, "faults.rules.arms.up.gone: no such device"),
        ({"world.sensing_arm": "up"}, "world.sensing_arm = 'up': no such arm; there is left, right"),
        ({"grasp.arm": "up"}, "grasp.arm = 'up' is not one of several arms; [arms] has: left, right"),
        ({"mode": "grasp", "grasp.wrist": ""}, "grasp.arm is required: which one grasps"),
        ({"leaders.left.model": "so101"}, "leaders.left.model = 'so101': joint angles of another model"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(tmp_path: Path, keys: dict[str, str], line: str) -> None:
    words = arguments(tmp_path)
    for name, value in keys.items():
        words += [f"--{name}", value]
    with pytest.raises(ConfigError) as caught:
        load(words, {})
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)


def test_limits_and_rules_name_joints_and_arms_by_their_prefix(tmp_path: Path) -> None:
    words = arguments(tmp_path)
    words += ["--safety.joints", '{"left.shoulder_pan"={max_velocity_rad_s=0.5}}']
    words += ["--faults.rules", '{"arms.left.no_reply"="stop"}']
    given = load(words, {})
    assert list(given.safety.joints) == ["left.shoulder_pan"]
    assert list(given.arm_tables()) == ["arms.left", "arms.right"]


def test_the_scripted_operator_needs_fingers_on_one_arm(tmp_path: Path) -> None:
    both = settings(tmp_path)
    robot = robot_of_all(both.followers())
    scripted_operator(both, robot)
    with pytest.raises(ValueError, match="the scripted operator needs a gripper or a hand"):
        scripted_operator(both, dataclasses.replace(robot, grippers={}))
