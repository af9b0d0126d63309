"""Which robot a configuration is about, or a recording."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np

from drivers.arms import DEFAULT, EARLIER, describe
from runtime.arm_model import ModelError
from runtime.body import RobotDescription, together
from runtime.body_options import ArmOptions, BaseOptions, BodyOptions, StandingArmOptions
from runtime.model_file import fingerprint, is_model_file


def robot_of(arm: ArmOptions) -> RobotDescription:
    """The robot of an arm's table; a file is read once.

    Raises:
        ModelError: there is no such model, or its file does not hold the arm described.
        MeshesMissingError: a known model's package is not installed.
    """
    return _described(arm.model, arm.body.model_dump_json())


def robot_of_all(arms: Mapping[str, StandingArmOptions]) -> RobotDescription:
    """The robot of one arm's table, which is called ``""``, or of several arms' by name.

    Raises:
        ModelError, MeshesMissingError: as `robot_of`.
    """
    if "" in arms:
        return robot_of(arms[""])
    return together({name: (robot_of(arm), (arm.base or BaseOptions()).pose()) for name, arm in arms.items()})


@cache
def _described(model: str, body: str) -> RobotDescription:
    return describe(model, BodyOptions.model_validate_json(body))


def remembered(arms: Mapping[str, ArmOptions], robot: RobotDescription) -> dict[str, Any]:
    """What a recording keeps of its robot, for `recorded`; `arms` as for `robot_of_all`."""
    if "" in arms:
        return _remembered(arms[""], robot)
    return {
        "model": robot.name,
        "arms": {
            name: {**_remembered(arm, robot.singles[name]), "base": robot.bases[name].tolist()}
            for name, arm in arms.items()
        },
    }


def _remembered(arm: ArmOptions, robot: RobotDescription) -> dict[str, Any]:
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
    try:
        robot = _recorded(about)
        names = tuple(about.get("joint_names", robot.joints))
    except (ValueError, TypeError, KeyError, AttributeError) as error:  # as many ways as there are records
        raise ModelError(f"the record 'robot' does not describe an arm: {_one_line(error)}") from None
    if names != robot.joints:
        raise ModelError(
            f"recorded joints {', '.join(names)} are not those of the arm {about.get('model', '')!r}: it has "
            f"{', '.join(robot.joints)}"
        )
    return robot


def _recorded(about: Mapping[str, Any]) -> RobotDescription:
    if arms := about.get("arms"):
        return together({name: (_recorded(one), np.array(one["base"])) for name, one in arms.items()})
    model = str(about.get("model", ""))
    before = about.get("model_sha256")
    if is_model_file(model):  # whose name a stranger may have written: nothing else is opened by it
        _same(model, str(before), fingerprint(model))
    arm = ArmOptions(model=model, body=BodyOptions.model_validate(about.get("body", {})))
    if earlier := EARLIER.get((model or DEFAULT, str(before or ""))):
        return earlier()
    robot = robot_of(arm)
    _same(model, str(before or robot.fingerprint), robot.fingerprint)
    return robot


def _same(model: str, before: str, here: str) -> None:
    if before != here:
        raise ModelError(
            f"recorded with the arm {model!r} of sha256 {before[:12]}; what is here by that name has "
            f"{here[:12]}"
        )


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
