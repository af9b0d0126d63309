"""Which robot a configuration is about, or a recording."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from drivers.arms import describe
from runtime.arm_model import ModelError
from runtime.body import RobotDescription
from runtime.body_options import ArmOptions, BodyOptions


def robot_of(arm: ArmOptions) -> RobotDescription:
    """The robot of an arm's table; a file is read once.

    Raises:
        ModelError: there is no such model, or its file does not hold the arm robot_of.
        MeshesMissingError: a known model's package is not installed.
    """
    return _described(arm.model, arm.body.model_dump_json())


@cache
def _described(model: str, body: str) -> RobotDescription:
    return describe(model, BodyOptions.model_validate_json(body))


def remembered(arm: ArmOptions, robot: RobotDescription) -> dict[str, Any]:
    """What a recording keeps of its robot, for `recorded`."""
    about: dict[str, Any] = {"model": robot.name}
    if robot.fingerprint:
        about["model_sha256"] = robot.fingerprint
    if arm.body != BodyOptions():
        about["body"] = arm.body.model_dump(mode="json")
    return about


def recorded(about: Mapping[str, Any]) -> RobotDescription:
    """The robot that a recording was made with, by its metadata record ``robot``.

    Raises:
        ModelError: its model is not here, or is another one by now. MeshesMissingError as `robot_of`.
    """
    model = str(about.get("model", ""))
    robot = robot_of(ArmOptions(model=model, body=BodyOptions.model_validate(about.get("body", {}))))
    before = about.get("model_sha256", robot.fingerprint)
    if before != robot.fingerprint:
        raise ModelError(
            f"recorded with the arm {model!r} of sha256 {before[:12]}; what is here by that name has "
            f"{robot.fingerprint[:12]}"
        )
    names = tuple(about.get("joint_names", robot.joints))
    if names != robot.joints:
        raise ModelError(
            f"recorded joints {', '.join(names)} are not those of the arm {model!r}: it has "
            f"{', '.join(robot.joints)}"
        )
    return robot
