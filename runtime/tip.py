"""The language hint: where the instruction's object is, from every mask that is tracked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from runtime.interfaces import Tracker
from runtime.messages import CameraInfo, Floats, Frame, Mask, Tip, TrackedMask
from runtime.object_point import object_point
from runtime.ring import Layout

LAYOUT: Layout = {
    "point": ((3,), "<f8"),
    "sigma": ((3,), "<f8"),
    "first": ((3,), "<f8"),
    "seen_ns": ((), "<i8"),
}
"""Of a row of a recording; see `runtime.messages.Tip`."""


def lacking(info: CameraInfo) -> str:
    """What a camera lacks for telling where an object is; empty if it can."""
    if info.depth_scale_m is None:
        return "depth"
    return "" if info.base_from_camera is not None else "pose relative to the arm"


class LocatingTracker:
    """A `runtime.interfaces.Tracker`: another one's masks, each with its tip, for one camera.

    An object that is hidden is where it was seen last. Masks are as they were where the camera has no depth
    or no pose.

    Args:
        tracker: whose masks they are.
        info: of the camera, once it is open.
    """

    def __init__(self, tracker: Tracker, info: Callable[[], CameraInfo]) -> None:
        self._tracker = tracker
        self._info = info
        self._newest: Tip | None = None

    def init(self, frame: Frame, mask: Mask) -> TrackedMask:
        """See `runtime.interfaces.Tracker`."""
        self._newest = None
        return self._located(frame, self._tracker.init(frame, mask))

    def update(self, frame: Frame) -> TrackedMask:
        """See `runtime.interfaces.Tracker`."""
        return self._located(frame, self._tracker.update(frame))

    def _located(self, frame: Frame, mask: TrackedMask) -> TrackedMask:
        info = self._info()
        if frame.depth is None or lacking(info):
            return mask
        point = object_point(frame.depth, mask.mask, info)
        if point is not None and point.base_m is not None and point.base_sigma_m is not None:
            first = point.base_m if self._newest is None else self._newest.first_m
            self._newest = Tip(point.base_m, point.base_sigma_m, first, frame.stamp_ns)
        return replace(mask, tip=self._newest)


def as_row(tip: Tip) -> dict[str, Floats | int]:
    """By the fields of `LAYOUT`."""
    return {"point": tip.point_m, "sigma": tip.sigma_m, "first": tip.first_m, "seen_ns": tip.stamp_ns}


def with_tip(instruction: str, point_m: Floats) -> str:
    """`instruction` and where its object is, in millimetres' steps: ``... The object is at x 0.212 m, ...``.

    Of an instruction it is the place where the object was seen first (`Tip.first_m`): what is said does not
    change while the arm moves it.

    Args:
        instruction: may be empty.
        point_m: ``[3]`` in the arm's base frame.
    """
    x, y, z = (np.round(point_m, 3) + 0.0).tolist()
    said = instruction.rstrip(" .")
    return f"{said}{'. ' if said else ''}The object is at x {x:.3f} m, y {y:.3f} m, z {z:.3f} m."
