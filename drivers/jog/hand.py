"""A hand in space, such as a phone or a VR controller: while it holds the clutch, the point goes with it.

What counts is how the hand has moved since the clutch was pressed, and where the point was then: the hand can
be taken back and begin again, as a mouse is lifted.
"""

from __future__ import annotations

import numpy as np

from drivers.jog.point import JoggedPoint
from runtime.messages import Floats
from runtime.ring import Sample
from runtime.rotations import rotation_vector


def matrix_of(quaternion: Floats) -> Floats:
    """3x3 of a quaternion ``x, y, z, w`` of any length but 0."""
    x, y, z, w = quaternion / np.linalg.norm(quaternion)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )


class Hand:
    """Where hand and point were when the clutch was pressed.

    Args:
        scale: metres of the point for a metre of the hand.
    """

    def __init__(self, scale: float) -> None:
        self._scale = scale
        self._began: tuple[Floats, Floats, Floats, Floats] | None = None

    def let_go(self) -> None:
        """What the hand does next is counted from anew."""
        self._began = None

    def holds(self, sample: Sample | None, point: JoggedPoint) -> bool:
        """Whether it holds the clutch; from the first time on it is measured against the `point` of then."""
        if sample is None or sample["clutch"] < 0.5 or not np.linalg.norm(sample["quaternion"]) > 1e-6:
            self._began = None
            return False
        if self._began is None:
            place, turned = sample["position"].copy(), matrix_of(sample["quaternion"])
            self._began = place, turned, point.point.copy(), point.orientation.copy()
        return True

    def twist(self, sample: Sample, point: JoggedPoint) -> Floats:
        """``[6]``: what is left of the way, metres in the base frame and radians about the heading's axes."""
        assert self._began is not None  # noqa: S101 - it holds
        place, turned, start, orientation = self._began
        goal = start + self._scale * (sample["position"] - place)
        wanted = matrix_of(sample["quaternion"]) @ turned.T @ orientation
        turn = point.to_heading(rotation_vector(wanted @ point.orientation.T))
        return np.concatenate([goal - point.point, turn])
