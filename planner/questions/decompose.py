"""The objects that a prompt names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field

from planner.prompts import quote
from planner.questions.question import Canvas, Question
from planner.questions.reply import Name, Reply, name_in, validated
from planner.reply_text import ReplyError, called_with, only_json, plain, says_nothing

_NAMES = frozenset({"name", "object", "label", "description", "instruction"})


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
        """A JSON list of distinct texts, fenced or bare, or the only list of a JSON object; that there is
        nothing, also in a few words.
        """
        text = plain(said)
        objects = () if says_nothing(text) else tuple(map(name_in, _list(text)))
        if len(objects) == 1 and (objects[0] is None or says_nothing(str(objects[0]))):
            objects = ()
        result = validated(Decomposition, {"objects": objects})
        if len(set(result.objects)) != len(result.objects):
            raise ReplyError("the list names the same object twice in the same words")
        return result


def _list(text: str) -> list[Any]:
    """The list that `text` holds; of one object in its place, or of a list in a list, one.

    Raises:
        ReplyError: there is none, or more than one.
    """
    try:
        value = only_json(text, dict)
    except ReplyError:
        found = only_json(text, list)
        if len(found) == 1 and isinstance(found[0], dict) and (given := called_with(found[0])) != found[0]:
            found = _list_in(given)
    else:
        found = _list_in(called_with(value))
    return found[0] if len(found) == 1 and isinstance(found[0], list) and found[0] else found


def _list_in(value: dict[str, Any]) -> list[Any]:
    if len(value) == 1 and str(next(iter(value))).lower() in {*_NAMES, "objects"}:
        (said,) = value.values()
        if said is None or (isinstance(said, str) and says_nothing(said)):
            return []
    lists = [each for each in value.values() if isinstance(each, list)]
    alone = not lists and {str(key).lower() for key in value} & _NAMES
    if len(lists) != 1 and not alone:
        raise ReplyError("a list of objects was asked for, and the reply is another JSON object")
    return [value] if alone else lists[0]
