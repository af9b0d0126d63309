"""Goals that could not be written are caught up with in steps: an arm that lags behind must not jump."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from drivers.feetech.calibration import Ticks
from runtime.clock import NS_PER_S

FASTER = 1.15
"""Than targets move at the time: so fast the goal comes up with them."""
SLOWEST_TICKS_PER_S = 300.0
"""Though they stand still: some 0.5 rad/s."""
_SMOOTHED = 1 / 16


class GoalSteps:
    """Between the targets and the servos of one arm.

    The control loop limits how fast its targets move. Where some of them were not written (a servo that did
    not say whether it has torque, a bus that was late, a process that stood still), the next one lies farther
    from the goal that the servo has, and it would run there at its own full speed. The goals of such a joint
    move hardly faster than its targets do. What brings a goal nearer to where the joint is needs no step.
    """

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """It is not known what goals the servos have."""
        self._written: NDArray[np.float64] | None = None
        self._wanted: Ticks | None = None
        self._stamp_ns = 0
        self._period_ns = 0.0

    def towards(self, wanted: Ticks, here: Ticks, stamp_ns: int) -> Ticks:
        """What to write for the target `wanted` ``[D]`` of `stamp_ns`, with the joints at `here` ``[D]``."""
        written, last, since_ns = self._written, self._wanted, stamp_ns - self._stamp_ns
        if written is None or last is None or since_ns <= 0:
            return wanted
        period_ns = min(self._period_ns or since_ns, since_ns)
        pace = np.maximum(np.abs(wanted - last) / since_ns, SLOWEST_TICKS_PER_S / NS_PER_S)
        most = np.ceil(FASTER * pace * period_ns)
        start = np.clip(here, np.minimum(written, wanted), np.maximum(written, wanted))
        stepped = start + np.clip(wanted - start, -most, most)
        return np.rint(np.where(np.isfinite(written), stepped, wanted)).astype(wanted.dtype)

    def wrote(self, wanted: Ticks, goals: Ticks, obeyed: NDArray[np.bool_], stamp_ns: int) -> None:
        """`goals` were written to the joints that `obeyed`, for the target `wanted` of `stamp_ns`."""
        before = np.full(len(goals), np.nan) if self._written is None else self._written
        if self._wanted is not None and stamp_ns > self._stamp_ns:
            since_ns = stamp_ns - self._stamp_ns
            usual_ns = self._period_ns or since_ns
            self._period_ns = usual_ns + _SMOOTHED * (min(since_ns, 2 * usual_ns) - usual_ns)
        self._written = np.where(obeyed, goals, before)
        self._wanted, self._stamp_ns = wanted.copy(), stamp_ns
