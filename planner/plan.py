"""What the grasp mode does next: the planner's logic without any of its I/O.

`GraspPlan` names a step; whoever runs it says what came of it; and so on until `Finished`. The steps are
questions to the planner (`planner.questions`) and things for the arm to do (`Home`, `Grasp`, `Place`); each
says by `in_words` what is going on. The time limit is the runner's: it calls `stop`.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field
from typing import TypeVar

from pydantic import Field

from planner.errors import PlannerError
from planner.questions.check_grasp import CheckGrasp
from planner.questions.check_instruction import CheckInstruction
from planner.questions.check_prompt import CheckPrompt
from planner.questions.classify import Classify
from planner.questions.decompose import Decompose
from planner.questions.mark import BoundingBox, Mark
from planner.questions.propose import Propose
from planner.questions.question import Question
from planner.questions.reply import Reply
from planner.questions.verdict import Verdict
from runtime.options import Options


class PlanConfig(Options):
    """How persistent the plan is.

    Attributes:
        attempts_per_object: failed attempts in a row after which an object is left for later.
        rounds: how often objects that were left are come back to, counting the first time.
        max_attempts: attempts at all objects together, after which the run ends.
        check_height_m: the gripper must have come up this high for a grasp to be asked about at all.
        planner_failures: how often one question is asked anew after the planner failed at it.
    """

    attempts_per_object: int = Field(default=3, ge=1)
    rounds: int = Field(default=2, ge=1)
    max_attempts: int = Field(default=30, ge=1)
    check_height_m: float = Field(default=0.06, ge=0)
    planner_failures: int = Field(default=2, ge=0)


# --- steps


@dataclass(frozen=True, slots=True)
class Grasp:
    """Segment, track, grasp and lift; answered by `Lifted` or `PutDown`."""

    instruction: str
    box: BoundingBox
    attempt: int

    def in_words(self) -> str:
        return f"grasp {self.instruction} (attempt {self.attempt})"


@dataclass(frozen=True, slots=True)
class Place:
    """Carry it to the tray and let go; answered by `Done`."""

    instruction: str

    def in_words(self) -> str:
        return f"place {self.instruction}"


@dataclass(frozen=True, slots=True)
class Home:
    """Open the gripper and clear the cameras' view; answered by `Done`."""

    reason: str

    def in_words(self) -> str:
        return f"home ({self.reason})"


@dataclass(frozen=True, slots=True)
class Finished:
    """Nothing more to do."""

    completed: bool
    reason: str

    def in_words(self) -> str:
        return self.reason


Motion = Home | Grasp | Place
Step = Question[Reply] | Motion | Finished

# --- what came of them


@dataclass(frozen=True, slots=True)
class Lifted:
    """How high the closed gripper came, in metres above the table; 0 if it did not get to close."""

    height_m: float


@dataclass(frozen=True, slots=True)
class PutDown:
    """A person, who took over, had it up and has put it down: what became of it is to be looked at."""


@dataclass(frozen=True, slots=True)
class Done:
    """A motion came to its end."""


@dataclass(frozen=True, slots=True)
class Failed:
    """The planner or the motion failed: `PlannerError.kind`, or a word for what hindered the arm."""

    kind: str
    detail: str = ""

    @classmethod
    def of(cls, error: PlannerError) -> Failed:
        """The failure of a question that ended in `error`."""
        return cls(error.kind, f"at {error.where}: {error.detail}" if error.where else error.detail)


StepResult = Reply | Lifted | PutDown | Done | Failed


@dataclass
class Attempt:
    """One try at one object, for ``summary.json``. `person_s` is for how long a person drove in it."""

    instruction: str
    attempt: int
    grasped: bool = False
    completed: bool = False
    person_s: float = 0.0

    def summary(self) -> dict[str, object]:
        """``{instruction, attempt, grasped, completed}``, and ``person_s`` where a person drove."""
        corrected = {"person_s": round(self.person_s, 3)} if self.person_s else {}
        return {
            "instruction": self.instruction,
            "attempt": self.attempt,
            "grasped": self.grasped,
            "completed": self.completed,
            **corrected,
        }


R = TypeVar("R", bound=Reply)


class _HiddenError(Exception):
    """The arm does not get home: the cameras' view of the table is not free, and nothing can be asked."""


class PlanError(Exception):
    """The runner answered a step with something that is no answer to it."""


