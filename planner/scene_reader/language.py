"""What a person's or a planner's words ask for: colours, shapes, places, in English and some Chinese."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace

_COLOR_WORDS = {
    "red": "red|crimson|scarlet|红",
    "orange": "orange|橙|橘",
    "yellow": "yellow|golden|黄",
    "green": "green|绿",
    "blue": "blue|navy|蓝",
    "purple": "purple|violet|magenta|紫",
}
_SHAPE_WORDS = {
    ("cube",): "cubes?|dice|正方体|立方体",
    ("cuboid",): "cuboids?|bricks?|bars?|rectangular|长方体",
    ("cube", "cuboid"): "blocks?|boxy|方块|积木",
    ("cylinder",): "cylinders?|cylindrical|cans?|tubes?|round|圆柱体?|圆筒",
}
_PLACE_WORDS = {
    "left": "left|left-hand|左",
    "right": "right|right-hand|右",
    "middle": "middle|cent(?:re|er)|central|中间|中央",
    "near": "near|front|close|lower|bottom|近|前",
    "far": "far|back|rear|upper|top|远|后",
}
_EXTREME_WORDS = {
    "leftmost": "left-?most|最左",
    "rightmost": "right-?most|最右",
    "nearest": "nearest|closest|最近|最前",
    "farthest": "farthest|furthest|最远|最后",
    "largest": "largest|biggest|最大",
    "smallest": "smallest|tiniest|最小",
}
_SIZE_WORDS = {"large": "large|larger|big|bigger|大", "small": "small|smaller|little|tiny|小"}
_NUMBERS = {"two": 2, "both": 2, "three": 3, "four": 4, "five": 5, "six": 6, "2": 2, "3": 3, "4": 4, "两": 2}

_GENERIC = (
    "objects?|things?|items?|stuff|ones?|pieces?|toys?|everything|anything|all|rest|others?|mess|clutter|"
    "table|desk|desktop|tabletop|workspace|surface|place|room|picture|image|side|edge|end|corner|part|"
    "tray|box|bin|basket|container|bowl|robot|arm|way|order|hand|time"
)
_ADJECTIVES = (
    "coloured|colored|shaped|remaining|same|next|first|second|third|last|single|whole|entire|very|most"
)

_DESTINATION = re.compile(
    r"\b(?:in|into|inside|onto|on|to)\s+(?:the\s+|a\s+|my\s+)?(?:[a-z]+\s+)?"
    r"(?:tray|box|bin|basket|container|bowl)\b[^,;.]*?(?=$|[,;.]|\band\b|\bthen\b)"
    r"|(?:放|装|移|收|拿)?(?:到|进|入|在)?(?:托盘|盘子|盒子|篮子)(?:里|中|内|上)?面?"
)
_BESIDE = re.compile(
    r",?\s*\b(?:next to|beside|adjacent to|close to|between|behind|in front of|"
    r"(?:to the )?(?:left|right) of(?! cent))\b.*$"
)
_EXCEPT = re.compile(
    r"\b(?:except(?:\s+for)?|but not|other than|apart from|excluding|besides|without|leave(?!\s+nothing))\b"
    r"|\b(?<=all )but\b|\b(?<=everything )but\b"
)
_EXCEPT_CHINESE = re.compile(r"除了?(.+?)(?:以外|之外|外|都|[,，]|$)")
_CLAUSES = re.compile(r"[,;，；、。]|\band\b|\bthen\b|\bas well as\b|\bplus\b|和|然后|以及|再")
_IN_ORDER = re.compile(r"\bthen\b|\bfirst\b|\bafterwards\b|然后|再|先")
_AT = re.compile(r"(\d{1,3})\s*% across and (\d{1,3})\s*% down")
_ONE_OF = re.compile(r"\bone of the (\w+)\b")
_NOUN = re.compile(r"\b(?:the|a|an|all|every|each|any|my|that|this|these|those)\s+((?:[a-z-]+\s*){1,5})")


@dataclass(frozen=True)
class Query:
    """One description. Empty collections ask for nothing.

    Attributes:
        colors: any of these.
        shapes: any of these.
        places: all of ``left``, ``right``, ``middle``, ``near``, ``far`` that were said.
        extreme: a superlative, which picks one.
        size: ``large`` or ``small``.
        at: an exact place, as fractions of the picture's width and height.
        count: how many are asked for.
        one_of: of how many alike it is said to be one.
        unknown: nouns that are none of the shapes known here: nothing fits them.
        bare: whether it has no noun at all, as "the red" in "the red and green cubes".
    """

    colors: frozenset[str] = frozenset()
    shapes: frozenset[str] = frozenset()
    places: frozenset[str] = frozenset()
    extreme: str = ""
    size: str = ""
    at: tuple[float, float] | None = None
    count: int | None = None
    one_of: int | None = None
    unknown: tuple[str, ...] = ()
    bare: bool = False

    @property
    def specific(self) -> bool:
        """Whether it says anything about the objects."""
        return bool(self.kind or self.places or self.extreme or self.size or self.at)

    @property
    def kind(self) -> bool:
        """Whether it says what the objects are like, apart from where they are."""
        return bool(self.colors or self.shapes or self.unknown)


@dataclass(frozen=True)
class PromptQuery:
    """A whole prompt: any of `wanted` (all things, if empty) but none of `unwanted`."""

    wanted: tuple[Query, ...] = ()
    unwanted: tuple[Query, ...] = ()
    in_order: bool = False

    @property
    def specific(self) -> bool:
        """Type I, as against Type II."""
        return bool(self.wanted or self.unwanted)


@dataclass
class _Words:
    text: str
    found: dict[str, list[str]] = field(default_factory=dict)

    def take(self, table: dict[str, str]) -> list[str]:
        """The keys whose words occur, in the text's order; the words are then gone from the text."""
        places = []
        for key, words in table.items():
            pattern = re.compile(_any(words))
            if (match := pattern.search(self.text)) is not None:
                places.append((match.start(), key))
        taken = [key for _, key in sorted(places)]
        for key in taken:
            self.text = re.sub(_any(table[key]), lambda m: " " * len(m.group()), self.text)
        return taken


