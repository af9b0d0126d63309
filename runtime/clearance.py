"""How far a move may go before the robot comes too close to itself or to the table."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from runtime.fingers import Fingers
from runtime.messages import Floats

Gaps = tuple[tuple[float, ...], tuple[float, ...]]
"""Least distances, metres: of each arm to itself and to each other; and of each to the table."""

_BISECTIONS = 5
_SAMPLE_RAD = 0.04
"""Longest joint step between two collision checks; about 15 mm at the tip of an arm of 0.4 m."""
_WAY_RAD = 0.1
"""The same on the way from where the arm is; what is there is seen from 20 mm away."""
FREE_LAG_RAD = 0.03
"""What a joint at rest, or on a slow way, may be behind its target."""


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

    @property
    def reach_m(self) -> float:
        """What `gaps` says of all that is farther away."""

    def gaps(self, q: Floats) -> Gaps:
        """What is how near at `q` ``[D]``, in the same order each time."""

    def grasp_heights(self, q: Floats) -> Floats:
        """``[A]``, the height of each arm's grasp point, metres."""


@dataclass(frozen=True, slots=True)
class Margins:
    """Least distances, metres: of parts of an arm to each other, and of the arm to the table.

    Attributes:
        lag_m_per_rad: what is to be free above the table besides, for each radian beyond `FREE_LAG_RAD` by
            which a joint is to be ahead of where it is measured; 0: where the arm is is not looked at.
    """

    own_m: float
    table_m: float
    lag_m_per_rad: float = 0.0

    @property
    def pose(self) -> tuple[float, float]:
        """Where the arm is asked to be."""
        return self.own_m, self.table_m

    @property
    def way(self) -> tuple[float, float]:
        """On its way there, where it sags already."""
        return 0.5 * self.own_m, 0.5 * self.table_m


def farthest_clear(
    model: BodyModel, start: Floats, end: Floats, margins: Margins, here: Floats | None = None
) -> Floats:
    """The farthest point on the segment from `start` to `end`, both targets, up to which the arm stays clear.

    Where `start` itself is closer than the margins (a folded arm at rest), moving away is allowed and
    coming closer is not. That is each arm's own matter: that one of them rests so brings no other any closer.

    An arm follows its targets late, each joint by a time of its own. So the target waits as well where it
    would be too far ahead of the arm, measured at `here`, for the room that there is above the table, and
    where the way from there is not free.
    """
    span = end - start
    pieces = max(1, math.ceil(float(np.abs(span).max()) / _SAMPLE_RAD))
    share, gaps = _farthest_pose(model, start, end, pieces, margins.pose)
    whole = share == 1.0
    reached = end if whole and pieces == 1 else np.asarray(start + share * span)
    if here is None or margins.lag_m_per_rad <= 0.0:
        return reached
    follows = _Following(model, start, here, margins)
    if follows.can(reached, gaps):
        return reached
    good, bad = 0.0, share
    for _ in range(_BISECTIONS):
        share = 0.5 * (good + bad)
        if follows.can(start + share * span):
            good = share
        else:
            bad = share
    return np.asarray(start + good * span)


def _farthest_pose(
    model: BodyModel, start: Floats, end: Floats, pieces: int, least: tuple[float, float]
) -> tuple[float, Gaps | None]:
    """How much of the way there is clear, and what is how near at its end, if that was looked at."""
    span, floors, good, gaps = end - start, None, 0.0, None
    for piece in range(1, pieces + 1):
        share = piece / pieces
        gaps = model.gaps(end if pieces == 1 else start + share * span)
        if min(gaps[0]) < least[0] or min(gaps[1]) < least[1]:
            floors = floors or _floors(model.gaps(start), least)
            if not _reaches(gaps, floors):
                break
        good = share
    else:
        return 1.0, gaps
    bad = share
    for _ in range(_BISECTIONS):
        share = 0.5 * (good + bad)
        if _reaches(model.gaps(start + share * span), floors):
            good = share
        else:
            bad = share
    return good, None


def _floors(gaps: Gaps, least: tuple[float, float]) -> Gaps:
    """What is kept free by who begins at `gaps`."""
    own, table = gaps
    return tuple(min(least[0], gap) for gap in own), tuple(min(least[1], gap) for gap in table)


def _reaches(gaps: Gaps, floors: Gaps) -> bool:
    return all(
        gap >= floor for kind in zip(gaps, floors, strict=True) for gap, floor in zip(*kind, strict=True)
    )


class _Following:
    """Whether an arm that is at `here` can follow a target from `start` on to another."""

    def __init__(self, model: BodyModel, start: Floats, here: Floats, margins: Margins) -> None:
        self._model = model
        self._start = start
        self._here = here
        self._at = here.tolist()
        self._margins = margins
        self._fingers = set(model.fingers.joints.tolist())

    def can(self, target: Floats, gaps: Gaps | None = None) -> bool:
        """`gaps` are those at `target`, if they are known."""
        lag = self._lag(target)
        if lag <= FREE_LAG_RAD:
            return True
        if lag > self._lag(self._start) and lag > self._most(min((gaps or self._model.gaps(target))[1])):
            return False
        points = math.ceil(lag / _WAY_RAD)
        return all(self._free(target, point / points) for point in range(1, points))

    def _most(self, gap: float) -> float:
        """How far a target that is so near to the table may be ahead of the arm, near to it as the arm is."""
        if gap >= self._model.reach_m:
            return math.inf
        spare = min(gap - self._margins.table_m, min(self._model.gaps(self._here)[1]) - self._margins.way[1])
        return FREE_LAG_RAD + max(0.0, spare) / self._margins.lag_m_per_rad

    def _lag(self, target: Floats) -> float:
        """How far the joint that is farthest behind has to go; fingers may be kept back by what they hold."""
        pairs = enumerate(zip(target.tolist(), self._at, strict=True))
        return max((abs(to - at) for joint, (to, at) in pairs if joint not in self._fingers), default=0.0)

    def _free(self, target: Floats, share: float) -> bool:
        """Whether the arm is clear at that part of its way, or no nearer than where it goes already."""
        gaps, least = self._model.gaps(self._here + share * (target - self._here)), self._margins.way
        if min(gaps[0]) >= least[0] and min(gaps[1]) >= least[1]:
            return True
        before = self._model.gaps(self._here + share * (self._start - self._here))
        return _reaches(gaps, _floors(before, least))
