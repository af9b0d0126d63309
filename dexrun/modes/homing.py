"""The way home of all of a robot's arms, as rows for the control loop."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from policies.handling import plan_home
from policies.motion import MotionError, MotionLimits
from runtime.arm_model import ArmModel
from runtime.messages import Floats

if TYPE_CHECKING:
    from dexrun.robot import Robot


async def way_home(robot: Robot) -> Floats:
    """Rows ``[T, D]`` from the arm's target to its home pose, planned on another thread.

    Raises:
        policies.motion.MotionError: no free way was found.
    """
    grasp, target = robot.settings.grasp, robot.control.target
    if target is None:
        raise MotionError("it is not known where the arm is")
    start, model = target.copy(), robot.model.copy()
    home = np.asarray(grasp.home_rad or robot.description.home, dtype=np.float64)
    limits = grasp.move_speed_rad_s, grasp.move_acceleration_rad_s2
    arms, rate_hz = list(robot.settings.followers()), robot.settings.control.rate_hz
    return await robot.clock.run_blocking(
        lambda: home_rows(model, arms, start, home, limits, rate_hz, grasp.carry_height_m)
    )


def home_rows(
    model: ArmModel,
    arms: Sequence[str],
    start: Floats,
    home: Floats,
    limits: tuple[float, float],
    rate_hz: float,
    height_m: float,
) -> Floats:
    """Rows ``[T, D]`` from `start` to `home` ``[D]``, one arm after the other.

    `arms` are called as in the joint vector, ``""`` the only one; `limits` are a joint's speed and
    acceleration. Takes `model` for itself.

    Raises:
        policies.motion.MotionError: no free way was found.
    """
    parts, at = [], start.copy()
    for name in arms:
        arm = model.arm(name) if name else model
        joints = list(model.layout.of(name))
        if name:
            arm.stand(at)
        own = plan_home(
            arm, at[joints], home[joints], MotionLimits.uniform(arm, *limits, rate_hz=rate_hz), height_m
        )
        rows = np.tile(at, (len(own), 1))
        rows[:, joints] = own
        parts.append(rows)
        at = rows[-1].copy()
    return np.concatenate(parts)
