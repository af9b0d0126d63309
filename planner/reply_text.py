"""Finding the answer in a reply's text: thoughts, answer tags, code fences, JSON.

Models think aloud, some between tags, and what they write down there may look like the answer without being
it. So thoughts are taken out first, and what is left over is never guessed at: two answers are none.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, TypeVar

MAX_REPLY_CHARS = 65_536
"""Thoughts included; they are skipped, not read."""
MAX_ANSWER_CHARS = 8_192
"""Without the thoughts. Replies are read on the control loop, so this long one must take less than 1 ms."""
_MAX_JSON_STARTS = 64
_MAX_MENDED_CHARS = 2_048
"""Mending takes ten times as long as reading."""

J = TypeVar("J", dict[str, Any], list[Any])


class ReplyError(Exception):
    """A reply that cannot be used; the message is one line that says why.

    Attributes:
        hint: what a person may do about it; not for the model.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


_START = re.compile(r"[{\[]")
_FENCE = re.compile(r"```(.*?)```", re.DOTALL)  # the language's name is no JSON, so it may stay inside
_THOUGHT = re.compile(
    r"[<\[◁](/?)(?:seed:)?(?:think|thinking|thoughts?|reasoning|reflection|scratchpad)[>\]▷]"
    r"|<\|(?:(begin_of|start)|end_of|end)_(?:thought|thinking)\|>"
    r"|(?:(<\|channel>thought)|<channel\|>)",
    re.IGNORECASE,
)
"""As Qwen, DeepSeek, GLM, Kimi, Magistral and Seed write them; Command and Gemma."""
_CHANNEL = re.compile(r"<\|channel\|>(\w{1,20})[^<]{0,40}<\|message\|>")
_ANSWER = re.compile(
    r"<(/?)(?:answer|final_answer|output|result|response|verdict|conclusion)>"
    r"|<\|(?:(begin_of|start)|end_of|end)_(?:box|solution|response)\|>|<\|(?:(start)|end)_text\|>",
    re.IGNORECASE,
)
"""As GLM and Command write them, among others; Llama's ``<|end_of_text|>`` ends whatever was written."""
_SPECIAL = re.compile(
    r"<\|(?:im_end|im_start|endoftext|end|return|eot_id|begin_of_text|end_of_text|eom_id)\|>|</s>|<end_of_turn>|<eos>"
    r"|<[|｜]end▁of▁sentence[|｜]>"
)
_WIDE = {wide: wide - 0xFEE0 for wide in range(0xFF01, 0xFF5F)} | dict(
    zip(map(ord, "\u3000\u00a0\u202f\u200b\ufeff。、「」【】“”„‘’"), '     .,""[]"""\'\'', strict=True)
)
"""Full-width forms and other languages' blanks and punctuation as ASCII has them, character by character."""


def plain(text: str) -> str:
    """The answer in `text`: without thoughts, and what is between its answer tags, if it has any.

    Raises:
        ReplyError: it is empty, too long, a web page, ends within its thoughts, or holds two answers.
    """
    if len(text) > MAX_REPLY_CHARS:
        raise ReplyError(f"the reply has {len(text)} characters; at most {MAX_REPLY_CHARS} are read")
    plain = _without_thoughts(text).strip()
    if not plain:
        raise ReplyError("the reply is empty")
    if len(plain) > MAX_ANSWER_CHARS:
        raise ReplyError(f"the answer has {len(plain)} characters; at most {MAX_ANSWER_CHARS} are read")
    if re.match(r"(?i)<!doctype html|<html", plain):
        raise ReplyError("the reply is an HTML page")
    plain = _SPECIAL.sub("", _between_tags(plain)).strip()
    if not plain:
        raise ReplyError("the reply is empty")
    return plain


def narrow(text: str) -> str:
    """`text` with full-width letters, digits and punctuation as in ASCII."""
    return text if text.isascii() else text.translate(_WIDE)


