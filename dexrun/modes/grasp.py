"""The autonomous mode: carries out a `GraspPlan`, one step after the other."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import anyio
import numpy as np
from loguru import logger

from dexrun.episodes.episodes import EpisodeError, Episodes
from dexrun.exit_codes import NOT_DONE
from dexrun.modes.attempt_episodes import AttemptEpisodes
from dexrun.modes.grasp_moves import GraspMoves
from dexrun.modes.hand_over import DrivingPhase
from dexrun.modes.jogging import JogKeys
from dexrun.modes.locating import located
from dexrun.modes.perception import DetectorFailedError, NotSegmentedError, Perception
from dexrun.modes.pictures import save_png, sketch
from dexrun.modes.policy_watch import PolicyFailures
from dexrun.modes.take_over import TakeOver
from dexrun.modes.turns import ModeTurns
from dexrun.outcome import Outcome, stopped
from dexrun.robot import Robot
from dexrun.run_folder import RunFolder
from planner import plan
from planner.errors import PlannerError
from planner.questions.check_grasp import CheckGrasp
from planner.questions.mark import Mark
from planner.questions.question import Question, View
from planner.questions.reply import Reply
from runtime.clock import NS_PER_S
from runtime.faults import decide
from runtime.messages import Decision, Frame, PolicyStatus, TrackedMask
from runtime.observer import frame_of
from runtime.supervisor import Patience

if TYPE_CHECKING:
    from planner.client import Planner
    from runtime.worker import InferenceWorker, PolicyAttempt

_HELD_S = 0.5
"""Fingers that only close are asked for more than they are, too, but not for so long."""
_DONE = 20
"""Steps that the state tells of."""
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
        episodes: takes every attempt as an episode of its own, where a person may correct.
    """

    def __init__(
        self,
        robot: Robot,
        planner: Planner,
        perception: Perception,
        worker: InferenceWorker,
        folder: RunFolder,
        episodes: Episodes | None = None,
    ) -> None:
        options = robot.settings.grasp
        self._options = options
        self._robot = robot
        self._infos = robot.infos()
        self._clock = robot.clock
        self._control = robot.control
        self._planner = planner
        self._perception = perception
        self._worker = worker
        self._folder = folder
        self._plan = plan.GraspPlan(robot.settings.planner.prompt, options)
        self._marked: Frame | None = None
        self._undrawn: TrackedMask | None = None
        self._sketches = 0
        self._failures = PolicyFailures(robot, worker)
        self._lowest = 0.0
        self._step, self._done = "starting", list[str]()
        self._record = None if episodes is None else AttemptEpisodes(episodes)
        self._turns = ModeTurns(robot.clock, robot.control)
        self._moves = GraspMoves(robot, self._turns)
        self._had_up, self._held_ticks = False, 0
        self._whole, self._quitting = anyio.CancelScope(), False
        self._left_s = options.time_limit_s
        self._present, self._told = anyio.CancelScope(), ""
        self._take_over = TakeOver(
            robot, lambda: True, lambda: self._step, self._driven_by, lambda phase: phase == "carry"
        )
        self._take_over.hand_over.policy()

    @property
    def step(self) -> str:
        """What is going on, in words."""
        return self._step if self._turns.mine else f"{self._take_over.doing()}; {self._step}"

    def broken_off(self, why: str) -> None:
        """The attempt has failed; what else the plan was at is done anew, from where the arm is."""
        if self._record is not None:
            self._record.broken_off(why)
        self._take_over.hand_over.policy()
        if isinstance(self._plan.step, plan.Grasp | plan.Place):
            self._done.append(self._step)
            self._plan.tell(plan.Failed("stopped", why))

    def attempts(self) -> list[dict[str, Any]]:
        """``[{instruction, attempt, grasped, completed}]`` so far."""
        return [attempt.summary() for attempt in self._plan.attempts]

    def statistics(self) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
        """The planner's and the policy's part of the summary."""
        return self._planner.statistics(), self._worker.statistics()

    async def run(self) -> Outcome:
        """Carry out the prompt."""
        if self._record is not None and (why := self._record.blocked):
            return Outcome("incomplete", f"not begun, since it cannot be recorded: {why}", exit_code=NOT_DONE)
        if self._robot.leader is None:
            return await self._work()
        async with anyio.create_task_group() as beside:
            beside.start_soon(self._take_over.run, self._count, name="grasp-ticks")
            outcome = await self._work()
            self._take_over.hand_over.rest()
            beside.cancel_scope.cancel()
        return outcome

    async def _work(self) -> Outcome:
        try:
            with self._turns.at_most(self._left_s) as self._whole:
                if self._quitting:  # somebody was sooner
                    self._whole.cancel()
                began_s = self._turns.own_s()
                try:
                    await self._carry_out()
                finally:
                    self._left_s -= self._turns.own_s() - began_s
        except PlannerFailedError as error:
            self._let_be()
            self._plan.stop(str(error))
            return stopped(str(error), self.attempts())
        if self._whole.cancelled_caught:
            self._let_be()
            limit = f"time limit of {self._options.time_limit_s:g} s"
            self._plan.stop("asked to quit" if self._quitting else limit)
        end = self._plan.step
        assert isinstance(end, plan.Finished)  # noqa: S101 - the loop above ends in no other way
        self._step = end.reason
        logger.info("{}: {}", "completed" if end.completed else "not completed", end.reason)
        if end.completed:
            return Outcome("completed", end.reason, self.attempts())
        return Outcome("incomplete", end.reason, self.attempts(), NOT_DONE)

    async def _carry_out(self) -> None:
        while self._told or not isinstance(self._plan.step, plan.Finished):
            if self._told:
                self._begin_anew()
            with anyio.CancelScope() as self._present:
                await self._carry_on(self._plan)

    def _let_be(self) -> None:
        """What the mode follows it follows no longer; what somebody else does with the arm is his."""
        if self._turns.mine and self._control.source is not None:
            self._control.rest()

    def _begin_anew(self) -> None:
        """Plan for what was told; the attempts made so far count."""
        self._let_be()
        if self._record is not None:
            self._record.broken_off("told something else")
        attempts = self._plan.attempts
        self._plan.stop("told something else")
        self._plan = plan.GraspPlan(self._told, self._options, attempts)
        self._told = ""

    async def _carry_on(self, steps: plan.GraspPlan) -> None:
        """Do the plan's step, and tell it what came of it."""
        self._step = steps.step.in_words()
        logger.info("{}", self._step)
        if self._record is not None:
            try:
                self._record.before(steps)
            except EpisodeError as error:
                steps.stop(f"not recorded: {error}")
                return
        steps.tell(await self._do(steps.step))
        self._done.append(self._step)
        if self._record is not None:
            self._record.after(steps)

    # --- what a person may ask for (`dexrun.episodes.controls.ModeControls`, `dexrun.modes.mode.PersonsMode`)

    def controls(self) -> tuple[None, GraspMode]:
        """Its episodes, where it has any, are its own."""
        return None, self

    @property
    def jog(self) -> JogKeys:
        """The keys of a leader without an arm."""
        return self._take_over.jog

    @property
    def help(self) -> str:
        """The mode's keys, for a person."""
        return f"keys: {self._take_over.help}; q or ESC end the run; ? this help"

    def commands(self) -> Mapping[str, Callable[[], None]]:
        """By key."""
        return {**self._take_over.commands(), "quit": self._quit}

    def requests(self) -> Mapping[str, Callable[[], None]]:
        """By path of the HTTP API."""
        return {**self._take_over.requests(), "/quit": self._quit}

    def texts(self) -> Mapping[str, tuple[str, Callable[[str], None]]]:
        """By path of the HTTP API."""
        return {"/tell": ("instruction", self.tell)}

    @property
    def prompt(self) -> str:
        """What is to be done, as a person put it last."""
        return self._told or self._plan.prompt

    def tell(self, words: str) -> None:
        """Do this from now on: what is being done is broken off where the arm is, and planned anew.

        Raises:
            EpisodeError: nothing is said, or the run is at its end.
        """
        words = words.strip()
        if not words:
            raise EpisodeError("no prompt: nothing is said")
        if isinstance(self._plan.step, plan.Finished):
            raise EpisodeError("the run is at its end")
        if words != self.prompt:
            logger.info("told: {}", words)
            self._told = words
            self._present.cancel()

    def state(self) -> Mapping[str, Any]:
        """For the HTTP API."""
        step = self._plan.step
        now = {"prompt": self.prompt, "plan": [*self._done[-_DONE:], step.in_words()]}
        return {**self._take_over.state(), "attempts": self.attempts(), **now}

    def _quit(self) -> None:
        """The arm stays where it is at once; the run ends."""
        self._quitting = True
        self._take_over.hand_over.rest()
        self._whole.cancel()

    def _driven_by(self, phase: DrivingPhase) -> None:
        self._turns.changed(phase)
        if self._robot.leader is not None:
            logger.info("{}", "the run goes on" if phase is DrivingPhase.POLICY else phase.value)
        if self._record is not None:
            self._record.event(phase.name.lower())

    def _count(self) -> None:
        """Once a tick: for how long a person drives in an attempt, and whether its object was up then."""
        if self._turns.mine:
            self._held_ticks = 0
            return
        self._held_ticks = self._held_ticks + 1 if self._moves.holds_something() else 0
        if self._held_ticks > _HELD_S * self._robot.settings.control.rate_hz and self._moves.holds_up():
            self._had_up = True
        if self._take_over.person_drives:
            for attempt in self._plan.attempts[-1:]:
                attempt.person_s += 1 / self._robot.settings.control.rate_hz

    async def _do(self, step: plan.Step) -> plan.StepResult:
        match step:
            case plan.Home():
                return await self._moves.home()
            case plan.Grasp():
                return await self._grasp(step)
            case plan.Place():
                return await self._moves.place()
            case plan.Finished():
                raise AssertionError("the run is over")
        return await self._ask(step)

    # --- questions

    async def _ask(self, question: Question[Reply]) -> plan.StepResult:
        """The answer to what is seen; to what a person has changed meanwhile there is none."""
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
                self._marked = head
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

    # --- an attempt

    async def _grasp(self, step: plan.Grasp) -> plan.StepResult:
        """One attempt. It begins once there is a mask of its object, and the policy is free to begin anew.

        After a person had the arm: what is held up has been grasped, what was up and is not any more has been
        put down; otherwise the policy goes on from where the arm is.
        """
        assert self._marked is not None  # noqa: S101 - the plan asks Mark before Grasp
        attempt, self._had_up = self._worker.attempt(step.instruction), False
        try:
            self._undrawn = await self._perception.track(
                self._marked, step.box, attempt.number, step.instruction
            )
            await self._free()
            with self._turns.at_most(self._options.attempt_timeout_s) as limit:
                while (result := await self._follow(attempt, step, limit)) is None:
                    await self._free()
                    if (result := self._handed_back()) is not None:
                        return result
                    attempt = self._worker.attempt(step.instruction)
                    await self._perception.keep_on(attempt.number)
                return result
        except NotSegmentedError as error:
            logger.warning("no mask for {}: {}", step.instruction, error)
            return plan.Failed("not_segmented", str(error))
        finally:
            self._failures.note(attempt)
            if self._control.source is attempt:  # and not a person, who may have taken over
                self._control.idle()
            self._perception.forget()
        waits_for = self._worker.report.waits_for
        waited = f": {waits_for}" if waits_for else ""
        return plan.Failed("timeout", f"no grasp within {self._options.attempt_timeout_s:g} s{waited}")

    async def _free(self) -> None:
        """Until it is the mode's turn, and what an earlier attempt asked for last has been answered."""
        await self._turns.wait()
        while self._worker.in_flight or not self._turns.mine:
            await self._control.ticked()

    def _handed_back(self) -> plan.StepResult | None:
        """What a person has made of the attempt; ``None`` if it is to go on."""
        if not self._had_up:
            return None
        return plan.Lifted(self._moves.height()) if self._moves.holds_up() else plan.PutDown()

    async def _follow(
        self, attempt: PolicyAttempt, step: plan.Grasp, limit: anyio.CancelScope
    ) -> plan.StepResult | None:
        """Follow the policy until it has the object up or gives up; ``None`` if the arm is taken from it."""
        if not self._turns.mine:
            return None
        self._lowest, quiet, lost = float("inf"), 0, self._turns.lost
        self._control.follow(attempt)
        tick_s = 1 / self._robot.settings.control.rate_hz
        patience = round(_QUIET_S * self._robot.settings.control.rate_hz)
        while True:
            await self._control.ticked()
            self._perception.holds(self._moves.holds_something())
            if self._undrawn is not None and len(self._control.horizon):
                mask, self._undrawn = self._undrawn, None
                await self._draw(step, mask)
            self._failures.note(attempt)
            if self._turns.lost > lost:
                return None
            if attempt.unready:  # its server has come back and may have to load: no time of the attempt's
                limit.deadline, quiet = limit.deadline + tick_s, 0
            if (result := self._result(attempt)) is not None:
                return result
            quiet = quiet + 1 if len(self._control.horizon) == 0 else 0
            if quiet > patience and attempt.failures:
                return plan.Failed("policy", self._worker.report.last_error)

    def _result(self, attempt: PolicyAttempt) -> plan.StepResult | None:
        """How `attempt` has ended, if it has."""
        said = self._control.attempt
        if said.status is PolicyStatus.FAILED:
            return plan.Failed("policy", said.why)
        if said.status is PolicyStatus.DONE or self._came_up():
            return plan.Lifted(self._moves.height())
        lost = self._perception.failure(attempt.number)
        return plan.Failed("not_tracked", lost) if lost else None

    async def _draw(self, step: plan.Grasp, mask: TrackedMask) -> None:
        """Leave a picture of what is about to be grasped, and how, in the run's folder."""
        frame = self._marked
        assert frame is not None  # noqa: S101 - as in `_grasp`
        rows = self._control.horizon.pending()
        info = self._infos[frame.camera]
        path = self._folder.path / f"grasp-{self._sketches:03d}.png"
        self._sketches += 1

        def draw() -> None:
            arm = self._moves.arm.copy()  # the other is the loop's
            way = np.array([arm.fk(row[self._moves.joints])[:3, 3] for row in rows])
            save_png(path, sketch(frame, step.box, mask, step.instruction, way, info))

        await self._clock.run_blocking(draw)

    def _came_up(self) -> bool:
        """For a policy that does not say when it is done: down at the table, and up again."""
        if self._worker.report.spec.tells_end:
            return False
        height = self._moves.height()
        self._lowest = min(self._lowest, height)
        above = self._options.check_height_m
        return self._lowest < 0.5 * above and height > above
