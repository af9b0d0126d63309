"""A whole episode on the engine: grasp mode's own plan, whose questions the ground truth answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dexrun.gym.attempts import AttemptResult, Worker, lifted
from dexrun.gym.sight import box_of
from drivers.world.judge import JudgeReport, in_tray, judge
from planner import plan
from planner.questions.check_grasp import CheckGrasp
from planner.questions.check_instruction import CheckInstruction
from planner.questions.check_prompt import CheckPrompt
from planner.questions.classify import Classify, PromptClass
from planner.questions.mark import BoundingBox, Mark
from planner.questions.propose import Proposal, Propose
from planner.questions.question import Question
from planner.questions.reply import Reply
from planner.questions.verdict import Verdict

PROMPT = "clear the table"


@dataclass(frozen=True, slots=True)
class EpisodeResult:
    """How clearing one table went.

    Attributes:
        judge: the score. reason: what ended the plan. attempts: as in a run's summary.
        results: how each attempt ended. seconds: simulated. clips: ticks that safety changed, by reason.
        starved: ticks without a row.
    """

    judge: JudgeReport
    reason: str
    attempts: list[dict[str, Any]]
    results: list[AttemptResult]
    seconds: float
    clips: dict[str, int] = field(default_factory=dict)
    starved: int = 0


class Clearing:
    """Clears the table that the worker's engine has loaded.

    The planner's answers (which object, the box around it, whether it is held, whether the table is empty)
    come from the scene; what the policy sees is the mask tracked from that box.

    Args:
        each: called after every tick; ``False`` ends the episode.
    """

    def __init__(self, worker: Worker, each: Callable[[], bool] | None = None) -> None:
        self._worker = worker
        self._each = each
        self._results: list[AttemptResult] = []
        self._ended = ""

    def run(self) -> EpisodeResult:
        """Carry out the plan."""
        engine, options = self._worker.engine, self._worker.engine.settings.grasp
        began_s = engine.now_s
        steps = plan.GraspPlan(PROMPT, options)
        while not isinstance(steps.step, plan.Finished):
            steps.tell(self._do(steps.step))
            if engine.now_s - began_s > options.time_limit_s:
                steps.stop(f"time limit of {options.time_limit_s:g} s")
            if engine.control.state == "stopped" or self._ended:
                steps.stop(self._ended or engine.control.reason)
        reason = steps.step.reason
        statistics = engine.statistics
        return EpisodeResult(
            judge(engine.table),
            reason,
            [attempt.summary() for attempt in steps.attempts],
            list(self._results),
            engine.now_s - began_s,
            dict(statistics.clips),
            statistics.starved,
        )

    def _do(self, step: plan.Step) -> plan.StepResult:
        match step:
            case plan.Home():
                return _outcome(self._worker.home())
            case plan.Place():
                return _outcome(self._worker.place())
            case plan.Grasp():
                return self._grasp(step)
            case plan.Finished():
                raise AssertionError("the episode is over")
        return self._answer(step)

    def _grasp(self, step: plan.Grasp) -> plan.StepResult:
        result = self._worker.attempt(self._index(step.instruction), step.instruction, self._each)
        self._results.append(result)
        if result.why == "ended from outside":
            self._ended = result.why
        return plan.Lifted(result.height_m) if result.done else plan.Failed("policy", result.why)

    # --- what a planner would see

    def _answer(self, question: Question[Reply]) -> plan.StepResult:
        if isinstance(question, Classify):
            return PromptClass(type="II")
        if isinstance(question, Propose):
            return Proposal(target=self._next(question.avoid))
        if isinstance(question, CheckPrompt):
            left = self._left()
            return Verdict(value=not left, reason=", ".join(left))
        if isinstance(question, Mark):
            return self._box(question.instruction)
        if isinstance(question, CheckGrasp):
            return Verdict(value=lifted(self._worker.engine, self._index(question.instruction)))
        if isinstance(question, CheckInstruction):
            return Verdict(value=question.instruction not in self._left())
        raise AssertionError(f"{type(question).__name__} is not asked where nothing is named")

    def _index(self, name: str) -> int:
        return [spec.name for spec in self._worker.engine.table.objects].index(name)

    def _left(self) -> list[str]:
        """The objects on the table, nearest to the arm's base first."""
        table = self._worker.engine.table
        places = {
            spec.name: table.object_pose(index)[0]
            for index, spec in enumerate(table.objects)
            if table.present[index]
        }
        there = {name: at for name, at in places.items() if not in_tray(at) and at[2] > -0.01}
        return sorted(there, key=lambda name: float(np.linalg.norm(there[name][:2])))

    def _next(self, avoid: tuple[str, ...]) -> str | None:
        left = self._left()
        return next((name for name in left if name not in avoid), left[0] if left else None)

    def _box(self, name: str) -> plan.StepResult:
        engine = self._worker.engine
        index, camera = self._index(name), engine.settings.grasp.head
        assert engine.eyes is not None  # noqa: S101 - a scene is loaded
        box = box_of(engine.table, index, engine.eyes.true_infos[camera])
        if name not in self._left() or box is None:
            return plan.Failed("no_object")
        return BoundingBox(bbox_2d=box, label=name)


def _outcome(why: str) -> plan.StepResult:
    return plan.Failed("motion", why) if why else plan.Done()
