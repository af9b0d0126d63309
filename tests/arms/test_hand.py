"""An arm of seven joints with a hand of six: its model, and a whole run with DexGraspVLA's controller."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dexrun.data.replay import main as replay
from dexrun.export.command import main as export
from drivers.arms import describe
from policies import motion
from runtime.arm_model import ArmModel
from runtime.limits import SafetyOptions
from tests.dexrun.rig import ROOT, perform, targets
from tests.policies.test_grasp_mode import COMMON, TINY

FILE = str(ROOT / "examples" / "arm-with-hand" / "arm_with_hand.xml")
ARM = tuple(f"joint{i}" for i in range(1, 8))
HAND = ("thumb_rotation", "thumb_bend", "index", "middle", "ring", "little")
AHEAD = np.array([0.0, 0.5, 0.0, 2.0, 0.0, 0.6, 0.0, *[0.0] * 6])
CONTROLLER = {
    **TINY["dexgrasp"],
    **COMMON,
    "policy__shape__state_size": "13",
    "policy__shape__action_size": "13",
    "policy__units__gripper_unit": "fraction",
}


@pytest.fixture(scope="module")
def model() -> ArmModel:
    return describe(FILE).model()


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
    low = motion.reach_down(model, (0.2, 0.0, 0.02), AHEAD, (0.0,))
    assert low is not None
    assert model.clearances(low.q)[1] < 0.003  # straight fingers reach the table before the palm does


def test_a_whole_run_with_the_dexgrasp_controller(tmp_path: Path, zarr_group: Any) -> None:
    stage = perform(tmp_path, arm__model=FILE, policy__type="dexgrasp", **CONTROLLER)
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
    assert export([str(stage.folder), "--format", "dexgrasp-zarr", "--to", str(target)]) == 0
    data = zarr_group(target)
    assert list(data.attrs["joints"]) == [*ARM, *HAND]
    for key in ("action", "right_state"):
        rows = data[f"data/{key}"]
        assert (rows.shape[1], str(rows.dtype)) == (13, "float32")
        assert np.abs(rows[:]).max() <= 1.01
