"""The plan on its own: steps out, outcomes in."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner import plan
from planner.plan import GraspPlan, PlanConfig
from planner.questions.check_grasp import CheckGrasp
from planner.questions.check_instruction import CheckInstruction
from planner.questions.check_prompt import CheckPrompt
from planner.questions.classify import Classify, PromptClass
from planner.questions.decompose import Decompose, Decomposition
from planner.questions.mark import BoundingBox, Mark
from planner.questions.propose import Analysis, Proposal, Propose
from planner.questions.verdict import Verdict

ANALYSIS = Analysis(priority_consideration="", accessibility="", risk_assessment="")
HIGH, LOW = plan.Lifted(0.12), plan.Lifted(0.01)


def box(name: str) -> BoundingBox:
    return BoundingBox(bbox_2d=(1, 2, 3, 4), label=name, description=name)


class Table:
    """Answers a plan's steps as a table with `things` on it would.

    `slips[name]` is how many grasps at it fail; what slips is let go where it was.
    """

    def __init__(self, *things: str, slips: dict[str, int] | None = None, named: bool = False) -> None:
        self.things = list(things)
        self.slips = dict(slips or {})
        self.named = named
        self.held: str | None = None
        self.steps: list[plan.Step] = []

    def answer(self, step: plan.Step) -> plan.StepResult:
        self.steps.append(step)
        return self.move(step) if isinstance(step, plan.Motion) else self.reply(step)

    def move(self, step: plan.Motion) -> plan.StepResult:
        if isinstance(step, plan.Grasp):
            return self.grasp(step.instruction)
        if isinstance(step, plan.Place):
            assert self.held == step.instruction
            self.things.remove(step.instruction)
        self.held = None
        return plan.Done()

    def reply(self, step: plan.Step) -> plan.StepResult:
        match step:
            case Classify():
                return PromptClass(type="I" if self.named else "II")
            case Decompose():
                return Decomposition(objects=tuple(self.things))
            case Propose(avoid):
                fresh = [each for each in self.things if each not in avoid] or self.things
                return Proposal(analysis=ANALYSIS, target=fresh[0] if fresh else None)
            case Mark(name):
                return box(name) if name in self.things else plan.Failed("no_object")
            case CheckGrasp():
                return Verdict(value=self.held is not None)
            case CheckInstruction(name):
                return Verdict(value=name not in self.things)
        return Verdict(value=not self.things, reason=", ".join(self.things))

    def grasp(self, name: str) -> plan.StepResult:
        if self.slips.get(name, 0) > 0:
            self.slips[name] -= 1
            return HIGH
        self.held = name
        return HIGH

    def run(self, whole: GraspPlan, limit: int = 1000) -> plan.Finished:
        for _ in range(limit):
            if isinstance(whole.step, plan.Finished):
                return whole.step
            whole.tell(self.answer(whole.step))
        raise AssertionError("the plan does not end")

    def kinds(self) -> list[str]:
        return [type(each).__name__ for each in self.steps]


OBJECT = ["Mark", "Grasp", "CheckGrasp", "Place", "Home", "CheckInstruction"]


def test_an_abstract_prompt_goes_on_until_the_table_is_empty() -> None:
    table, whole = Table("a", "b"), GraspPlan("clear the table")
    assert table.run(whole) == plan.Finished(True, "the table is empty")
    assert table.kinds() == ["Home", "Classify", *(2 * ["Propose", *OBJECT, "CheckPrompt"])]
    assert [each.summary() for each in whole.attempts] == [
        {"instruction": name, "attempt": 1, "grasped": True, "completed": True} for name in "ab"
    ]


def test_a_prompt_that_names_objects_does_those_in_order() -> None:
    table, whole = Table("b", "a", named=True), GraspPlan("b and a")
    assert table.run(whole).completed
    assert table.kinds() == ["Home", "Classify", "Decompose", *OBJECT, *OBJECT]
    assert [each.instruction for each in whole.attempts] == ["b", "a"]


class Corrected(Table):
    """A person takes over in every attempt, and puts the object into the tray himself."""

    def grasp(self, name: str) -> plan.StepResult:
        self.things.remove(name)
        return plan.PutDown()


def test_what_a_person_has_put_down_is_looked_at_and_not_placed_again() -> None:
    table, whole = Corrected("a"), GraspPlan("clear the table")
    assert table.run(whole).completed
    expected = ["Home", "Classify", "Propose", "Mark", "Grasp", "Home", "CheckInstruction", "CheckPrompt"]
    assert table.kinds() == expected
    (attempt,) = whole.attempts
    assert "person_s" not in attempt.summary()
    attempt.person_s = 1.5
    assert attempt.summary() == {
        "instruction": "a", "attempt": 1, "grasped": True, "completed": True, "person_s": 1.5
    }  # fmt: skip


def test_nothing_fits() -> None:
    result = Table(named=True).run(GraspPlan("the banana"))
    assert result == plan.Finished(False, "nothing on the table fits the prompt")


def test_a_failed_grasp_is_tried_again_from_a_new_box() -> None:
    table, whole = Table("a", slips={"a": 2}, named=True), GraspPlan("a")
    assert table.run(whole).completed
    failed = ["Mark", "Grasp", "CheckGrasp", "Home"]
    assert table.kinds() == ["Home", "Classify", "Decompose", *failed, *failed, *OBJECT]
    assert [(each.attempt, each.grasped) for each in whole.attempts] == [(1, False), (2, False), (3, True)]


def test_three_failures_and_the_next_object_comes_first() -> None:
    table, whole = Table("a", "b", slips={"a": 4}), GraspPlan("clear the table")
    assert table.run(whole).completed
    assert [each.instruction for each in whole.attempts] == ["a", "a", "a", "b", "a", "a"]
    assert Propose(("a",)) in table.steps


def test_what_cannot_be_grasped_is_given_up() -> None:
    table = Table("a", "b", slips={"a": 99})
    whole = GraspPlan("clear the table", PlanConfig(rounds=2, attempts_per_object=3))
    assert table.run(whole) == plan.Finished(False, "left on the table: a")
    assert [each.instruction for each in whole.attempts] == [*"aaabaaa"]
    named = Table("a", "b", slips={"a": 99}, named=True)
    whole = GraspPlan("a and b", PlanConfig(rounds=2, attempts_per_object=1))
    assert named.run(whole) == plan.Finished(False, "not done: a")
    assert [each.instruction for each in whole.attempts] == [*"aba"]


def test_attempts_are_bounded() -> None:
    table = Table("a", slips={"a": 99})
    whole = GraspPlan("clear the table", PlanConfig(rounds=50, max_attempts=5))
    assert table.run(whole) == plan.Finished(False, "5 attempts were made")
    assert len(whole.attempts) == 5
    named = Table("a", "b", slips={"a": 99}, named=True)
    whole = GraspPlan("a", PlanConfig(rounds=50, max_attempts=2))
    assert named.run(whole) == plan.Finished(False, "not done: a; b")


def test_a_grasp_is_asked_about_only_once_it_is_up() -> None:
    table, whole = Table("a", named=True), GraspPlan("a", PlanConfig(check_height_m=0.06))
    while not isinstance(whole.step, plan.Grasp):
        whole.tell(table.answer(whole.step))
    assert whole.tell(LOW) == plan.Home("not grasped")
    while not isinstance(whole.step, plan.Grasp):
        whole.tell(table.answer(whole.step))
    assert whole.tell(plan.Lifted(0.06)) == CheckGrasp("a")


def test_a_motion_that_fails_counts_as_not_grasped() -> None:
    table, whole = Table("a", named=True), GraspPlan("a")
    while not isinstance(whole.step, plan.Grasp):
        whole.tell(table.answer(whole.step))
    assert whole.tell(plan.Failed("policy")) == plan.Home("not grasped")
    assert table.run(whole).completed


def failing(kind: type, times: int, inner: Table) -> Callable[[plan.Step], plan.StepResult]:
    left = [times]

    def answer(step: plan.Step) -> plan.StepResult:
        if isinstance(step, kind) and left[0] > 0:
            left[0] -= 1
            return plan.Failed("timeout")
        return inner.answer(step)

    return answer


def drive(whole: GraspPlan, answer: Callable[[plan.Step], plan.StepResult]) -> plan.Finished:
    for _ in range(1000):
        if isinstance(whole.step, plan.Finished):
            return whole.step
        whole.tell(answer(whole.step))
    raise AssertionError("the plan does not end")


@pytest.mark.parametrize("kind", [Classify, Propose, Mark, CheckGrasp, CheckPrompt])
def test_a_planner_that_fails_for_a_while_is_asked_again(kind: type) -> None:
    whole = GraspPlan("clear the table", PlanConfig(planner_failures=2))
    assert drive(whole, failing(kind, 2, Table("a", "b"))).completed


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("kind", [Classify, Propose, Decompose, Mark, CheckInstruction])
def test_a_planner_that_fails_for_good_ends_the_run_or_the_object(kind: type, named: bool) -> None:
    whole = GraspPlan("clear", PlanConfig(planner_failures=1))
    result = drive(whole, failing(kind, 10_000, Table("a", named=named)))
    concerned = {Propose: not named, Decompose: named, CheckInstruction: False}.get(kind, True)
    assert result.completed is not concerned


def test_with_no_answer_about_the_grasp_the_arm_carries_on() -> None:
    whole = GraspPlan("a", PlanConfig(planner_failures=0))
    assert drive(whole, failing(CheckGrasp, 10_000, Table("a", named=True))).completed


def test_the_time_limit() -> None:
    whole = GraspPlan("clear the table")
    assert whole.stop("time limit of 300 s") == plan.Finished(False, "time limit of 300 s")
    assert whole.tell(plan.Done()) == plan.Finished(False, "time limit of 300 s")
    done = GraspPlan("clear the table")
    Table().run(done)
    assert done.stop("too late").completed


def test_an_answer_to_another_question_is_refused() -> None:
    whole = GraspPlan("clear the table")
    whole.tell(plan.Done())
    with pytest.raises(plan.PlanError, match="Classify"):
        whole.tell(Verdict(value=True))


OUTCOMES = st.sampled_from(["yes", "no", "failed", "no_object"])


@settings(deadline=None)
@given(st.data(), st.booleans())
def test_whatever_happens_the_plan_ends(data: st.DataObject, named: bool) -> None:
    """And never places what was not grasped, nor grasps before homing."""
    whole = GraspPlan("clear", PlanConfig(max_attempts=6, planner_failures=1))
    home = False
    for _ in range(400):
        step = whole.step
        if isinstance(step, plan.Finished):
            break
        if isinstance(step, plan.Home):
            home = True
        if isinstance(step, plan.Grasp):
            assert home
            home = False
        if isinstance(step, plan.Place):
            assert whole.attempts[-1].instruction == step.instruction
        whole.tell(invented(step, data.draw(OUTCOMES), named))
    assert isinstance(whole.step, plan.Finished)
    assert len(whole.attempts) <= 6


def invented(step: plan.Step, mood: str, named: bool) -> plan.StepResult:
    if isinstance(step, plan.Home | plan.Place):
        return plan.Done() if mood == "yes" else plan.Failed("motion")
    if mood in ("failed", "no_object"):
        return plan.Failed("timeout" if mood == "failed" else mood)
    yes = mood == "yes"
    match step:
        case Classify():
            return PromptClass(type="I" if named else "II")
        case Decompose():
            return Decomposition(objects=("a", "b") if yes else ())
        case Propose():
            return Proposal(analysis=ANALYSIS, target="a" if yes else None)
        case Mark(name):
            return box(name)
        case plan.Grasp():
            return HIGH if yes else LOW
        case _:
            return Verdict(value=yes)


@pytest.mark.parametrize("fails_from", [0, 1])
def test_an_arm_that_does_not_get_home_ends_the_run_incomplete(fails_from: int) -> None:
    """It hides the table, which would look empty."""
    table, homes = Table("cube"), []

    def answer(step: plan.Step) -> plan.StepResult:
        done = table.answer(step)
        if not isinstance(step, plan.Home):
            return done
        homes.append(step.reason)
        return done if len(homes) <= fails_from else plan.Failed("motion", "lift is 0.4 rad off")

    steps = GraspPlan("clear the table")
    while not isinstance(steps.step, plan.Finished):
        steps.tell(answer(steps.step))
    assert steps.step == plan.Finished(
        False, "the arm does not get home, and hides the table: lift is 0.4 rad off"
    )
    assert len(homes) == fails_from + 2
