"""How far a move may go before the robot comes too close to itself or to the table."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from runtime.fingers import Fingers
from runtime.messages import Floats

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

    def clearances(self, q: Floats) -> tuple[float, float]:
        """Least distances to itself (one arm to another, too) and to the table, metres."""

    def grasp_heights(self, q: Floats) -> Floats:
        """``[A]``, the height of each arm's grasp point, metres."""


def farthest_clear(
    model: BodyModel, start: Floats, end: Floats, self_margin_m: float, table_margin_m: float
) -> Floats:
    """The farthest point on the segment from `start` to `end` up to which the arm stays clear.

    Where `start` itself is closer than the margins (a folded arm at rest), moving away is allowed and
    coming closer is not.
    """
    span = end - start
    pieces = max(1, math.ceil(float(np.abs(span).max()) / _SAMPLE_RAD))
    own, table = model.clearances(end)
    floors: tuple[float, float] | None = None
    if own < self_margin_m or table < table_margin_m:
        floors = _floors(model, start, self_margin_m, table_margin_m)
        if pieces == 1 and own >= floors[0] and table >= floors[1]:
            return end
    elif pieces == 1:
        return end
    if floors is None:
        floors = _floors(model, start, self_margin_m, table_margin_m)
    return _walk(model, start, span, pieces, floors)


def _floors(
    model: BodyModel, start: Floats, self_margin_m: float, table_margin_m: float
) -> tuple[float, float]:
    own, table = model.clearances(start)
    return min(self_margin_m, own), min(table_margin_m, table)


def _clear(model: BodyModel, q: Floats, floors: tuple[float, float]) -> bool:
    own, table = model.clearances(q)
    return own >= floors[0] and table >= floors[1]


def _walk(model: BodyModel, start: Floats, span: Floats, pieces: int, floors: tuple[float, float]) -> Floats:
    good, bad = 0.0, 0.0
    for piece in range(1, pieces + 1):
        share = piece / pieces
        if not _clear(model, start + share * span, floors):
            bad = share
            break
        good = share
    else:
        return np.asarray(start + span)
    for _ in range(_BISECTIONS):
        share = 0.5 * (good + bad)
        if _clear(model, start + share * span, floors):
            good = share
        else:
            bad = share
    return np.asarray(start + good * span)
