"""From an object's mask (or box) and a depth image to where it is in space, and how sure that is.

One definition for all: the planner's side shows it, policies are given it, data sets hold it. Metres; the
optical frame is x right, y down, z forward, the base frame the arm's.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from runtime.geometry import rays
from runtime.mask_shape import around, eroded
from runtime.messages import CameraInfo, DepthImage, Floats, Mask

FEWEST = 3
"""Pixels with a reading that an object must have to be somewhere."""
_INNER = 0.5
"""Of a box alone, the share of its width and height around its middle that is taken for the object."""
_EDGE_PX = 1
"""Depth at an object's edge is often between the object's and what is behind it."""
_ALIKE_PX = 9
"""Neighbouring readings go wrong together: so many of them tell as much as one."""
_MEDIAN = np.pi / 2
"""By how much the variance of a median is larger than that of a mean."""
_MAD = 1.4826
_ENDS = (2.0, 98.0)
_TOP = 97.0


@dataclass(frozen=True, slots=True)
class DepthNoise:
    """The error that all readings of one object share, as a standard deviation along the line of sight:
    ``floor_m + per_m * distance²``, as triangulation has it.

    The defaults are of a short-range stereo camera (5 cm base, 640 columns): 1 mm at 0 m, 1.9 mm at 0.6 m.
    """

    floor_m: float = 0.001
    per_m: float = 0.0025

    def at(self, distance_m: float) -> float:
        """In metres."""
        return self.floor_m + self.per_m * distance_m**2


@dataclass(frozen=True, slots=True)
class ObjectPoint:
    """Where what is seen of one object is; ``[3]`` metres each.

    The standard deviations are of `camera_m` and `base_m`, along the axes of the frame. Two variances add up:

    - what the readings say of themselves: ``pi/2 * s² / (n / 9)`` for each axis, the variance of the median
      of `n` readings of spread `s` (1.4826 times the median absolute deviation), where nine neighbouring ones
      count as one, since they go wrong together. Most of `s` is the object's own extent;
    - the depth's own noise (`DepthNoise`), which no number of readings averages out: along the line of sight.

    What is wrong with the camera's pose is in neither, and nor is what of the object is out of sight.

    Attributes:
        camera_m: the median of its points, in the optical frame. camera_sigma_m: standard deviation.
        base_m, base_sigma_m: the same in the base frame; ``None`` where the camera's pose is not known.
        center_m: the middle of the box around it (2nd to 98th percentile), along the axes of the base frame
            (of the optical frame, where the pose is not known).
        nearest_m: its surface nearest to the camera, in the same frame.
        top_m: height of its highest surface in the base frame; ``None`` without a pose.
        readings: pixels with depth that it was worked out from. pixels: of the mask.
    """

    camera_m: Floats
    camera_sigma_m: Floats
    base_m: Floats | None
    base_sigma_m: Floats | None
    center_m: Floats
    nearest_m: Floats
    top_m: float | None
    readings: int
    pixels: int

    def grasp_height_m(self, table_height_m: float) -> float | None:
        """How high its top is over the table; ``None`` without a camera pose."""
        return None if self.top_m is None else self.top_m - table_height_m


def object_point(
    depth: DepthImage, mask: Mask, info: CameraInfo, noise: DepthNoise | None = None
) -> ObjectPoint | None:
    """Where the masked object is; ``None`` if fewer than `FEWEST` of its pixels have a reading.

    Holes (0) are left out, and so are the mask's outermost pixels where enough remain, and what lies far
    from the rest (`main_part`).

    Args:
        depth: uint16 ``[H, W]`` in the camera's own unit, 0 meaning no reading.
        mask: ``[H, W]``, not 0 on the object.
        info: of the camera, which has a depth scale.
        noise: of its depth.

    Raises:
        ValueError: the camera has no depth scale, or an image is of another size.
    """
    _fits(depth, mask, info)
    if not mask.any():
        return None
    window = around(mask, _EDGE_PX)
    readings = _readings(depth[window], mask[window])
    if readings is None:
        return None
    corner = (window[0].start, window[1].start)
    points = main_part(_points(depth[window], readings, info, corner), axes=3)
    return _described(points, info, noise or DepthNoise(), int(np.count_nonzero(mask)))


def inner_mask(box: tuple[float, float, float, float], height: int, width: int) -> Mask:
    """What of a box ``x1, y1, x2, y2`` stands for the object where nothing segmented it: its inner half."""
    x1, y1, x2, y2 = box
    middle, half = ((x1 + x2) / 2, (y1 + y2) / 2), (_INNER * (x2 - x1) / 2, _INNER * (y2 - y1) / 2)
    rows, columns = np.arange(height) + 0.5, np.arange(width) + 0.5
    inside = (np.abs(rows - middle[1]) <= half[1])[:, None] & (np.abs(columns - middle[0]) <= half[0])[None]
    return np.asarray(inside, np.uint8)


def base_points(depth: DepthImage, where: NDArray[np.bool_], info: CameraInfo) -> Floats:
    """Points ``[N, 3]`` in the base frame, row by row, of the pixels `where` that have a reading.

    Raises:
        ValueError: the camera has no depth scale or no pose, or an image is of another size.
    """
    if info.base_from_camera is None:
        raise ValueError(f"camera {info.name!r} has no pose relative to the arm")
    _fits(depth, where, info)
    return _moved(_points(depth, where & (depth > 0), info, (0, 0)), info.base_from_camera)


def main_part(points: Floats, axes: int = 2) -> Floats:
    """`points` without what lies far from the rest by its first `axes`: something else at a mask's edge."""
    distance = np.linalg.norm(points[:, :axes] - np.median(points[:, :axes], axis=0), axis=1)
    return np.asarray(points[distance <= 3.0 * float(np.median(distance)) + 0.005])


