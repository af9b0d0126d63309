"""What stands on the table, read from one RGB picture by colour and outline.

Made for a plain, greyish table seen roughly from above, strongly coloured toy blocks with a lit top, a dark
tray and an arm without strong colours. Deterministic; a few milliseconds for 640x480.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.messages import ColorImage

COLORS = ("red", "orange", "yellow", "green", "blue", "purple")
SHAPES = ("cube", "cuboid", "cylinder")

_HUES = {
    "red": ((0, 6), (170, 179)),
    "orange": ((7, 20),),
    "yellow": ((21, 38),),
    "green": ((45, 88),),
    "blue": ((98, 128),),
    "purple": ((129, 165),),
}
"""Ranges of OpenCV's hue (half degrees), both ends included."""
_MIN_SATURATION = 110
_MIN_VALUE = 35
_MIN_AREA = 1.3e-4
"""Of the picture; less is a reflection, or the rim of something else (40 pixels of 640x480)."""
_TRAY_DARKER, _TRAY_OTHER, _ALIKE = 6, 5, 4
_TRAY_AREA = (0.02, 0.25)
"""Of the picture. What is larger is the table."""
_TRAY_MIN_SOLIDITY, _TRAY_MIN_RECTANGLE = 0.55, 0.7
"""Of its outline within its hull, and of that within a rectangle; less than 1 where the arm is over it."""
_TABLE_TOLERANCE = 28
_MAX_FOREIGN_RIM = 0.08
_TOP_OF_BRIGHTEST = 0.72
_SHADED, _SPLINTER, _SIDE_BORDER, _NEAR_PX = 0.85, 0.1, 0.6, 4
"""A side is so much darker than the top or so much smaller, and borders on it over so much of the root of its
area, but for so many pixels that are neither."""
_ROUND = 0.785
"""Share of its enclosing circle that a round top fills (a square fills 0.64)."""
_LONG = 1.22

Bits = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class SceneObject:
    """One thing.

    Attributes:
        color: one of `COLORS`.
        shape: one of `SHAPES`, by the outline of its top.
        box: ``x1, y1, x2, y2`` in pixels, the far corner exclusive.
        at: centre as fractions of the picture's width and height.
        area: fraction of the picture that it covers.
        in_tray: whether its centre lies in the tray.
        partly_hidden: whether something other than the table borders on it, such as the arm over it, so
            that its shape cannot be relied on.
    """

    color: str
    shape: str
    box: tuple[int, int, int, int]
    at: tuple[float, float]
    area: float
    in_tray: bool
    partly_hidden: bool = False


@dataclass(frozen=True, slots=True)
class Scene:
    """All that was recognised; `tray` is its box in pixels."""

    objects: tuple[SceneObject, ...]
    tray: tuple[int, int, int, int] | None

    @property
    def on_table(self) -> tuple[SceneObject, ...]:
        """What does not lie in the tray."""
        return tuple(each for each in self.objects if not each.in_tray)


def read(image: ColorImage) -> Scene:
    """Find every object and the tray in an RGB ``[H, W, 3]`` picture."""
    import cv2

    hsv = np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2HSV), dtype=np.uint8)
    tray = _find_tray(hsv)
    parts = _with_their_sides(_colored_parts(hsv, _MIN_AREA * hsv[..., 0].size), hsv[..., 2])
    objects = [_describe(hsv, part, color, tray) for color, part in parts]
    objects.sort(key=lambda each: (each.box[0], each.box[1]))
    box = None
    if tray is not None:
        x, y, w, h = cv2.boundingRect(tray)
        box = (int(x), int(y), int(x + w), int(y + h))
    return Scene(tuple(objects), box)


@dataclass(frozen=True, slots=True)
class _Part:
    """A connected patch of one colour: its box and its mask within the box."""

    x: int
    y: int
    mask: Bits
    area: int


def _with_their_sides(parts: list[tuple[str, _Part]], value: Bits) -> list[tuple[str, _Part]]:
    """What is a side or a splinter of what it borders on, of the next hue at most, taken into that."""
    light = [float(np.median(value[_box(part)][part.mask > 0])) for _, part in parts]
    whole: dict[int, _Part] = dict(enumerate(part for _, part in parts))
    for at, (color, part) in enumerate(parts):
        for beside, (other, top) in enumerate(parts):
            less = light[at] < _SHADED * light[beside] or part.area < _SPLINTER * top.area
            if beside == at or beside not in whole or not less or not _neighbours(color, other):
                continue
            if _border(part, top) > _SIDE_BORDER * math.sqrt(part.area):
                whole[beside] = _together(whole[beside], whole.pop(at))
                break
    return [(parts[at][0], part) for at, part in whole.items()]


def _together(one: _Part, other: _Part) -> _Part:
    x, y = min(one.x, other.x), min(one.y, other.y)
    right = max(each.x + each.mask.shape[1] for each in (one, other))
    bottom = max(each.y + each.mask.shape[0] for each in (one, other))
    mask = np.zeros((bottom - y, right - x), np.uint8)
    for each in (one, other):
        tall, wide = each.mask.shape
        mask[each.y - y : each.y - y + tall, each.x - x : each.x - x + wide] |= each.mask
    return _Part(x, y, mask, one.area + other.area)


