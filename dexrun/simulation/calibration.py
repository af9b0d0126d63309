"""How arms are calibrated, as far as it is known without opening one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dexrun.config.addresses import in_world
from dexrun.config.settings import Settings
from drivers.arms.choice import robot_of_all
from drivers.world.servos import Encoders
from runtime.body import RobotDescription
from runtime.interfaces import PolicyError
from runtime.joints import JointLayout, prefixed
from runtime.units import MIDDLE, calibrated


def known_joints(settings: Settings) -> JointLayout:
    """The joints of the configured arms, calibrated as their files say, or as the simulated ones are.

    Raises:
        PolicyError: a calibration file cannot be used; one line.
    """
    robot, entries = robot_of_all(settings.followers()), {}
    for number, (name, table) in enumerate(settings.followers().items()):
        own = robot.singles[name]
        try:
            found = (
                _simulated(own, number) if in_world(table.address) else table.known_calibration(own.layout)
            )
        except ValueError as error:
            raise PolicyError(str(error)) from None
        entries.update({prefixed(name, joint): entry for joint, entry in found.items()})
    return calibrated(robot.layout, entries)


def _simulated(robot: RobotDescription, number: int) -> Mapping[str, Any]:
    encoders = Encoders(robot, number)
    middles = encoders.middles()
    return {
        joint: {**entry, **({MIDDLE: middles[joint]} if joint in middles else {})}
        for joint, entry in encoders.calibration().items()
    }