@dataclass
class GraspPlan:
    """The plan for one prompt. `step` is what to do now; `tell` says what came of it and moves on.

    Attributes:
        attempts: what was tried so far, in order.
    """

    prompt: str
    config: PlanConfig = field(default_factory=PlanConfig)
    attempts: list[Attempt] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._script = self._whole()
        self.step: Step = next(self._script)

    def tell(self, outcome: StepResult) -> Step:
        """Answer the present step; returns the next one.

        Raises:
            PlanError: the outcome does not belong to the step.
        """
        if isinstance(self.step, Finished):
            return self.step
        self.step = self._script.send(outcome)
        return self.step

    def stop(self, reason: str) -> Finished:
        """End here, not completed (unless it was already finished)."""
        if not isinstance(self.step, Finished):
            self._script.close()
            self.step = Finished(False, reason)
        return self.step

    # --- the script

    def _whole(self) -> Generator[Step, StepResult, None]:
        try:
            yield from self._work()
        except _HiddenError as error:
            yield Finished(False, f"the arm does not get home, and hides the table: {error}")

    def _home(self, reason: str) -> Generator[Step, StepResult, None]:
        """Home, at the second try if need be.

        Raises:
            _HiddenError: it does not get there.
        """
        outcome: StepResult = Failed("motion")
        for _ in range(2):
            outcome = yield Home(reason)
            if not isinstance(outcome, Failed):
                return
        raise _HiddenError(outcome.detail if isinstance(outcome, Failed) else "")

    def _work(self) -> Generator[Step, StepResult, None]:
        yield from self._home("start")
        kind = yield from self._ask(Classify(self.prompt))
        if isinstance(kind, Failed):
            yield Finished(False, _planner_failed("the prompt's type", kind))
            return
        yield (yield from self._named() if kind.type == "I" else self._abstract())

    def _named(self) -> Generator[Step, StepResult, Finished]:
        """Type I: the objects that the prompt names, those left over once more in the next round."""
        parts = yield from self._ask(Decompose(self.prompt))
        if isinstance(parts, Failed):
            return Finished(False, _planner_failed("the prompt's objects", parts))
        if not parts.objects:
            return Finished(False, "nothing on the table fits the prompt")
        left = list(parts.objects)
        for _ in range(self.config.rounds):
            todo, left = left, []
            for instruction in todo:
                if not (yield from self._object(instruction)):
                    left.append(instruction)
                if self._spent():
                    left += todo[todo.index(instruction) + 1 :]
                    break
            if not left or self._spent():
                break
        if left:
            return Finished(False, "not done: " + "; ".join(dict.fromkeys(left)))
        return Finished(True, "every object that the prompt names is done")

    def _abstract(self) -> Generator[Step, StepResult, Finished]:
        """Type II: whatever the planner proposes next, until the table is empty."""
        avoid: tuple[str, ...] = ()
        rounds = self.config.rounds
        while not self._spent():
            proposal = yield from self._ask(Propose(avoid))
            if isinstance(proposal, Failed):
                return Finished(False, _planner_failed("the next object", proposal))
            target = proposal.target
            if target is None or target in avoid:
                rounds, avoid = rounds - 1, ()
            elif not (yield from self._object(target)):
                avoid = (*avoid, target)
            empty = yield from self._ask(CheckPrompt())
            if isinstance(empty, Verdict) and empty.value:
                return Finished(True, "the table is empty")
            if rounds <= 0:
                return Finished(False, _left(empty))
        return Finished(False, f"{self.config.max_attempts} attempts were made")

    def _object(self, instruction: str) -> Generator[Step, StepResult, bool]:
        """One object, until it is done or has failed often enough; the arm is home afterwards."""
        grasped_before = False
        for number in range(1, self.config.attempts_per_object + 1):
            if self._spent():
                return False
            attempt = Attempt(instruction, number)
            self.attempts.append(attempt)
            box = yield from self._ask(Mark(instruction))
            if isinstance(box, Failed):
                # what was once in the gripper and is not to be found on the table has been moved
                attempt.completed = box.kind == "no_object" and grasped_before
                if attempt.completed or box.kind == "no_object":
                    return attempt.completed
                continue
            outcome = yield Grasp(instruction, box, number)
            attempt.grasped = yield from self._grasped(instruction, outcome)
            grasped_before = grasped_before or attempt.grasped
            if attempt.grasped:
                if not isinstance(outcome, PutDown):
                    yield Place(instruction)
                yield from self._home("placed")
                gone = yield from self._ask(CheckInstruction(instruction))
                attempt.completed = isinstance(gone, Verdict) and gone.value
            else:
                yield from self._home("not grasped")
            if attempt.completed:
                return True
        return False

    def _grasped(self, instruction: str, outcome: StepResult) -> Generator[Step, StepResult, bool]:
        """Whether the object is in the gripper and up, or was."""
        if isinstance(outcome, Failed):
            return False
        if isinstance(outcome, PutDown):
            return True
        if not isinstance(outcome, Lifted):
            raise PlanError(f"Grasp was answered with {outcome!r}")
        if outcome.height_m < self.config.check_height_m:
            return False
        held = yield from self._ask(CheckGrasp(instruction))
        # with no answer, carrying on is harmless: an empty gripper opens over the tray
        return True if isinstance(held, Failed) else held.value

    def _ask(self, question: Question[R]) -> Generator[Step, StepResult, R | Failed]:
        """Ask, and again if the planner failed; that the object is not there is an answer."""
        left = self.config.planner_failures
        while True:
            outcome = yield question
            if isinstance(outcome, question.reply):
                return outcome
            if not isinstance(outcome, Failed):
                raise PlanError(f"{type(question).__name__} was answered with {outcome!r}")
            if left == 0 or outcome.kind == "no_object":
                return outcome
            left -= 1

    def _spent(self) -> bool:
        return len(self.attempts) >= self.config.max_attempts


def _planner_failed(what: str, failed: Failed) -> str:
    return f"the planner could not tell {what}: {failed.kind}"


def _left(empty: Verdict | Failed) -> str:
    named = empty.reason if isinstance(empty, Verdict) and empty.reason else "something"
    return f"left on the table: {named}"
