"""The object as an upright box (or disc) on the table, fitted to its points."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from runtime.messages import Floats

_SLAB_M = 0.005
"""How far below its highest points an object's top is looked for."""
_LEAST_SHARE = 0.25
"""A top with a smaller share of the points is no flat top: then the whole outline counts."""
_ANGLES = np.radians(np.arange(0.0, 90.0, 2.0))
_CELL_M = 0.002
_ROUND_FILL = 0.89
"""A disc fills pi/4 = 0.785 of the square around it; a rectangle all of it."""
_ROUND_ASPECT = 1.2


@dataclass(frozen=True, slots=True)
class ObjectEstimate:
    """Where an object is and how large, seen from above; metres and radians in the base frame.

    Attributes:
        center: ``[2]`` of the top.
        yaw_rad: direction of the longer side.
        long_m, short_m: sides of the rectangle around the top.
        height_m: of the top above the table.
        round: whether it looks the same from every side.
        points: how many points it was fitted to.
    """

    center: Floats
    yaw_rad: float
    long_m: float
    short_m: float
    height_m: float
    round: bool
    points: int

    def shift_from(self, other: ObjectEstimate) -> float:
        """Distance between two estimates' centres."""
        return float(np.linalg.norm(self.center - other.center))

    def turn_from(self, other: ObjectEstimate) -> float:
        """Angle between two estimates' sides, at most a quarter turn; 0 where that means nothing."""
        if self.round or other.round:
            return 0.0
        square = min(self.long_m / self.short_m, other.long_m / other.short_m) < _ROUND_ASPECT
        turn = math.pi / 2 if square else math.pi
        return abs(math.remainder(self.yaw_rad - other.yaw_rad, turn))


def fit_object(
    points: Floats, table_height_m: float, pixel_m: float, border_px: float = 1.0
) -> ObjectEstimate:
    """The upright box around `points` ``[N, 3]``, N >= 8.

    Args:
        points: in the base frame, above the table.
        table_height_m: of the table.
        pixel_m: what one pixel covers at the object.
        border_px: how much too narrow the outline of pixel centres is, in pixels.
    """
    top = float(np.percentile(points[:, 2], 97))
    slab = points[points[:, 2] > top - _SLAB_M]
    if len(slab) < max(8, _LEAST_SHARE * len(points)):
        slab = points
    plane = slab[:, :2]
    best = min((_rectangle(plane, angle) for angle in _ANGLES), key=lambda r: r[0])
    best = min(
        (_rectangle(plane, best[1] + turn) for turn in np.radians(np.arange(-1.5, 1.6, 0.5))),
        key=lambda r: r[0],
    )
    _, angle, low, high = best
    sides = high - low + border_px * pixel_m
    middle = 0.5 * (low + high)
    across = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    longer = int(sides[1] > sides[0])
    fill = _filled_area(plane, pixel_m) / float(np.prod(high - low + pixel_m))
    aspect = float(sides.max() / sides.min())
    return ObjectEstimate(
        center=np.asarray(middle @ across),
        yaw_rad=math.remainder(angle + longer * math.pi / 2, math.pi),
        long_m=float(sides.max()),
        short_m=float(sides.min()),
        height_m=top - table_height_m,
        round=aspect < _ROUND_ASPECT and fill < _ROUND_FILL,
        points=len(points),
    )


def _rectangle(plane: Floats, angle: float) -> tuple[float, float, Floats, Floats]:
    across = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    turned = plane @ across.T
    low, high = np.percentile(turned, 0.5, axis=0), np.percentile(turned, 99.5, axis=0)
    return float(np.prod(high - low)), angle, low, high


def _filled_area(plane: Floats, pixel_m: float) -> float:
    cell = max(_CELL_M, 1.5 * pixel_m)
    cells = np.unique(np.floor(plane / cell).astype(np.int64), axis=0)
    # Cells that the outline only touches count in full: half a cell too many all around.
    side = math.sqrt(len(cells)) * cell - cell * 0.5
    return side * side
