"""Camera geometry on arrays: where a camera is, pixels to points and back.

Camera points are in the optical frame: x right, y down, z forward, metres.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from runtime.messages import DepthImage, Floats, Intrinsics, Mask

_ITERATIONS = 10
_MODELS = ("brown_conrady", "inverse_brown_conrady")


def look_at(position_m: ArrayLike, target_m: ArrayLike, up: ArrayLike = (0.0, 0.0, 1.0)) -> Floats:
    """4x4 ``base_from_camera`` of a camera at `position_m` whose image is centred on `target_m`.

    Raises:
        ValueError: the two points are the same, or `up` is along the line of sight.
    """
    position, target = np.asarray(position_m, float), np.asarray(target_m, float)
    forward = target - position
    if not (distance := np.linalg.norm(forward)) > 1e-9:
        raise ValueError("position_m and look_at_m are the same point")
    forward /= distance
    right = np.cross(forward, np.asarray(up, float))
    if not (length := np.linalg.norm(right)) > 1e-6:
        raise ValueError("up is along the line of sight; give another direction, e.g. [1, 0, 0]")
    right /= length
    pose = np.eye(4)
    pose[:3, 0], pose[:3, 1], pose[:3, 2], pose[:3, 3] = right, np.cross(forward, right), forward, position
    return pose


def _distortion(intrinsics: Intrinsics, x: Floats, y: Floats) -> tuple[Floats, Floats, Floats]:
    """Radial factor at the undistorted ``(x, y)``, and the tangential shift that comes on top."""
    if intrinsics.model not in _MODELS:
        raise ValueError(f"distortion model {intrinsics.model!r} is not one of {', '.join(_MODELS)}")
    k1, k2, p1, p2, k3 = intrinsics.coefficients
    r2 = x * x + y * y
    radial = 1.0 + r2 * (k1 + r2 * (k2 + r2 * k3))
    if intrinsics.model == "inverse_brown_conrady":
        x, y = x * radial, y * radial
    shift_x = 2.0 * p1 * x * y + p2 * (r2 + 2.0 * x * x)
    shift_y = 2.0 * p2 * x * y + p1 * (r2 + 2.0 * y * y)
    return radial, shift_x, shift_y


def rays(intrinsics: Intrinsics, pixels: ArrayLike) -> Floats:
    """Undistorted directions ``[N, 2]`` (x and y at z = 1 m) of `pixels` ``[N, 2]`` (column, row).

    The distortion has no closed inverse; like librealsense's, this one takes ten fixed-point steps.
    """
    at = np.asarray(pixels, float)
    seen_x = (at[:, 0] - intrinsics.cx) / intrinsics.fx
    seen_y = (at[:, 1] - intrinsics.cy) / intrinsics.fy
    x, y = seen_x, seen_y
    if any(intrinsics.coefficients):
        for _ in range(_ITERATIONS):
            radial, shift_x, shift_y = _distortion(intrinsics, x, y)
            x, y = (seen_x - shift_x) / radial, (seen_y - shift_y) / radial
    return np.stack([x, y], axis=1)


@functools.lru_cache(maxsize=8)
def _all_rays(intrinsics: Intrinsics) -> NDArray[Any]:
    rows, columns = np.mgrid[: intrinsics.height, : intrinsics.width]
    grid = rays(intrinsics, np.stack([columns.ravel(), rows.ravel()], axis=1))
    grid = grid.reshape(intrinsics.height, intrinsics.width, 2)
    grid.flags.writeable = False
    return grid


def deproject(
    depth: DepthImage, intrinsics: Intrinsics, depth_scale_m: float, mask: Mask | None = None
) -> Floats:
    """Points ``[N, 3]`` in the optical frame, metres, row by row of the image; holes are left out.

    `depth` is uint16 ``[H, W]`` in units of `depth_scale_m`; with `mask` ``[H, W]``, only the pixels where
    it is not 0 count.

    Raises:
        ValueError: the shapes do not agree.
    """
    expected = (intrinsics.height, intrinsics.width)
    if depth.shape != expected or (mask is not None and mask.shape != expected):
        got = f"depth {depth.shape}" + ("" if mask is None else f", mask {mask.shape}")
        raise ValueError(f"{got}: the camera's images are {expected}")
    valid = depth > 0
    if mask is not None:
        valid &= mask != 0
    z = depth[valid] * depth_scale_m
    points = np.empty((z.size, 3))
    points[:, :2] = _all_rays(intrinsics)[valid] * z[:, None]
    points[:, 2] = z
    return points


def project(points: Floats, intrinsics: Intrinsics) -> Floats:
    """Pixels ``[N, 2]`` (column, row) that show `points` ``[N, 3]`` of the optical frame.

    Points at or behind the camera give NaN.
    """
    z = np.where(points[:, 2] > 0, points[:, 2], np.nan)
    x, y = points[:, 0] / z, points[:, 1] / z
    if any(intrinsics.coefficients):
        radial, shift_x, shift_y = _distortion(intrinsics, x, y)
        x, y = x * radial + shift_x, y * radial + shift_y
    return np.stack([x * intrinsics.fx + intrinsics.cx, y * intrinsics.fy + intrinsics.cy], axis=1)


def boxes_meet(one: Sequence[float], other: Sequence[float]) -> bool:
    """Whether two boxes ``x1, y1, x2, y2`` of a picture have a part in common."""
    return all(max(one[i], other[i]) < min(one[i + 2], other[i + 2]) for i in (0, 1))