def _neighbours(one: str, other: str) -> bool:
    apart = abs(COLORS.index(one) - COLORS.index(other))
    return apart in (0, 1, len(COLORS) - 1)


def _box(part: _Part) -> tuple[slice, slice]:
    height, width = part.mask.shape
    return slice(part.y, part.y + height), slice(part.x, part.x + width)


def _border(part: _Part, other: _Part) -> int:
    """How many pixels of `part` are next to `other`; what a JPEG blurs lies between them."""
    import cv2

    height, width = part.mask.shape
    near = _NEAR_PX
    here = np.zeros((height + 2 * near, width + 2 * near), np.uint8)
    x, y = other.x - part.x + near, other.y - part.y + near
    tall, wide = other.mask.shape
    top, left, bottom, right = max(y, 0), max(x, 0), min(y + tall, len(here)), min(x + wide, here.shape[1])
    if top >= bottom or left >= right:
        return 0
    here[top:bottom, left:right] = other.mask[top - y : bottom - y, left - x : right - x]
    kernel = np.ones((2 * near + 1, 2 * near + 1), np.uint8)
    wider = np.asarray(cv2.dilate(here, kernel))[near:-near, near:-near]
    return int(((wider > 0) & (part.mask > 0)).sum())


def color_classes(hsv: Bits) -> Bits:
    """Per pixel 0 for no strong colour, or 1 + the index in `COLORS`."""
    table = np.zeros(256, np.uint8)
    for index, color in enumerate(COLORS):
        for low, high in _HUES[color]:
            table[low : high + 1] = index + 1
    strong = (hsv[..., 1] >= _MIN_SATURATION) & (hsv[..., 2] >= _MIN_VALUE)
    return np.where(strong, table[hsv[..., 0]], 0).astype(np.uint8)


def _colored_parts(hsv: Bits, min_area: float) -> list[tuple[str, _Part]]:
    import cv2

    classes = color_classes(hsv)
    present = np.bincount(classes.ravel(), minlength=len(COLORS) + 1)
    parts = []
    for index, color in enumerate(COLORS):
        if present[index + 1] < max(1, min_area):
            continue
        mask = np.asarray(cv2.inRange(classes, index + 1, index + 1), dtype=np.uint8)
        opened = np.asarray(cv2.morphologyEx(mask, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8)), dtype=np.uint8)
        left, top, w, h = cv2.boundingRect(opened)
        if w == 0:
            continue
        crop = np.ascontiguousarray(opened[top : top + h, left : left + w])
        count, labels, stats, _ = cv2.connectedComponentsWithStats(crop)
        for label in range(1, count):
            x, y, w, h, area = (int(v) for v in stats[label])
            if area >= min_area:
                inside = (labels[y : y + h, x : x + w] == label).astype(np.uint8)
                parts.append((color, _Part(left + x, top + y, inside, area)))
    return parts


def _describe(hsv: Bits, part: _Part, color: str, tray: Any) -> SceneObject:
    import cv2

    height, width = hsv.shape[:2]
    rows, columns = np.nonzero(part.mask)
    x, y = part.x + float(columns.mean()), part.y + float(rows.mean())
    h, w = part.mask.shape
    in_tray = tray is not None and cv2.pointPolygonTest(tray, (x, y), False) >= 0
    value = hsv[part.y : part.y + h, part.x : part.x + w, 2]
    return SceneObject(
        color=color,
        shape=_shape(part.mask, value),
        box=(part.x, part.y, part.x + w, part.y + h),
        at=(x / width, y / height),
        area=part.area / (width * height),
        in_tray=bool(in_tray),
        partly_hidden=_partly_hidden(hsv, part),
    )


def _partly_hidden(hsv: Bits, part: _Part) -> bool:
    """Whether more than a few of the pixels around it are neither the table's nor strongly coloured."""
    import cv2

    pad = 4
    x1, y1 = max(0, part.x - pad), max(0, part.y - pad)
    around = hsv[y1 : part.y + part.mask.shape[0] + pad, x1 : part.x + part.mask.shape[1] + pad]
    inside = np.zeros(around.shape[:2], np.uint8)
    rows, columns = part.mask.shape
    inside[part.y - y1 : part.y - y1 + rows, part.x - x1 : part.x - x1 + columns] = part.mask
    wide = np.asarray(cv2.dilate(inside, np.ones((2 * pad + 1, 2 * pad + 1), np.uint8)))
    rim = (wide > 0) & (np.asarray(cv2.dilate(inside, np.ones((5, 5), np.uint8))) == 0)
    table = float(np.median(hsv[::16, ::16, 2]))
    weak = around[..., 1] < _MIN_SATURATION
    foreign = weak & (np.abs(around[..., 2].astype(np.float64) - table) > _TABLE_TOLERANCE)
    return int((foreign & rim).sum()) > _MAX_FOREIGN_RIM * int(rim.sum())


