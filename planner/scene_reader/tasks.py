"""The scene reader's answers: which of the seven questions a text asks, and what the picture says to it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from planner.scene_reader import select
from planner.scene_reader.language import Query, parse_query, parse_request
from planner.scene_reader.vision import Scene, between_jaws, read
from runtime.messages import ColorImage

_OPEN, _CLOSE = "<<<", ">>>"
_MOST_QUOTED, _QUOTED_CHARS = 40, 2_000
_LOOSE_CHARS = 2_000
"""Other people's wordings are looked for in so much of a text; the pattern takes its square."""
_LOOSE = re.compile(
    r"(?:(?:user prompt|description)[^:\n]*:|\bwhether\b)\s*(.+?)\s*(?:\n|$|\bexists\b)", re.IGNORECASE
)
_ARM = re.compile(r"\barm is\b[^.]{0,80}?\b(left|right|bottom|top|near|far)\b", re.IGNORECASE)


@dataclass(frozen=True)
class SceneQuestion:
    """What is asked: the text without its quotations, the quotations, and the pictures."""

    quoted: tuple[str, ...]
    pictures: Sequence[ColorImage]
    arm_side: str = "bottom"

    def scene(self) -> Scene:
        """What the first picture shows."""
        return read(self.pictures[0])

    def subject(self) -> str:
        """The first quotation."""
        return self.quoted[0] if self.quoted else ""


def answer(text: str, pictures: Sequence[ColorImage], system: str = "") -> str:
    """The reply to `text` about `pictures`, in the format that it asks for.

    `system` is read for where the arm is. A text that asks none of the seven questions gets a sentence that
    says so.
    """
    bare, quoted = _unquoted(text)
    for pattern, reply, needed in _TASKS:
        if re.search(pattern, bare, re.IGNORECASE):
            if len(pictures) < needed:
                return "I was sent no picture to look at."
            if not quoted and (loose := _LOOSE.search(text[:_LOOSE_CHARS])) is not None:
                quoted = (loose[1],)
            return reply(SceneQuestion(quoted, pictures, _arm_side(system)))
    return "I can look at pictures of a table and answer a planner's questions about it, but not this one."


def _unquoted(text: str) -> tuple[str, tuple[str, ...]]:
    """`text` with a blank for each quotation, and the quotations."""
    first, *rest = text.split(_OPEN)
    bare = [first]
    quoted: list[str] = []
    for part in rest:
        inside, closed, after = part.partition(_CLOSE)
        if closed and len(quoted) < _MOST_QUOTED:
            quoted.append(inside[:_QUOTED_CHARS])
            bare += [" ", after]
        else:
            bare.append(part)
    return "".join(bare), tuple(quoted)


def _arm_side(system: str) -> str:
    found = _ARM.search(system)
    side = found.group(1).lower() if found else "bottom"
    return {"near": "bottom", "far": "top"}.get(side, side)


def _classify(question: SceneQuestion) -> str:
    request = parse_request(question.subject())
    if not request.specific:
        return "False: nothing is said about any object's colour, shape or place"
    said = [word for each in request.wanted + request.unwanted for word in _said(each)]
    return f"True: it speaks of {', '.join(dict.fromkeys(said))}"


def _said(query: Query) -> list[str]:
    words = [*sorted(query.colors), *sorted(query.shapes), *query.unknown, query.size, query.extreme]
    return [word for word in [*words, *sorted(query.places)] if word] or ["a place"]


def _decompose(question: SceneQuestion) -> str:
    things = question.scene().on_table
    chosen = select.asked_for(things, parse_request(question.subject()), question.arm_side)
    return json.dumps([select.describe(each, things) for each in chosen])


def _generate(question: SceneQuestion) -> str:
    things = question.scene().on_table
    ordered = select.grasping_order(things, question.arm_side)
    tried = {each: text for text in question.quoted if (each := select.meant(things, parse_query(text)))}
    target = next((each for each in ordered if each not in tried), ordered[0] if ordered else None)
    if target is None:
        why, phrase = "there is nothing on the table", None
    elif target in tried:
        why, phrase = "all were tried; it is the closest to the arm", tried[target]
    else:
        why, phrase = "it is the closest to the arm of those left to try", select.describe(target, things)
    analysis = {
        "priority_consideration": why,
        "accessibility": "seen from above, nothing covers it" if target else "nothing to reach",
        "risk_assessment": f"{len(things)} object(s) on the table in all",
    }
    return _fenced({"analysis": analysis, "target": phrase})


def _mark(question: SceneQuestion) -> str:
    things = question.scene().on_table
    found = select.meant(things, parse_query(question.subject()))
    if found is None:
        names = ", ".join(select.label(each) for each in things) or "nothing"
        description = f"nothing fits; on the table I see {names}"
        return _fenced({"bbox_2d": None, "label": "", "description": description})
    description = select.describe(found, things)
    return _fenced({"bbox_2d": list(found.box), "label": select.label(found), "description": description})


def _grasped(question: SceneQuestion) -> str:
    if len(question.pictures) > 1:
        color = between_jaws(question.pictures[1])
        if color is None:
            return "In the wrist camera's picture there is nothing between the jaws.\nFalse"
        return f"In the wrist camera's picture something {color} fills the space between the jaws.\nTrue"
    query = parse_query(question.subject())
    left = select.meant(question.scene().on_table, query) if query.kind else None
    if not query.kind or left is not None:
        return "From above I see no object that has left the table.\nFalse"
    return "The object is no longer to be seen on the table, so the jaws should hold it.\nTrue"


def _instruction_complete(question: SceneQuestion) -> str:
    query = parse_query(question.subject())
    things = question.scene().on_table
    alike = select.of_kind(things, query)
    if query.one_of is not None:
        gone = len(alike) < query.one_of
    elif query.at is None and query.places:
        gone = not select.fitting(things, query)
    else:
        gone = not alike and select.recolored(things, query) is None
    return "True: it is no longer on the table" if gone else "False: it is still on the table"


def _prompt_complete(question: SceneQuestion) -> str:
    things = question.scene().on_table
    return "False: " + ", ".join(select.label(each) for each in things) if things else "True"


def _fenced(value: object) -> str:
    return "```json\n" + json.dumps(value, indent=2) + "\n```"


_TASKS: tuple[tuple[str, Callable[[SceneQuestion], str], int], ...] = (
    (r"\bbbox_2d\b", _mark, 1),
    (r"\"target\"", _generate, 1),
    (r"\btype ii\b", _classify, 0),
    (r"\bgrasped\b", _grasped, 1),
    (r"\blist\b", _decompose, 1),
    (r"\bempty\b", _prompt_complete, 1),
    (r"\bstill on the table\b|\bexists? on the\b", _instruction_complete, 1),
)
"""What marks each question, the answer to it, and how many pictures it takes at least; the first wins."""
