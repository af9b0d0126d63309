"""One attempt of grasp mode at one object: from its mask to what came of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import anyio
import numpy as np
from loguru import logger

from dexrun.modes.grasp_moves import GraspMoves
from dexrun.modes.perception import NotSegmentedError, Perception
from dexrun.modes.pictures import GraspPictures
from dexrun.modes.policy_watch import PolicyFailures
from dexrun.modes.turns import ModeTurns
from dexrun.robot import Robot
from planner import plan
from runtime.messages import Floats, Frame, PolicyStatus, TrackedMask

if TYPE_CHECKING:
    from runtime.worker import InferenceWorker, PolicyAttempt

_HELD_S = 0.5
"""Fingers that only close are asked for more than they are, too, but not for so long."""
_QUIET_S = 3.0
"""So long without a usable chunk, while the policy reports failures, ends an attempt."""


@dataclass(frozen=True, slots=True)
class AttemptParts:
    """What every attempt of a run works with.

    Attributes:
        robot: ticking.
        worker: asks the policy, as a chunk source.
        perception: tracks the object.
        moves: knows where the arm is, and what it holds.
        turns: whose turn it is.
        failures: the policy's are counted there.
        pictures: what was about to be grasped is left there.
    """

    robot: Robot
    worker: InferenceWorker
    perception: Perception
    moves: GraspMoves
    turns: ModeTurns
    failures: PolicyFailures
    pictures: GraspPictures


class GraspAttempt:
    """It begins once there is a mask of its object, and the policy is free to begin anew.

    After a person had the arm: what is held up has been grasped, what was up and is not any more has been
    put down; otherwise the policy goes on from where the arm is.

    Args:
        step: of the plan.
        marked: the picture that the step's box is in.
    """

    def __init__(self, parts: AttemptParts, step: plan.Grasp, marked: Frame) -> None:
        self._control = parts.robot.control
        self._worker = parts.worker
        self._perception = parts.perception
        self._moves = parts.moves
        self._turns = parts.turns
        self._failures = parts.failures
        self._pictures = parts.pictures
        self._options = parts.robot.settings.grasp
        self._rate_hz = parts.robot.settings.control.rate_hz
        self._step, self._marked = step, marked
        self._undrawn: TrackedMask | None = None
        self._lowest = 0.0
        self._had_up, self._held_ticks = False, 0

    async def run(self) -> plan.StepResult:
        """Until the object is up, or somebody has given up."""
        words, timeout_s = self._step.instruction, self._options.attempt_timeout_s
        asked = self._worker.attempt(words)
        try:
            self._undrawn = await self._perception.track(self._marked, self._step.box, asked.number, words)
            await self._free()
            with self._turns.at_most(timeout_s) as limit:
                while (result := await self._follow(asked, limit)) is None:
                    await self._free()
                    if (result := self._handed_back()) is not None:
                        return result
                    asked = self._worker.attempt(words)
                    await self._perception.keep_on(asked.number)
                return result
        except NotSegmentedError as error:
            logger.warning("no mask for {}: {}", words, error)
            return plan.Failed("not_segmented", str(error))
        finally:
            self._failures.note(asked)
            if self._control.source is asked:  # and not a person, who may have taken over
                self._control.rest()
            self._perception.forget()
        waits_for = self._worker.report.waits_for
        waited = f": {waits_for}" if waits_for else ""
        return plan.Failed("timeout", f"no grasp within {timeout_s:g} s{waited}")

    def look(self) -> None:
        """Once a tick, where a person may take over: whether it is up while somebody else has the arm."""
        if self._turns.mine:
            self._held_ticks = 0
            return
        self._held_ticks = self._held_ticks + 1 if self._moves.holds_something() else 0
        if self._held_ticks > _HELD_S * self._rate_hz and self._moves.holds_up():
            self._had_up = True

    async def _free(self) -> None:
        """Until it is the mode's turn, and what an earlier attempt asked for last has been answered."""
        await self._turns.wait()
        while self._worker.in_flight or not self._turns.mine:
            await self._control.ticked()

    def _handed_back(self) -> plan.StepResult | None:
        """What a person has made of it; ``None`` if it is to go on."""
        if not self._had_up:
            return None
        return plan.Lifted(self._moves.height()) if self._moves.holds_up() else plan.PutDown()

    async def _follow(self, asked: PolicyAttempt, limit: anyio.CancelScope) -> plan.StepResult | None:
        """Follow the policy until it has the object up or gives up; ``None`` if the arm is taken from it."""
        if not self._turns.mine:
            return None
        self._lowest, quiet, lost = float("inf"), 0, self._turns.lost
        self._control.follow(asked)
        while True:
            await self._control.ticked()
            self._perception.holds(self._moves.holds_something())
            await self._draw()
            self._failures.note(asked)
            if self._turns.lost > lost:
                return None
            if asked.unready:  # its server has come back and may have to load: no time of the attempt's
                limit.deadline, quiet = limit.deadline + 1 / self._rate_hz, 0
            if (result := self._result(asked)) is not None:
                return result
            quiet = quiet + 1 if len(self._control.horizon) == 0 else 0
            if quiet > round(_QUIET_S * self._rate_hz) and asked.failures:
                return plan.Failed("policy", self._worker.report.last_error)

    def _result(self, asked: PolicyAttempt) -> plan.StepResult | None:
        """How it has ended, if it has."""
        said = self._control.attempt
        if said.status is PolicyStatus.FAILED:
            return plan.Failed("policy", said.why)
        if said.status is PolicyStatus.DONE or self._came_up():
            return plan.Lifted(self._moves.height())
        lost = self._perception.failure(asked.number)
        return plan.Failed("not_tracked", lost) if lost else None

    def _came_up(self) -> bool:
        """For a policy that does not say when it is done: down at the table, and up again."""
        if self._worker.report.spec.tells_end:
            return False
        height = self._moves.height()
        self._lowest = min(self._lowest, height)
        above = self._options.check_height_m
        return self._lowest < 0.5 * above and height > above

    async def _draw(self) -> None:
        """Once there is a way: a picture of what is about to be grasped, and how."""
        if self._undrawn is None or not len(self._control.horizon):
            return
        mask, self._undrawn = self._undrawn, None
        rows = self._control.horizon.pending()
        arm = self._moves.arm.copy()  # the other is the loop's

        def way_m() -> Floats:
            return np.array([arm.fk(row[self._moves.joints])[:3, 3] for row in rows])

        await self._pictures.draw(self._marked, self._step.box, mask, self._step.instruction, way_m)
