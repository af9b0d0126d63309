"""What the control loop reads besides chunks: a leader arm, and sensors that must be fresh."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from runtime.arms import JoinedRings, late
from runtime.clock import NS_PER_S
from runtime.messages import Floats
from runtime.ports import Readings
from runtime.ring import Ring, Sample

LONGEST_STATE_AGE_S = 0.5
"""No arm and no leader may be silent for longer without being held: one that comes back is engaged anew."""


@dataclass(frozen=True, slots=True)
class Watch:
    """A sensor without whose fresh data the arm must not move on its own."""

    name: str
    ring: Ring
    max_age_s: float


class LeaderSource:
    """A leader arm as the source of targets: field ``position`` of `states`, at most `max_age_s` old.

    `convert` maps the leader's joints to the follower's, ``[D]`` to ``[D]``.
    """

    def __init__(
        self, states: Readings, max_age_s: float = 0.1, convert: Callable[[Floats], Floats] | None = None
    ) -> None:
        self._states = states
        self._max_age_ns = round(max_age_s * NS_PER_S)
        self._convert = convert
        self._sample = states.blank()

    @property
    def sample(self) -> Sample | None:
        """The leader's state as it was looked at last, if there was one."""
        return self._sample if self._sample.index >= 0 else None

    def missing(self, now_ns: int) -> str | None:
        """Why there is no target, if there is none."""
        if self._look(now_ns) is not None:
            return None
        name = late(self._states, "leader", now_ns, self._max_age_ns)
        return f"{name}: no state for {self._max_age_ns / NS_PER_S:g} s"

    def _look(self, now_ns: int) -> Sample | None:
        return self._states.newest(self._sample, now_ns=now_ns, max_age_ns=self._max_age_ns)

    def target(self, now_ns: int) -> Floats | None:
        """The newest position, or ``None`` if it is too old."""
        sample = self._look(now_ns)
        if sample is None:
            return None
        position: Floats = sample["position"]
        return position.copy() if self._convert is None else self._convert(position)


NEAR_RAD = 0.05
"""A joint that is this near to where it was, or was asked to be, has not been moved (gripper: a fraction)."""
BRIEF_NS = NS_PER_S // 4
"""After a gap as short as this in an arm's state, its servos are still on the way that they were sent on:
nobody has opened the arm anew (`runtime.device.DeviceOptions.reopen_first_s`)."""


def gone_on_from(
    position: Floats, target: Floats, before: Floats, gap_ns: int, holders: Sequence[int]
) -> Floats:
    """The target ``[D]`` to go on from after a gap in the arm's state: where the arm is found.

    After a brief one that is its last `target`, which it has not reached yet. After a longer one, a joint
    that is found near it keeps it: taking what it sags by for where it is to be would let it sag further each
    time. One of `holders` that has not moved since `before` the gap keeps it, too: it pushes against what it
    holds.
    """
    if gap_ns <= BRIEF_NS:
        return target
    keeps = np.abs(position - target) <= NEAR_RAD
    stood = np.abs(position - before) <= NEAR_RAD
    keeps[list(holders)] |= stood[list(holders)]
    return np.where(keeps, target, position)


def stale_watch(watches: Sequence[Watch], now_ns: int) -> str | None:
    """Why to hold: the first watched sensor without fresh data."""
    for watch in watches:
        if not watch.ring.fresh(now_ns, round(watch.max_age_s * NS_PER_S)):
            return f"{watch.name}: no data for {watch.max_age_s:g} s"
    return None


def read_force(ring: Ring, sample: Sample) -> None:
    """The newest force into `sample`. A channel at its full scale may hide any force: it is infinite."""
    if ring.newest(sample) is not None and "saturated" in ring.layout:
        force, saturated = sample["force"], sample["saturated"] != 0
        force[saturated] = np.copysign(np.inf, force[saturated])


def sample_of(ring: Ring | None) -> Sample | None:
    """A buffer for the newest sample of `ring`, if there is a ring."""
    return ring.blank() if ring is not None else None


def sent_ring(arm: Any) -> Readings | None:
    """The arm's ring of what it wrote, if it has one in the robot's units."""
    ring = getattr(arm, "sent", None)
    return ring if isinstance(ring, Ring | JoinedRings) and "position" in ring.layout else None
