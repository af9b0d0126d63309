"""The language hint: where the instruction's object is, from every mask that is tracked."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from runtime.messages import CameraInfo, Floats, Frame, Mask, Tip
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


def located(frame: Frame, mask: Mask, info: CameraInfo, known: Tip | None) -> Tip | None:
    """Where an object is, by its mask in `frame`.

    Args:
        frame: of the camera of `info`.
        mask: ``[H, W]``, not 0 on the object; empty where it is hidden.
        info: as the camera was opened.
        known: where it was until now. It stays there where it is hidden, where too few of its pixels have
            depth, and where the camera has no depth or no pose.
    """
    if frame.depth is None or lacking(info):
        return known
    point = object_point(frame.depth, mask, info)
    if point is None or point.base_m is None or point.base_sigma_m is None:
        return known
    first = point.base_m if known is None else known.first_m
    return Tip(point.base_m, point.base_sigma_m, first, frame.stamp_ns)


def begun_anew(tip: Tip | None) -> Tip | None:
    """`tip` at the beginning of another attempt at the same object: it is seen first where it is now."""
    return None if tip is None else replace(tip, first_m=tip.point_m)


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
