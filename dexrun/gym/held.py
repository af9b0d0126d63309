"""A target that somebody sets from step to step, as a source for the control loop."""

from __future__ import annotations

import numpy as np

from runtime.inputs import LeaderSource
from runtime.messages import Floats
from runtime.ring import Ring, Sample


class HeldTarget(LeaderSource):
    """Goes from one target ``[D]`` to the next in a straight line, `ticks` ticks of the control loop long."""

    def __init__(self, target: Floats, ticks: int) -> None:
        super().__init__(Ring({"position": ((len(target),), "<f8")}, 2))
        self._ticks = ticks
        self.begin(target)

    def begin(self, target: Floats) -> None:
        """It is, and stays, at `target`."""
        self._from = self._to = np.array(target, dtype=np.float64)
        self._done = self._ticks

    def aim(self, target: Floats) -> None:
        """Be at `target` after so many ticks; what is no number keeps what was there."""
        here = self._here()
        self._from, self._to, self._done = here, np.where(np.isfinite(target), target, here), 0

    @property
    def sample(self) -> Sample | None:
        """Nobody's leader arm."""
        return None

    def missing(self, now_ns: int) -> str | None:
        """Nothing ever is."""
        del now_ns
        return None

    def target(self, now_ns: int) -> Floats | None:
        """The next point."""
        del now_ns
        self._done = min(self._ticks, self._done + 1)
        return self._here()

    def _here(self) -> Floats:
        return np.asarray(self._from + (self._to - self._from) * (self._done / self._ticks))