def _fits(depth: DepthImage, mask: NDArray[np.generic], info: CameraInfo) -> None:
    if info.depth_scale_m is None:
        raise ValueError(f"camera {info.name!r} has no depth scale")
    expected = (info.intrinsics.height, info.intrinsics.width)
    if depth.shape != expected or mask.shape != expected:
        raise ValueError(
            f"depth {list(depth.shape)}, mask {list(mask.shape)}; the images of camera {info.name!r} are "
            f"{list(expected)}"
        )


def _readings(depth: DepthImage, mask: Mask) -> NDArray[np.bool_] | None:
    """The object's pixels with depth, without the outermost ones if enough remain."""
    whole = np.asarray((mask != 0) & (depth > 0))
    if np.count_nonzero(whole) < FEWEST:
        return None
    inner = np.asarray(eroded(mask, _EDGE_PX) & whole)
    return inner if np.count_nonzero(inner) >= max(FEWEST, _ALIKE_PX) else whole


def _points(depth: DepthImage, where: NDArray[np.bool_], info: CameraInfo, corner: tuple[int, int]) -> Floats:
    """``[N, 3]`` in the optical frame, of a part of the picture that begins at row and column `corner`."""
    rows, columns = np.nonzero(where)
    distance = depth[rows, columns] * float(info.depth_scale_m or 0.0)
    sight = rays(info.intrinsics, np.stack([columns + corner[1], rows + corner[0]], axis=1))
    return np.column_stack([sight * distance[:, None], distance])


def _moved(points: Floats, pose: Floats) -> Floats:
    return np.asarray(points @ pose[:3, :3].T + pose[:3, 3])


def _described(points: Floats, info: CameraInfo, noise: DepthNoise, pixels: int) -> ObjectPoint:
    middle = np.median(points, axis=0)
    spread = _MAD * np.median(np.abs(points - middle), axis=0)
    covariance = np.diag(_MEDIAN * spread**2 / max(1.0, len(points) / _ALIKE_PX))
    sight = middle / middle[2]
    covariance += noise.at(float(middle[2])) ** 2 * np.outer(sight, sight)
    pose = info.base_from_camera
    framed = points if pose is None else _moved(points, pose)
    near = points[:, 2] <= np.percentile(points[:, 2], _ENDS[0])
    turned = None if pose is None else pose[:3, :3] @ covariance @ pose[:3, :3].T
    return ObjectPoint(
        camera_m=middle,
        camera_sigma_m=np.sqrt(np.diag(covariance)),
        base_m=None if pose is None else _moved(middle[None], pose)[0],
        base_sigma_m=None if turned is None else np.sqrt(np.diag(turned)),
        center_m=np.percentile(framed, _ENDS, axis=0).mean(axis=0),
        nearest_m=np.median(framed[near], axis=0),
        top_m=None if pose is None else float(np.percentile(framed[:, 2], _TOP)),
        readings=len(points),
        pixels=pixels,
    )
