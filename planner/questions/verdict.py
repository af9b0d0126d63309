"""Booleans in replies: read strictly, and only where the format puts them.

A boolean counts at the head or the conclusion of the reply, and not because "true" occurs somewhere.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from planner.questions.reply import Reply
from planner.reply_text import ReplyError, narrow, one_object, plain


class Verdict(Reply):
    """A boolean and what the model said about it."""

    value: bool
    reason: str = ""


# These are matched on the control loop, against whatever a server sends. Blanks come one by one (`_lines`):
# several optional blanks side by side would try every way to share out a long run of them.
_LABEL = (
    r"(?:(?:the\s+)?(?:final\s+)?(?:answer|conclusion|verdict|result|output|value)(?:\s+is)?\s*[:=]?\s+)?"
)


@dataclass(frozen=True)
class _Words:
    """The words that count as a boolean, and how they are recognised alone, at the head and at the tail."""

    values: Mapping[str, bool]
    alone: re.Pattern[str] = field(init=False)
    head: re.Pattern[str] = field(init=False)
    tail: re.Pattern[str] = field(init=False)

    def __post_init__(self) -> None:
        word = f"({'|'.join(sorted(self.values, key=len, reverse=True))})"
        patterns = {
            "alone": rf"^{_LABEL}{word}\s*[.!:]?$",
            "head": rf"^{_LABEL}{word}\s*(?:[:;,.!(–—-]+)\s*(\S.*)$",
            "tail": r"^(.*?)(?:[.:;,!?)=–—>-]\s*|"
            r"\b(?:answer|conclusion|verdict|result|output|value)(?:\s+is)?\s+)"
            rf"(?:{_LABEL}){word}\s*[.!]?$",
        }
        for name, pattern in patterns.items():
            object.__setattr__(self, name, re.compile(pattern, re.IGNORECASE | re.DOTALL))

    def others(self, value: bool) -> list[str]:
        """The words that say the opposite."""
        return [word for word, means in self.values.items() if means is not value]


_BOOLEANS = _Words({"true": True, "false": False, "真": True, "假": False})
_YES_TOO = _Words(
    {**_BOOLEANS.values, "yes": True, "no": False, "是": True, "是的": True, "否": False, "不是": False}
)
"""For a question that "yes" answers as True does."""
_TAIL_CHARS = 120
"""Nothing that the end of a line is recognised by is longer."""
_MARKUP = "*_`\"'“”#$[]『』✅❌✔✓✗✘☑️"
_SURENESS = re.compile(r"(?:confidence|certainty)\b", re.IGNORECASE)
_TEX = re.compile(r"\\(?:boxed|text|textbf|mathbf)\{([^{}\\]{0,80})\}")
_CHINESE_LABEL = re.compile(r"(?:最终)?(?:答案|结论|回答)[是为]?[:\s]?")
_BOTH = re.compile(r"\b(?:true\s*(?:/|or|\|)\s*false|false\s*(?:/|or|\|)\s*true)\b", re.IGNORECASE)


def parse_verdict(text: str, *, yes: bool = False) -> Verdict:
    """A boolean alone, at the head ("False: cup, plate") or at the conclusion ("... True") of the reply.

    Args:
        text: the reply.
        yes: whether yes and no mean the same as True and False to what was asked.

    Raises:
        ReplyError: neither, or the reply says one boolean there and the other one too.
    """
    return _verdict(plain(text), _YES_TOO if yes else _BOOLEANS)[0]


def parse_conclusion(text: str, *, yes: bool = False) -> Verdict:
    """A boolean at the conclusion: the last line is one, begins with one, or ends with one.

    Raises:
        ReplyError: the last line holds none, or the reply says the other one too.
    """
    verdict, concluded = _verdict(plain(text), _YES_TOO if yes else _BOOLEANS)
    if not concluded:
        raise ReplyError("the reply does not conclude with True or False")
    return verdict


class ContradictionError(ReplyError):
    """Both booleans are said; asking again beats choosing one."""


def _verdict(body: str, words: _Words) -> tuple[Verdict, bool]:
    """The verdict, and whether it stands in the last line."""
    if (found := _verdict_in_json(body, words)) is not None:
        return found, True
    lines = _lines(body)
    if not lines:
        raise ReplyError("the reply is empty")
    closing = {_head(lines[-1], words), _tail(lines[-1], words)} - {None}
    said = closing | ({_head(lines[0], words)} - {None})
    if not said:
        raise ReplyError("the reply neither begins nor concludes with True or False")
    if not closing:  # then whatever line begins with the other one may be meant as the conclusion
        others = words.others(True in said)
        said |= {_head(line, words) for line in lines if any(o in line.lower() for o in others)} - {None}
    if len(said) > 1:
        raise ContradictionError("the reply says True in one place and False in another")
    return Verdict(value=said == {True}, reason=_reason(lines, words)), bool(closing)


def _lines(text: str) -> list[str]:
    """The lines that hold anything, without markup, and with one space for each run of blanks."""
    text = narrow(text)
    if "\\" in text:
        text = _TEX.sub(r"\1", _TEX.sub(r"\1", text))
    for mark in _MARKUP:
        text = text.replace(mark, "")
    if not text.isascii():
        text = _CHINESE_LABEL.sub("answer: ", text)
    lines = (" ".join(line.split()).lstrip(">- ") for line in text.splitlines() if line)
    kept = [line for line in lines if line]
    return [line for line in kept if not _SURENESS.match(line)] or kept


def _head(line: str, words: _Words) -> bool | None:
    if _BOTH.match(line):
        return None
    match = words.alone.match(line) or words.head.match(line)
    return None if match is None else words.values[match.group(1).lower()]


def _tail(line: str, words: _Words) -> bool | None:
    if (alone := words.alone.match(line)) is not None:
        return words.values[alone.group(1).lower()]
    line = line[-_TAIL_CHARS:]
    match = words.tail.match(line)
    if match is None or _BOTH.search(line[max(0, match.start(2) - 12) :]):
        return None
    return words.values[match.group(2).lower()]


def _reason(lines: list[str], words: _Words) -> str:
    whole = " ".join(lines)
    if (match := words.head.match(whole)) is not None:
        return match.group(2).strip()
    if len(lines) > 1 and words.alone.match(lines[-1]):
        return " ".join(lines[:-1])
    if (match := words.head.match(lines[-1])) is not None:
        return match.group(2).strip()
    before = max(0, len(whole) - _TAIL_CHARS)
    if (tail := words.tail.match(whole[before:])) is not None:
        return whole[: before + tail.end(1)].strip()
    return "" if words.alone.match(whole) else whole


def _verdict_in_json(text: str, words: _Words) -> Verdict | None:
    try:
        value = one_object(text)
    except ReplyError:
        return None
    texts = [each for each in value.values() if isinstance(each, str)]
    flags = [each for each in value.values() if isinstance(each, bool)]
    if not flags:  # then as a text, one of them
        flags = [
            flag for each in texts if (flag := _head(" ".join(each[:_TAIL_CHARS].split()), words)) is not None
        ]
    if len(flags) != 1:
        return None
    return Verdict(value=flags[0], reason=" ".join(texts))
