"""Which goals the servos have: what is let through next starts from there, not from what was posted.

A target that is posted may never be written: a servo gave no answer in time, the bus thread was late, a
packet was lost. Limited against the last one posted, the next one written would be far ahead of the goal that
the servo has, and the servo would catch up faster than any limit permits.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Any, Protocol

import numpy as np

from runtime.arms import JoinedRings, JoinedSample
from runtime.clock import NS_PER_S
from runtime.messages import Floats
from runtime.ports import Readings
from runtime.ring import Ring

_PATIENCE_NS = NS_PER_S // 20
_PATIENCE_TICKS = 1.5
"""A target is still on its way for as long as the longer of both after the last goal was written."""
_ROUNDING = 0.01
"""A goal this near to its target (rad; gripper: a fraction) was rounded to the servo's steps on the way."""
_ON_THE_WAY = 8
"""Targets that a slow bus may be behind, and it is still known what it was asked for."""


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
        joints = sent.layout["position"][0][0]
        whole = [(sample, range(joints))]
        if isinstance(sent, JoinedRings) and isinstance(sample, JoinedSample):
            places = [range(*place.indices(joints)) for place in sent.places]
            whole = list(zip(sample.parts, places, strict=True))
        self._parts = whole
        # Few numbers are sooner looked through than made arrays of, and this is done in every tick.
        self._goals = [math.nan] * joints
        self._since_ns = -1
        self._asked: deque[tuple[int, list[float]]] = deque(maxlen=_ON_THE_WAY)
        self._looked_ns = [-1] * len(whole)
        self._patience_ns = max(_PATIENCE_NS, round(_PATIENCE_TICKS * NS_PER_S / rate_hz))

    def restart(self, now_ns: int, target: Floats) -> None:
        """As `Goals.restart`."""
        self._goals, self._since_ns = target.tolist(), now_ns

    def behind(self, now_ns: int, posted_ns: int, target: Floats) -> Floats | None:
        """As `Goals.behind`. Of a target that was just posted nothing is said: it may be on its way.

        A bus that is slower than the ticks is always one behind: what it wrote is compared with what it was
        asked for then. Of an arm that never said what it wrote nothing is known.
        """
        self._sent.newest(self._sample)
        posted = target.tolist()
        if not self._asked or self._asked[-1][0] != posted_ns:
            self._asked.append((posted_ns, posted))
        held: dict[int, float] = {}
        for number, (part, joints) in enumerate(self._parts):
            if part.index < 0:
                continue
            asked, written_ns = None, self._since_ns
            if part.stamp_ns > written_ns:
                written_ns = part.stamp_ns
                asked = self._asked_for(number, posted_ns, posted)
                self._take(part["position"].tolist(), joints)
            if now_ns - written_ns > self._patience_ns:
                asked = posted
            if asked is not None:
                goals = self._goals
                held |= {k: goals[k] for k in joints if abs(goals[k] - asked[k]) > _ROUNDING}
        if not held:
            return None
        behind = np.full(len(posted), np.nan)
        behind[list(held)] = list(held.values())
        return behind

    def _asked_for(self, number: int, posted_ns: int, posted: list[float]) -> list[float] | None:
        """What one arm's newest goals were made of; ``None`` where they say nothing new."""
        part = self._parts[number][0]
        looked_ns, self._looked_ns[number] = self._looked_ns[number], part.stamp_ns
        targets = part.fields.get("target_ns")
        made_of_ns = part.stamp_ns if targets is None else int(targets[0])
        if made_of_ns >= posted_ns:
            return posted
        if targets is None or looked_ns == part.stamp_ns:
            return None
        return next((target for stamp_ns, target in self._asked if stamp_ns == made_of_ns), None)

    def _take(self, goals: list[float], joints: range) -> None:
        """Of a joint that was left out, the goal of before stays."""
        for joint, goal in zip(joints, goals, strict=True):
            if math.isfinite(goal):
                self._goals[joint] = goal


def sent_ring(arm: Any) -> Readings | None:
    """The arm's ring of what it wrote, if it has one in the robot's units."""
    ring = getattr(arm, "sent", None)
    return ring if isinstance(ring, Ring | JoinedRings) and "position" in ring.layout else None
