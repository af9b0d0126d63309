"""The things that a task names, as a detector is asked for them: it reads phrases, not sentences.

English is read, as the detectors' own tokenizers are English; a task in another language goes to them whole.
"""

from __future__ import annotations

import re
from itertools import dropwhile

_CLAUSES = re.compile(r"[,;!?，；、。！？]|\.(?=\s|$)|\b(?:and|then|or)\b")
_ELSEWHERE = re.compile(
    r"\b(?:in|into|inside|on|onto|to|towards?|from|off|out|over|above|under|below|next|beside|besides|behind|between"
    r"|near|at|against|by|with|without|using|except|but|so|before|after|while|until|when"
    r"|(?:that|which) (?:is|are|was|were|has|lies|stands))\b"
)
"""Begins where a thing comes from or goes to, or how: none of it is what the thing is called."""
_PLACE = re.compile(
    r"\b(?:(?:to the )?(?:left|right) of|(?:close|closest|next|nearest|adjacent) to|in front of"
    r"|(?:placed|located|positioned|situated|lying|standing|sitting|resting)"
    r" (?=at|in|on|near|by|beside|next|close|between|behind|under|above|to))\b.*"
)
"""Where a thing is, which may be said before a word that `_SAID_BEFORE` would take for what is to be done."""
_SHARE = re.compile(
    r"(?:\b(?:about|around|roughly|approximately)\s+)?\d+(?:\.\d+)?\s*(?:%|percent)"
    r"(?=\s+(?:across|along|down|up|from|to|into|of the (?:way|width|height)))[^,;]*"
)
"""Where a thing is in the picture, in shares of it."""
_TURNED_ON = re.compile(r"\b(?:turn|switch|power) (?:on|off)\b")
_DETERMINER = re.compile(r"\b(?:the|an?|this|that|these|those|my|your|our|its|his|her|their)\s+")
_SAID_BEFORE = re.compile(
    "please|now|next|first|finally|can|could|would|will|you|i|we|want|need|to|try|let|us|robot|arm|use|for|"
    "pick|picking|up|grasp|grab|grip|take|taking|lift|raise|put|putting|place|placing|move|moving|get|fetch|"
    "bring|hand|give|me|push|pull|slide|drag|stack|carry|hold|find|locate|touch|reach|drop|release|transfer|"
    "set|insert|throw|toss|turn|rotate|flip|open|close|wipe|clean|clear|sort|tidy|collect|remove|down|away|"
    "off|out|back|carefully|slowly|gently|just|only|all|every|each|both|any"
)
_SAID_AFTER = re.compile("up|down|away|please|now|again|carefully|slowly|gently|first|there|here|back")
_NOTHING = re.compile(
    "it|them|ones?|that|this|these|those|objects?|things?|items?|stuff|everything|anything|all|rest|others?|"
    "mess|clutter|table|tabletop|desk|desktop|workspace|surface|place|room"
)


def things_named(task: str) -> tuple[str, ...]:
    """The phrases for what `task` is to be done with, in its order, without where to and where from."""
    found = [_thing(clause) for clause in _CLAUSES.split(" ".join(task.lower().split()))]
    return tuple(dict.fromkeys(each for each in found if each))


def _thing(clause: str) -> str:
    told = _TURNED_ON.sub("", _PLACE.sub("", _SHARE.sub("", clause)))
    said = " ".join(dropwhile(_SAID_BEFORE.fullmatch, told.split()))
    named = _DETERMINER.split(_ELSEWHERE.split(said, maxsplit=1)[0], maxsplit=1)[-1]
    words = list(dropwhile(_SAID_AFTER.fullmatch, reversed(named.split())))[::-1]
    return "" if all(map(_NOTHING.fullmatch, words)) else " ".join(words)
