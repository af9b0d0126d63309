"""The other ways to pace a loop, and what is said of each: period errors, drift, and the machine's share."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import numpy as np

from bench.witness import LATE_NS
from runtime.statistics import Histogram


def sleep_per_tick(count: int, period_s: float) -> list[int]:
    """As LeRobot does without its busy wait: sleep for what is left of the period."""
    starts = []
    for _ in range(count):
        start = time.monotonic_ns()
        starts.append(start)
        time.sleep(max(0.0, period_s - (time.monotonic_ns() - start) / 1e9))
    return starts


def bare_spin(count: int, period_s: float) -> list[int]:
    """Absolute deadlines, all of the time burnt: the best there is, and nothing else can run."""
    starts, due = [], time.monotonic_ns()
    for _ in range(count):
        due += round(period_s * 1e9)
        while time.monotonic_ns() < due:
            pass
        starts.append(time.monotonic_ns())
    return starts


async def asyncio_sleep(count: int, period_s: float) -> list[int]:
    """``asyncio.sleep`` for what is left of the period, on the same uvloop."""
    starts = []
    for _ in range(count):
        start = time.monotonic_ns()
        starts.append(start)
        await asyncio.sleep(max(0.0, period_s - (time.monotonic_ns() - start) / 1e9))
    return starts


class Machine:
    """How late the machine was at the loop's ticks, `period_s` apart, and what the loop did at the others."""

    def __init__(self, period_s: float) -> None:
        self.period_s = period_s
        self.late, self.errors = Histogram(), Histogram()
        self.away = self.missed = self.missed_away = 0
        self.stolen_s = 0.0

    def add(self, starts: dict[int, int], late: dict[int, int]) -> None:
        away = {tick for tick, by_ns in late.items() if by_ns > LATE_NS}
        self.away += len(away)
        for by_ns in late.values():
            self.late.record(by_ns)
        for tick in range(min(starts) + 1, max(starts) + 1):
            touched = not away.isdisjoint((tick - 1, tick))
            if tick not in starts:
                self.missed += 1
                self.missed_away += touched
            elif tick - 1 in starts and not touched:
                self.errors.record(round(abs(starts[tick] - starts[tick - 1] - self.period_s * 1e9)))

    def report(self) -> dict[str, Any]:
        return {
            "late_ms": self.late.summary(1e-6, 4),
            "ticks_away": self.away,
            "stolen_s": round(self.stolen_s, 2),
            "period_error_ms_at_other_ticks": self.errors.summary(1e-6, 4),
            "missed_ticks_at_other_ticks": self.missed - self.missed_away,
        }


class Pace:
    """Period errors and drift of one way of pacing, over several stretches of ticks `period_s` apart."""

    def __init__(self, period_s: float) -> None:
        self.period_s = period_s
        self.errors = Histogram()
        self.ticks = 0
        self.drift_ms_per_min: list[float] = []

    def add(self, starts: dict[int, int]) -> None:
        ticks, times = np.array(list(starts)), np.array(list(starts.values()))
        # Only neighbours: a tick that was missed is counted as such.
        gaps = np.diff(times)[np.diff(ticks) == 1]
        for error in np.abs(gaps - self.period_s * 1e9).round().astype(int).tolist():
            self.errors.record(error)
        self.ticks += len(starts)
        # The slope of a line through all starts: one late tick, first or last, is no drift.
        slope_ns = float(np.polyfit(ticks, times - times[0] - ticks * self.period_s * 1e9, 1)[0])
        self.drift_ms_per_min.append(slope_ns * 60 / self.period_s / 1e6)

    def report(self) -> dict[str, Any]:
        worst = max(self.drift_ms_per_min, key=abs)
        error = self.errors.summary(1e-6, 4)
        return {"ticks": self.ticks, "period_error_ms": error, "drift_ms_per_min": round(worst, 3)}
