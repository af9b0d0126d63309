"""When a sample was taken, told from when it arrived."""

from __future__ import annotations

DRIFT_GAIN = 0.02
"""How fast the estimate follows the sensor's clock: a fiftieth of the difference per sample."""


WINDOW = 16
"""Samples that have to lag before it is taken for lost samples; longer than any burst."""


class Dejitter:
    """Sample times on an even grid, although samples arrive in bursts.

    A sample cannot have been taken after it arrived, and delays (USB frames, scheduling) only ever add. So
    the grid runs at the nominal period, is pulled back at once where it would be ahead of an arrival, and
    follows slowly where arrivals lag. Once `WINDOW` samples in a row have lagged by half a period or more,
    some were lost unnoticed, and the grid moves on by the least of those lags. A lag of more than
    `reset_periods` starts a new grid. Stamps strictly increase. What is constant in the delay stays in them.

    Args:
        period_ns: between samples, nominally.
        reset_periods: see above.
    """

    def __init__(self, period_ns: int, reset_periods: float = 20.0) -> None:
        self._period_ns = period_ns
        self._reset_ns = round(period_ns * reset_periods)
        self._last_ns: int | None = None
        self._lagging = 0
        self._least_ns = 0

    def stamps(self, arrival_ns: int, count: int, lost: int = 0) -> list[int]:
        """Times of `count` samples that arrived together, of which `lost` are known to be missing before."""
        out = []
        for i in range(count):
            latest = arrival_ns - (count - 1 - i) * self._period_ns
            out.append(self._next(latest, lost if i == 0 else 0))
        return out

    def _next(self, latest_ns: int, lost: int) -> int:
        last = self._last_ns
        if last is None:
            self._last_ns = latest_ns
            return latest_ns
        expected = last + (1 + lost) * self._period_ns
        lag = latest_ns - expected
        if lag <= 0 or lag > self._reset_ns:
            self._lagging = 0
            stamp = latest_ns
        else:
            stamp = expected + self._follow(lag)
        self._last_ns = max(stamp, last + 1)
        return self._last_ns

    def _follow(self, lag: int) -> int:
        """How far the grid moves when an arrival lags by `lag`."""
        if lag < self._period_ns / 2:
            self._lagging = 0
            return round(lag * DRIFT_GAIN)
        self._least_ns = min(lag, self._least_ns) if self._lagging else lag
        self._lagging += 1
        if self._lagging < WINDOW:
            return 0
        self._lagging = 0
        return self._least_ns
