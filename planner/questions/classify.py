"""Whether a prompt says which objects are meant."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from planner.prompts import quote
from planner.questions.question import Canvas, Question
from planner.questions.reply import Reply
from planner.questions.verdict import ContradictionError, parse_verdict
from planner.reply_text import ReplyError, plain

_TYPE = re.compile(r"\btype[\"'\s:]*(II|I|2|1)\b", re.IGNORECASE)


class PromptClass(Reply):
    """Type I names objects, Type II is abstract."""

    type: Literal["I", "II"]
    reason: str = ""


@dataclass(frozen=True)
class Classify(Question[PromptClass]):
    """Whether `prompt` names objects (Type I) or is abstract (Type II)."""

    prompt: str

    task = "classify_user_prompt"
    reply = PromptClass
    views = ()

    def in_words(self) -> str:
        return "planner: what kind of prompt?"

    def text(self, pictures: int) -> str:
        return f"""A person tells the robot: {quote(self.prompt)}

Requests are of two types.
- Type I says in some way which objects are meant: by colour ("the green things"), by place ("whatever is
  on the right"), by kind or another property ("all cups", "the small ones"), or by several of these at once.
- Type II is abstract and says nothing about the objects themselves ("clear the table", "tidy up",
  "take everything away").

Answer True if the request is Type I and False if it is Type II, then a colon and your reason:
True: <reason>
or
False: <reason>

For instance "fetch the green cup" gives "True: it names a cup and its colour", and "tidy up" gives
"False: nothing is said about any object"."""

    @classmethod
    def parse(cls, said: str, canvases: Sequence[Canvas] = ()) -> PromptClass:
        """``True: why`` for Type I and ``False: why`` for Type II, or the type by its name."""
        body = plain(said)
        named = {"II" if each.upper() in ("II", "2") else "I" for each in _TYPE.findall(body)}
        try:
            verdict = parse_verdict(body)
        except ContradictionError:
            raise
        except ReplyError:
            if len(named) != 1:
                fault = "both types are named" if named else "no type is named"
                raise ReplyError(f"{fault} and the reply is not of the form 'True: reason'") from None
            return PromptClass(type="I" if "I" in named else "II", reason=body)
        kind: Literal["I", "II"] = "I" if verdict.value else "II"
        if len(named) == 1 and kind not in named:
            raise ReplyError(
                f"the reply says {verdict.value}, which means Type {kind}, and names the other type"
            )
        return PromptClass(type=kind, reason=verdict.reason)
