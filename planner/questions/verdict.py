"""Booleans in replies: read strictly, and only where the format puts them.

A boolean counts at the head or the conclusion of the reply, and not because "true" occurs somewhere.
"""

from __future__ import annotations

import re

from planner.questions.reply import Reply
from planner.reply_text import ReplyError, only_json, plain


class Verdict(Reply):
    """A boolean and what the model said about it."""

    value: bool
    reason: str = ""


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


class ContradictionError(ReplyError):
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
        raise ContradictionError("the reply says True in one place and False in another")
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
