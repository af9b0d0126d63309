"""From a depth image to points in the arm's base frame, for a policy."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from runtime.interfaces import PolicyError
from runtime.messages import CameraInfo, DepthImage, Floats
from runtime.object_point import base_points


def deproject(depth: DepthImage, where: NDArray[np.bool_], info: CameraInfo) -> Floats:
    """Points ``[N, 3]`` in the base frame, metres, of the pixels `where` that have a reading.

    Raises:
        PolicyError: the camera has no depth scale or is not calibrated to the arm.
    """
    try:
        return base_points(depth, where, info)
    except ValueError as error:
        raise PolicyError(str(error)) from None