def _without_thoughts(text: str) -> str:
    """What was said last outside of thoughts.

    Servers may swallow the opening tag, so whatever precedes a closing one that nothing opened was thought.
    """
    channels = list(_CHANNEL.finditer(text))
    if channels:  # of gpt-oss: analysis, commentary, and final
        if channels[-1][1] != "final":
            raise ReplyError("the reply ends within its thoughts")
        text = text[channels[-1].end() :]
    said: list[str] = []
    thinking, position = False, 0
    for tag in _THOUGHT.finditer(text):
        closing = _closes(tag)
        if closing and not thinking:
            said.clear()
        elif not closing and not thinking:
            said.append(text[position : tag.start()])
        thinking, position = not closing, tag.end()
    if thinking:
        raise ReplyError("the reply ends within its thoughts")
    said.append(text[position:])
    return next((each for each in reversed(said) if each.strip()), "")


def _closes(tag: re.Match[str]) -> bool:
    """Whether a tag is a closing one: of the form ``</x>``, or not the first of a pair."""
    return tag[1] == "/" or (tag[1] is None and not any(tag.groups()[1:]))


def _between_tags(text: str) -> str:
    """What stands between answer tags, of which either may be missing; `text` without any."""
    tags = list(_ANSWER.finditer(text))
    if not tags:
        return text
    closings = [_closes(tag) for tag in tags]
    if sum(closings) > 1 or len(tags) - sum(closings) > 1 or closings == [True, False]:
        raise ReplyError("the reply holds more than one answer")
    start = 0 if closings[0] else tags[0].end()
    end = tags[-1].start() if closings[-1] else len(text)
    return text[start:end]


def only_json(text: str, kind: type[J]) -> J:
    """The only outermost value of type `kind` (dict or list) in the fenced block, or else in the text.

    Where there is none, near JSON is read: single quotes, keys without any, trailing commas, comments,
    Python's constants and tuples, numbers such as ``+.5`` and ``010``, and full-width punctuation.

    Raises:
        ReplyError: there is none, or more than one, or more than one block.
    """
    blocks = _FENCE.findall(text)
    if len(blocks) > 1:
        raise ReplyError("the reply holds more than one fenced block")
    source = blocks[0] if blocks else text
    values = [value for value in _values(source) if isinstance(value, kind)]
    if not values and len(source) <= _MAX_MENDED_CHARS:
        values = [value for value in _values(_mended(source)) if isinstance(value, kind)]
    name = "JSON object" if kind is dict else "JSON list"
    if not values:
        raise ReplyError(f"the reply holds no complete {name}")
    if any(value != values[0] for value in values):  # models repeat themselves
        raise ReplyError(f"the reply holds more than one {name}")
    return values[0]


_NO_OBJECT = frozenset({"null", "none", "nothing", "n/a", "nil", "empty", "无", "没有"})
_ABOUT_NOTHING = re.compile(
    r"(?:(?:a|all|already|an|and|any|anything|are|at|be|been|can|description|detected|empty|everything|fits?|for|"
    r"found|further|grasp|grasped|graspable|here|i|image|in|instruction|is|it|items?|left|match|matches|matching|"
    r"more|next|no|none|nothing|now|objects?|of|on|others?|pick|picked|picture|present|prompt|remain|remains|"
    r"remaining|request|scene|see|seen|suitable|such|table|tabletop|targets?|that|the|them|there|these|things?|"
    r"this|those|to|tray|up|visible|was|were|which|workspace) ){2,24}"
)
"""What may be said of there being nothing: with any other word it may be the name of something."""
_NEGATION = re.compile(r"(?:there (?:is|are|was|were|remains?) |i (?:can )?see )?(?:none|nothing|no \w)")
_EMPTY = re.compile(
    r"(?:the )?(?:table|tabletop|workspace|scene) (?:is |was |are )?(?:now |already |all )?empty\b"
)
_NOTHING_CHINESE = re.compile(
    r"(?:(?:桌子?面?|图中|图片|画面)[上中]?)?(?:已经)?(?:没有|无)(?:匹配的|符合的|剩余的?|其他|任何|可抓取的)?"
    r"(?:物体|目标|东西|物品)?了?"
)


