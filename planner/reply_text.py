"""Finding the answer in a reply's text: thoughts, code fences, JSON."""

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

J = TypeVar("J", dict[str, Any], list[Any])


class ReplyError(Exception):
    """A reply that cannot be used; the message is one line that says why."""


_START = re.compile(r"[{\[]")
_FENCE = re.compile(r"```(.*?)```", re.DOTALL)  # the language's name is no JSON, so it may stay inside


def plain(text: str) -> str:
    """`text` without a leading block of thoughts.

    Raises:
        ReplyError: it is empty, too long, or a web page.
    """
    if len(text) > MAX_REPLY_CHARS:
        raise ReplyError(f"the reply has {len(text)} characters; at most {MAX_REPLY_CHARS} are read")
    plain = text.strip()
    if plain.startswith("<think>") and (end := plain.find("</think>")) >= 0:
        plain = plain[end + len("</think>") :].strip()
    if not plain:
        raise ReplyError("the reply is empty")
    if len(plain) > MAX_ANSWER_CHARS:
        raise ReplyError(f"the answer has {len(plain)} characters; at most {MAX_ANSWER_CHARS} are read")
    if re.match(r"(?i)<!doctype html|<html", plain):
        raise ReplyError("the reply is an HTML page")
    return plain


def only_json(text: str, kind: type[J]) -> J:
    """The only outermost value of type `kind` (dict or list) in the fenced block, or else in the text.

    Raises:
        ReplyError: there is none, or more than one, or more than one block.
    """
    blocks = _FENCE.findall(text)
    if len(blocks) > 1:
        raise ReplyError("the reply holds more than one fenced block")
    source = blocks[0] if blocks else text
    values = [value for value in _values(source) if isinstance(value, kind)]
    name = "JSON object" if kind is dict else "JSON list"
    if not values:
        raise ReplyError(f"the reply holds no complete {name}")
    if len(values) > 1:
        raise ReplyError(f"the reply holds more than one {name}")
    return values[0]


def _values(text: str) -> Iterator[Any]:
    """Every outermost JSON object or list in `text`."""
    decoder = json.JSONDecoder(parse_constant=_no_constant)
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


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")
