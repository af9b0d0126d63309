"""What was sent to an arm, exported, learned by heart, and asked for again, is the same goal.

The arm's calibration is nowhere its model's. The policy knows the data set only: its numbers and its units.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from dexrun.config.serve_options import ServeOptions
from dexrun.export.command import summary
from dexrun.export.job import ExportResult
from dexrun.export.options import ExportOptions
from dexrun.serve.server import local_server
from drivers.arms import describe
from drivers.feetech.calibration import JointCalibration, JointMap
from policies.mapping import KeyMap, ObservationMap
from policies.remote.make import make_remote
from runtime.clock import RealClock
from runtime.interfaces import PolicySpec
from runtime.joints import JointLayout
from runtime.messages import ArmState, Frame, Observation, PolicyAnswer
from runtime.units import UnitMap, calibrated
from tests.export.synthetic import Made, Truth
from tests.remote.support import GUARD_S, OPTIONS, Running

ROBOT = describe()
RANGES = ((750, 3390), (840, 3210), (890, 3080), (870, 3190), (0, 4095), (2030, 3480))
CALIBRATION = {
    name: JointCalibration(id=number, homing_offset=7 * number, range_min=low, range_max=high)
    for number, (name, (low, high)) in enumerate(zip(ROBOT.joints, RANGES, strict=True), 1)
}
MIDDLES = {"shoulder_lift": -1.6, "elbow_flex": 1.45}


class LearnedByHeart:
    """Gives the action of the state that is nearest: all in the data set's units."""

    def __init__(self, states: Any, actions: Any, units: UnitMap, joints: JointLayout) -> None:
        self.spec = PolicySpec("learned", 1, 6)
        self._states, self._actions = states, actions
        self._map = ObservationMap(KeyMap(), units, joints)

    def infer(self, observation: Observation) -> PolicyAnswer:
        (state,) = self._map.state_vectors(observation).values()
        nearest = int(np.abs(self._states - state).sum(axis=1).argmin())
        actions = {"action": self._actions[nearest][None]}
        return PolicyAnswer(self._map.actions_to_robot(actions, observation.arm.position))

    def statistics(self) -> dict[str, int]:
        return {}

    def warm_up(self) -> None:
        pass

    reset = close = warm_up


def seen(position: Any) -> Observation:
    frames = {name: Frame(name, 1, np.zeros((8, 8, 3), np.uint8)) for name in ("head", "wrist")}
    return Observation(0, 0, 1, ArmState(1, position, np.zeros(6), np.zeros(6)), frames, instruction="go")


@pytest.mark.parametrize("units", ["lerobot_degrees", "lerobot_percent", "rad"])
def test_the_goal_is_the_same_behind_every_protocol(
    run: Callable[..., tuple[Path, list[Truth]]],
    exported: Callable[..., tuple[Path, ExportResult]],
    units: Any,
) -> None:
    ranges = dict(zip(ROBOT.joints, ROBOT.layout.ranges.tolist(), strict=True))
    arm = JointMap.build(CALIBRATION, ranges, zero_rad=MIDDLES, grippers=("gripper",))
    joints = calibrated(ROBOT.layout, arm.described())
    folder, (truth,) = run(Made(seconds=0.3, head=None, wrist=None, calibration=arm.described()))
    target, _ = exported(folder, "lerobot-v3", units=units)
    assert json.loads((target / "meta" / "info.json").read_text())["units"] == units
    table = pq.read_table(target / "data").to_pydict()
    states, actions = (np.array(table[key]) for key in ("observation.state", "action"))
    wanted = [arm.to_ticks(np.array(sent)).tolist() for sent in truth.values["sent"][: len(actions)]]
    policy = LearnedByHeart(states, actions, UnitMap(convention=units), joints)
    here = [arm.to_ticks(policy.infer(seen(at)).rows[0]).tolist() for at in _positions(states, units, joints)]
    assert here == wanted, "run here"
    for protocol, options in OPTIONS.items():
        served = Running(local_server(policy, ServeOptions(protocol=protocol, units=units), joints)).start()
        remote = make_remote(
            options(port=served.port, units=units, request_timeout_s=GUARD_S, ready_timeout_s=GUARD_S),
            joints,
            RealClock(),
        )
        try:
            rows = [remote.infer(seen(at)).rows[0] for at in _positions(states, units, joints)]
        finally:
            remote.close()
            served.stop()
        assert [arm.to_ticks(row).tolist() for row in rows] == wanted, protocol


def _positions(states: Any, units: Any, joints: JointLayout) -> Any:
    return ObservationMap(KeyMap(), UnitMap(convention=units), joints).units.to_robot(states)


def test_what_hardly_moves_and_depth_that_is_left_out_are_said(
    run: Callable[..., tuple[Path, list[Truth]]], exported: Callable[..., tuple[Path, ExportResult]]
) -> None:
    folder, _ = run(Made(seconds=0.2, wrist=None))
    _, outcome = exported(folder, "lerobot-v3")
    said = summary(outcome, ExportOptions(), lerobot=True)
    assert "shoulder_lift hardly moves (0.03 of 3.34): a normaliser by limits makes that -1 to 1" in said
    assert "depth of head is left out: LeRobot before 0.6 takes it for a camera; see --depth" in said
    assert "depth" not in summary(outcome, ExportOptions())