def _any(words: str) -> str:
    """Latin words as whole words, Chinese ones anywhere."""
    parts = words.split("|")
    latin = "|".join(part for part in parts if part.isascii())
    other = [part for part in parts if not part.isascii()]
    return "|".join(([rf"(?<![a-z])(?:{latin})(?![a-z])"] if latin else []) + other)


def parse_request(prompt: str) -> PromptQuery:
    """What a person asks for: ``put the red cube and all green things in the tray``."""
    text = _DESTINATION.sub(" ", " ".join(prompt.lower().split()))
    unwanted = ""
    if (chinese := _EXCEPT_CHINESE.search(text)) is not None:
        unwanted, text = chinese.group(1), text[: chinese.start()] + text[chinese.end() :]
    elif (match := _EXCEPT.search(text)) is not None:
        unwanted, text = text[match.end() :], text[: match.start()]
    return PromptQuery(_queries(text), _queries(unwanted), _IN_ORDER.search(text) is not None)


def _queries(text: str) -> tuple[Query, ...]:
    clauses = [parse_query(clause) for clause in _CLAUSES.split(text)]
    found = [each for each in clauses if each.specific]
    for index, each in enumerate(found):
        after = found[index + 1] if index + 1 < len(found) else None
        before = found[index - 1] if index else None
        if each.colors and each.bare and after is not None and after.colors:
            found[index] = replace(each, shapes=after.shapes)  # "the red and green cubes"
        elif not each.kind and before is not None and before.kind:
            found[index] = replace(each, colors=before.colors, shapes=before.shapes)  # "left and right"
    return tuple(found)


def parse_query(text: str) -> Query:
    """What one description says: ``the blue cube on the left``."""
    lower = " ".join(text.lower().split())
    at = _AT.search(lower)
    one_of = _ONE_OF.search(lower)
    words = _Words(_BESIDE.sub("", _AT.sub(" ", lower)))
    extreme = words.take(_EXTREME_WORDS)
    words.text = re.sub(r"\bfar(?= (?:left|right))", "   ", words.text)
    colors = words.take(_COLOR_WORDS)
    shapes = words.take({"+".join(key): value for key, value in _SHAPE_WORDS.items()})
    places = words.take(_PLACE_WORDS)
    size = words.take(_SIZE_WORDS)
    count = next((n for word, n in _NUMBERS.items() if re.search(_any(word), lower)), None)
    return Query(
        colors=frozenset(colors),
        shapes=frozenset(shape for key in shapes for shape in key.split("+")),
        places=frozenset(places),
        extreme=extreme[0] if extreme else "",
        size=size[0] if size else "",
        at=(int(at.group(1)) / 100, int(at.group(2)) / 100) if at else None,
        count=None if one_of else count,
        one_of=_NUMBERS.get(one_of.group(1)) if one_of else None,
        unknown=(unknown := _unknown(words.text)),
        bare=not (shapes or unknown or _SOME_NOUN.search(words.text)),
    )


_SOME_NOUN = re.compile(rf"(?<![a-z])(?:{_GENERIC})(?![a-z])|的|东西|物体")
_KNOWN = re.compile(
    rf"(?:{_GENERIC}|{_ADJECTIVES}|{'|'.join(_NUMBERS)}|of|on|in|at|to|from|with|by|for|is|are|that|which|"
    r"the|a|an|all|please|now|up|away|down|off|out|together|it|them|and|or|you|can|see|there|"
    r"about|across|put|take|grab|pick|move|clear|clean|tidy|remove|bring|fetch|get|place|left)"
)


def _unknown(text: str) -> tuple[str, ...]:
    """Nouns after a determiner that mean nothing here (the words that do are blank by now)."""
    nouns = []
    for match in _NOUN.finditer(re.sub(r"\s+", " ", text)):
        for word in match.group(1).split():
            if _KNOWN.fullmatch(word) is None:
                nouns.append(word)
                break
            if word in ("of", "on", "in", "at", "to", "from", "with", "by"):
                break
    return tuple(nouns)
