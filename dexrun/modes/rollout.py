"""Rollout: a policy drives, on a person's own words, in episodes; nothing else is in its way.

Keys, buttons, set times, the judge and the policy itself begin and end episodes (`dexrun.episodes`,
`dexrun.modes.driving`); who drives is the business of `dexrun.modes.hand_over`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import anyio
from loguru import logger

from dexrun.episodes.episodes import EpisodeError, Episodes, said
from dexrun.episodes.unrecorded import Unrecorded
from dexrun.exit_codes import NOT_DONE
from dexrun.modes.driving import ByHand
from dexrun.modes.finder import ObjectFinder
from dexrun.modes.hand_over import DrivingPhase
from dexrun.modes.homing import way_home
from dexrun.modes.jogging import JogKeys
from dexrun.modes.moves import carry_out
from dexrun.modes.perception import DetectorFailedError, NotSegmentedError
from dexrun.modes.policy_watch import PolicyFailures
from dexrun.modes.take_over import TakeOver
from dexrun.modes.tally import EpisodeTally, in_words, summarised
from dexrun.outcome import Outcome
from dexrun.robot import Robot
from dexrun.simulation.objects import put_back
from dexrun.simulation.score import score
from drivers.world.client import WorldError
from planner.errors import PlannerError
from policies.motion import MotionError
from runtime.clock import NS_PER_S
from runtime.following import pilot_of
from runtime.messages import PolicyStatus
from runtime.recording.takes import Take

if TYPE_CHECKING:
    from runtime.worker import InferenceWorker, PolicyAttempt

_JUDGE_EVERY_NS, _JUDGE_S = NS_PER_S, 3.0
_ZERO_NS = NS_PER_S
_TRIES = 3
"""So often an object is looked for before its episode ends without it."""


class RolloutMode:
    """Follows the policy while an episode is on, and a person who takes over.

    Args:
        robot: ticking.
        episodes: what may be asked for.
        worker: asks the policy.
        finder: finds the object of a policy that needs a mask.
        alone: nobody is there to press a key.
    """

    def __init__(
        self,
        robot: Robot,
        episodes: Episodes,
        worker: InferenceWorker,
        finder: ObjectFinder | None = None,
        *,
        alone: bool = False,
    ) -> None:
        self._robot = robot
        self._clock, self._control, self._world = robot.clock, robot.control, robot.world
        self._options = robot.settings.rollout
        self._rate_hz = robot.settings.control.rate_hz
        self._episodes = episodes
        self._worker = worker
        self._finder = finder
        self._failures = PolicyFailures(robot, worker)
        self._take_over = TakeOver(robot, lambda: episodes.recording, lambda: self._does, self._driven_by)
        self.hand_over = self._take_over.hand_over
        at_once = self._options.autostart or alone
        self._hand = ByHand(robot.clock, episodes, self._take_over.doing, at_once=at_once, alone=alone)
        self._tallies: list[EpisodeTally] = []
        self._in_the_way = "the robot is not ready yet"
        self._does = ""
        self._gave_up = ""
        self._troubled_at: int | None = None
        self._recorded = not isinstance(episodes.recorder, Unrecorded)
        self._judges = self._world is not None and self._options.judge
        self._zeros = 0
        self._told, self._next = "", 0
        episodes.gate = self._gate
        episodes.ended.append(self._ended)

    # --- for the application

    @property
    def step(self) -> str:
        """What is going on, in words."""
        return self._hand.step

    def broken_off(self, why: str) -> None:
        """The episode ends; whoever had the arm has it no longer."""
        self._episodes.broken_off(why)
        self.hand_over.rest()

    def attempts(self) -> list[dict[str, Any]]:
        """Episodes are in the summary's ``rollout``."""
        return []

    def statistics(self) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
        """The planner's and the policy's part of the summary."""
        planner = None if self._finder is None else self._finder.statistics()
        return planner, self._worker.statistics()

    def results(self) -> dict[str, Any]:
        """The summary's ``rollout``."""
        return summarised(self._tallies, self._rate_hz)

    def asked(self) -> str:
        """What the policy was asked last, in whichever episode that was."""
        if not self._tallies:
            return self._robot.settings.recording.task
        return self._words(self._tallies[-1].take)

    async def run(self) -> Outcome:
        """Until all wanted episodes are over, or somebody asks to quit."""
        async with anyio.create_task_group() as beside:
            beside.start_soon(self._take_over.run, self._count, name="rollout-ticks")
            beside.start_soon(self._drive, name="rollout")
            if self._judges:
                beside.start_soon(self._judge, name="judge")
            outcome = await self._hand.run()
            self.hand_over.rest()  # at once; what goes on beside may take a moment to end
            beside.cancel_scope.cancel()
        if self._gave_up:
            outcome = Outcome("incomplete", self._gave_up, exit_code=NOT_DONE)
        return replace(outcome, reason=f"{outcome.reason}; {in_words(self.results())}")

    # --- what a person may ask for (`dexrun.episodes.controls.ModeControls`, `dexrun.modes.mode.PersonsMode`)

    def controls(self) -> tuple[Episodes, RolloutMode]:
        """The run's episodes, and this."""
        return self._episodes, self

    @property
    def jog(self) -> JogKeys:
        """The keys of a leader without an arm."""
        return self._take_over.jog

    @property
    def help(self) -> str:
        """The mode's keys, for a person."""
        told = "; i the next of rollout.instructions" if self._options.instructions else ""
        return self._take_over.help + told

    def commands(self) -> Mapping[str, Callable[[], None]]:
        """By key."""
        return {**self._take_over.commands(), "instruct": self._tell_next}

    def requests(self) -> Mapping[str, Callable[[], None]]:
        """By path of the HTTP API."""
        return self._take_over.requests()

    def texts(self) -> Mapping[str, tuple[str, Callable[[str], None]]]:
        """By path of the HTTP API."""
        return {"/tell": ("instruction", self.tell)}

    def state(self) -> Mapping[str, Any]:
        """For the HTTP API."""
        take = self._episodes.on
        return {**self._take_over.state(), "instruction": "" if take is None else self._words(take)}

    def tell(self, words: str) -> None:
        """From now on, in the episode that is on, the policy is asked to do this: a new attempt, from where
        the arm is.

        Raises:
            EpisodeError: no episode is on, or nothing is said.
        """
        take = self._episodes.on
        if take is None:
            raise EpisodeError("no episode is on; the next one is given its task when it starts")
        if not words.strip():
            raise EpisodeError("no instruction: nothing is said")
        if words == self._words(take):
            return
        self._told = words
        logger.info("told: {}", words)
        self._episodes.recorder.event("told", instruction=words)
        if self._its_turn(take):
            self._control.rest()  # it is followed anew, by these words

    def _tell_next(self) -> None:
        listed = self._options.instructions
        if not listed:
            raise EpisodeError("rollout.instructions names nothing to go on with")
        self._next += 1
        self.tell(listed[(self._next - 1) % len(listed)])

    def _words(self, take: Take) -> str:
        return self._told or take.task

    def _gate(self) -> str:
        if self._in_the_way or self.hand_over.phase is DrivingPhase.NOBODY:
            return self._in_the_way
        return f"{self.hand_over.phase.value}: give control back first"

    # --- told as it happens

    def _driven_by(self, phase: DrivingPhase) -> None:
        logger.info("{}", phase.value)
        if self._episodes.recording:
            self._episodes.recorder.event("driving", phase=phase.name.lower())

    def _ended(self) -> None:
        """An episode is over, whoever said so: the policy is not followed one tick longer."""
        self._in_the_way = "the episode before is being looked at"
        if self.hand_over.phase in (DrivingPhase.POLICY, DrivingPhase.PAUSED):
            self.hand_over.rest()

    # --- beside

    def _count(self) -> None:
        """Once a tick: who drives."""
        if self._tallies and self._episodes.on is self._tallies[-1].take:
            tally = self._tallies[-1]
            tally.driven[pilot_of(self._control.source)] += 1
            tally.held += self._control.state == "holding"

    async def _judge(self) -> None:
        """In simulation: what the task names lies in the tray."""
        while True:
            await self._clock.sleep_until_ns(self._clock.now_ns() + _JUDGE_EVERY_NS)
            take = self._episodes.on
            if take is not None and await self._succeeded(take) and self._episodes.on is take:
                self._episodes.stop("success", "the judge: done")

    async def _succeeded(self, take: Take) -> bool:
        world = self._world
        assert world is not None  # noqa: S101 - there is a judge
        words = self._words(take)
        try:
            found = await self._clock.run_blocking(lambda: score(world, words, _JUDGE_S))
        except WorldError as error:
            logger.debug("no judge: {}", error)
            return False
        return bool(found["success"])

    # --- one episode after the other

    async def _drive(self) -> None:
        while True:
            while self._episodes.finished:  # unless the last one is discarded
                await self._episodes.changed()
            if self._episodes.on is None and not await self._ready(first=not self._tallies):
                return
            while (take := self._episodes.on) is None:
                await self._episodes.changed()
            await self._episode(take)
            await self._look_back(take)

    async def _ready(self, *, first: bool) -> bool:
        """Objects and arm are where an episode begins; whether they could be brought there.

        A person who drives may go on, to put things back, until control is given back.
        """
        while not first and self.hand_over.phase is not DrivingPhase.NOBODY:
            self._in_the_way = f"{self.hand_over.phase.value}: give control back first"
            await self._control.ticked()
        self._in_the_way = "things are put back"
        if self._world is not None and self._options.put_back and not first:
            world = self._world
            await self._clock.run_blocking(lambda: put_back(world))
        if self._options.home:
            self._in_the_way = self._does = "the arm moves home"
            try:
                await self._home()
            except MotionError as error:
                logger.error("{}", error)
                self._gave_up = str(error)
                self._episodes.quit()
                return False
        self._zeros = 0 if self._robot.force is None else len(self._robot.force.tared)
        self._in_the_way = self._does = ""
        return True

    async def _home(self) -> None:
        """Move home, as often as somebody who takes over gives back."""
        while True:
            while self.hand_over.phase is not DrivingPhase.NOBODY or self._control.target is None:
                await self._control.ticked()
            turns = self.hand_over.turns
            rows = await way_home(self._robot)
            if self.hand_over.turns != turns:
                continue  # somebody paused, or had the arm, while the way was planned
            why = await carry_out(self._robot, rows)
            if why is not None:
                self._control.rest()
                if why:
                    raise MotionError(f"not home: {why}")
                return

    async def _episode(self, take: Take) -> None:
        """While `take` is on: have the policy followed whenever it is the policy's turn."""
        tally = EpisodeTally(take)
        self._tallies.append(tally)
        self._told = ""
        before = self.hand_over.takeovers
        self._troubled_at = None
        await self._zeroed(take)
        if self._episodes.on is take:
            self.hand_over.policy()
        attempt: PolicyAttempt | None = None
        try:
            while self._episodes.on is take:
                if self._its_turn(take) and (attempt is None or self._control.source is not attempt):
                    attempt = await self._follow(take)
                elif attempt is not None and self._control.source is attempt:
                    self._look(attempt, tally)
                if self._episodes.on is take:
                    await self._control.ticked()
        finally:
            tally.takeovers = self.hand_over.takeovers - before
            if self._finder is not None:
                self._finder.forget()

    async def _zeroed(self, take: Take) -> None:
        """The force sensor's zero, which a recorded episode begins with, is taken while the arm rests."""
        force, until_ns = self._robot.force, take.start_ns + _ZERO_NS
        while force is not None and self._recorded and len(force.tared) == self._zeros:
            if self._episodes.on is not take or self._clock.now_ns() >= until_ns:
                return
            await self._control.ticked()

    def _its_turn(self, take: Take) -> bool:
        return self.hand_over.phase is DrivingPhase.POLICY and self._episodes.on is take

    async def _follow(self, take: Take) -> PolicyAttempt | None:
        """Have the policy followed from where the arm is; ``None`` if its turn is over before that."""
        while self._its_turn(take) and (self._worker.in_flight or not self._control.resting):
            await self._control.ticked()  # what was asked for before is answered, and the arm stands still
        attempt = self._worker.attempt(self._words(take))
        if self._finder is not None and not await self._found(self._finder, take, attempt):
            return None
        if not self._its_turn(take) or attempt.instruction != self._words(take):
            return None
        self._does = ""
        self._control.follow(attempt)
        return attempt

    async def _found(self, finder: ObjectFinder, take: Take, attempt: PolicyAttempt) -> bool:
        """Whether the object that the policy needs a mask of is tracked."""
        phrase = self._options.phrase or attempt.instruction
        self._does = f"looking for {phrase!r}"
        why = ""
        for _ in range(_TRIES):
            try:
                await finder.find(phrase, attempt.number)
            except (PlannerError, DetectorFailedError, NotSegmentedError) as error:
                why = str(error)
                logger.warning("{!r} is not found: {}", phrase, error)
            else:
                return True
            if not self._its_turn(take) or attempt.instruction != self._words(take):
                return False
        self._episodes.stop(reason=f"{phrase!r} was not found: {why}")
        return False

    def _look(self, attempt: PolicyAttempt, tally: EpisodeTally) -> None:
        """What the policy says of the attempt, and what goes wrong with it."""
        self._note(attempt, tally)
        spoken = self._control.attempt
        if spoken.status is PolicyStatus.FAILED:
            self._episodes.stop("failure", f"the policy: {spoken.why or 'failed'}")
        elif spoken.status is PolicyStatus.DONE:
            self._episodes.stop(reason="the policy: done")
        elif self._finder is not None and (lost := self._finder.lost(attempt.number)):
            logger.warning("the object is not tracked any more: {}", lost)
            self._control.rest()  # it is looked for anew

    def _note(self, attempt: PolicyAttempt, tally: EpisodeTally) -> None:
        """Failures go into the recording as they begin and end: meanwhile the arm holds."""
        new, report, recorder = self._failures.note(attempt), self._worker.report, self._episodes.recorder
        tally.failures.update(new)
        if new and self._troubled_at is None:
            self._troubled_at = report.chunks
            logger.warning("the policy does not answer: {}", report.last_error)
            recorder.event("policy_trouble", failures=dict(new), error=report.last_error)
        elif not new and self._troubled_at is not None and report.chunks > self._troubled_at:
            self._troubled_at = None
            logger.info("the policy answers again")
            recorder.event("policy_recovered", failures=dict(tally.failures))

    async def _look_back(self, take: Take) -> None:
        """Whether an episode that nobody has labelled was a success, as far as there is a judge.

        What the recorder ended by itself is nobody's failure.
        """
        whole = not self._episodes.recorder.stopped_early
        if self._judges and whole and take.label == "none" and not take.discarded:
            label = "success" if await self._succeeded(take) else "failure"
            if take.label == "none" and self._episodes.recorder.last is take:
                with said():
                    self._episodes.label(label)
        self._in_the_way = "" if self._episodes.finished else "things are put back"
