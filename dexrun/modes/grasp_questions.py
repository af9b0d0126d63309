"""What grasp mode asks the planner, about what the cameras see."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loguru import logger

from dexrun.modes.grasp_moves import GraspMoves
from dexrun.modes.locating import located
from dexrun.modes.perception import DetectorFailedError, Perception
from dexrun.modes.turns import ModeTurns
from dexrun.robot import Robot
from planner import plan
from planner.errors import PlannerError
from planner.questions.check_grasp import CheckGrasp
from planner.questions.mark import Mark
from planner.questions.question import Question, View
from planner.questions.reply import Reply
from runtime.clock import NS_PER_S
from runtime.faults import decide
from runtime.messages import Decision, Frame
from runtime.observer import frame_of
from runtime.supervisor import Patience

if TYPE_CHECKING:
    from planner.client import Planner


class PlannerFailedError(Exception):
    """The planner failed and the configuration says to stop then."""


class TableQuestions:
    """Asks with the table in view: the arm goes home first, unless the question is about the gripper.

    Attributes:
        marked: the picture in which an object was looked for last.
    """

    def __init__(
        self, robot: Robot, planner: Planner, perception: Perception, moves: GraspMoves, turns: ModeTurns
    ) -> None:
        self.marked: Frame | None = None
        self._robot = robot
        self._clock, self._control = robot.clock, robot.control
        self._options = robot.settings.grasp
        self._planner = planner
        self._perception = perception
        self._moves = moves
        self._turns = turns

    async def ask(self, question: Question[Reply]) -> plan.StepResult:
        """The answer to what is seen; to what a person has changed meanwhile there is none.

        Raises:
            PlannerFailedError: the run is to stop.
        """
        while True:
            await self._turns.wait()
            lost = self._turns.lost
            answer = await self._asked(question)
            if self._turns.lost == lost:
                return answer
            logger.info("somebody else had the arm meanwhile: asked anew")

    async def _asked(self, question: Question[Reply]) -> plan.StepResult:
        blocked = "" if isinstance(question, CheckGrasp) else await self._clear_view()
        if blocked:
            logger.warning("not asked, since the arm hides the table: {}", blocked)
            return plan.Failed("view_blocked", blocked)
        head = await self._see(self._options.head, self._moves.clear_ns)
        pictures = {View.HEAD: head.color}
        if self._options.wrist and (wrist := self._look(self._options.wrist)) is not None:
            pictures[View.WRIST] = wrist.color
        try:
            if isinstance(question, Mark):
                self.marked = head
                return await located(question, head, pictures, self._planner, self._perception)
            return await self._planner.ask(question, pictures)
        except DetectorFailedError as error:
            logger.warning("not detected: {}", error)
            return plan.Failed("not_detected", str(error))
        except PlannerError as error:
            failed = plan.Failed.of(error)
        if failed.kind != "no_object":
            logger.warning("planner: {}: {}", failed.kind, failed.detail)
            self._robot.faults.log.count("planner", failed.kind)
            asked = decide(self._robot.settings.faults, "planner", failed.kind)
            if asked is Decision.STOP or self._robot.settings.planner.on_failure == "stop":
                raise PlannerFailedError(f"planner: {failed.kind}: {failed.detail}")
        return failed

    async def _clear_view(self) -> str:
        """Why the table is not in view, if it is not: the arm is not at home, and does not get there."""
        if not self._moves.off_home():
            return ""
        outcome = await self._moves.home()
        return outcome.detail if isinstance(outcome, plan.Failed) else self._moves.off_home()

    async def _see(self, camera: str, since_ns: int = 0) -> Frame:
        """What is there now, in a picture taken after `since_ns`.

        Where nothing is shown for as long as a fault may last, the loop is stopped.
        """
        patience = Patience(self._robot.settings.control.stop_after_hold_s)
        while (frame := self._look(camera)) is None or frame.stamp_ns < since_ns:
            if patience.tried(lasting=True, now_ns=self._clock.now_ns()):
                age_s = self._options.stale_camera_s
                self._control.stop(f"{camera}: no data for {age_s:g} s (held for {patience.limit_s:g} s)")
            await self._control.ticked()
        return frame

    def _look(self, camera: str) -> Frame | None:
        """The newest frame, unless it shows how the table was a while ago."""
        ring = self._robot.cameras[camera].frames
        max_age_ns = round(self._options.stale_camera_s * NS_PER_S)
        sample = ring.newest(now_ns=self._clock.now_ns(), max_age_ns=max_age_ns)
        return None if sample is None else frame_of(camera, sample, ring)
