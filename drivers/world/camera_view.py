"""One camera at one size: what may be in its picture, and where in it."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drivers.world.depth_sensor import Buffer, DepthSensor
from runtime.messages import ColorImage

_MARGIN_PX = 2
"""Around what was reckoned to be there: a pixel for the reckoning, one for what depth says of neighbours."""
_CORNERS = np.array(list(itertools.product((-1.0, 1.0), repeat=3)))


@dataclass(frozen=True, slots=True)
class Region:
    """A part of a picture: rows from the top, the last row and column left out."""

    top: int
    bottom: int
    left: int
    right: int

    @property
    def slices(self) -> tuple[slice, slice]:
        """Rows and columns of an array of the whole picture."""
        return slice(self.top, self.bottom), slice(self.left, self.right)

    def touches(self, other: Region) -> bool:
        """Whether they have a pixel in common."""
        rows = max(self.top, other.top) < min(self.bottom, other.bottom)
        return rows and max(self.left, other.left) < min(self.right, other.right)

    def around(self, other: Region) -> Region:
        """The smallest one that holds both."""
        return Region(
            min(self.top, other.top),
            max(self.bottom, other.bottom),
            min(self.left, other.left),
            max(self.right, other.right),
        )


@dataclass(frozen=True, slots=True)
class Still:
    """What a camera that stands sees of all that never moves, rows from the top: colour ``[H, W, 3]``, depth
    buffer ``[H, W]``, and what a depth sensor makes of it, where there is one.
    """

    color: ColorImage
    buffer: Buffer
    surface: Buffer


class CameraView:
    """One camera at one size: where it is drawn, and what its depth sensor makes of it.

    Attributes:
        image, buffer: to read a picture into, rows from the bottom: colour ``[H, W, 3]``, and the depth
            buffer ``[H, W]`` of a view that needs it. stands: whether the camera never moves.
        still: what it sees of all that never moves, if it stands; once that was drawn.
        whole: all of its picture. surface: what its depth sensor makes of the newest one, rows from the top.
    """

    def __init__(self, model: Any, camera: str, width: int, height: int, depth: DepthSensor | None) -> None:
        import mujoco

        self.camera = mujoco.MjvCamera()
        self.camera.type = mujoco.mjtCamera.mjCAMERA_FIXED
        self.camera.fixedcamid = self.id = model.camera(camera).id
        self.rect = mujoco.MjrRect(0, 0, width, height)
        self.image: ColorImage = np.empty((height, width, 3), np.uint8)
        self.depth = depth
        self.stands = bool(model.body_weldid[model.cam_bodyid[self.id]] == 0)
        self.buffer = np.empty((height, width), np.float32) if depth is not None or self.stands else None
        self.still: Still | None = None
        self.whole = Region(0, height, 0, width)
        self.surface = np.empty((height, width), np.float32)
        self._size = np.array([width, height])
        self._near_m = float(model.vis.map.znear * model.stat.extent)
        up = math.radians(float(model.cam_fovy[self.id])) / 2
        across = math.atan(math.tan(up) * width / height)
        self._focal_px = height / 2 / math.tan(up)
        sides = [(sign * math.cos(across), 0.0, -math.sin(across)) for sign in (-1, 1)]
        sides += [(0.0, sign * math.cos(up), -math.sin(up)) for sign in (-1, 1)]
        self._inward = np.array([(0.0, 0.0, -1.0), *sides])
        self._center, self._half = np.split(model.geom_aabb[:, None], 2, axis=2)
        self._endless = model.geom_rbound <= 0
        self._roots = model.body_rootid[model.geom_bodyid]

    def holds(self, data: Any) -> NDArray[np.bool_]:
        """Which geoms may be in the picture: the box around each against the picture's four sides."""
        inward = self._inward @ data.cam_xmat[self.id].reshape(3, 3).T
        axes = inward @ data.geom_xmat.reshape(-1, 3, 3)
        reach = (axes * self._center + np.abs(axes) * self._half).sum(axis=2)
        within = (data.geom_xpos - data.cam_xpos[self.id]) @ inward.T + reach >= 0
        return np.asarray(within.all(axis=1) | self._endless)

    def regions(self, data: Any, chosen: NDArray[np.bool_]) -> list[Region]:
        """Outside of which nothing is drawn of the `chosen` geoms: around each arm and object, merged."""
        turn = data.cam_xmat[self.id].reshape(3, 3)
        boxes = self._center[chosen] + _CORNERS * self._half[chosen]
        corners = boxes @ data.geom_xmat[chosen].reshape(-1, 3, 3).transpose(0, 2, 1)
        corners = (corners + (data.geom_xpos[chosen] - data.cam_xpos[self.id])[:, None]) @ turn
        ahead = -corners[..., 2]
        if (ahead < self._near_m).any() or self._endless[chosen].any():
            return [self.whole]
        seen = corners[..., :2] * (self._focal_px / ahead)[..., None] * (1, -1) + self._size / 2
        low = np.clip(np.floor(seen.min(axis=1)) - _MARGIN_PX, 0, self._size).astype(int)
        high = np.clip(np.ceil(seen.max(axis=1)) + _MARGIN_PX, 0, self._size).astype(int)
        roots, regions = self._roots[chosen], list[Region]()
        for root in np.unique(roots):
            left, top = low[roots == root].min(axis=0).tolist()
            right, bottom = high[roots == root].max(axis=0).tolist()
            if left < right and top < bottom:
                regions = _merged(regions, Region(top, bottom, left, right))
        return regions

    def room(self, region: Region) -> tuple[ColorImage, Buffer]:
        """Where to read that part of the picture into."""
        assert self.buffer is not None  # noqa: S101 - of a camera that stands there is one
        shape = region.bottom - region.top, region.right - region.left
        size = shape[0] * shape[1]
        return (
            self.image.reshape(-1)[: 3 * size].reshape(*shape, 3),
            self.buffer.reshape(-1)[:size].reshape(shape),
        )

    def lay(self, region: Region, surface: Buffer) -> None:
        """`surface` is what is in `region` now.

        Not of its first row and column, whose neighbours were not known: nothing moves there, unless they
        are the picture's own.
        """
        row, column = int(region.top > 0), int(region.left > 0)
        inner = slice(region.top + row, region.bottom), slice(region.left + column, region.right)
        self.surface[inner] = surface[row:, column:]


def _merged(regions: list[Region], region: Region) -> list[Region]:
    """`regions` and `region`, those that touch taken together."""
    while touching := [each for each in regions if each.touches(region)]:
        regions = [each for each in regions if each not in touching]
        for each in touching:
            region = region.around(each)
    return [*regions, region]
