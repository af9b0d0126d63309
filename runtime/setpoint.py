"""What a tick asks for, before it is made safe: a row of what is followed, what is held, the way to park."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from runtime.control_options import LoopOptions
from runtime.engagement import Engagement
from runtime.following import FollowedSource
from runtime.joints import posed
from runtime.messages import Floats
from runtime.output import LoopOutput
from runtime.parking import Parking
from runtime.ports import SafetyOutcome
from runtime.snapshots import State, recall_known, remember
from runtime.supervisor import Supervisor
from runtime.tick import TickFlag

_STATE = ("_anchor", "_slows")
_FLAGS = {
    "idle": TickFlag.IDLE,
    "holding": TickFlag.HOLDING,
    "parking": TickFlag.HOLDING | TickFlag.PARKING,
    "stopped": TickFlag.STOPPED,
}


class Setpoint:
    """The target of each tick, by the supervisor's state. Of the loop's task alone.

    ``"running"``: the next row of what is followed, to which every joint is brought slowly until it has met
    it. ``"parking"``: the way to the parking pose. Otherwise the target that is held: the last one, or where
    the brakes bring the arm (`brake`).
    """

    def __init__(
        self,
        options: LoopOptions,
        grippers: Sequence[int],
        supervisor: Supervisor,
        following: FollowedSource,
        output: LoopOutput,
    ) -> None:
        joints, rate_hz = following.horizon.joints, options.rate_hz
        parked = posed(len(options.park_rad), joints, grippers)
        others = [joint for joint in range(joints) if joint not in grippers]
        self._supervisor, self._following, self._output = supervisor, following, output
        self._parking = Parking(options.park_rad, options.park_speed_rad_s, rate_hz, parked)
        self._engagement = Engagement(
            options.engage_speed_rad_s, options.follow_blend_s, rate_hz, joints, others
        )
        self._anchor: Floats | None = None
        self._slows = False
        self._fading: Fading | None = None
        self._fade_ticks = round(options.follow_blend_s * rate_hz)

    @property
    def braking(self) -> bool:
        """Whether the arm that is to `brake` has not come to rest yet."""
        return self._slows

    def engage(self) -> None:
        """What is followed is to be met anew, by every joint, from the last target on."""
        self._begin()
        if self._fading is not None:
            self._fading.begin()

    def _begin(self) -> None:
        self._anchor = self._output.target
        self._engagement.begin()

    def stand(self) -> None:
        """Hold the last target, which an arm that was fast goes past and comes back to.

        Where a latched stop brakes the arm, whatever is followed then, that goes on.
        """
        self._anchor = self._output.target
        self._slows = self._slows and bool(self._supervisor.latched)

    def brake(self) -> None:
        """Idle or stopped, hold where the arm comes to rest within the limits of the safety stage."""
        self._slows = True

    def enter(self, before: str) -> None:
        """The supervisor has entered this tick's state, after `before`."""
        state, output = self._supervisor.state, self._output
        if state == "running" != before:
            self.engage()
        elif before in ("running", "parking") and state != before:
            self._anchor = output.target
        if state == "parking" != before and output.target is not None:
            self._parking.begin(output.target, output.speed)

    def next(self, now_ns: int, tick: int, *, fresh: bool) -> tuple[Floats, TickFlag]:
        """``[D]`` this tick's target, and how it came about; `fresh`: the arm's state is."""
        state = self._supervisor.state
        if state == "running":
            return self._followed(now_ns, tick)
        if state == "parking":
            return self._parked(), _FLAGS[state]
        if state in ("idle", "stopped") and self._slows:
            self._slow_down()
        held = self._anchor if self._anchor is not None else self._output.previous
        return held, _FLAGS[state] | (TickFlag.NONE if fresh else TickFlag.STALE_STATE)

    def answered(self, requested: Floats, result: SafetyOutcome) -> None:
        """What the safety stage made of this tick's target."""
        if self._supervisor.state == "running":
            self._engagement.held_back(requested, result.target, result.clips)
        if result.stop_reason is not None and np.isfinite(result.target).all():
            self._anchor = result.target

    def _followed(self, now_ns: int, tick: int) -> tuple[Floats, TickFlag]:
        previous, engagement = self._output.previous, self._engagement
        row, flag = self._following.row(now_ns, tick, previous, engagement)
        if row is None:
            self._begin()
            return previous, flag
        if self._fading is not None:
            row, fades = self._fading.next(row, self._anchor)
            return row, flag | TickFlag.BLENDING if fades else flag
        if not engagement.active:
            return row, flag
        row = engagement.approach(row, previous)
        return row, flag | TickFlag.BLENDING if engagement.active else flag

    def _parked(self) -> Floats:
        previous = self._output.previous
        row = self._parking.next(previous)
        if row is None:
            arrived = self._parking.arrived(previous)
            self._supervisor.parked("parked" if arrived else "could not be parked")
            return previous
        return row

    def _slow_down(self) -> None:
        """What is held moves on with the arm while that is braked."""
        self._anchor = self._output.slowing()
        self._slows = not np.array_equal(self._anchor, self._output.previous)

    def snapshot(self) -> State:
        """What is remembered between ticks, for `restore`; a part of the loop's own."""
        engagement = self._engagement.snapshot()
        return {**remember(self, _STATE), "engagement": engagement, "parking": self._parking.left}

    def restore(self, state: State) -> None:
        """Go on from where another one was at its `snapshot`."""
        recall_known(self, _STATE, state)
        if "engagement" in state:
            self._engagement.restore(state["engagement"])
        else:
            self._fading = Fading(self._fade_ticks, state["_fade_left"])
        self._parking.left = state["parking"]


class Fading:
    """How loops came to what they followed before they engaged: faded in, whatever the distance.

    For the verification of their recordings alone. `left` of `ticks` are to come.
    """

    def __init__(self, ticks: int, left: int) -> None:
        self._ticks, self._left = ticks, left

    def begin(self) -> None:
        """From here on."""
        self._left = self._ticks

    def next(self, row: Floats, origin: Floats | None) -> tuple[Floats, bool]:
        """`row` ``[D]`` faded in from `origin`, and whether it was."""
        if not self._left or origin is None:
            return row, False
        share = (self._ticks - self._left + 1) / (self._ticks + 1)
        self._left -= 1
        return np.asarray(origin + share * (row - origin)), True
