"""The objects that a prompt names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from planner.prompts import quote
from planner.questions.question import Canvas, Question
from planner.questions.reply import Name, Reply, validated
from planner.reply_text import ReplyError, only_json, plain


class Decomposition(Reply):
    """The objects that a Type I prompt means, in grasping order; empty if none is in the picture."""

    objects: Annotated[tuple[Name, ...], Field(max_length=50)]


@dataclass(frozen=True)
class Decompose(Question[Decomposition]):
    """The objects that the Type I `prompt` means, each with its position, in grasping order."""

    prompt: str

    task = "decompose_user_prompt"
    reply = Decomposition

    def in_words(self) -> str:
        return "planner: which objects?"

    def text(self, pictures: int) -> str:
        return f"""A person tells the robot: {quote(self.prompt)}

Find in the picture every object on the table that the request speaks of. A description that fits several
objects stands for all of them. Leave out whatever the request does not mention and whatever cannot be seen.
Then put them in the order in which the arm can best take them one after the other, without knocking others
over; keep to the request's own order if it gives one.

Describe each object so that it can be told apart from the others, with its position. Reply with one list
and nothing else, empty if nothing fits:
["<object with its position>", "<object with its position>", ...]"""

    @classmethod
    def parse(cls, said: str, canvases: Sequence[Canvas] = ()) -> Decomposition:
        """A JSON list of distinct texts, fenced or bare."""
        objects = only_json(plain(said), list)
        result = validated(Decomposition, {"objects": tuple(objects)})
        if len(set(result.objects)) != len(result.objects):
            raise ReplyError("the list names the same object twice in the same words")
        return result
