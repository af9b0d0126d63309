"""The next object to grasp."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from planner.prompts import quote
from planner.questions.question import Canvas, Question
from planner.questions.reply import Name, Reply, name_in, validated
from planner.reply_text import ReplyError, one_object, plain, says_nothing


class Analysis(Reply):
    """Why a target was chosen, as far as the model says."""

    priority_consideration: str = ""
    accessibility: str = ""
    risk_assessment: str = ""


class Proposal(Reply):
    """The next object to grasp; `target` is ``None`` if the table is empty."""

    analysis: Analysis = Analysis()
    target: Name | None


@dataclass(frozen=True)
class Propose(Question[Proposal]):
    """The next object of a Type II prompt, none of `avoid` if it can be helped."""

    avoid: tuple[str, ...] = ()

    task = "generate_instruction"
    reply = Proposal

    def in_words(self) -> str:
        return "planner: what next?"

    def text(self, pictures: int) -> str:
        skip = ""
        if self.avoid:
            skip = "\nThese were tried without success; choose another as long as there is one: " + "; ".join(
                quote(each) for each in self.avoid
            )
        return f"""Choose the one object on the table that the arm should grasp next.

Objects on the arm's side come first, so that reaching for later ones knocks nothing over; then those in the
middle, then those farthest away. Weigh how the objects stand to one another, what is in the way, and
whether the gripper's path would touch something else.{skip}

Reply in valid JSON of this form:
```json
{{
  "analysis": {{
    "priority_consideration": "<why this object comes first>",
    "accessibility": "<how well it can be reached>",
    "risk_assessment": "<what could go wrong>"
  }},
  "target": "<the object's colour, shape and position in one flowing phrase, and nothing else>"
}}
```
If there is no object on the table at all, "target" is null."""

    @classmethod
    def parse(cls, said: str, canvases: Sequence[Canvas] = ()) -> Proposal:
        """A JSON object with one ``target``, which may be null; ``analysis`` as far as it is there."""
        text = plain(said)
        if says_nothing(text):
            return Proposal(target=None)
        value = {key.lower(): each for key, each in one_object(text).items()}
        if "target" not in value:
            raise ReplyError("target: it is missing")
        target = value["target"]
        if isinstance(target, list) and len(target) <= 1:
            target = target[0] if target else None
        target = name_in(target)
        if isinstance(target, str) and says_nothing(target):
            target = None
        return validated(Proposal, {"analysis": _analysis(value.get("analysis")), "target": target})


def _analysis(said: object) -> Analysis:
    """What of it is text."""
    if isinstance(said, str):
        return Analysis(priority_consideration=said)
    given = said if isinstance(said, dict) else {}
    texts = {key: each for key in Analysis.model_fields if isinstance(each := given.get(key), str)}
    return Analysis(**texts)
