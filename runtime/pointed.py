"""What a model that points at an object says, as the numbers of a latent.

The planner's side makes it, a policy's side reads it: which object is meant, as far as one can say it by
where it is, how large it is and what colour it has.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from runtime.interfaces import Box
from runtime.messages import CameraInfo, Floats, Frame, Latent
from runtime.object_point import inner_mask, object_point

POINTED = 8
"""Numbers of the latent: x, y, z, height of the top, radius (metres), red, green, blue (0 to 1)."""


@dataclass(frozen=True, slots=True)
class PointedObject:
    """One object on a table.

    Attributes:
        point_m: ``[3]`` in the base frame: the median of what is seen of it.
        top_m: height of its highest surface in the base frame.
        radius_m: about half of its longer side, as the camera sees it.
        color: ``[3]`` red, green, blue, 0 to 1: the median of its middle.
    """

    point_m: Floats
    top_m: float
    radius_m: float
    color: Floats

    def as_latent(self) -> Latent:
        """``[POINTED]`` float32."""
        numbers = np.concatenate([self.point_m, [self.top_m, self.radius_m], self.color])
        return np.asarray(numbers, np.float32)

    @classmethod
    def from_latent(cls, latent: Latent) -> PointedObject:
        """The inverse of `as_latent`.

        Raises:
            ValueError: it has another size.
        """
        if latent.shape != (POINTED,):
            raise ValueError(f"a latent of {list(latent.shape)}; one that points has {POINTED} numbers")
        numbers = np.asarray(latent, np.float64)
        return cls(numbers[:3], float(numbers[3]), float(numbers[4]), numbers[5:8])


def in_box(frame: Frame, box: Box, info: CameraInfo) -> PointedObject | None:
    """The object in `box` of `frame`; ``None`` where too little of it has depth.

    Args:
        frame: with depth.
        box: around the object, in pixels.
        info: of the camera, which has a depth scale and a pose relative to the arm.

    Raises:
        ValueError: the camera has none, or the frame no depth.
    """
    if frame.depth is None or info.base_from_camera is None:
        raise ValueError(f"camera {frame.camera!r} has no depth, or no pose relative to the arm")
    inner = inner_mask(box, *frame.depth.shape)
    point = object_point(frame.depth, inner, info)
    if point is None or point.base_m is None or point.top_m is None:
        return None
    side_px = max(box[2] - box[0], box[3] - box[1])
    radius_m = 0.5 * side_px * float(point.camera_m[2]) / info.intrinsics.fx
    color = np.median(frame.color[inner > 0].reshape(-1, 3), axis=0) / 255.0
    return PointedObject(point.base_m, point.top_m, radius_m, color)
