"""The force sensor's zero, taken anew when an episode begins; what came of it is in the recording."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from loguru import logger

from dexrun.robot import Robot
from runtime.clock import NS_PER_S
from runtime.latest import Latest

STILL_RAD_S = 0.05
"""Joints slower than this (the gripper: in travels a second) stand still."""


class ForceZero:
    """Asks for a zero while the arm rests, and reports every answer as an event; one of `Recorder`'s watches.

    In grasp mode the only episode begins with the run: the zero of the sensor's opening is its own, and the
    arm moves home at once.
    """

    def __init__(self, robot: Robot) -> None:
        self._force = robot.force if robot.settings.mode != "grasp" else None
        self._clock = robot.clock
        self._states = robot.arm.states
        self._max_age_ns = round(robot.settings.control.state_max_age_s * NS_PER_S)
        self._begun: Latest[int] = Latest()
        self._seen = 0

    def begin(self) -> None:
        """An episode begins; on the loop."""
        if self._force is not None:
            self._begun.post(len(self._force.tared))  # what was answered before is of no episode
            self._force.tare(self._still)

    def _still(self) -> bool:
        state = self._states.newest(now_ns=self._clock.now_ns(), max_age_ns=self._max_age_ns)
        return state is not None and bool(np.abs(state["velocity"]).max() < STILL_RAD_S)

    def __call__(self) -> Iterable[tuple[str, Mapping[str, Any]]]:
        """What was not told yet, on the recorder's thread: ``force_tare``, and why one was ``refused``."""
        if self._force is None:
            return
        self._seen = max(self._seen, self._begun.take() or 0)
        for refused in self._force.tared[self._seen :]:
            self._seen += 1
            if refused:
                logger.info("force: the zero stays as it was: {}", refused)
            yield "force_tare", {"refused": refused}