def says_nothing(text: str) -> bool:
    """Whether `text` says in words, where null or an empty list was asked for, that there is nothing."""
    said = narrow(text).strip(" .!").lower()
    if said in _NO_OBJECT or _NOTHING_CHINESE.fullmatch(said):
        return True
    words = re.findall(r"[^\s,.;:()!—–-]+", said)
    joined = " ".join(words)
    if _ABOUT_NOTHING.fullmatch(joined + " ") is None:
        return False
    return _NEGATION.match(joined) is not None or _EMPTY.match(joined) is not None


_CALL = frozenset({"arguments", "parameters", "input"})


def one_object(text: str) -> dict[str, Any]:
    """The single JSON object of the reply; a list that holds exactly one is taken for it.

    Of a call of a tool it is what that was given.

    Raises:
        ReplyError: there is none, or more than one.
    """
    try:
        return called_with(only_json(text, dict))
    except ReplyError as error:
        try:
            values = only_json(text, list)
        except ReplyError:
            raise error from None
    if len(values) > 1 and all(value == values[0] for value in values):
        values = values[:1]  # models repeat themselves
    if len(values) != 1 or not isinstance(values[0], dict):
        raise ReplyError(f"exactly one object was asked for, and the list holds {len(values)}")
    return called_with(values[0])


def called_with(value: dict[str, Any]) -> dict[str, Any]:
    """What a tool was given, if `value` is a call of one, which some models make of all JSON; else `value`.

    Raises:
        ReplyError: it was given a text that holds no object.
    """
    known = {str(key).lower(): each for key, each in value.items()}
    if "name" not in known or len(inside := known.keys() & _CALL) != 1:
        return value
    given = known[inside.pop()]
    if isinstance(given, str):
        given = one_object(given)
    return given if isinstance(given, dict) else value


def _values(text: str) -> Iterator[Any]:
    """Every outermost JSON object or list in `text`."""
    decoder = json.JSONDecoder(strict=False)  # models break lines inside of their texts
    position = starts = 0
    while (match := _START.search(text, position)) is not None and starts < _MAX_JSON_STARTS:
        starts += 1
        try:
            value, position = decoder.raw_decode(text, match.start())
        except json.JSONDecodeError as error:
            position = max(error.pos, match.start() + 1)
            if text[match.start()] == "{":
                return  # what is inside a broken object is not the answer, nor what a broken list began with
        except (ValueError, RecursionError):
            return
        else:
            yield value


_NEAR = re.compile(
    r'"(?:[^"\\]|\\.)*+"?'  # the closing one may be missing: else every quotation mark would search for it
    r"|(?<![\w'])'((?:[^'\\\n]|\\.|'(?=\w))*+)'?"
    r"|,(?=\s*+[}\]])"
    r"|(?<!\w)([A-Za-z_]\w{0,40}+)(?=\s*+:)"
    r"|\b(?:None|True|False|undefined)\b"
    r"|(?<!:)//[^\n]*|(?<!\#)\#(?![\d\#])[^\n]*|/\*[^*]{0,200}\*/"  # "#1" counts, and "###" is a heading
    r"|\(\s{0,8}+([-+.\d][-+.\d\s]{0,40},[-+.\d\s,]{0,80})\)"  # of one number it is no tuple
    r"|(?<![\w.])\+?(\d++(?:\.\d*+)?+|\.\d++)(?![\w.])",
    re.DOTALL,
)
_CONSTANTS = {"None": "null", "True": "true", "False": "false", "undefined": "null"}


def _mended(text: str) -> str:
    """`text` with what is near JSON made JSON. Nothing that is missing is made up."""

    def token(match: re.Match[str]) -> str:
        said = match[0]
        if said.startswith('"'):
            return said
        if match[1] is not None:
            return json.dumps(match[1].replace("\\'", "'"), ensure_ascii=False)
        if match[2] is not None:
            return f'"{match[2]}"'
        if match[3] is not None:
            return f"[{match[3]}]"
        if (number := match[4]) is not None:
            whole, point, part = number.partition(".")
            return (whole.lstrip("0") or "0") + (point and f".{part or 0}")
        return _CONSTANTS.get(said, "")

    return _NEAR.sub(token, narrow(text))
