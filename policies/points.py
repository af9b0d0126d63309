"""From a depth image to points in the arm's base frame."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from runtime.interfaces import PolicyError
from runtime.messages import CameraInfo, DepthImage, Floats, Intrinsics, Mask

_UNDISTORT_ITERATIONS = 10


def deproject(depth: DepthImage, where: NDArray[np.bool_], info: CameraInfo) -> Floats:
    """Points ``[N, 3]`` in the base frame, metres, of the pixels `where` that have a reading.

    Raises:
        PolicyError: the camera has no depth scale or is not calibrated to the arm.
    """
    if info.depth_scale_m is None or info.base_from_camera is None:
        lacking = "depth scale" if info.depth_scale_m is None else "pose relative to the arm"
        raise PolicyError(f"camera {info.name!r} has no {lacking}")
    rows, columns = np.nonzero(where & (depth > 0))
    distance = depth[rows, columns] * float(info.depth_scale_m)
    x, y = normalised(columns, rows, info.intrinsics)
    camera = np.stack([x * distance, y * distance, distance], axis=1)
    pose = info.base_from_camera
    return np.asarray(camera @ pose[:3, :3].T + pose[:3, 3])


def normalised(
    columns: NDArray[np.int64], rows: NDArray[np.int64], intrinsics: Intrinsics
) -> tuple[Floats, Floats]:
    """Pixels to coordinates on the plane at distance 1, Brown-Conrady distortion taken out."""
    x: Floats = ((columns - intrinsics.cx) / intrinsics.fx).astype(np.float64)
    y: Floats = ((rows - intrinsics.cy) / intrinsics.fy).astype(np.float64)
    k1, k2, p1, p2, k3 = intrinsics.coefficients
    if not any(intrinsics.coefficients):
        return x, y
    ux: Floats = x.copy()
    uy: Floats = y.copy()
    for _ in range(_UNDISTORT_ITERATIONS):
        r2 = ux * ux + uy * uy
        radial = 1 + r2 * (k1 + r2 * (k2 + r2 * k3))
        dx = 2 * p1 * ux * uy + p2 * (r2 + 2 * ux * ux)
        dy = 2 * p2 * ux * uy + p1 * (r2 + 2 * uy * uy)
        ux, uy = (x - dx) / radial, (y - dy) / radial
    return ux, uy


def eroded(mask: Mask, pixels: int) -> NDArray[np.bool_]:
    """`mask` without its outermost `pixels`, by four-neighbourhood."""
    inside = mask.astype(bool)
    for _ in range(pixels):
        padded = np.pad(inside, 1)
        inside = inside & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return inside


def dilated(mask: Mask, pixels: int) -> NDArray[np.bool_]:
    """`mask` grown by `pixels`, by four-neighbourhood."""
    inside = mask.astype(bool)
    for _ in range(pixels):
        padded = np.pad(inside, 1)
        inside = inside | padded[:-2, 1:-1] | padded[2:, 1:-1] | padded[1:-1, :-2] | padded[1:-1, 2:]
    return inside


def around(mask: Mask, pixels: int) -> tuple[slice, slice]:
    """The part of the image within `pixels` of the mask's bounding box."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    top, left = max(0, int(rows[0]) - pixels), max(0, int(columns[0]) - pixels)
    return slice(top, int(rows[-1]) + pixels + 1), slice(left, int(columns[-1]) + pixels + 1)
