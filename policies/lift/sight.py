"""What one frame of an RGB-D camera shows of the masked object: a few numbers, and a picture of heights.

Everything is geometry in the arm's base frame: where the object's top is, how far it extends and which way
it is turned (moments of the points of its top), and the heights of what stands around it, seen from above.
No colours: a mask says *which* object, and how things look has no part in it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from policies.nudged.level import levelled
from policies.nudged.view import DepthView
from policies.points import deproject
from runtime.mask_shape import eroded
from runtime.messages import CameraInfo, Floats
from runtime.object_point import main_part

SIGHT = 10
"""Numbers of a `Sighting`."""
HEIGHT_UNIT_M = 0.05
"""Heights in a picture are multiples of it."""
_SLAB_M = 0.005
_LEAST_SHARE = 0.25


class SightLimits(Protocol):
    """What of `policies.lift.options.LiftOptions` counts here."""

    table_height_m: float
    min_height_m: float
    max_height_m: float
    min_points: int
    picture_width: int
    level: bool


@dataclass(frozen=True, slots=True)
class Sighting:
    """The object in one frame; metres and radians in the base frame.

    Attributes:
        numbers: ``[SIGHT]``: seen (0 or 1), x and y of the top's middle, its height above the table, the area
            seen in square centimetres, second moments of the top (xx, xy, yy, as lengths in centimetres
            squared), and the fourth moment of its outline (which way a square is turned: real, imaginary).
        info: the camera it was seen by, levelled if asked for.
    """

    numbers: Floats
    info: CameraInfo

    @property
    def seen(self) -> bool:
        """Whether there is anything in `numbers`."""
        return bool(self.numbers[0])

    @property
    def middle(self) -> Floats:
        """``[3]``: x, y and the height of the top."""
        return self.numbers[1:4]


def unseen(info: CameraInfo) -> Sighting:
    """Of an object that is hidden."""
    return Sighting(np.zeros(SIGHT), info)


def look(view: DepthView, limits: SightLimits, info: CameraInfo | None = None) -> Sighting:
    """What `view`, already thinned, shows of the object.

    Args:
        view: depth and mask.
        limits: which points count.
        info: the camera as it was levelled before; ``None``: it is levelled now, if `limits` say so.

    Raises:
        PolicyError: the camera has no depth scale or is not calibrated to the arm.
    """
    if info is None:
        info = levelled(view, limits.table_height_m) if limits.level else view.info
    table = limits.table_height_m
    points = deproject(view.depth, eroded(view.mask, 1), info)
    height = points[:, 2] - table
    points = points[(height > limits.min_height_m) & (height < limits.max_height_m)]
    if len(points) < limits.min_points:
        return unseen(info)
    points = main_part(points)
    area = float((view.mask > 0).sum()) * (100.0 * _pixel_m(points, info)) ** 2
    return Sighting(_numbers(points, table, area), info)


def _pixel_m(points: Floats, info: CameraInfo) -> float:
    pose = info.base_from_camera
    assert pose is not None  # noqa: S101 - `deproject` has seen to it
    return float(np.median((points - pose[:3, 3]) @ pose[:3, 2])) / info.intrinsics.fx


def _numbers(points: Floats, table: float, area: float) -> Floats:
    top = float(np.percentile(points[:, 2], 97))
    slab = points[points[:, 2] > top - _SLAB_M]
    if len(slab) < max(8, _LEAST_SHARE * len(points)):
        slab = points
    low, high = np.percentile(slab[:, :2], 2, axis=0), np.percentile(slab[:, :2], 98, axis=0)
    middle = 0.5 * (slab[:, :2].mean(axis=0) + 0.5 * (low + high))
    off = 100.0 * (slab[:, :2] - slab[:, :2].mean(axis=0))
    spread = off.T @ off / len(off)
    far = (off[:, 0] + 1j * off[:, 1]) ** 4
    fourth = complex(far.sum() / np.abs(far).sum())
    return np.array(
        [
            1.0,
            *middle,
            top - table,
            area,
            spread[0, 0],
            spread[0, 1],
            spread[1, 1],
            fourth.real,
            fourth.imag,
        ]
    )


def heights(
    view: DepthView, sight: Sighting, turn_rad: float, cells: int, cell_m: float, table_m: float
) -> NDArray[np.float32]:
    """``[2, cells, cells]`` from above, the object's middle in its middle: heights above the table's plane in
    multiples of `HEIGHT_UNIT_M` (0 without a reading), and where the mask is. The first axis goes along
    `turn_rad`, the second to its left.

    Each cell shows the pixel that sees it at the height of the object's top.
    """
    info = sight.info
    pose, inner = info.base_from_camera, info.intrinsics
    assert pose is not None  # noqa: S101 - `look` has seen to it
    side = (np.arange(cells) - (cells - 1) / 2) * cell_m
    along, left = np.meshgrid(side, side, indexing="ij")
    cos, sin = np.cos(turn_rad), np.sin(turn_rad)
    x, y, top = sight.middle
    base = np.stack(
        [x + cos * along - sin * left, y + sin * along + cos * left, np.full_like(along, table_m + top)], -1
    )
    seen = (base.reshape(-1, 3) - pose[:3, 3]) @ pose[:3, :3]
    columns = np.rint(inner.fx * seen[:, 0] / seen[:, 2] + inner.cx).astype(np.int64)
    rows = np.rint(inner.fy * seen[:, 1] / seen[:, 2] + inner.cy).astype(np.int64)
    tall, wide = view.depth.shape
    inside = (rows >= 0) & (rows < tall) & (columns >= 0) & (columns < wide)
    rows, columns = np.where(inside, rows, 0), np.where(inside, columns, 0)
    metres = view.depth[rows, columns] * float(info.depth_scale_m or 0.0)
    rays = np.stack([(columns - inner.cx) / inner.fx, (rows - inner.cy) / inner.fy, np.ones(len(rows))], -1)
    above = metres * (rays @ pose[2, :3]) + pose[2, 3] - table_m
    known = inside & (metres > 0)
    out = np.zeros((2, cells * cells), np.float32)
    out[0] = np.where(known, np.clip(above, 0.0, 0.15), 0.0) / HEIGHT_UNIT_M
    out[1] = inside & (view.mask[rows, columns] > 0)
    return out.reshape(2, cells, cells)


def replaced(before: DepthView, now: DepthView) -> DepthView:
    """`before` without the object where it was, and with it where it is `now`.

    Where it was there is no reading afterwards.
    """
    depth = before.depth.copy()
    depth[before.mask > 0] = 0
    depth[now.mask > 0] = now.depth[now.mask > 0]
    return DepthView(depth, now.mask, before.info)
