"""Prepared moves, which are done when the arm is there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from dexrun.modes.motion_source import MotionSource
from runtime.messages import Floats

if TYPE_CHECKING:
    from dexrun.robot import Robot

_SLACK, _SLACK_S = 1.5, 5.0
"""How much longer than planned a move may take: it engages slowly after whatever held it."""


async def carry_out(robot: Robot, rows: Floats) -> str | None:
    """Make the move ``rows[T, D]`` and wait until the arm is measured at its end, grippers left out.

    Waits out what holds the arm. The move stays what is followed.

    Returns:
        ``""`` once the arm is there; why it is not, if it does not get there in time; ``None`` if something
        else is followed by then.
    """
    control, source = robot.control, MotionSource(rows)
    control.follow(source)
    rate_hz = robot.settings.control.rate_hz
    left = _SLACK * len(rows) + _SLACK_S * rate_hz
    while control.source is source:
        off = off_by(robot, rows[-1])
        if control.exhausted and not off:
            return ""
        if control.refused:
            return f"the move was refused: {control.refused}"
        left -= control.speed if control.state == "running" else 0.0
        if left <= 0:
            return f"the arm did not get there: {off or 'it was held back on the way'}"
        await control.ticked()
    return None


def off_by(robot: Robot, pose: Floats) -> str:
    """Which joint, grippers left out, is measured farthest from `pose` ``[D]``, and by how much; ``""`` where
    all are within ``control.arrived_rad``.
    """
    position, layout = robot.control.position, robot.model.layout
    if position is None:
        return "it is not known where the arm is"
    carrying = list(robot.description.carrying)
    far = np.abs(position - pose)[carrying]
    if not far.size or far.max() <= robot.settings.control.arrived_rad:
        return ""
    worst = int(far.argmax())
    return f"{layout.names[carrying[worst]]} is {far[worst]:.2f} rad off"
