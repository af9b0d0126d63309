"""The object of one attempt over time: how it lay when it was last seen whole, and how it is seen now."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from policies.lift.numbers import azimuth
from policies.lift.options import LiftOptions
from policies.lift.sight import Sighting, heights, look, replaced, unseen
from policies.nudged.view import DepthView, thinned
from runtime.messages import CameraInfo

_WHOLE_SHARE = 0.85
"""With less of its first area in sight an object is not seen whole, with much more it is something else."""
_SAME_HEIGHT_M = 0.008
_MOVED_M = 0.003
_TURNED = 0.25
_STRETCHED = 0.2

Placing = Callable[[DepthView, CameraInfo], CameraInfo]


@dataclass(frozen=True, slots=True)
class Remembered:
    """What a network is shown: the object as it lay, as it is seen now, and what stands around it."""

    whole: Sighting
    now: Sighting
    crop: NDArray[np.float32]


class ObjectInSight:
    """Remembers one object; made anew for every attempt. The same in training and on the robot."""

    def __init__(self, options: LiftOptions) -> None:
        self._options = options
        self._before: DepthView | None = None
        self._first: Sighting | None = None
        self._known: Remembered | None = None

    def take(self, view: DepthView, placed: Placing | None = None) -> Remembered | None:
        """Take in a picture; ``None`` until the object has been seen.

        Args:
            view: the picture.
            placed: says where its camera is along the table, once it is levelled; asked of the first picture
                that shows the object.

        Raises:
            PolicyError: the camera has no depth scale or is not calibrated to the arm.
        """
        view, known, first = thinned(view, self._options.picture_width), self._known, self._first
        if known is None or first is None:
            now = look(view, self._options)
            if now.seen and placed is not None:
                now = look(view, self._options, placed(view, now.info))
            if not now.seen:
                return None
            self._before, self._first = view, now
            self._known = Remembered(now, now, self._crop(view, now))
            return self._known
        now = look(view, self._options, first.info) if view.mask.any() else unseen(first.info)
        if now.seen and _lies_whole(now, first) and _elsewhere(now, known.whole):
            known = Remembered(now, now, self._crop(view, now))
        self._known = Remembered(known.whole, now, known.crop)
        return self._known

    def _crop(self, view: DepthView, now: Sighting) -> NDArray[np.float32]:
        """Around the object where it is now, as it was before the arm came into the picture."""
        before, first, options = self._before, self._first, self._options
        assert before is not None  # noqa: S101 - `take` has set it
        shown = before if now is first else replaced(before, view)
        turn = float(azimuth(options.shape, now.numbers[1:3]))
        return heights(shown, now, turn, options.shape.crop, options.shape.cell_m, options.table_height_m)


def _lies_whole(now: Sighting, first: Sighting) -> bool:
    """Whether it stands on the table as it did, and nothing hides it."""
    share = now.numbers[4] / max(float(first.numbers[4]), 1e-9)
    level = abs(float(now.numbers[3] - first.numbers[3])) < _SAME_HEIGHT_M
    return bool(level and _WHOLE_SHARE < share < 1.0 / _WHOLE_SHARE)


def _elsewhere(now: Sighting, known: Sighting) -> bool:
    """Whether it was moved or turned meanwhile."""
    moved = float(np.linalg.norm(now.numbers[1:3] - known.numbers[1:3])) > _MOVED_M
    turned = float(np.linalg.norm(now.numbers[8:10] - known.numbers[8:10])) > _TURNED
    spread = float(known.numbers[5] + known.numbers[7])
    stretched = float(np.abs(now.numbers[5:8] - known.numbers[5:8]).max()) > _STRETCHED * spread
    return moved or turned or stretched
