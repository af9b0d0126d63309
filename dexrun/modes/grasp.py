"""The autonomous mode: carries out a `GraspPlan`, one step after the other."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import anyio
from loguru import logger

from dexrun.episodes.episodes import EpisodeError, Episodes
from dexrun.exit_codes import NOT_DONE
from dexrun.modes.attempt_episodes import AttemptEpisodes
from dexrun.modes.grasp_attempt import AttemptParts, GraspAttempt
from dexrun.modes.grasp_moves import GraspMoves
from dexrun.modes.grasp_questions import PlannerFailedError, TableQuestions
from dexrun.modes.hand_over import DrivingPhase
from dexrun.modes.jogging import JogKeys
from dexrun.modes.perception import Perception
from dexrun.modes.pictures import GraspPictures
from dexrun.modes.policy_watch import PolicyFailures
from dexrun.modes.take_over import TakeOver
from dexrun.modes.turns import ModeTurns
from dexrun.outcome import Outcome, stopped
from dexrun.robot import Robot
from dexrun.run_folder import RunFolder
from planner import plan

if TYPE_CHECKING:
    from planner.client import Planner
    from runtime.worker import InferenceWorker

_DONE = 20
"""Steps that the state tells of."""


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
        self._control = robot.control
        self._planner = planner
        self._worker = worker
        self._plan = plan.GraspPlan(robot.settings.planner.prompt, options)
        self._step, self._done = "starting", list[str]()
        self._record = None if episodes is None else AttemptEpisodes(episodes)
        self._turns = ModeTurns(robot.clock, robot.control)
        self._moves = GraspMoves(robot, self._turns)
        self._questions = TableQuestions(robot, planner, perception, self._moves, self._turns)
        failures, pictures = PolicyFailures(robot, worker), GraspPictures(robot, folder.path)
        self._parts = AttemptParts(robot, worker, perception, self._moves, self._turns, failures, pictures)
        self._attempt: GraspAttempt | None = None
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
        """Once a tick: for how long a person drives in an attempt, and what he has in the gripper."""
        if self._attempt is not None:
            self._attempt.look()
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
        return await self._questions.ask(step)

    async def _grasp(self, step: plan.Grasp) -> plan.StepResult:
        marked = self._questions.marked
        assert marked is not None  # noqa: S101 - the plan asks Mark before Grasp
        self._attempt = GraspAttempt(self._parts, step, marked)
        try:
            return await self._attempt.run()
        finally:
            self._attempt = None
