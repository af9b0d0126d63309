"""Four numbers in a reply, however the model writes boxes down.

Besides the JSON that is asked for: the grounding tokens that Qwen, InternVL, MiniCPM and DeepSeek were
trained to write, places on a grid (`planner.grid_text`), Gemini's ``box_2d`` (top, left, bottom, right),
corners by name, and numbers as text.
"""

from __future__ import annotations

import re
from typing import Any

from planner.grid_text import box_on_grid, refuse_point
from planner.reply_text import ReplyError, called_with, narrow, one_object, only_json, says_nothing

Corners = tuple[float, float, float, float]


class NotedCorners(tuple[float, float, float, float]):
    """Corners in a notation that is of one unit only: ``per_mille``, ``percent`` or ``fractions``."""

    unit: str

    def __new__(cls, box: Corners, unit: str) -> NotedCorners:
        """Of `box`, counted in `unit`."""
        made = super().__new__(cls, box)
        made.unit = unit
        return made


class NamedCorners(tuple[float, float, float, float]):
    """Corners whose names say which is which, whatever a model's lists begin with."""


_KEYS = ("bbox_2d", "bbox", "box", "bounding_box", "boundingbox", "bbox2d", "coordinates", "bboxes", "boxes")
_TOP_FIRST = ("box_2d", "box2d")
"""Gemini's: ``[ymin, xmin, ymax, xmax]``, in thousandths."""
_THOUSANDTHS = ("<box>", "<|det|>")
"""InternVL's and MiniCPM's, and DeepSeek's: always of the picture. Qwen's ``<|box_start|>`` is not
(thousandths of Qwen2-VL, pixels of Qwen2.5-VL), nor is JSON (pixels of that, thousandths of Qwen3-VL)."""
_NAMED = (
    ("x1", "y1", "x2", "y2"),
    ("xmin", "ymin", "xmax", "ymax"),
    ("x_min", "y_min", "x_max", "y_max"),
    ("left", "top", "right", "bottom"),
    ("x0", "y0", "x1", "y1"),
    ("min_x", "min_y", "max_x", "max_y"),
    ("x_start", "y_start", "x_end", "y_end"),
)
_TWO_CORNERS = (("top_left", "bottom_right"), ("topleft", "bottomright"), ("min", "max"))
_MAX_WRAPPINGS = 4
_SIZED = (("x", "y", "width", "height"), ("left", "top", "width", "height"), ("x", "y", "w", "h"))
_NUMBER = re.compile(r"[-+]?\d{1,9}(?:\.\d{1,9})?(?![\d.])")
_NUMBERS_ONLY = re.compile(r"[\s\d.,;()\[\]+<>-]{7,100}")
_UNIT = re.compile(r"(?<=\d)\s?(%|px\b|pixels?\b)", re.IGNORECASE)
_BOXES = frozenset({*_KEYS, *_TOP_FIRST})
_TOKENS = re.compile(
    r"<\|box_start\|>([^<]{1,100})(?:<\|box_end\|>|$)|<box>([^<]{1,100})(?:</box>|$)"
    r"|<\|det\|>([^<]{1,100})(?:<\|/det\|>|$)|<bbox>([^<]{1,100})(?:</bbox>|$)",
    re.IGNORECASE,
)
_NOTHING = frozenset(
    {"", "null", "none", "n/a", "nan", "not found", "not visible", "not present", "absent", "[]"}
)


def box_of(text: str) -> tuple[Corners | None, dict[str, Any]]:
    """The corners ``x1, y1, x2, y2`` as the model counts them, and the rest of what it said of the object.

    ``None`` instead of corners if it says that there is no object: null, an empty list, or four zeros.

    Raises:
        ReplyError: there is no box, or more than one.
    """
    if (tokens := _TOKENS.findall(text)) and not text.lstrip("`json \n").startswith(("{", "[")):
        if len(tokens) != 1:
            raise ReplyError(f"exactly one box was asked for, and the reply holds {len(tokens)}")
        found = corners("".join(tokens[0]))
        thousandths = any(token in text.lower() for token in _THOUSANDTHS)
        return NotedCorners(found, "per_mille") if found and thousandths else found, {}
    if (places := box_on_grid(text)) is not None:
        return NotedCorners(places, "fractions"), {}
    try:
        return _in_json(text)
    except ReplyError:
        refuse_point(text)
        raise


def _in_json(text: str) -> tuple[Corners | None, dict[str, Any]]:
    try:
        value = one_object(text)
    except ReplyError as error:
        return _bare(text, error), {}
    inner = _unwrapped(value)
    return _of_object(inner), inner


def _bare(text: str, error: ReplyError) -> Corners | None:
    """A list of numbers without an object around it; an empty list is no object."""
    if text.strip(" .").lower() in _NOTHING or says_nothing(text):
        return None
    try:
        values = only_json(text, list)
    except ReplyError:
        try:
            return _of_text(narrow(text))
        except ReplyError:
            raise error from None
    if values and not all(_is_number(each) for each in values) and not isinstance(values[0], list):
        raise error
    return corners(values)


_UNREADABLE = "bbox_2d must be a list of four numbers [x1, y1, x2, y2]"


