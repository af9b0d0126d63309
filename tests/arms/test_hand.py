"""An arm of seven joints with a hand of six: its model, and a whole run with DexGraspVLA's controller."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dexrun.app import run
from dexrun.config.load import load
from dexrun.config.sources import ConfigError
from dexrun.data.replay import main as replay
from dexrun.export.command import main as export
from drivers.arms import describe
from policies import motion
from policies.geometric.config import GeometricConfig
from policies.geometric.grasp import GraspPlanner
from policies.handling import plan_place
from runtime.arm_model import ArmModel, ModelError
from runtime.body_options import BodyOptions
from runtime.interfaces import PolicyError
from runtime.limits import SafetyOptions
from runtime.messages import Clip
from runtime.safety import SafetyStage
from tests.dexrun.rig import LIGHT, ROOT, arguments, perform, targets
from tests.policies.test_grasp_mode import COMMON, TINY

FILE = str(ROOT / "examples" / "arm-with-hand" / "arm_with_hand.xml")
ARM = tuple(f"joint{i}" for i in range(1, 8))
HAND = ("thumb_rotation", "thumb_bend", "index", "middle", "ring", "little")
AHEAD = np.array([0.0, 0.5, 0.0, 2.0, 0.0, 0.6, 0.0, *[0.0] * 6])
CONFIG = ROOT / "examples" / "arm-with-hand" / "config.toml"
HAND_OPTIONS = BodyOptions.model_validate(tomllib.loads(CONFIG.read_text())["arm"]["body"])
OPEN, CLOSED = np.array([0.0, 0.0, *[-0.5] * 4]), np.array([0.0, 0.0, *[1.0] * 4])
CONTROLLER = {
    **TINY["dexgrasp"],
    **COMMON,
    "policy__shape__state_size": "13",
    "policy__shape__action_size": "13",
}


@pytest.fixture(scope="module")
def model() -> ArmModel:
    return describe(FILE, HAND_OPTIONS).model()


def words(runs: Path, **keys: str) -> list[str]:
    """The example's configuration, made light, as a command line."""
    light = {key: value for key, value in LIGHT.items() if not key.startswith("force")}
    given = {**light, "runs": str(runs), **{name.replace("__", "."): value for name, value in keys.items()}}
    return [
        "--config",
        str(CONFIG),
        *(word for name, value in given.items() for word in (f"--{name}", value)),
    ]


def test_thirteen_joints_and_no_gripper(model: ArmModel) -> None:
    assert model.names == (*ARM, *HAND)
    assert model.grippers == ()


def test_the_hand_closes_without_colliding_and_home_is_free(model: ArmModel) -> None:
    margins = SafetyOptions()
    for share in np.linspace(0.0, 1.0, 6):
        q = motion.reach_down(model, (0.2, 0.0, 0.06), AHEAD, (0.0,)).q  # type: ignore[union-attr]
        q[7:] = model.ranges[7:, 0] + share * (model.ranges[7:, 1] - model.ranges[7:, 0])
        own, table = model.clearances(q)
        assert own > margins.self_clearance_m
        assert table > margins.table_clearance_m
    assert min(model.clearances(model.home)) > margins.self_clearance_m


def test_the_hand_is_kept_off_the_arm_and_the_table(model: ArmModel) -> None:
    folded = AHEAD.copy()
    folded[[1, 3, 5]] = 0.0, 2.7, 1.9  # the fingers point at the shoulder
    assert model.clearances(folded)[0] < 0.0
    low = motion.reach_down(model, (0.2, 0.0, 0.014), AHEAD, (0.0,))
    assert low is not None
    assert model.clearances(low.q)[1] < 0.003  # straight fingers reach the table before the palm does


def test_motions_open_the_hand_and_leave_it_alone_otherwise(model: ArmModel) -> None:
    limits = motion.MotionLimits.uniform(model)
    start = motion.reach_down(model, (0.2, 0.0, 0.06), AHEAD, (0.0,)).q  # type: ignore[union-attr]
    start[7:] = 0.3 * OPEN + 0.7 * CLOSED
    move = plan_place(model, start, (0.11, 0.188), limits)
    np.testing.assert_allclose(move.rows[: move.release_row, 7:], np.tile(start[7:], (move.release_row, 1)))
    np.testing.assert_allclose(move.rows[-1, 7:], OPEN)
    assert np.abs(move.rows[-1, :7] - move.rows[move.release_row, :7]).max() > 0.01  # and rises


