"""What the control loop reads besides chunks: the arm, the force, a leader, sensors that must be fresh."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from runtime.arms import late
from runtime.clock import NS_PER_S
from runtime.messages import Floats
from runtime.ports import Readings
from runtime.ring import Ring, Sample
from runtime.snapshots import State, recall, remember

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


class LoopInputs:
    """What a tick reads: the arm's state and the force, into buffers made once; and what must be fresh.

    Attributes:
        state: the arm's state that was read last.
        position: ``[D]`` the position in it, an array of its own; ``None`` before the first.
        fresh: whether it was young enough in the newest tick.
        force: the force that was read last; ``None`` without a sensor.
    """

    def __init__(
        self, arm: Readings, force: Ring | None, watches: Sequence[Watch], state_max_age_s: float
    ) -> None:
        self._watches = tuple(watches)
        self.state = arm.blank()
        self.position: Floats | None = None
        self.fresh = False
        self.force = None if force is None else force.blank()
        self._arm, self._force_ring = arm, force
        self._max_age_s, self._max_age_ns = state_max_age_s, round(state_max_age_s * NS_PER_S)

    def read(self, now_ns: int) -> int:
        """Read the newest of both; returns the ns between this state of the arm and the one read before."""
        before_ns = self.state.stamp_ns
        self.fresh = self._arm.newest(self.state, now_ns=now_ns, max_age_ns=self._max_age_ns) is not None
        if self.fresh:
            self.position = self.state["position"].copy()
        if self._force_ring is not None and self.force is not None:
            _read_force(self._force_ring, self.force)
        return self.state.stamp_ns - before_ns

    @property
    def force_n(self) -> Floats | None:
        """The force sensor's channels; ``None`` before the first reading."""
        force = self.force
        return force["force"] if force is not None and force.index >= 0 else None

    def missing(self, now_ns: int, source: object | None) -> str | None:
        """Which input is missing or too old: the arm always; the rest only while a `source` is followed."""
        if not self.fresh:
            name = late(self._arm, "arm", now_ns, self._max_age_ns)
            return f"{name}: no state for {self._max_age_s:g} s"
        if source is None:
            return None
        leader = source.missing(now_ns) if isinstance(source, LeaderSource) else None
        return leader or self._stale_watch(now_ns)

    def _stale_watch(self, now_ns: int) -> str | None:
        for watch in self._watches:
            if not watch.ring.fresh(now_ns, round(watch.max_age_s * NS_PER_S)):
                return f"{watch.name}: no data for {watch.max_age_s:g} s"
        return None

    def snapshot(self) -> State:
        """What is remembered between ticks, for `restore`; a part of the loop's own."""
        return {**remember(self, ("position",)), "_fresh": self.fresh}

    def restore(self, state: State) -> None:
        """Go on from where another one was at its `snapshot`."""
        recall(self, ("position",), state)
        self.fresh = state["_fresh"]


def _read_force(ring: Ring, sample: Sample) -> None:
    """The newest force into `sample`. A channel at its full scale may hide any force: it is infinite."""
    if ring.newest(sample) is not None and "saturated" in ring.layout:
        force, saturated = sample["force"], sample["saturated"] != 0
        force[saturated] = np.copysign(np.inf, force[saturated])
