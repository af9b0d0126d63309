"""Text from outside for a person's eyes: nothing in it commands the terminal, or hides what is there."""

from __future__ import annotations

import re

_CONTROL = "\x00-\x08\x0b-\x1f\x7f-\x9f"
_DIRECTION = "\u061c\u200b\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff"
_UNSEEN = re.compile(f"[{_CONTROL}{_DIRECTION}\u2028\u2029\ud800-\udfff]")
_OR_COLOUR = re.compile(rf"(\x1b\[[0-9;]{{0,20}}m)|{_UNSEEN.pattern}")


def printable(text: str, *, colours: bool = False) -> str:
    """`text` with its control characters, and those that turn the direction of writing, as escapes.

    Line breaks and tabs stay; with `colours` so do the codes that only colour what follows, which the log's
    own lines have.
    """
    if not colours:
        return _UNSEEN.sub(_escaped, text)
    return _OR_COLOUR.sub(lambda found: found[1] or _escaped(found), text)


def line(text: str) -> str:
    """The same on one line."""
    return printable(" ".join(text.splitlines()))


def _escaped(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
