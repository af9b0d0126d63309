"""Which goals the servos have: what is let through next starts from there, not from what was posted.

A target that is posted may never be written: a servo gave no answer in time, the bus thread was late, a
packet was lost. Limited against the last one posted, the next one written would be far ahead of the goal that
the servo has, and the servo would catch up faster than any limit permits.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from runtime.arms import JoinedRings, JoinedSample
from runtime.clock import NS_PER_S
from runtime.messages import Floats
from runtime.ports import Readings

_PATIENCE_NS = NS_PER_S // 20
_PATIENCE_TICKS = 1.5
"""A target is still on its way for as long as the longer of both after the last goal was written."""
_ROUNDING = 0.01
"""A goal this near to its target (rad; gripper: a fraction) was rounded to the servo's steps on the way."""


class Goals(Protocol):
    """Where the control loop learns which goals the servos have."""

    def behind(self, now_ns: int, posted_ns: int, target: Floats) -> Floats | None:
        """``[D]`` the goals of the joints whose servo has another than `target`, posted at `posted_ns`.

        NaN for the others; ``None`` if all have it, or if nothing is known.
        """

    def restart(self, now_ns: int, target: Floats) -> None:
        """The arm goes on from `target` ``[D]``; what was written before `now_ns` says nothing any more."""


class NoGoals:
    """Of an arm that does not say what it wrote."""

    def behind(self, now_ns: int, posted_ns: int, target: Floats) -> Floats | None:
        """Nothing is known."""
        del now_ns, posted_ns, target
        return None

    def restart(self, now_ns: int, target: Floats) -> None:
        """Nothing is kept."""


class WrittenGoals:
    """The goals of an arm, or of several as one, that keep a ring `sent` of what they wrote (`Goals`)."""

    def __init__(self, sent: Readings, rate_hz: float) -> None:
        self._sent = sent
        self._sample = sample = sent.blank()
        if isinstance(sent, JoinedRings) and isinstance(sample, JoinedSample):
            self._parts = list(zip(sample.parts, sent.places, strict=True))
        else:
            self._parts = [(sample, slice(None))]
        joints = sent.layout["position"][0][0]
        self._goals = np.full(joints, np.nan)
        self._counts = np.zeros(joints, dtype=bool)
        self._since_ns = -1
        self._patience_ns = max(_PATIENCE_NS, round(_PATIENCE_TICKS * NS_PER_S / rate_hz))

    def restart(self, now_ns: int, target: Floats) -> None:
        """As `Goals.restart`."""
        self._goals, self._since_ns = target.copy(), now_ns

    def behind(self, now_ns: int, posted_ns: int, target: Floats) -> Floats | None:
        """As `Goals.behind`. Of a target that was just posted nothing is said: it may be on its way.

        Of an arm that never said what it wrote nothing is known.
        """
        self._sent.newest(self._sample)
        for part, place in self._parts:
            written_ns, taken = self._since_ns, False
            if part.index >= 0 and part.stamp_ns > written_ns:
                written_ns, goals = part.stamp_ns, part["position"]
                np.copyto(self._goals[place], goals, where=np.isfinite(goals))
                taken = written_ns >= posted_ns
            late = part.index >= 0 and now_ns - written_ns > self._patience_ns
            self._counts[place] = taken or late
        behind = self._counts & (np.abs(self._goals - target) > _ROUNDING)
        return np.where(behind, self._goals, np.nan) if behind.any() else None
