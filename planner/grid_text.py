"""Boxes as places on a grid, and points: what PaliGemma, Florence and Molmo write instead of numbers."""

from __future__ import annotations

import re

from planner.reply_text import ReplyError

_GRIDS = (
    (re.compile(r"<loc(\d{4})><loc(\d{4})><loc(\d{4})><loc(\d{4})>"), 1024.0, (1, 0, 3, 2)),
    (re.compile(r"<loc_(\d{1,3})><loc_(\d{1,3})><loc_(\d{1,3})><loc_(\d{1,3})>"), 1000.0, (0, 1, 2, 3)),
)
"""PaliGemma's, the top first, and Florence's, the left first: how they look, the grid's width, the order."""
_POINT = re.compile(r"<points?\s[^<>]{0,200}>|[\"']points?(?:_2d)?[\"']\s{0,3}:", re.IGNORECASE)
POINT = "the reply is a point, and a box was asked for: four numbers [x1, y1, x2, y2]"
_POINT_HINT = "this model points at objects; give planner.model one that marks boxes"


def box_on_grid(text: str) -> tuple[float, float, float, float] | None:
    """Corners ``x1, y1, x2, y2`` as fractions of the picture; ``None`` if `text` has no such tokens.

    Raises:
        ReplyError: there is more than one box of them.
    """
    boxes = [
        tuple(int(match[1 + corner]) / size for corner in order)
        for grid, size, order in _GRIDS
        for match in grid.finditer(text)
    ]
    if not boxes:
        return None
    if len(set(boxes)) != 1:
        raise ReplyError(f"exactly one box was asked for, and the reply holds {len(boxes)}")
    x1, y1, x2, y2 = boxes[0]
    return x1, y1, x2, y2


def refuse_point(text: str) -> None:
    """A point has no size: nothing can be segmented in it.

    Raises:
        ReplyError: `text` is one.
    """
    if _POINT.search(text):
        raise ReplyError(POINT, hint=_POINT_HINT)