def _of_object(value: dict[str, Any]) -> Corners | None:
    known = {str(key).lower().replace("-", "_"): each for key, each in value.items()}
    for key in _TOP_FIRST:
        if key in known:
            found = corners(known[key])
            if found is None or isinstance(known[key], dict):  # corners by name have no order
                return found
            unit = found.unit if isinstance(found, NotedCorners) else "per_mille"
            return NotedCorners((found[1], found[0], found[3], found[2]), unit)
    present = [known[key] for key in _KEYS if key in known]
    if present and all(each == present[0] for each in present):
        return corners(present[0])
    if not present:
        return corners(next(iter(known.values()))) if _is_list_alone(known) else _named(known)
    raise ReplyError(_UNREADABLE)


def _is_list_alone(value: dict[str, Any]) -> bool:
    """As in ``{"red cube": [...]}``."""
    return len(value) == 1 and isinstance(next(iter(value.values())), list)


def _unwrapped(value: dict[str, Any]) -> dict[str, Any]:
    """What stands alone under another name, ``{"objects": [{"bbox_2d": ...}]}``.

    Raises:
        ReplyError: there are several of it.
    """
    for _ in range(_MAX_WRAPPINGS):
        known = {str(key).lower(): each for key, each in value.items()}
        found = next(iter(known.values())) if len(known) == 1 and not known.keys() & _BOXES else None
        if isinstance(found, list) and found and all(isinstance(each, dict) for each in found):
            if any(each != found[0] for each in found):
                raise ReplyError(f"exactly one box was asked for, and the reply holds {len(found)}")
            found = found[0]
        if not isinstance(found, dict):
            break
        value = called_with(found)
    return value


def _named(value: dict[str, Any]) -> Corners | None:
    """Corners by name, each side of them or both as points, or the top left one with width and height."""
    for names in _NAMED:
        if all(name in value for name in names):
            found = corners([value[name] for name in names])
            return found if found is None or isinstance(found, NotedCorners) else NamedCorners(found)
    for first, last in _TWO_CORNERS:
        if first in value and last in value:
            return corners([value[first], value[last]])
    for names in _SIZED:
        x, y, width, height = (_number(value.get(name)) for name in names)
        if x is not None and y is not None and width is not None and height is not None:
            return NamedCorners((x, y, x + width, y + height))
    raise ReplyError(_UNREADABLE)


def corners(value: Any) -> Corners | None:
    """Four finite numbers, of a list, two points, a text, or corners by name; ``None`` for nothing.

    Raises:
        ReplyError: it is something else.
    """
    if isinstance(value, str):
        if value.strip().lower() in _NOTHING:
            return None
        return _of_text(narrow(value))
    if isinstance(value, dict):
        return _named({str(key).lower().replace("-", "_"): each for key, each in value.items()})
    if value is None:
        return None
    if not isinstance(value, list):
        raise ReplyError(_UNREADABLE)
    if len(value) == 1 and isinstance(value[0], list | dict | str):
        return corners(value[0])
    if len(value) == 4 and all(isinstance(each, str) for each in value):
        return _of_text(narrow(", ".join(value)))
    return _of_list([_point(each) for each in value])


def _of_text(text: str) -> Corners | None:
    """Numbers in words' places, with their unit behind each of them or none."""
    units = {unit.lower() for unit in _UNIT.findall(text)}
    numbers = _UNIT.sub(" ", text)
    if len(units) > 1 or _NUMBERS_ONLY.fullmatch(numbers) is None:
        raise ReplyError(_UNREADABLE)
    found = _of_list(_NUMBER.findall(numbers))
    if found is None or units != {"%"}:
        return found
    if len(_UNIT.findall(text)) != 4:
        raise ReplyError(_UNREADABLE)
    return NotedCorners(found, "percent")


def _point(value: Any) -> Any:
    """A point by its coordinates' names as a list; anything else as it is."""
    if isinstance(value, dict) and {str(key).lower() for key in value} == {"x", "y"}:
        return [each for _, each in sorted((str(key).lower(), each) for key, each in value.items())]
    return value


def _of_list(value: list[Any]) -> Corners | None:
    if len(value) == 2 and all(isinstance(each, list) and len(each) == 2 for each in value):
        value = [*value[0], *value[1]]
    if len(value) == 4 and all(isinstance(each, list) and len(each) == 2 for each in value):
        return _around(value)
    if all(each is None for each in value):
        return None  # of no elements, or of nulls
    if len(value) == 5 and _is_number(value[4]) and 0 <= value[4] <= 1:
        value = value[:4]  # what is left over is how sure the model is
    numbers = [number for each in value if (number := _number(each)) is not None]
    if len(value) != 4 or len(numbers) != 4:
        raise ReplyError(_UNREADABLE)
    x1, y1, x2, y2 = numbers
    return None if x1 == y1 == x2 == y2 and x1 <= 0 else (x1, y1, x2, y2)


def _around(points: list[list[Any]]) -> Corners:
    """The box around four points."""
    places = [[_number(each) for each in point] for point in points]
    xs, ys = [x for x, _ in places if x is not None], [y for _, y in places if y is not None]
    if len(xs) != 4 or len(ys) != 4:
        raise ReplyError(_UNREADABLE)
    return min(xs), min(ys), max(xs), max(ys)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _number(value: Any) -> float | None:
    if isinstance(value, str) and _NUMBER.fullmatch(value.strip()):
        return float(value)
    if not _is_number(value) or not -1e9 < value < 1e9:  # neither NaN is, nor a number of 400 digits
        return None
    return float(value)
