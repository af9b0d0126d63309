"""What the tests of the simulated table share."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from drivers.arms import describe
from drivers.arms.so100 import JOINT_NAMES, JOINT_RANGES_RAD
from drivers.feetech.calibration import JointMap, load_calibration
from drivers.feetech.driver import FeetechArm
from drivers.feetech.options import FeetechOptions
from drivers.world.client import WorldClient
from drivers.world.config import HeadCameraOptions, ObjectOptions, WorldConfig, WristCameraOptions
from drivers.world.layout import ObjectSpec, draw_objects
from drivers.world.operator import TICK_S, LeaderArm, Operator
from drivers.world.physics import Tabletop, start_joints
from drivers.world.servos import Encoders
from runtime.body import RobotDescription
from runtime.clock import Clock
from runtime.stepped import SteppedClock

MS = 1_000_000
ROBOT = describe()
ENCODERS = Encoders(ROBOT)
SECOND = 1_000_000_000
SMALL_HEAD = HeadCameraOptions(width=160, height=120)
SMALL_WRIST = WristCameraOptions(width=80, height=64)


def small(**options: object) -> WorldConfig:
    """A world whose pictures cost little."""
    return WorldConfig.model_validate({"head": SMALL_HEAD, "wrist": SMALL_WRIST, **options})


def one_object(**options: object) -> WorldConfig:
    return small(placed=(ObjectOptions.model_validate(options),))


def tabletop(config: WorldConfig, robot: RobotDescription = ROBOT) -> Tabletop:
    return Tabletop(config, draw_objects(config), robot)


def power(table: Tabletop, *, on: bool = True) -> None:
    for servo in table.bank.ids:
        table.bank.set_torque(servo, on)


def aim(table: Tabletop, joints: np.ndarray, encoders: Encoders = ENCODERS) -> None:
    for joint, angle in enumerate(joints):
        table.bank.set_goal(joint + 1, encoders.ticks(joint, float(angle)))


class Teleoperation:
    """The scripted operator with a follower that is told the leader's joints 30 times a second."""

    def __init__(self, config: WorldConfig, robot: RobotDescription = ROBOT) -> None:
        self.table = tabletop(config, robot)
        self.encoders = Encoders(robot)
        self.leader = LeaderArm(start_joints(config, robot), self.encoders)
        self.operator = Operator(self.table, {"": self.leader}, config.operator)
        power(self.table)
        self.table.bank.set_torque_limit(6, 500)
        self.phases: list[tuple[int, str]] = []

    def run(self, limit_s: float) -> None:
        for tick in range(round(limit_s / TICK_S)):
            self.operator.tick()
            self.leader.step(TICK_S)
            if tick % 7 == 0:
                aim(self.table, self.leader.bank.joints_rad(), self.encoders)
            self.table.advance(self.table.now_ns + 5 * MS)
            report = self.operator.report
            if not self.phases or self.phases[-1] != (report.episode, report.phase):
                self.phases.append((report.episode, report.phase))
            if report.done:
                return


def present(config: WorldConfig) -> list[ObjectSpec]:
    return [spec for spec in draw_objects(config) if spec.present]


def joint_map(client: WorldClient, folder: Path, wire: str = "follower") -> tuple[Path, JointMap]:
    path = folder / f"{wire}.json"
    path.write_text(json.dumps(client.calibration[wire]))
    ranges = dict(zip(JOINT_NAMES, JOINT_RANGES_RAD, strict=True))
    middles = client.middles_rad[wire]
    return path, JointMap.build(load_calibration(path, JOINT_NAMES), ranges, zero_rad=middles)


def arm(name: str, client: WorldClient, folder: Path, clock: Clock) -> FeetechArm:
    path, joints = joint_map(client, folder, name)
    role = "leader" if name == "leader" else "follower"
    config = FeetechOptions(port=client.addresses[name], calibration=path, role=role)
    return FeetechArm(name, config, joints, clock)


@contextmanager
def stepped_world(config: WorldConfig) -> Iterator[tuple[SteppedClock, WorldClient]]:
    with SteppedClock() as clock, WorldClient(config, clock) as client:
        client.wait_ready()
        clock.attach(client)
        try:
            yield clock, client
        finally:
            clock.detach()
            clock.close()
