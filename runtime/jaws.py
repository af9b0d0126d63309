"""How far a gripper's jaws are apart at which opening: told by a description, or measured on its model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from runtime.messages import Floats

if TYPE_CHECKING:
    from runtime.arm_model import ArmModel

_OPENINGS = np.linspace(0.0, 1.0, 101)
_DEPTHS_M = (-0.01, 0.0, 0.01)
"""Along the approach direction around the grasp point: where an object touches the fingers."""
_FIXED_SLACK_M = 0.002


class JawError(Exception):
    """No jaws can be made out. One line that says why."""


@dataclass(frozen=True, slots=True, eq=False)
class JawGeometry:
    """Distances along the jaws' opening direction, from the grasp point.

    Attributes:
        fixed_face_m: to the fixed finger's inner face (against the site's y axis).
        openings: ``[N]``, from which to which opening (0 to 1) the moving finger is known, ascending.
        moving_m: ``[N]``, to the moving finger's inner face at each.
    """

    fixed_face_m: float
    openings: Floats
    moving_m: Floats

    @property
    def widest_m(self) -> float:
        """The largest gap that is known."""
        return float(self.fixed_face_m + self.moving_m[-1])

    def moving_face_m(self, opening: float) -> float:
        """To the moving finger's inner face; negative once it is past the grasp point."""
        if opening < self.openings[0]:
            return float(self.moving_m[0] - self._slope() * (self.openings[0] - opening))
        return float(np.interp(opening, self.openings, self.moving_m))

    def gap_m(self, opening: float) -> float:
        """Between the faces at an opening, at most `widest_m`, and not less than nothing."""
        return max(0.0, self.fixed_face_m + self.moving_face_m(opening))

    def opening_for(self, gap_m: float) -> float:
        """The opening at which the faces are `gap_m` apart, within 0 to 1."""
        moving = gap_m - self.fixed_face_m
        if moving < self.moving_m[0]:
            return max(0.0, float(self.openings[0] - (self.moving_m[0] - moving) / self._slope()))
        return float(np.interp(moving, self.moving_m, self.openings))

    def _slope(self) -> float:
        return float((self.moving_m[2] - self.moving_m[0]) / (self.openings[2] - self.openings[0]))


def measured_jaws(arm: ArmModel) -> JawGeometry:
    """Measure by casting rays at the fingers: of one gripper, or of a hand whose thumb stays where it is.

    Raises:
        JawError: the arm has neither, or its fingers do not face each other around the grasp point.
    """
    if len(arm.grippers) + bool(arm.fingers.of_hand.any()) != 1:
        raise JawError(f"the arm has {len(arm.grippers)} grippers; jaws are measured of an arm with one")
    q = arm.home if arm.fingers.of_hand.any() else arm.middle()
    faces = np.array([_faces(arm, q, g) for g in _OPENINGS])
    if not np.isfinite(faces[:, 0]).any():
        raise JawError("the arm model's jaws do not face each other around the grasp point")
    fixed = np.nanmedian(faces[:, 0])
    # Below some opening the moving finger is past the grasp point, and the ray meets it from behind.
    seen = np.isfinite(faces[:, 1]) & (np.abs(faces[:, 0] - fixed) < _FIXED_SLACK_M)
    # Above another it turns away from the rays.
    usable = _first_run(seen)
    if len(usable) < 3:
        raise JawError("the arm model's jaws do not face each other around the grasp point")
    return JawGeometry(float(fixed), _OPENINGS[usable], np.maximum.accumulate(faces[usable, 1]))


def _faces(arm: ArmModel, q: Floats, opening: float) -> tuple[float, float]:
    """Distance to the fixed and to the moving finger; NaN where a ray meets neither."""
    import mujoco

    pose = arm.fk(arm.fingers.opened_to(q, opening))
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
