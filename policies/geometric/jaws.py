"""How far the jaws are apart at which opening, measured on the arm's model."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.arm_model import ArmModel
from runtime.interfaces import PolicyError
from runtime.messages import Floats

_OPENINGS = np.linspace(0.0, 1.0, 101)
_DEPTHS_M = (-0.01, 0.0, 0.01)
"""Along the approach direction around the grasp point: where an object touches the fingers."""


class JawTable:
    """Distances along the jaw's opening direction, from the grasp point.

    Attributes:
        fixed_face_m: to the fixed finger's inner face.
        widest_m: the largest gap that the table covers.
    """

    def __init__(self, arm: ArmModel) -> None:
        """Measure by casting rays at the fingers.

        Raises:
            PolicyError: the arm does not have one gripper, or the model's fingers do not face each other
                around the grasp point.
        """
        if len(arm.grippers) != 1:
            raise PolicyError(f"geometric grasps need an arm with one gripper; this has {len(arm.grippers)}")
        q = arm.middle()
        faces = np.array([_faces(arm, q, g) for g in _OPENINGS])
        fixed = np.nanmedian(faces[:, 0])
        # Below some opening the moving finger is past the grasp point, and the ray meets it from behind.
        seen = np.isfinite(faces[:, 1]) & (np.abs(faces[:, 0] - fixed) < 0.002)
        # Above another it turns away from the rays.
        usable = _first_run(seen)
        if len(usable) < 3:
            raise PolicyError("the arm model's jaws do not face each other around the grasp point")
        self.fixed_face_m = float(fixed)
        self._openings = _OPENINGS[usable]
        self._moving = np.maximum.accumulate(faces[usable, 1])
        self.widest_m = float(fixed + self._moving[-1])

    def moving_face_m(self, opening: float) -> float:
        """To the moving finger's inner face; negative once it is past the grasp point."""
        slope = (self._moving[2] - self._moving[0]) / (self._openings[2] - self._openings[0])
        if opening < self._openings[0]:
            return float(self._moving[0] - slope * (self._openings[0] - opening))
        return float(np.interp(opening, self._openings, self._moving))

    def opening_for(self, gap_m: float) -> float:
        """The opening at which the faces are `gap_m` apart, within 0 to 1."""
        moving = gap_m - self.fixed_face_m
        if moving < self._moving[0]:
            slope = (self._moving[2] - self._moving[0]) / (self._openings[2] - self._openings[0])
            return max(0.0, float(self._openings[0] - (self._moving[0] - moving) / slope))
        return float(np.interp(moving, self._moving, self._openings))


def _faces(arm: ArmModel, q: Floats, opening: float) -> tuple[float, float]:
    """Distance to the fixed and to the moving finger; NaN where a ray meets neither."""
    import mujoco

    q = q.copy()
    q[arm.grippers[0]] = opening
    pose = arm.fk(q)
    group: Any = None
    hit = np.zeros(1, dtype=np.int32)
    distances = np.full((len(_DEPTHS_M), 2), np.nan)
    for i, depth in enumerate(_DEPTHS_M):
        origin = pose[:3, 3] + depth * pose[:3, 2]
        for side, sign in enumerate((-1.0, 1.0)):
            distance = mujoco.mj_ray(arm.model, arm.data, origin, sign * pose[:3, 1], group, 1, -1, hit)
            if 0 <= distance < 0.1:
                distances[i, side] = distance
    if np.isnan(distances).any():
        return float("nan"), float("nan")
    return float(distances[1, 0]), float(distances[:, 1].min())


def _first_run(flags: NDArray[np.bool_]) -> NDArray[np.int64]:
    where = np.flatnonzero(flags)
    if len(where) == 0:
        return where
    breaks = np.flatnonzero(np.diff(where) > 1)
    return where[: breaks[0] + 1] if len(breaks) else where
