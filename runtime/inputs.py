"""What the control loop reads besides chunks: a leader arm, and sensors that must be fresh."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from runtime.clock import NS_PER_S
from runtime.messages import Floats
from runtime.ring import Ring, Sample


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
        self, states: Ring, max_age_s: float = 0.1, convert: Callable[[Floats], Floats] | None = None
    ) -> None:
        self._states = states
        self._max_age_ns = round(max_age_s * NS_PER_S)
        self._convert = convert
        self._sample: Sample | None = None

    @property
    def sample(self) -> Sample | None:
        """The leader's state as it was looked at last."""
        return self._sample

    def missing(self, now_ns: int) -> str | None:
        """Why there is no target, if there is none."""
        sample = self._states.newest(self._sample)
        self._sample = self._sample if sample is None else sample
        if sample is not None and now_ns - sample.stamp_ns <= self._max_age_ns:
            return None
        return f"leader: no state for {self._max_age_ns / NS_PER_S:g} s"

    def target(self, now_ns: int) -> Floats | None:
        """The newest position, or ``None`` if it is too old."""
        sample = self._states.newest(self._sample)
        if sample is None or now_ns - sample.stamp_ns > self._max_age_ns:
            return None
        self._sample = sample
        position: Floats = sample["position"]
        return position.copy() if self._convert is None else self._convert(position)


def stale(newest_ns: int | None, now_ns: int, max_age_s: float) -> bool:
    """Whether the newest stamp is missing or too old."""
    return newest_ns is None or now_ns - newest_ns > max_age_s * NS_PER_S


def stale_watch(watches: Sequence[Watch], now_ns: int) -> str | None:
    """Why to hold: the first watched sensor without fresh data."""
    for watch in watches:
        if stale(watch.ring.newest_stamp_ns(), now_ns, watch.max_age_s):
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


def sent_ring(arm: Any) -> Ring | None:
    """The arm's ring of what it wrote, if it has one in the robot's units."""
    ring = getattr(arm, "sent", None)
    return ring if isinstance(ring, Ring) and "position" in ring.layout else None
