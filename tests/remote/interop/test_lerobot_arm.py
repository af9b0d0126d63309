"""LeRobot 0.4.4's own SO100Follower on our emulated bus: the same ticks are the same state, and back.

The calibration is nowhere the model's: neither middles, nor ranges, nor homing.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from drivers.arms import describe
from drivers.feetech import registers as reg
from drivers.feetech.calibration import JointCalibration, JointMap, save_calibration
from drivers.feetech.emulator import FeetechEmulator
from drivers.feetech.servo import SimpleServoBank
from runtime.clock import RealClock
from runtime.units import UnitMap, calibrated, joint_units
from tests.remote.interop.peers import Peer, needs

PEER = "lerobot"
pytestmark = needs(PEER)

ROBOT = describe()
RANGES = ((750, 3390), (840, 3210), (890, 3080), (870, 3190), (0, 4095), (2030, 3480))
OFFSETS = (85, -132, 47, -60, 12, 210)
CALIBRATION = {
    name: JointCalibration(id=number, homing_offset=offset, range_min=low, range_max=high)
    for number, (name, (low, high), offset) in enumerate(zip(ROBOT.joints, RANGES, OFFSETS, strict=True), 1)
}
PLACES = (
    (2047, 2047, 2047, 2047, 2047, 2100),
    (1200, 900, 3000, 1000, 3900, 3400),
    (3001, 2222, 1111, 2900, 77, 2031),
)


def ours() -> JointMap:
    ranges = dict(zip(ROBOT.joints, ROBOT.layout.ranges.tolist(), strict=True))
    return JointMap.build(CALIBRATION, ranges, grippers=tuple(ROBOT.grippers))


@contextmanager
def arm(folder: Path) -> Iterator[tuple[SimpleServoBank, FeetechEmulator]]:
    bank = SimpleServoBank(RealClock(), {i + 1: 2047 + offset for i, offset in enumerate(OFFSETS)})
    registers = {
        joint.id: {
            reg.HOMING_OFFSET: joint.homing_offset,
            reg.MIN_POSITION_LIMIT: joint.range_min,
            reg.MAX_POSITION_LIMIT: joint.range_max,
        }
        for joint in CALIBRATION.values()
    }
    emulator = FeetechEmulator(bank, folder / "bus", registers=registers)
    try:
        yield bank, emulator
    finally:
        emulator.close()


@pytest.mark.parametrize("units", ["degrees", "percent"])
def test_the_same_ticks_are_the_same_state_and_the_same_action_the_same_goal(
    tmp_path: Path, units: str
) -> None:
    save_calibration(tmp_path / "arm.json", CALIBRATION)
    joints = ours()
    layout = calibrated(ROBOT.layout, joints.described())
    mine = joint_units(layout, UnitMap.model_validate(f"lerobot_{units}"))
    with arm(tmp_path) as (bank, emulator), Peer(PEER, "arm", emulator.port, str(tmp_path), units) as peer:
        assert peer.line("CALIBRATED ") == "true"
        for place in PLACES:
            for servo, (ticks, offset) in enumerate(zip(place, OFFSETS, strict=True), 1):
                bank.override(servo, position=ticks + offset)
            peer.say("")
            theirs = json.loads(peer.line("OBSERVATION "))
            state = mine.observed(joints.to_units(np.array(place)))
            np.testing.assert_allclose(list(theirs.values()), state, atol=1e-6)
            # A third of a tick further: LeRobot cuts down to a whole tick, the driver rounds to the nearest.
            action = mine.to_policy(joints.to_units(np.array(place) + joints.signs() / 3))
            peer.say(json.dumps(dict(zip(theirs, action.tolist(), strict=True))))
            peer.line("OBSERVATION ")
            goals = [servo.get(reg.GOAL_POSITION) for servo in emulator.servos.values()]
            assert goals == list(place)
            assert joints.to_ticks(mine.to_robot(action)).tolist() == list(place)
        for action in np.random.default_rng(0).uniform(-60, 60, (20, 6)):
            action[5] = abs(action[5])
            peer.say(json.dumps(dict(zip(theirs, action.tolist(), strict=True))))
            peer.line("OBSERVATION ")
            goals = np.array([servo.get(reg.GOAL_POSITION) for servo in emulator.servos.values()])
            assert np.abs(goals - joints.to_ticks(mine.to_robot(action))).max() <= 1