def test_a_finger_that_holds_is_no_reason_to_stop_and_a_force_lets_the_hand_open(model: ArmModel) -> None:
    options, dt = SafetyOptions(), 1 / 30
    stage, held = SafetyStage(options, model), np.append(AHEAD[:7], 0.5 * OPEN + 0.5 * CLOSED)
    asked = np.append(AHEAD[:7], CLOSED)
    load, previous = np.append(np.zeros(7), np.ones(6)), held
    for _ in range(round(2 * options.stall_stop_s / dt)):
        result = stage.apply(asked, held, previous, None, load, dt)
        assert result.stop_reason is None
        previous = result.target
    assert result.clips & Clip.STALL
    pressed = np.array([2 * options.max_force_n])
    opened = SafetyStage(options, model).apply(np.append(AHEAD[:7], OPEN), held, held, pressed, None, dt)
    assert (opened.target[9:] < held[9:] - 1e-4).all()
    closed = SafetyStage(options, model).apply(asked, held, held, pressed, None, dt)
    np.testing.assert_allclose(closed.target, held)
    raised = asked.copy()
    raised[1] -= 0.1
    assert model.grasp_height(raised) > model.grasp_height(held)
    lifted = SafetyStage(options, model).apply(raised, held, held, pressed, None, dt)
    assert lifted.target[1] < held[1] - 1e-3
    np.testing.assert_allclose(lifted.target[7:], held[7:])


@pytest.mark.parametrize(
    ("hand", "says"),
    [
        ({"knuckle": (0.0, 1.0)}, "body.hand: 'knuckle' is no joint of a hand; there are joint1"),
        (
            {"index": (2.0, 0.0)},
            "body.hand: 'index' is closed at 2 and open at 0; its joint goes from -0.6 to 1.4",
        ),
    ],
)
def test_a_hand_that_cannot_be_is_told_in_one_line(hand: dict[str, tuple[float, float]], says: str) -> None:
    with pytest.raises(ModelError, match=re.escape(says)):
        describe(FILE, BodyOptions(hand=hand))


def test_what_needs_a_gripper_or_a_hand_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"teleop\.scripted = true: the scripted operator needs a gripper"):
        load(arguments(tmp_path, mode="teleop", arm__model=FILE), {})
    load(arguments(tmp_path, mode="teleop", arm__model=FILE, teleop__scripted="false"), {})
    with pytest.raises(PolicyError, match="one gripper is needed; the arm has 0"):
        GraspPlanner(GeometricConfig(), describe(FILE, HAND_OPTIONS).model())


@pytest.mark.slow
def test_a_scripted_person_clears_the_table_with_the_hand(tmp_path: Path) -> None:
    given = words(tmp_path, mode="teleop", recording__episodes="1", teleop__duration_s="30")
    assert run(load(given, {})) == 0
    summary = json.loads((tmp_path / "latest" / "summary.json").read_text())
    assert summary["judge"]["success"]
    assert summary["device_faults"] == {}
    assert replay([str(tmp_path / "latest"), "--verify"]) == 0


def test_a_whole_run_with_the_dexgrasp_controller(tmp_path: Path, zarr_group: Any) -> None:
    hand = ", ".join(f"{name} = {list(angles)}" for name, angles in HAND_OPTIONS.hand.items())
    stage = perform(
        tmp_path, arm__model=FILE, arm__body=f"{{hand = {{{hand}}}}}", policy__type="dexgrasp", **CONTROLLER
    )
    assert (stage.code, stage.summary["stop_reason"]) == (1, "time limit of 6 s")
    assert stage.summary["policy"]["chunks"] >= 3
    assert stage.summary["policy"]["failures"] == {}
    assert stage.summary["device_faults"] == {}
    assert stage.summary["missed_ticks"] == 0
    sent = targets(stage.up)
    sent = sent[np.isfinite(sent).all(axis=1)]
    assert sent.shape[1] == 13
    low, high = stage.up.model.ranges.T
    assert ((sent >= low) & (sent <= high)).all()
    assert (np.ptp(sent, axis=0) > 0.02).all()  # every joint of the hand moved, too
    step = stage.up.settings.safety.max_velocity_rad_s / stage.up.settings.control.rate_hz
    assert np.abs(np.diff(sent, axis=0)).max() <= step + 1e-9

    assert replay([str(stage.folder), "--verify"]) == 0
    target = tmp_path / "grasps.zarr"
    words = ("--format", "dexgrasp-zarr", "--labels", "failure", "--to", str(target))
    assert export([str(stage.folder), *words]) == 0
    data = zarr_group(target)
    assert list(data.attrs["joints"]) == [*ARM, *HAND]
    for key in ("action", "right_state"):
        rows = data[f"data/{key}"]
        assert (rows.shape[1], str(rows.dtype)) == (13, "float32")
        assert np.abs(rows[:]).max() <= 1.01
