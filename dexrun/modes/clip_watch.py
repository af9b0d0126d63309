"""Notices that what a policy asks for is nonsense to this arm: nearly every tick of it has to be clipped."""

from __future__ import annotations

from collections import deque

from loguru import logger

from dexrun.robot import Robot
from runtime.messages import Clip
from runtime.tick import TickFlag
from runtime.units import Plausibility, UnitMap
from runtime.worker import PolicyAttempt

WINDOW_S = 1.5
SHARE = 0.9
"""Of the ticks of a window, so many clipped by range or speed are no policy's way of moving."""
_HARD = Clip.RANGE | Clip.RELATIVE | Clip.VELOCITY


class ClipWatch:
    """Says once that units may be wrong; with ``policy.stop_on_implausible`` it latches a stop."""

    def __init__(self, robot: Robot) -> None:
        self._robot = robot
        self._clipped: deque[bool] = deque(maxlen=max(2, round(WINDOW_S * robot.settings.control.rate_hz)))
        self._sample = robot.records.blank()
        self._seen = -1

    async def run(self) -> None:
        """Until it has been said."""
        control = self._robot.control
        while not self._implausible():
            await control.ticked()
        line = self._line()
        logger.warning(line)
        if self._robot.settings.policy.stop_on_implausible:
            control.stop(line)

    def _implausible(self) -> bool:
        control = self._robot.control
        if control.speed < 1.0 or not isinstance(control.source, PolicyAttempt):
            self._clipped.clear()  # a person who limits the speed has everything clipped that is faster
            return False
        if self._robot.records.newest(self._sample) is None or self._sample.index == self._seen:
            return False
        self._seen = self._sample.index
        if not int(self._sample["flags"]) & TickFlag.POSTED:
            return False
        self._clipped.append(bool(int(self._sample["clips"]) & _HARD))
        return len(self._clipped) == self._clipped.maxlen and sum(self._clipped) >= SHARE * len(self._clipped)

    def _line(self) -> str:
        robot, asked = self._robot, self._sample["requested"]
        doubt = Plausibility(robot.joints, UnitMap()).doubt(asked, asked)
        units = getattr(robot.settings.policy, "units", None)
        configured = f"; policy.units is {units.convention}" if isinstance(units, UnitMap) else ""
        return (
            f"{sum(self._clipped)} of {len(self._clipped)} ticks of the policy were clipped by range or "
            f"speed: its units may be wrong{configured}{f' ({doubt})' if doubt else ''}"
        )
