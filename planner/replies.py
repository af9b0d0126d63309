"""What the planner's replies must look like, and the strict parsers that make them so.

Every parser takes the model's text and gives a frozen model or raises `ReplyError`, whose one-line message
is fit for being sent back to the model. Nothing is guessed: a boolean counts where the format puts it, at
the head or the conclusion of the reply, and not because "true" occurs somewhere; a box must lie in the
picture; one object means one.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from planner.reply_text import ReplyError, only_json, plain

Line = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=1_000)]
Name = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=300)]


class Reply(BaseModel):
    """Base of all replies. Types are strict; fields that nobody asked for are dropped."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore", allow_inf_nan=False)


R = TypeVar("R", bound=Reply)


class PromptClass(Reply):
    """Type I names objects, Type II is abstract."""

    type: Literal["I", "II"]
    reason: str = ""


class Decomposition(Reply):
    """The objects that a Type I prompt means, in grasping order; empty if none is in the picture."""

    objects: Annotated[tuple[Name, ...], Field(max_length=50)]


class Analysis(Reply):
    """Why a target was chosen."""

    priority_consideration: str
    accessibility: str
    risk_assessment: str


class Proposal(Reply):
    """The next object to grasp; `target` is ``None`` if the table is empty."""

    analysis: Analysis
    target: Name | None


class BoundingBox(Reply):
    """Corners in pixels of the picture that was asked about: ``0 <= x1 < x2 <= width``."""

    bbox_2d: tuple[float, float, float, float]
    label: str
    description: str


class Verdict(Reply):
    """A boolean and what the model said about it."""

    value: bool
    reason: str = ""


# --- booleans

# These are matched on the control loop, against whatever a server sends. Blanks come one by one (`_unmark`):
# several optional blanks side by side would try every way to share out a long run of them.
_LABEL = (
    r"(?:(?:the\s+)?(?:final\s+)?(?:answer|conclusion|verdict|result|output|value)(?:\s+is)?\s*[:=]?\s+)?"
)
_WORD = r"(true|false)"
_ALONE = re.compile(rf"^{_LABEL}{_WORD}\s*[.!]?$", re.IGNORECASE)
_HEAD = re.compile(rf"^{_LABEL}{_WORD}\s*(?:[:;,.!(–—-]+)\s*(\S.*)$", re.IGNORECASE | re.DOTALL)
_TAIL = re.compile(
    r"^(.*?)(?:[.:;,!?)=–—>-]\s*|\b(?:answer|conclusion|verdict|result|output|value)(?:\s+is)?\s+)"
    rf"(?:{_LABEL}){_WORD}\s*[.!]?$",
    re.IGNORECASE | re.DOTALL,
)
_TAIL_CHARS = 120
"""Nothing that the end of a line is recognised by is longer."""
_MARKUP = "*_`\"'“”#"
_BOTH = re.compile(r"\b(?:true\s*(?:/|or|\|)\s*false|false\s*(?:/|or|\|)\s*true)\b", re.IGNORECASE)


def parse_verdict(text: str) -> Verdict:
    """A boolean alone, at the head ("False: cup, plate") or at the conclusion ("... True") of the reply.

    Raises:
        ReplyError: neither, or the reply says one boolean there and the other one too.
    """
    return _verdict(plain(text))[0]


def parse_conclusion(text: str) -> Verdict:
    """A boolean at the conclusion: the last line is one, begins with one, or ends with one.

    Raises:
        ReplyError: the last line holds none, or the reply says the other one too.
    """
    verdict, concluded = _verdict(plain(text))
    if not concluded:
        raise ReplyError("the reply does not conclude with True or False")
    return verdict


class _ContradictionError(ReplyError):
    """Both booleans are said; asking again beats choosing one."""


def _verdict(body: str) -> tuple[Verdict, bool]:
    """The verdict, and whether it stands in the last line."""
    if (found := _verdict_in_json(body)) is not None:
        return found, True
    lines = _lines(body)
    if not lines:
        raise ReplyError("the reply is empty")
    closing = {_head(lines[-1]), _tail(lines[-1])} - {None}
    said = closing | ({_head(lines[0])} - {None})
    if not said:
        raise ReplyError("the reply neither begins nor concludes with True or False")
    if not closing:  # then whatever line begins with the other one may be meant as the conclusion
        other = "false" if True in said else "true"
        said |= {_head(line) for line in lines if other in line.lower()} - {None}
    if len(said) > 1:
        raise _ContradictionError("the reply says True in one place and False in another")
    return Verdict(value=said == {True}, reason=_reason(lines)), bool(closing)


def _lines(text: str) -> list[str]:
    """The lines that hold anything, without markup, and with one space for each run of blanks."""
    for mark in _MARKUP:
        text = text.replace(mark, "")
    lines = (" ".join(line.split()).lstrip(">- ") for line in text.splitlines() if line)
    return [line for line in lines if line]


def _head(line: str) -> bool | None:
    if _BOTH.match(line):
        return None
    match = _ALONE.match(line) or _HEAD.match(line)
    return None if match is None else match.group(1).lower() == "true"


