"""Masks for a fast policy, in its fresh picture, of what a slow one pointed at some time ago.

Which object is meant comes from the thought: where it was, how large it is, what colour it has. Where exactly
it is now comes from the picture: what stands up from the table within reach of where it was seen last and has
its colour. A thought that points elsewhere while the object is still seen is believed the second time: the
first may be of a picture in which the arm hid it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from runtime.geometry import project
from runtime.interfaces import PolicyError
from runtime.messages import CameraInfo, Floats, Frame, Mask, Observation, Thought, TrackedMask
from runtime.object_point import base_points
from runtime.pointed import PointedObject

_MARGIN_M = 0.015
"""So far beyond its own size an object may have moved between two pictures, or be seen."""
_TALLER_M = 0.12
_FLOOR = 0.05
"""What is lower than this share of its height is the table, or a shadow."""
_FEWEST = 12
_FAR_M = 0.03
"""A thought that points farther away than this points elsewhere."""
_TINT = 0.09
_LEAST_LIGHT = 0.06


@dataclass(slots=True)
class _Followed:
    """One object in one camera: how it was pointed at, and where it was seen last."""

    meant: PointedObject
    number: int
    place: Floats
    seen: bool = True


class PointedMasks:
    """The masks of one attempt.

    Args:
        cameras: whose masks are made. infos: by camera, what is constant about it, once it is open: it has
            depth and a pose relative to the arm.
    """

    def __init__(self, cameras: Sequence[str], infos: Mapping[str, CameraInfo]) -> None:
        self._cameras = tuple(cameras)
        self._infos = infos
        self._followed: _Followed | None = None
        self._doubted: PointedObject | None = None

    def reset(self) -> None:
        """Another attempt: nothing is followed."""
        self._followed = self._doubted = None

    def everything(self, observation: Observation) -> dict[str, TrackedMask]:
        """As a trial has it: no object is known."""
        frames = {name: self._frame(observation, name) for name in self._cameras}
        return {
            name: TrackedMask(name, frame.stamp_ns, np.ones(frame.color.shape[:2], np.uint8), 1.0)
            for name, frame in frames.items()
        }

    def given(self, observation: Observation) -> tuple[Observation, bool]:
        """`observation` with the masks of what its thought points at, and whether that is another object than
        before.

        Raises:
            PolicyError: the thought does not point, or a frame or its depth is missing.
        """
        assert observation.thought is not None  # noqa: S101 - the caller has seen to it
        other = self._believed(observation.thought)
        followed = self._followed
        assert followed is not None  # noqa: S101 - `_believed` has set it
        masks: dict[str, TrackedMask] = {}
        seen = False
        for name in self._cameras:
            frame = self._frame(observation, name)
            mask, middle = _mask(frame, self._infos[name], followed)
            masks[name] = TrackedMask(name, frame.stamp_ns, mask, float(mask.any()))
            if middle is not None:
                followed.place, seen = middle, True
        followed.seen = seen
        return replace(observation, masks={**observation.masks, **masks}), other

    def _believed(self, thought: Thought) -> bool:
        """Take a new thought in; whether another object is meant from now on."""
        before = self._followed
        if before is not None and thought.number == before.number:
            return False
        try:
            meant = PointedObject.from_latent(thought.latent)
        except ValueError as error:
            raise PolicyError(f"policy.masks = 'pointed': {error}") from None
        if before is None:
            self._followed = _Followed(meant, thought.number, meant.point_m)
            return False
        before.number = thought.number
        if _near(meant, before.place):
            self._doubted = None
            return False
        again = self._doubted is not None and _near(meant, self._doubted.point_m)
        self._doubted = meant
        if before.seen and not again:
            return False
        self._followed, self._doubted = _Followed(meant, thought.number, meant.point_m), None
        return True

    def _frame(self, observation: Observation, name: str) -> Frame:
        frame = observation.frames.get(name)
        if frame is None or frame.depth is None:
            raise PolicyError(f"policy.masks = 'pointed': no frame with depth of camera {name!r}")
        return frame


def _near(meant: PointedObject, place: Floats) -> bool:
    return float(np.linalg.norm(meant.point_m[:2] - place[:2])) < _FAR_M


def _mask(frame: Frame, info: CameraInfo, followed: _Followed) -> tuple[Mask, Floats | None]:
    """Where it is in `frame`, and where that is in space; empty and ``None`` if it is not seen."""
    mask: Mask = np.zeros(frame.color.shape[:2], np.uint8)
    meant, place = followed.meant, followed.place
    window = _window(place, meant.radius_m + _MARGIN_M, info)
    if window is None or frame.depth is None:
        return mask, None
    depth = np.zeros_like(frame.depth)
    depth[window] = frame.depth[window]
    known = depth > 0
    points = base_points(depth, known, info)
    away = np.linalg.norm(points[:, :2] - place[:2], axis=1)
    inside = (away < meant.radius_m + _MARGIN_M) & (points[:, 2] > _FLOOR * meant.top_m)
    inside &= points[:, 2] < meant.top_m + _TALLER_M
    inside &= _tinted(frame.color[known], meant.color)
    rows, columns = np.nonzero(known)
    mask[rows[inside], columns[inside]] = 1
    mask[window] |= (frame.depth[window] == 0) & _tinted(frame.color[window], meant.color)  # a hole in it
    mask, kept = _largest(mask)
    mine = mask[rows, columns] > 0
    if kept < _FEWEST or not mine.any():  # holes alone say nothing of where it is
        return np.zeros_like(mask), None
    return mask, np.median(points[mine], axis=0)


def _window(place: Floats, reach_m: float, info: CameraInfo) -> tuple[slice, slice] | None:
    """The part of the picture that shows what is within `reach_m` of `place`."""
    pose, lens = info.base_from_camera, info.intrinsics
    if pose is None:
        return None
    at = (place - pose[:3, 3]) @ pose[:3, :3]
    if at[2] <= reach_m:
        return None
    ((column, row),) = project(at[None], lens)
    if not np.isfinite([column, row]).all():
        return None
    reach = 2.0 * reach_m * lens.fx / float(at[2])
    left, right = max(0, int(column - reach)), min(lens.width, int(column + reach) + 1)
    top, bottom = max(0, int(row - reach)), min(lens.height, int(row + reach) + 1)
    return (slice(top, bottom), slice(left, right)) if left < right and top < bottom else None


def _tinted(pixels: NDArray[np.uint8], color: Floats) -> NDArray[np.bool_]:
    """Which of ``pixels[..., 3]`` have the colour, in whatever light."""
    seen = pixels.astype(np.float64) / 255.0
    light, own = seen.sum(axis=-1), float(color.sum())
    if own < 3 * _LEAST_LIGHT:
        return np.asarray(light < 9 * _LEAST_LIGHT)
    off = np.linalg.norm(seen / np.maximum(light, 1e-6)[..., None] - color / own, axis=-1)
    return np.asarray((off < _TINT) & (light > 3 * _LEAST_LIGHT))


def _largest(mask: Mask) -> tuple[Mask, int]:
    """The largest connected part of `mask`, and its pixels."""
    import cv2

    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask)
    if count < 2:
        return mask, 0
    best = 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))
    return (labels == best).astype(np.uint8), int(stats[best, cv2.CC_STAT_AREA])
