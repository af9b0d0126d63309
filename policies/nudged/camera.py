"""A camera where it stands: as it was calibrated, unless it is told to be elsewhere."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from policies.nudged.arm import ArmInSight
from policies.nudged.level import levelled
from policies.nudged.view import DepthView, thinned
from runtime.geometry import rays
from runtime.messages import ArmState, CameraInfo, Floats

_WIDTH = 320
"""Wider pictures are thinned out."""
_TELLS_M = 0.002
"""A camera that has the table's points no further off is where it was calibrated."""


def standing(view: DepthView, table_height_m: float, arm: ArmInSight, state: ArmState) -> CameraInfo:
    """``view.info`` where the camera is by the table and the arm at rest that it sees; itself, where it has
    the points of the table right within 2 mm.

    Args:
        view: a picture of now, as wide as it is.
        table_height_m: in the arm's base frame.
        arm: what measures; remembers between pictures.
        state: of the arm, now.

    Raises:
        NotReadyError: it is off, and is being measured; ask again.
        PolicyError: the camera has no depth scale or is not calibrated to the arm.
    """
    small = thinned(view, _WIDTH)
    placed = arm.placed(small, levelled(small, table_height_m), state)
    if _off_m(small.info, placed, table_height_m) < _TELLS_M:
        return view.info
    return replace(view.info, base_from_camera=placed.base_from_camera)


def _off_m(one: CameraInfo, other: CameraInfo, table_height_m: float) -> float:
    """How far the two have a point of the table apart, on average over the picture."""
    if one.base_from_camera is None or other.base_from_camera is None:
        return 0.0
    wide, tall = one.intrinsics.width, one.intrinsics.height
    pixels = np.array([[x * wide, y * tall] for x in (0.25, 0.5, 0.75) for y in (0.25, 0.5, 0.75)])
    sides = rays(one.intrinsics, pixels)
    towards = np.column_stack([sides, np.ones(len(sides))])

    def met(pose: Floats) -> Floats:
        along = towards @ pose[:3, :3].T
        return np.asarray(pose[:3, 3] + along * ((table_height_m - pose[2, 3]) / along[:, 2])[:, None])

    apart = met(one.base_from_camera) - met(other.base_from_camera)
    return float(np.linalg.norm(apart, axis=1).mean())
