"""How the arm comes to what it follows, at the beginning and after anything that held it: slowly.

A source may be anywhere when the loop turns to it again: a person has moved the leader on while a camera
was frozen. Every joint is brought to it at no more than the engaging speed, and follows freely once it has
met it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from runtime.messages import Clip, Floats
from runtime.snapshots import State, recall, remember

_STATE = ("_unmet", "_ticks", "_far", "_stood")
_PATIENCE_S = 4.0
"""How long a prepared motion waits for an arm that comes no nearer: longer than a force is borne."""
HELD_BACK_RAD = 0.1
"""What a check of the safety stage keeps farther than this from what is asked for engages again."""
_MET = 0.02
"""A row this near is not waited for: a planned one may lie beyond the range by that much."""
_MET_STEP = 0.02
"""What comes nearer by less than this share of a step does not come nearer."""
_NOWHERE_NEAR = 1e9
_HOLDING_BACK = Clip.COLLISION | Clip.FORCE | Clip.STALL


class Engagement:
    """Of every joint, whether it still has to meet what is followed.

    Args:
        speed_rad_s: of each joint (of a gripper: travels a second).
        ramp_s: how long it takes to get up to that speed.
        posed: the joints that are no grippers, which may be kept back by what they hold.
    """

    def __init__(
        self, speed_rad_s: float, ramp_s: float, rate_hz: float, joints: int, posed: Sequence[int]
    ) -> None:
        self._step = speed_rad_s / rate_hz
        self._ramp = max(1, round(ramp_s * rate_hz))
        self._posed = np.zeros(joints, dtype=bool)
        self._posed[list(posed)] = True
        self._unmet = np.zeros(joints, dtype=bool)
        self._ticks = 0
        self._far, self._stood = _NOWHERE_NEAR, 0
        self._patience = round(_PATIENCE_S * rate_hz)
        self.active = False

    def begin(self) -> None:
        """Nothing is met from now on."""
        self._unmet, self.active = np.ones(self._unmet.size, dtype=bool), True
        self._ticks, self._far, self._stood = 0, _NOWHERE_NEAR, 0

    def held_back(self, requested: Floats, target: Floats, clips: Clip) -> None:
        """What was asked for and what the safety stage made of it: joints that it keeps back engage anew."""
        if not clips & _HOLDING_BACK:
            return
        back = self._posed & (np.abs(requested - target) > HELD_BACK_RAD)
        if back.any():
            self._unmet, self._ticks = self._unmet | back, 0
            if not self.active:
                self.active, self._far, self._stood = True, _NOWHERE_NEAR, 0

    def approach(self, row: Floats, target: Floats) -> Floats:
        """What to ask for on the way from the last `target` to `row`, both ``[D]``."""
        self._ticks += 1
        step = self._step * min(1.0, self._ticks / self._ramp)
        away = row - target
        far = np.abs(away)
        self._unmet = self._unmet & (far > step)
        if not self._unmet.any():
            self.active = False
            return row
        return np.where(self._unmet, target + np.sign(away) * step, row)

    def waits(self, row: Floats, target: Floats, *, finite: bool) -> bool:
        """Whether the `row` taken last is still to be met before the next one is taken; asked once a tick.

        A policy, which sees where the arm is, waits only while the arm comes nearer; a prepared motion for a
        while longer.
        """
        away = np.abs(row - target)
        self._unmet = self._unmet & (away > _MET)
        self.active = bool(self._unmet.any())
        far = float(away[self._unmet].max(initial=0.0))
        nearer, self._far = far < self._far - _MET_STEP * self._step, far
        self._stood = 0 if nearer else self._stood + 1
        return self.active and (nearer or (finite and self._stood <= self._patience))

    def snapshot(self) -> State:
        """What is remembered between ticks, for `restore`."""
        return remember(self, _STATE)

    def restore(self, state: State) -> None:
        """Go on from where another one was at its `snapshot`."""
        recall(self, _STATE, state)
        self.active = bool(self._unmet.any())
