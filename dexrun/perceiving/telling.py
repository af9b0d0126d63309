"""What was seen, in lines for people and as JSON for programs."""

from __future__ import annotations

import math
from typing import Any

from dexrun.perceiving.seeing import SeenObject
from dexrun.perceiving.view import PerceivedView
from runtime.messages import Floats
from runtime.object_point import ObjectPoint
from runtime.tip import with_tip

TABLE_M = 0.0
"""The table's plane, in the base frame."""


def about(view: PerceivedView) -> list[str]:
    """The picture, and what is known of its camera."""
    height, width = view.color.shape[:2]
    lens, lines = view.info.intrinsics, [f"picture    {view.name}, {width}x{height}"]
    if view.depth is not None:
        metres = view.depth[view.depth > 0] * (view.info.depth_scale_m or 0.0)
        holes = 100 * (1 - metres.size / view.depth.size)
        span = f"{metres.min():.3f} to {metres.max():.3f} m" if metres.size else "nothing"
        lines.append(f"depth      {span}, {holes:.1f} % holes, unit {view.info.depth_scale_m:g} m")
    if lens.fx > 0:
        lines.append(f"camera     fx {lens.fx:.1f}  fy {lens.fy:.1f}  cx {lens.cx:.1f}  cy {lens.cy:.1f} px")
    return [*lines, *(f"missing    {each}" for each in view.lacking)]


def described(number: int, seen: SeenObject) -> list[str]:
    """One thing that was seen."""
    found = seen.detection
    x1, y1, x2, y2 = found.box
    score = "" if math.isnan(found.score) else f"  score {found.score:.2f}"
    box = f"box {x1:.0f},{y1:.0f} to {x2:.0f},{y2:.0f} ({x2 - x1:.0f}x{y2 - y1:.0f} px)"
    lines = [f"{number:2} {found.phrase!r}{score}  {box}", f"     mask     {_mask(seen)}"]
    if seen.point is not None:
        lines += _point(seen.point)
    return lines


def _mask(seen: SeenObject) -> str:
    if seen.segmentation is None:
        return f"none: {seen.why}; the point is of the box's inner half"
    pixels, (x1, y1, x2, y2) = int(seen.segmentation.mask.sum()), seen.detection.box
    share = 100 * pixels / max(1.0, (x2 - x1) * (y2 - y1))
    return f"{pixels} px, {share:.0f} % of the box, score {seen.segmentation.score:.2f}"


def _point(point: ObjectPoint) -> list[str]:
    lines = [f"     camera   {_at(point.camera_m, point.camera_sigma_m)}, {point.readings} readings"]
    if point.base_m is None or point.base_sigma_m is None:
        return lines
    return [
        *lines,
        f"     base     {_at(point.base_m, point.base_sigma_m)}",
        f"     box centre {_at(point.center_m)}; nearest surface {_at(point.nearest_m)}",
        f"     top      {1e3 * (point.grasp_height_m(TABLE_M) or 0.0):.1f} mm over the table",
        f"     hint     {with_tip('', point.base_m)}",
    ]


def _at(point: Floats, sigma: Floats | None = None) -> str:
    said = "  ".join(f"{axis} {value:+.4f}" for axis, value in zip("xyz", point, strict=True)) + " m"
    return said if sigma is None else f"{said}  ± {'  '.join(f'{1e3 * each:.1f}' for each in sigma)} mm"


def as_json(seen: SeenObject) -> dict[str, Any]:
    """Metres, pixels; what is not known is ``null``."""
    found, point = seen.detection, seen.point
    return {
        "phrase": found.phrase,
        "score": None if math.isnan(found.score) else found.score,
        "box": list(found.box),
        "mask_pixels": None if seen.mask is None else int(seen.mask.sum()),
        "mask_score": None if seen.segmentation is None else seen.segmentation.score,
        "why_no_mask": seen.why or None,
        "point": None
        if point is None
        else {
            "camera_m": point.camera_m.tolist(),
            "camera_sigma_m": point.camera_sigma_m.tolist(),
            "base_m": None if point.base_m is None else point.base_m.tolist(),
            "base_sigma_m": None if point.base_sigma_m is None else point.base_sigma_m.tolist(),
            "center_m": point.center_m.tolist(),
            "nearest_m": point.nearest_m.tolist(),
            "top_m": point.top_m,
            "readings": point.readings,
        },
    }