def _shape(mask: Bits, value: Bits) -> str:
    """By the outline of the brightest, that is the upper, face."""
    import cv2

    brightest = float(np.percentile(value[mask > 0], 90))
    top = ((value >= _TOP_OF_BRIGHTEST * brightest) & (mask > 0)).astype(np.uint8)
    outlines, _ = cv2.findContours(np.pad(top, 1), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    if not outlines:
        return "cube"
    outline = cv2.convexHull(max(outlines, key=cv2.contourArea))
    # an outline runs through the centres of the pixels at the rim: half a pixel is missing all around
    around = cv2.arcLength(outline, closed=True)
    area = cv2.contourArea(outline) + around / 2 + 1
    _, radius = cv2.minEnclosingCircle(outline)
    _, (one, other), _ = cv2.minAreaRect(outline)
    long = (max(one, other) + 1) / (min(one, other) + 1)
    if area / (math.pi * (radius + 0.5) ** 2) >= _ROUND and long < _LONG:
        return "cylinder"
    return "cuboid" if long >= _LONG else "cube"


def _find_tray(hsv: Bits) -> Any:
    """The outline of the largest box that is darker than the table, or else of another grey, as OpenCV's
    ``[N, 1, 2]``; ``None`` if there is none.

    How dark that is, the table says: it is what most of the picture shows.
    """
    import cv2

    weak = hsv[..., 1] < _MIN_SATURATION
    value = hsv[..., 2].astype(np.int16)
    if not weak.any():
        return None
    counts = np.bincount(value[weak], minlength=256)
    table = int(np.convolve(counts, np.ones(2 * _ALIKE + 1), "same").argmax())
    darker = _largest_box(weak & (value <= table - _TRAY_DARKER))
    if darker is not None:
        return darker
    rgb = np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB), np.int16)
    grey = np.median(rgb[weak & (np.abs(value - table) <= 2 * _ALIKE)], axis=0)
    other = np.abs(rgb - grey).max(axis=-1) >= _TRAY_OTHER
    return _largest_box(weak & other & (value <= table + _TABLE_TOLERANCE))


def _largest_box(where: NDArray[np.bool_]) -> Any:
    """The hull of the largest part that nearly fills it, and that nearly fills the rectangle around it."""
    import cv2

    outlines, _ = cv2.findContours(where.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    best, best_area = None, _TRAY_AREA[0] * where.size
    for outline in outlines:
        hull = cv2.convexHull(outline)
        area = cv2.contourArea(hull)
        if not best_area < area < _TRAY_AREA[1] * where.size:
            continue
        width, height = cv2.minAreaRect(hull)[1]
        solid = cv2.contourArea(outline) >= _TRAY_MIN_SOLIDITY * area
        if solid and area >= _TRAY_MIN_RECTANGLE * width * height:
            best, best_area = hull, area
    return best


def between_jaws(wrist: ColorImage) -> str | None:
    """The colour of what the jaws hold in a wrist camera's picture, or ``None``.

    The camera is taken to see the fingertips in the lower middle. A held object covers that place, near to
    the camera and therefore large, and a jaw borders on it on either side; what lies on the table beneath
    looks smaller or stands higher up, or there is table to be seen beside it.
    """
    import cv2

    hsv = np.asarray(cv2.cvtColor(wrist, cv2.COLOR_RGB2HSV), dtype=np.uint8)
    height, width = hsv.shape[:2]
    for color, part in _colored_parts(hsv, _HELD_MIN_AREA * height * width):
        rows, columns = np.nonzero(part.mask)
        u, v = (part.x + columns.mean()) / width, (part.y + rows.mean()) / height
        if not (_HELD_U[0] <= u <= _HELD_U[1] and _HELD_V[0] <= v <= _HELD_V[1]):
            continue
        if min(_bordered(hsv, part, -1), _bordered(hsv, part, 1)) >= _HELD_BORDER:
            return color
    return None


def _bordered(hsv: Bits, part: _Part, side: int) -> float:
    """Share of the part's rows that have something else than the table on the left (-1) or right (1).

    A jaw is colourless like the table, and darker than it, or brighter where the light catches it.
    """
    height, width = hsv.shape[:2]
    table = float(np.median(hsv[: height // 4, ::4, 2]))
    gap = round(_HELD_GAP * width)
    columns = np.arange(part.mask.shape[1])
    jaw = 0
    for row, line in enumerate(part.mask):
        filled = columns[line > 0]
        if filled.size == 0:
            continue
        x = part.x + (filled[0] - gap if side < 0 else filled[-1] + gap)
        if 0 <= x < width:
            near = hsv[part.y + row, x]
            jaw += int(near[1] < _MIN_SATURATION and abs(float(near[2]) - table) > _JAW_CONTRAST)
    return jaw / len(part.mask)


_HELD_BORDER = 0.2
_JAW_CONTRAST = 12
_HELD_GAP = 0.016
_HELD_MIN_AREA = 0.018
_HELD_U = (0.30, 0.68)
_HELD_V = (0.42, 0.90)
