"""The autonomous mode: carries out a `GraspPlan`, one step after the other."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import anyio
import numpy as np
from loguru import logger

from dexrun.exit_codes import NOT_DONE
from dexrun.modes.moves import carry_out, off_by
from dexrun.modes.perception import NotSegmentedError, Perception
from dexrun.modes.pictures import save_png, sketch
from dexrun.modes.policy_watch import PolicyFailures
from dexrun.outcome import Outcome, stopped
from dexrun.robot import Robot
from dexrun.run_folder import RunFolder
from planner import plan
from planner.errors import PlannerError
from planner.questions.check_grasp import CheckGrasp
from planner.questions.mark import Mark
from planner.questions.question import Question, View
from planner.questions.reply import Reply
from policies.handling import PlaceOptions, plan_home, plan_place
from policies.motion import MotionError, MotionLimits
from runtime.clock import NS_PER_S
from runtime.faults import decide
from runtime.messages import Decision, Floats, Frame, PolicyStatus, TrackedMask
from runtime.observer import frame_of
from runtime.supervisor import Patience

if TYPE_CHECKING:
    from planner.client import Planner
    from runtime.worker import InferenceWorker, PolicyAttempt

_HELD_APART = 0.03
_PUT_BACK_M = 0.03
_QUIET_S = 3.0
"""So long without a usable chunk, while the policy reports failures, ends an attempt."""


class PlannerFailedError(Exception):
    """The planner failed and the configuration says to stop then."""


class GraspMode:
    """Looks, decides, grasps, places, until the plan is finished.

    Args:
        robot: ticking.
        planner: answers the plan's questions.
        perception: tracks the object.
        worker: asks the policy, as a chunk source.
        folder: takes the pictures of what was about to be grasped.

    Attributes:
        step: what is going on, in words.
    """

    def __init__(
        self,
        robot: Robot,
        planner: Planner,
        perception: Perception,
        worker: InferenceWorker,
        folder: RunFolder,
    ) -> None:
        options = robot.settings.grasp
        self._options = options
        self._robot = robot
        self._clock = robot.clock
        self._control = robot.control
        # a copy: moves are planned on other threads than the safety stage runs on
        self._arm = robot.model.arm(options.arm) if options.arm else robot.model.copy()
        self._joints = list(robot.model.layout.of(options.arm))
        self._fingers = self._arm.fingers
        self._planner = planner
        self._perception = perception
        self._worker = worker
        self._folder = folder
        self._limits = MotionLimits.uniform(
            self._arm,
            options.move_speed_rad_s,
            options.move_acceleration_rad_s2,
            rate_hz=robot.settings.control.rate_hz,
        )
        self._plan = plan.GraspPlan(robot.settings.planner.prompt, options)
        self._marked: Frame | None = None
        self._placed = 0
        self._sketches = 0
        self._failures = PolicyFailures(robot, worker)
        self._lowest = 0.0
        self._clear_ns = 0
        self.step = "starting"

    def attempts(self) -> list[dict[str, Any]]:
        """``[{instruction, attempt, grasped, completed}]`` so far."""
        return [attempt.summary() for attempt in self._plan.attempts]

    def statistics(self) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
        """The planner's and the policy's part of the summary."""
        return self._planner.statistics(), self._worker.statistics()

    async def run(self) -> Outcome:
        """Carry out the prompt."""
        steps = self._plan
        try:
            with anyio.move_on_after(self._options.time_limit_s) as limit:
                while not isinstance(steps.step, plan.Finished):
                    self.step = steps.step.in_words()
                    logger.info("{}", self.step)
                    steps.tell(await self._do(steps.step))
        except PlannerFailedError as error:
            self._control.idle()
            steps.stop(str(error))
            return stopped(str(error), self.attempts())
        if limit.cancelled_caught:
            self._control.idle()
            steps.stop(f"time limit of {self._options.time_limit_s:g} s")
        end = steps.step
        assert isinstance(end, plan.Finished)  # noqa: S101 - the loop above ends in no other way
        self.step = end.reason
        logger.info("{}: {}", "completed" if end.completed else "not completed", end.reason)
        if end.completed:
            return Outcome("completed", end.reason, self.attempts())
        return Outcome("incomplete", end.reason, self.attempts(), NOT_DONE)

    async def _do(self, step: plan.Step) -> plan.StepResult:
        match step:
            case plan.Home():
                return await self._home()
            case plan.Grasp():
                return await self._grasp(step)
            case plan.Place():
                return await self._place()
            case plan.Finished():
                raise AssertionError("the run is over")
        return await self._ask(step)

    # --- questions

    async def _ask(self, question: Question[Reply]) -> plan.StepResult:
        blocked = "" if isinstance(question, CheckGrasp) else await self._clear_view()
        if blocked:
            logger.warning("not asked, since the arm hides the table: {}", blocked)
            return plan.Failed("view_blocked", blocked)
        head = await self._see(self._options.head, self._clear_ns)
        pictures = {View.HEAD: head.color}
        if self._options.wrist and (wrist := self._look(self._options.wrist)) is not None:
            pictures[View.WRIST] = wrist.color
        if isinstance(question, Mark):
            self._marked = head
        try:
            return await self._planner.ask(question, pictures)
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
        if not self._off_home():
            return ""
        outcome = await self._home()
        return outcome.detail if isinstance(outcome, plan.Failed) else self._off_home()

    def _off_home(self) -> str:
        """Which joint of the arm that works is measured off home, if one is."""
        position = self._control.position
        if position is None:
            return "it is not known where the arm is"
        pose = position.copy()
        pose[self._joints] = self._home_pose()
        return off_by(self._robot, pose)

    def _home_pose(self) -> Floats:
        whole = np.asarray(self._options.home_rad or self._robot.description.home, dtype=np.float64)
        return np.asarray(whole[self._joints])

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

    # --- motions

    async def _grasp(self, step: plan.Grasp) -> plan.StepResult:
        """One attempt. It begins once there is a mask of its object, and the policy is free to begin anew."""
        assert self._marked is not None  # noqa: S101 - the plan asks Mark before Grasp
        attempt = self._worker.attempt(step.instruction)
        try:
            mask = await self._perception.track(self._marked, step.box, attempt.number)
            while self._worker.in_flight:  # what an earlier attempt asked for last
                await self._control.ticked()
        except NotSegmentedError as error:
            logger.warning("no mask for {}: {}", step.instruction, error)
            return plan.Failed("not_segmented", str(error))
        self._lowest = float("inf")
        self._control.follow(attempt)
        try:
            return await self._follow(attempt, step, mask)
        finally:
            self._failures.note(attempt)
            self._control.idle()
            self._perception.forget()

    async def _follow(self, attempt: PolicyAttempt, step: plan.Grasp, mask: TrackedMask) -> plan.StepResult:
        """Follow the policy until it has the object up, gives up, or time is up."""
        quiet, drawn, tick_s = 0, False, 1 / self._robot.settings.control.rate_hz
        patience = round(_QUIET_S * self._robot.settings.control.rate_hz)
        with anyio.move_on_after(self._options.attempt_timeout_s) as limit:
            while True:
                await self._control.ticked()
                if attempt.unready:  # its server has come back and may have to load: no time of the attempt's
                    limit.deadline, quiet = limit.deadline + tick_s, 0
                self._failures.note(attempt)
                if not drawn and len(self._control.horizon):
                    drawn = True
                    await self._draw(step, mask)
                if (result := self._result(attempt)) is not None:
                    return result
                quiet = quiet + 1 if len(self._control.horizon) == 0 else 0
                if quiet > patience and attempt.failures:
                    return plan.Failed("policy", self._worker.report.last_error)
        waits_for = self._worker.report.waits_for
        waited = f": {waits_for}" if waits_for else ""
        return plan.Failed("timeout", f"no grasp within {self._options.attempt_timeout_s:g} s{waited}")

    def _result(self, attempt: PolicyAttempt) -> plan.StepResult | None:
        """How `attempt` has ended, if it has."""
        said = self._control.attempt
        if said.status is PolicyStatus.FAILED:
            return plan.Failed("policy", said.why)
        if said.status is PolicyStatus.DONE or self._came_up():
            return plan.Lifted(self._height())
        lost = self._perception.failure(attempt.number)
        return plan.Failed("not_tracked", lost) if lost else None

    async def _draw(self, step: plan.Grasp, mask: TrackedMask) -> None:
        """Leave a picture of what is about to be grasped, and how, in the run's folder."""
        frame = self._marked
        assert frame is not None  # noqa: S101 - as in `_grasp`
        rows = self._control.horizon.pending()
        info = self._robot.cameras[frame.camera].info
        path = self._folder.path / f"grasp-{self._sketches:03d}.png"
        self._sketches += 1

        def draw() -> None:
            way = np.array([self._arm.fk(row[self._joints])[:3, 3] for row in rows])
            save_png(path, sketch(frame, step.box, mask, step.instruction, way, info))

        await self._clock.run_blocking(draw)

    def _came_up(self) -> bool:
        """For a policy that does not say when it is done: down at the table, and up again."""
        if self._worker.report.spec.tells_end:
            return False
        height = self._height()
        self._lowest = min(self._lowest, height)
        above = self._options.check_height_m
        return self._lowest < 0.5 * above and height > above

    def _height(self) -> float:
        position = self._control.position
        return 0.0 if position is None else self._arm.grasp_height(position[self._joints])

    async def _place(self) -> plan.StepResult:
        place_m = self._options.place_m or self._robot.description.place_m
        spot = self._options.spot(place_m, self._placed)
        self._placed += 1
        options = PlaceOptions(carry_height_m=self._options.carry_height_m, release_height_m=place_m[2])
        held = self._control.position

        def planned(start: Floats) -> Floats:
            opening = None if held is None else self._fingers.openings(held[self._joints])
            return plan_place(self._arm, start, spot, self._limits, options, opening).rows

        return await self._move(planned)

    async def _home(self) -> plan.StepResult:
        if self._holds_something():
            await self._put_back()
        home = self._home_pose()
        height = self._options.carry_height_m
        outcome = await self._move(lambda start: plan_home(self._arm, start, home, self._limits, height))
        self._clear_ns = self._clock.now_ns()
        self._robot.realtime.collect()
        await self._clock.sleep_until_ns(self._clock.now_ns() + round(self._options.settle_s * NS_PER_S))
        return outcome

    def _holds_something(self) -> bool:
        """Whether the fingers are held apart by something: asked to close further than they are."""
        position, target = self._control.position, self._control.target
        if position is None or target is None:
            return False
        is_at, asked = position[self._joints], target[self._joints]
        apart = self._fingers.openings(is_at) - self._fingers.openings(asked)
        return bool(apart.max(initial=0.0) > _HELD_APART)

    async def _put_back(self) -> None:
        """Set down, where it was taken from, what the planner did not see in the gripper.

        Carried home it would be let go behind the arm, where nobody looks for it.
        """
        options = PlaceOptions(self._options.carry_height_m, release_height_m=_PUT_BACK_M)
        position = self._control.position
        opening = None if position is None else self._fingers.openings(position[self._joints])

        def planned(start: Floats) -> Floats:
            x, y = self._arm.fk(start)[:2, 3].tolist()
            return plan_place(self._arm, start, (x, y), self._limits, options, opening).rows

        await self._move(planned)

    async def _move(self, planned: Callable[[Floats], Floats]) -> plan.StepResult:
        """Plan a move from where the arm is asked to be, and make it; waits out faults that hold it.

        Other arms stay where they are asked to be.
        """
        while self._control.target is None:
            await self._control.ticked()
        start = self._control.target.copy()
        try:
            rows = await self._clock.run_blocking(lambda: self._whole(start, planned))
        except MotionError as error:
            logger.warning("{}", error)
            return plan.Failed("motion", str(error))
        why = await carry_out(self._robot, rows)
        self._control.idle()
        if why:
            logger.warning("{}", why)
            return plan.Failed("motion", why)
        return plan.Done()

    def _whole(self, start: Floats, planned: Callable[[Floats], Floats]) -> Floats:
        """What is `planned` for the arm that works, as rows ``[T, D]`` of the whole robot."""
        self._arm.stand(start)
        own = planned(start[self._joints])
        rows = np.tile(start, (len(own), 1))
        rows[:, self._joints] = own
        return rows
