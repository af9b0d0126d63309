"""Where an object is, by phrase: what a policy with a mask needs, without the grasp mode's plan."""

from __future__ import annotations

from typing import Any

from dexrun.modes.locating import located
from dexrun.modes.perception import Perception
from dexrun.robot import Robot
from planner.client import Planner
from planner.errors import PlannerError
from planner.questions.mark import Mark
from planner.questions.question import View
from runtime.clock import NS_PER_S
from runtime.observer import frame_of


class ObjectFinder:
    """Asks detector or planner for the box of what a phrase names, and has it tracked from then on.

    Args:
        planner: open. perception: of the same camera, started.
    """

    def __init__(self, robot: Robot, planner: Planner, perception: Perception, camera: str) -> None:
        self._control = robot.control
        self._clock = robot.clock
        self._frames = robot.cameras[camera].frames
        self._max_age_ns = round(robot.settings.grasp.stale_camera_s * NS_PER_S)
        self._planner = planner
        self._perception = perception
        self._camera = camera
        self._faults = robot.faults.log

    async def find(self, phrase: str, attempt: int) -> None:
        """Find it in the newest picture; its masks carry `attempt`.

        Raises:
            PlannerError: it is not there, or the planner did not answer.
            dexrun.modes.perception.DetectorFailedError: the detector did not answer.
            dexrun.modes.perception.NotSegmentedError: nothing stands out where it is said to be.
        """
        while (sample := self._newest()) is None:
            await self._control.ticked()
        frame = frame_of(self._camera, sample, self._frames)
        try:
            pictures = {View.HEAD: frame.color}
            box = await located(Mark(phrase), frame, pictures, self._planner, self._perception)
        except PlannerError as error:
            if error.kind != "no_object":
                self._faults.count("planner", error.kind)
            raise
        await self._perception.track(frame, box, attempt, phrase)

    def _newest(self) -> Any:
        return self._frames.newest(now_ns=self._clock.now_ns(), max_age_ns=self._max_age_ns)

    def lost(self, attempt: int) -> str:
        """Why the object of `attempt` is not tracked any more, or ``""``."""
        return self._perception.failure(attempt)

    def forget(self) -> None:
        """Track nothing for now."""
        self._perception.forget()

    def statistics(self) -> dict[str, object]:
        """The planner's part of the summary."""
        return self._planner.statistics()