def _tail(line: str) -> bool | None:
    if (alone := _ALONE.match(line)) is not None:
        return alone.group(1).lower() == "true"
    line = line[-_TAIL_CHARS:]
    match = _TAIL.match(line)
    if match is None or _BOTH.search(line[max(0, match.start(2) - 12) :]):
        return None
    return match.group(2).lower() == "true"


def _reason(lines: list[str]) -> str:
    whole = " ".join(lines)
    if (match := _HEAD.match(whole)) is not None:
        return match.group(2).strip()
    if len(lines) > 1 and _ALONE.match(lines[-1]):
        return " ".join(lines[:-1])
    if (match := _HEAD.match(lines[-1])) is not None:
        return match.group(2).strip()
    before = max(0, len(whole) - _TAIL_CHARS)
    if (tail := _TAIL.match(whole[before:])) is not None:
        return whole[: before + tail.end(1)].strip()
    return "" if _ALONE.match(whole) else whole


def _verdict_in_json(text: str) -> Verdict | None:
    try:
        value = only_json(text, dict)
    except ReplyError:
        return None
    flags = [each for each in value.values() if isinstance(each, bool)]
    if len(flags) != 1:
        return None
    reasons = [each for each in value.values() if isinstance(each, str)]
    return Verdict(value=flags[0], reason=" ".join(reasons))


# --- the seven tasks' own formats

_TYPE = re.compile(r"\btype\s*(II|I|2|1)\b", re.IGNORECASE)


def parse_prompt_class(text: str) -> PromptClass:
    """``True: why`` for Type I and ``False: why`` for Type II, or the type by its name.

    Raises:
        ReplyError: neither is said, or both are.
    """
    body = plain(text)
    named = {"II" if each.upper() in ("II", "2") else "I" for each in _TYPE.findall(body)}
    try:
        verdict = parse_verdict(body)
    except _ContradictionError:
        raise
    except ReplyError:
        if len(named) != 1:
            said = "both types are named" if named else "no type is named"
            raise ReplyError(f"{said} and the reply is not of the form 'True: reason'") from None
        return PromptClass(type="I" if "I" in named else "II", reason=body)
    kind: Literal["I", "II"] = "I" if verdict.value else "II"
    if len(named) == 1 and kind not in named:
        raise ReplyError(f"the reply says {verdict.value}, which means Type {kind}, and names the other type")
    return PromptClass(type=kind, reason=verdict.reason)


def parse_decomposition(text: str) -> Decomposition:
    """A JSON list of strings, fenced or bare.

    Raises:
        ReplyError: no list, more than one, or something else than distinct texts in it.
    """
    objects = only_json(plain(text), list)
    result = _validated(Decomposition, {"objects": tuple(objects)})
    if len(set(result.objects)) != len(result.objects):
        raise ReplyError("the list names the same object twice in the same words")
    return result


def parse_instruction(text: str) -> Proposal:
    """A JSON object with ``analysis`` and one ``target``.

    Raises:
        ReplyError: no such object, or a field is missing or of another type.
    """
    return _validated(Proposal, only_json(plain(text), dict))


def parse_bounding_box(text: str, width: float, height: float) -> BoundingBox | None:
    """A JSON object with ``bbox_2d``, ``label`` and ``description``; ``None`` if the box is null.

    Args:
        text: the reply.
        width: of the picture, in the units in which the box is counted.
        height: likewise.

    Raises:
        ReplyError: no such object, more than one, or a box that is empty or not inside the picture.
    """
    value = _one_object(plain(text))
    if "bbox_2d" in value and value["bbox_2d"] is None:
        return None
    corners = value.get("bbox_2d")
    if not isinstance(corners, list) or len(corners) != 4:
        raise ReplyError("bbox_2d must be a list of four numbers [x1, y1, x2, y2]")
    result = _validated(BoundingBox, {**value, "bbox_2d": tuple(corners)})
    x1, y1, x2, y2 = result.bbox_2d
    if not (x1 < x2 and y1 < y2):
        raise ReplyError(f"bbox_2d {corners} is empty: x1 < x2 and y1 < y2 must hold")
    if x1 < 0 or y1 < 0 or x2 > width or y2 > height:
        raise ReplyError(f"bbox_2d {corners} is not inside the picture of {width:g} by {height:g}")
    return result


def _one_object(text: str) -> dict[str, Any]:
    """The single object of the reply; a list that holds exactly one is taken for it."""
    try:
        return only_json(text, dict)
    except ReplyError as error:
        try:
            values = only_json(text, list)
        except ReplyError:
            raise error from None
    if len(values) != 1 or not isinstance(values[0], dict):
        raise ReplyError(f"exactly one object was asked for, and the list holds {len(values)}")
    return values[0]


def _validated(model: type[R], value: dict[str, Any]) -> R:
    try:
        return model.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the reply"
        raise ReplyError(f"{where}: {first['msg']}") from None
