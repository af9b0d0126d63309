"""What was seen, drawn: the picture with boxes, masks and points, and the depth beside it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from dexrun.perceiving.seeing import SeenObject
from dexrun.perceiving.telling import TABLE_M
from dexrun.perceiving.view import PerceivedView
from runtime.geometry import boxes_meet, project
from runtime.messages import ColorImage

_COLORS = ((0, 200, 255), (255, 140, 0), (170, 80, 255), (60, 220, 60), (255, 60, 140), (255, 230, 0))
"""RGB, one for each thing in turn."""
_TINT = 0.3
_NARROWEST = 900
"""Pixels: smaller pictures are enlarged, so that text on them can be read."""
_LONGEST = 2000
"""Pixels: none is enlarged beyond it, however narrow it is."""
_DARK = (20, 20, 20)
_Corners = tuple[int, int, int, int]


def drawn(view: PerceivedView, seen: Sequence[SeenObject]) -> ColorImage:
    """The picture, and the depth beside it if there is any. RGB."""
    scale = _scale(*view.color.shape[:2])
    panels = [_things(_enlarged(view.color, scale), view, seen, scale)]
    if view.depth is not None:
        panels.append(_outlines(_enlarged(_as_colors(view), scale), seen, scale))
    return np.concatenate(panels, axis=1)


def _scale(height: int, width: int) -> int:
    return max(1, min(-(-_NARROWEST // width), _LONGEST // max(height, width)))


def _enlarged(image: Any, scale: int) -> Any:
    return np.ascontiguousarray(image.repeat(scale, axis=0).repeat(scale, axis=1))


def _as_colors(view: PerceivedView) -> ColorImage:
    import cv2

    assert view.depth is not None  # noqa: S101 - callers see to it
    known = view.depth > 0
    low, high = np.percentile(view.depth[known], (1, 99)) if known.any() else (0.0, 1.0)
    share = np.clip((view.depth - low) / max(high - low, 1.0), 0, 1)
    painted = cv2.applyColorMap((255 * (1 - share)).astype(np.uint8), cv2.COLORMAP_TURBO)[..., ::-1]
    return np.where(known[..., None], painted, 0).astype(np.uint8)


def _things(image: Any, view: PerceivedView, seen: Sequence[SeenObject], scale: int) -> Any:
    import cv2

    for number, each in enumerate(seen):
        color = _COLORS[number % len(_COLORS)]
        if each.mask is not None:
            inside = _enlarged(each.mask, scale) > 0
            image[inside] = ((1 - _TINT) * image[inside] + _TINT * np.array(color)).astype(np.uint8)
    image = _outlines(image, seen, scale)
    boxes: list[_Corners] = []
    for number, each in enumerate(seen):
        color = _COLORS[number % len(_COLORS)]
        x1, y1, x2, y2 = (round(scale * value) for value in each.detection.box)
        boxes.append((x1, y1, x2, y2))
        cv2.rectangle(image, (x1, y1), (x2 - 1, y2 - 1), color, 2, cv2.LINE_AA)
        _cross(image, view, each, scale, color)
    taken = list(boxes)
    for number, each in enumerate(seen):
        _label(image, _words(number + 1, each), boxes[number], _COLORS[number % len(_COLORS)], taken)
    return image


def _outlines(image: Any, seen: Sequence[SeenObject], scale: int) -> Any:
    import cv2

    for number, each in enumerate(seen):
        if each.mask is not None:
            edges, _ = cv2.findContours(_enlarged(each.mask, scale), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
            cv2.drawContours(image, edges, -1, _COLORS[number % len(_COLORS)], 2, cv2.LINE_AA)
    return image


def _cross(image: Any, view: PerceivedView, each: SeenObject, scale: int, color: tuple[int, ...]) -> None:
    import cv2

    if each.point is None:
        return
    (at,) = project(each.point.camera_m[None], view.info.intrinsics)
    x, y = (round(scale * (value + 0.5)) for value in at.tolist())
    for thick, ink in ((5, _DARK), (2, (255, 255, 255))):
        cv2.line(image, (x - 9, y), (x + 9, y), ink, thick, cv2.LINE_AA)
        cv2.line(image, (x, y - 9), (x, y + 9), ink, thick, cv2.LINE_AA)
    cv2.circle(image, (x, y), 4, color, -1, cv2.LINE_AA)


def _words(number: int, each: SeenObject) -> list[str]:
    score = "" if math.isnan(each.detection.score) else f" {each.detection.score:.2f}"
    phrase = each.detection.phrase.encode("ascii", "replace").decode()  # OpenCV's letters are ASCII
    lines = [f"{number} {phrase}{score}"]
    if each.point is not None:
        known = each.point.base_m is not None
        point = each.point.base_m if each.point.base_m is not None else each.point.camera_m
        sigma = each.point.base_sigma_m if each.point.base_sigma_m is not None else each.point.camera_sigma_m
        x, y, z = point.tolist()
        lines.append(f"{'base' if known else 'camera'} {x:+.3f} {y:+.3f} {z:+.3f} m")
        lines.append(f"+-{1e3 * float(np.max(sigma)):.1f} mm" + _top(each))
    return lines


def _top(each: SeenObject) -> str:
    top = None if each.point is None else each.point.grasp_height_m(TABLE_M)
    return "" if top is None else f", top {1e3 * top:.0f} mm"


def _label(
    image: Any, lines: list[str], box: _Corners, color: tuple[int, ...], taken: list[_Corners]
) -> None:
    """Text at the box, where neither another box nor another text is."""
    import cv2

    font, size, thick = cv2.FONT_HERSHEY_SIMPLEX, 0.5, 1
    sizes = [cv2.getTextSize(line, font, size, thick)[0] for line in lines]
    row = max(height for _, height in sizes) + 7
    wide, tall = max(width for width, _ in sizes) + 10, row * len(lines) + 6
    x, y, right, bottom = spot = _free(box, (wide, tall), image.shape, taken)
    taken.append(spot)
    part = image[y:bottom, x:right]
    image[y:bottom, x:right] = (0.25 * part + 0.75 * np.array(_DARK)).astype(np.uint8)
    cv2.rectangle(image, (x, y), (right - 1, bottom - 1), color, 1)
    for number, line in enumerate(lines):
        ink = color if number == 0 else (240, 240, 240)
        cv2.putText(image, line, (x + 5, y + row * (number + 1) - 2), font, size, ink, thick, cv2.LINE_AA)


def _free(
    box: _Corners, size: tuple[int, int], picture: tuple[int, ...], taken: Sequence[_Corners]
) -> _Corners:
    """Above, below or beside the box, the nearest place that is free; on top of it where none is."""
    (x1, y1, x2, y2), (wide, tall), (height, width) = box, size, picture[:2]
    left = min(max(0, x1), max(0, width - wide))
    places = [(left, y1 - tall - 3), (left, y2 + 3), (x2 + 3, y1), (x1 - wide - 3, y1)]
    places += [(left + right, y1 - 2 * tall - 6) for right in (0, -wide // 2, wide // 2)]
    places += [(left + right, y2 + tall + 6) for right in (0, -wide // 2, wide // 2)]
    for x, y in places:
        spot = (x, y, x + wide, y + tall)
        inside = 0 <= x <= width - wide and 0 <= y <= height - tall
        if inside and not any(boxes_meet(spot, other) for other in taken):
            return spot
    top = min(max(0, y1), max(0, height - tall))
    return left, top, min(width, left + wide), min(height, top + tall)
