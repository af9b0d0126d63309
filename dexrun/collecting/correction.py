"""Attempts that a learned policy begins and the demonstrator corrects: data from where that policy goes.

The policy drives until chance says so (with probability `CorrectionOptions.beta`), or until it strays or
gives up; then the demonstrator goes on from there, to the end (Kelly et al. 2019, "HG-DAgger"). While the
policy drives, what is recorded as requested is the demonstrator's answer to the state that the policy is in
(Ross et al. 2011, "DAgger"), and every row says who drove.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pydantic import Field

from dexrun.collecting.attempt_file import AttemptFile
from dexrun.gym.asking import Pace, observing
from dexrun.gym.attempts import AttemptResult, Worker
from dexrun.gym.engine import TableEngine
from policies.geometric.correcting import CorrectingPolicy
from runtime.interfaces import Policy, PolicyError
from runtime.messages import Floats
from runtime.options import Options
from runtime.pilot import Pilot

_HANDED_OVER = "ended from outside"


class CorrectionOptions(Options):
    """Who drives when.

    Attributes:
        checkpoint: a folder of `dexrun train`, whose policy begins the attempts.
        beta: in what share of them the demonstrator takes over at some time by chance, whatever happens.
        longest_s: so long the policy may drive. soonest_s: earlier nobody takes over by chance.
        force_n: more than this says that it presses on something. moved_m: an object that was pushed so far
            has been missed.
    """

    checkpoint: Path
    beta: float = Field(default=0.5, ge=0, le=1)
    soonest_s: float = 0.6
    longest_s: float = 10.0
    force_n: float = 20.0
    moved_m: float = 0.03


class Correction:
    """Drives one attempt after the other with two pilots.

    Args:
        learner: built for the engine's robot and cameras. expert: the demonstrator.
        every: ticks from one picture to the next, and from one of the demonstrator's answers to the next.
    """

    def __init__(
        self,
        engine: TableEngine,
        options: CorrectionOptions,
        learner: Policy,
        pace: Pace,
        expert: CorrectingPolicy,
        every: int,
    ) -> None:
        self._engine = engine
        self._options = options
        self._expert = expert
        self._every = every
        rate_hz = engine.settings.control.rate_hz
        self._learners = Worker(engine, learner, pace, tracked_hz=rate_hz / every)
        self._experts = Worker(engine, expert, Pace(latency_s=0.0))
        self._rows: Floats = np.zeros((0, 0))
        self._ticks = 0
        self.why = ""

    def attempt(
        self, index: int, instruction: str, file: AttemptFile, rng: np.random.Generator
    ) -> AttemptResult:
        """One attempt at object `index`, taken down in `file`."""
        options, rate_hz = self._options, self._engine.settings.control.rate_hz
        self.why, self._ticks = "", 0
        chance = rng.random() < options.beta
        until_s = float(rng.uniform(options.soonest_s, 0.7 * options.longest_s)) if chance else np.inf
        self._expert.reset()
        if why := self._experts.look_for(index):
            return AttemptResult(False, why, 0.0, False, 0)
        self._answer()
        place = self._engine.table.object_pose(index)[0][:2]
        file.pilot = Pilot.POLICY

        def each() -> bool:
            self._ticks += 1
            self._relabel(file)
            file.take()
            self.why = self._strays(index, place, self._ticks / rate_hz, until_s)
            return not self.why

        result = self._learners.attempt(index, instruction, each)
        file.asked = None
        if result.done or (result.why != _HANDED_OVER and self._engine.control.state == "stopped"):
            return result
        self.why = self.why or result.why
        file.pilot = Pilot.PERSON
        if not len(self._answer()):
            return result

        def taken_down() -> bool:
            file.take()
            return True

        return self._experts.go_on(index, instruction, taken_down)

    def _relabel(self, file: AttemptFile) -> None:
        """What the demonstrator would have asked for in the tick that was just done."""
        place = (self._ticks - 1) % self._every
        if place == 0:
            self._rows = self._answer(brief=True)
        file.asked = self._rows[min(place, len(self._rows) - 1)] if len(self._rows) else None

    def _answer(self, *, brief: bool = False) -> Floats:
        """The demonstrator's next rows from here; none if it knows no way."""
        engine = self._engine
        ask = observing(engine, self._expert.spec, self._experts.sights)
        nothing = np.zeros((0, engine.model.joints))
        try:
            return self._expert.answer(ask(engine.control.horizon.step, 0, nothing, 0, ""), brief=brief)
        except PolicyError:
            return np.zeros((0, engine.model.joints))

    def _strays(self, index: int, place: Floats, driven_s: float, until_s: float) -> str:
        """Why the demonstrator takes over now, if it does."""
        options, table = self._options, self._engine.table
        if driven_s >= until_s:
            return "by chance"
        if driven_s >= options.longest_s:
            return f"no grasp within {options.longest_s:g} s"
        force = self._engine.force.newest()
        if force is not None and float(np.abs(force["force"]).max()) > options.force_n:
            return "it pressed on something"
        moved = float(np.linalg.norm(table.object_pose(index)[0][:2] - place))
        held = index in table.held_objects()
        return "it pushed the object away" if moved > options.moved_m and not held else ""
