"""Where the instruction's object is, as three numbers: from its mask and depth, in the arm's base frame."""

from __future__ import annotations

import numpy as np

from runtime.geometry import deproject
from runtime.messages import CameraInfo, DepthImage, Floats, Mask

_FEWEST = 3
"""Pixels with a reading that an object must have to be seen."""


def object_tip(depth: DepthImage, mask: Mask, info: CameraInfo) -> Floats:
    """The middle of what is seen of the masked object, ``[3]`` metres in the base frame; NaN: not seen.

    The median of its points, so that pixels of the table at the mask's edge do not move it.

    Args:
        depth: uint16 ``[H, W]`` in the camera's own unit, 0 meaning no reading.
        mask: ``[H, W]``, 1 on it.
        info: of the camera, which has a depth scale and a pose.

    Raises:
        ValueError: the camera has no pose or no depth scale, or an image is of another size.
    """
    if info.depth_scale_m is None or info.base_from_camera is None:
        lacking = "depth scale" if info.depth_scale_m is None else "pose relative to the arm"
        raise ValueError(f"camera {info.name!r} has no {lacking}")
    points = deproject(depth, info.intrinsics, info.depth_scale_m, mask)
    if len(points) < _FEWEST:
        return np.full(3, np.nan)
    pose = info.base_from_camera
    return np.asarray(pose[:3, :3] @ np.median(points, axis=0) + pose[:3, 3])
