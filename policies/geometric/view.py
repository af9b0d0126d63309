"""What the policy makes of one observation: the object's estimate and what stands around it."""

from __future__ import annotations

import numpy as np

from policies.geometric.estimate import ObjectEstimate, fit_object
from policies.geometric.options import GeometricOptions
from policies.points import deproject
from runtime.clock import NS_PER_S
from runtime.interfaces import PolicyError
from runtime.mask_shape import around, dilated, eroded
from runtime.messages import CameraInfo, DepthImage, Floats, Frame, Mask, Observation, TrackedMask
from runtime.object_point import main_part

_OBSTACLE_STRIDE = 3
_MASK_BORDER_PX = 4
_RING_PX = (2, 5)
_OCCLUDER_M = 0.03


def masked_frame(observation: Observation, config: GeometricOptions) -> tuple[Frame, DepthImage, Mask]:
    """The camera's frame, its depth and the object's mask.

    Raises:
        PolicyError: one of them is missing, empty, too old, too uncertain, or they do not fit together.
    """
    name = config.camera
    frame, tracked = observation.frames.get(name), observation.masks.get(name)
    if frame is None:
        raise PolicyError(f"no frame of camera {name!r}")
    if tracked is None:
        raise PolicyError(f"no mask for camera {name!r}")
    if frame.depth is None:
        raise PolicyError(f"the frame of camera {name!r} has no depth")
    _check_mask(tracked, frame, frame.depth, config)
    return frame, frame.depth, tracked.mask


def _check_mask(tracked: TrackedMask, frame: Frame, depth: DepthImage, config: GeometricOptions) -> None:
    if tracked.mask.shape != depth.shape:
        shapes = f"{list(tracked.mask.shape)}, the depth {list(depth.shape)}"
        raise PolicyError(f"the mask of camera {config.camera!r} is {shapes}")
    age_s = (frame.stamp_ns - tracked.stamp_ns) / NS_PER_S
    if age_s > config.max_mask_age_s:
        raise PolicyError(
            f"the mask is {age_s:.1f} s older than the frame; {config.max_mask_age_s:g} s at most"
        )
    if tracked.confidence < config.min_confidence:
        raise PolicyError(
            f"the mask's confidence is {tracked.confidence:.2f}; {config.min_confidence:g} at least"
        )
    if not tracked.mask.any():
        raise PolicyError("the mask is empty")


def estimate_object(observation: Observation, info: CameraInfo, config: GeometricOptions) -> ObjectEstimate:
    """Fit the masked object.

    Raises:
        PolicyError: there is no usable mask or too little depth within it.
    """
    _, depth, mask = masked_frame(observation, config)
    points = above_table(deproject(depth, eroded(mask, config.mask_erosion_px), info), config)
    if len(points) < config.min_points:
        raise PolicyError(
            f"{len(points)} points of the object stand above the table; {config.min_points} at least"
        )
    points = main_part(points)
    return fit_object(
        points, config.table_height_m, _pixel_m(points, info), 1.0 + 2.0 * config.mask_erosion_px
    )


def hidden_share(observation: Observation, info: CameraInfo, config: GeometricOptions) -> float:
    """Share of the mask's outline that borders on something much nearer to the camera: the arm."""
    _, depth, mask = masked_frame(observation, config)
    window = around(mask, _RING_PX[1])
    near_mask, metres = mask[window], depth[window] * float(info.depth_scale_m or 0.0)
    own = metres[(near_mask > 0) & (metres > 0)]
    if len(own) == 0:
        return 1.0
    ring = dilated(near_mask, _RING_PX[1]) & ~dilated(near_mask, _RING_PX[0])
    nearer = (metres > 0) & (metres < float(np.median(own)) - _OCCLUDER_M)
    return float((ring & nearer).sum() / max(1, int(ring.sum())))


def obstacles_around(
    observation: Observation, info: CameraInfo, config: GeometricOptions, center: Floats
) -> Floats:
    """Points ``[N, 3]`` near `center` that stand above the table and are not the masked object's."""
    _, depth, mask = masked_frame(observation, config)
    elsewhere = ~dilated(mask, _MASK_BORDER_PX)
    sparse = np.zeros_like(elsewhere)
    sparse[::_OBSTACLE_STRIDE, ::_OBSTACLE_STRIDE] = True
    points = above_table(deproject(depth, elsewhere & sparse, info), config)
    high = points[:, 2] > config.table_height_m + config.obstacle_height_m
    near = np.linalg.norm(points[:, :2] - center, axis=1) < 0.12
    return np.asarray(points[high & near])


def above_table(points: Floats, config: GeometricOptions) -> Floats:
    """Those of `points` that can be an object's: above the table's plane, below the arm."""
    height = points[:, 2] - config.table_height_m
    return np.asarray(points[(height > config.min_height_m) & (height < config.max_height_m)])


def _pixel_m(points: Floats, info: CameraInfo) -> float:
    pose = info.base_from_camera
    if pose is None:
        return 0.0
    distance = float(np.median((points - pose[:3, 3]) @ pose[:3, 2]))
    return distance / info.intrinsics.fx
