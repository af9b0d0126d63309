"""How far a move may go before the robot comes too close to itself or to the table."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from runtime.fingers import Fingers
from runtime.messages import Floats

Gaps = tuple[tuple[float, ...], tuple[float, ...]]
"""Least distances, metres: of each arm to itself and to each other; and of each to the table."""

_BISECTIONS = 5
_SAMPLE_RAD = 0.04
"""Longest joint step between two collision checks; about 15 mm at the tip of an arm of 0.4 m."""


class BodyModel(Protocol):
    """What the stage asks of a robot's model, of one arm or several (`runtime.arm_model.ArmModel`)."""

    @property
    def names(self) -> Sequence[str]: ...

    @property
    def ranges(self) -> Floats: ...

    @property
    def grippers(self) -> Sequence[int]:
        """Indices of the joints that are grippers."""

    @property
    def fingers(self) -> Fingers:
        """The joints that open and close on an object: grippers, and a hand's."""

    @property
    def arms(self) -> Sequence[Sequence[int]]:
        """Of each arm, the indices of its joints."""

    def gaps(self, q: Floats) -> Gaps:
        """What is how near at `q` ``[D]``, in the same order each time."""

    def grasp_heights(self, q: Floats) -> Floats:
        """``[A]``, the height of each arm's grasp point, metres."""


def farthest_clear(
    model: BodyModel, start: Floats, end: Floats, self_margin_m: float, table_margin_m: float
) -> Floats:
    """The farthest point on the segment from `start` to `end` up to which the arm stays clear.

    Where `start` itself is closer than the margins (a folded arm at rest), moving away is allowed and
    coming closer is not. That is each arm's own matter: that one of them rests so brings no other any closer.
    """
    span = end - start
    pieces = max(1, math.ceil(float(np.abs(span).max()) / _SAMPLE_RAD))
    own, table = model.gaps(end)
    if pieces == 1 and min(own) >= self_margin_m and min(table) >= table_margin_m:
        return end
    floors = _floors(model, start, self_margin_m, table_margin_m)
    if pieces == 1 and _reaches((own, table), floors):
        return end
    return _walk(model, start, span, pieces, floors)


def _floors(model: BodyModel, start: Floats, self_margin_m: float, table_margin_m: float) -> Gaps:
    own, table = model.gaps(start)
    return tuple(min(self_margin_m, gap) for gap in own), tuple(min(table_margin_m, gap) for gap in table)


def _reaches(gaps: Gaps, floors: Gaps) -> bool:
    return all(
        gap >= floor for kind in zip(gaps, floors, strict=True) for gap, floor in zip(*kind, strict=True)
    )


def _walk(model: BodyModel, start: Floats, span: Floats, pieces: int, floors: Gaps) -> Floats:
    good, bad = 0.0, 0.0
    for piece in range(1, pieces + 1):
        share = piece / pieces
        if not _reaches(model.gaps(start + share * span), floors):
            bad = share
            break
        good = share
    else:
        return np.asarray(start + span)
    for _ in range(_BISECTIONS):
        share = 0.5 * (good + bad)
        if _reaches(model.gaps(start + share * span), floors):
            good = share
        else:
            bad = share
    return np.asarray(start + good * span)
