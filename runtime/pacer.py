"""Absolute deadlines for a periodic task, and three figures kept apart.

*Work overrun*: the work of a tick lasted beyond the next deadline. *Wake-up error*: the pacer came back
late from its sleep. *Starvation*: there was no action to execute (counted by the control loop).
"""

from __future__ import annotations

from collections.abc import Callable

from runtime.beat import Beat
from runtime.clock import NS_PER_S, Clock
from runtime.latest import Latest
from runtime.statistics import RunStatistics

_EARLIER_NS = 2 * NS_PER_S // 1000
"""How long before the spin the rehearsal begins: what it takes with cold caches under a busy GIL."""
_SHORT = 10
"""The spin is at most this part of a period: drivers read just before a tick, and need the GIL, too."""
_WARM_NS = 8 * NS_PER_S // 1000
"""A period this short leaves the caches as they were."""


class Pacer:
    """Tick ``n`` is due at ``origin + n / rate``, for ever: nothing that happens moves the deadlines.

    A deadline that passed while the work of an earlier tick ran is skipped and counted; so is one that
    would follow a late start by less than half a period, so that two ticks never run back to back.

    Args:
        told: where it is said when the ticks are due, once that is known.

    Attributes:
        tick: number of the present tick (deadlines since the start, skipped ones included).
        started_ns: when the present tick started.
        rehearse: called once before the spin. Code and data that lay still for a period have left the
            processor's caches; going over them brings them back. It must not change anything.
    """

    def __init__(
        self, clock: Clock, rate_hz: float, statistics: RunStatistics, told: Latest[Beat] | None = None
    ) -> None:
        self._clock = clock
        self._statistics = statistics
        self._rate_hz, self._told = rate_hz, told
        self._beat = Beat.of(0, rate_hz)
        self._started = False
        self.period_ns = self._beat.period_ns
        self.tick = -1
        self.started_ns = 0
        self.rehearse: Callable[[], None] | None = None
        self._rehearsal_ns = 0
        self._spin_ns = min(clock.spin_ns, self.period_ns // _SHORT)
        self._working = False

    def deadline_ns(self, tick: int) -> int:
        """When `tick` is due; exact for any number of ticks."""
        return self._beat.at_ns(tick)

    def start(self, origin_ns: int | None = None) -> None:
        """Fix the deadline of tick 0: `origin_ns`, or one period from now."""
        origin_ns = self._clock.now_ns() + self.period_ns if origin_ns is None else origin_ns
        self._beat, self._started = Beat.of(origin_ns, self._rate_hz, self._spin_ns), True
        if self._told is not None:
            self._told.post(self._beat)
        self.tick = -1

    def finished(self) -> None:
        """The work of the present tick is done. `next` calls this if nobody did."""
        if self._working:
            self._working = False
            self._statistics.work.record(self._clock.now_ns() - self.started_ns)

    async def next(self) -> int:
        """Sleep, then spin, until the next deadline; returns its tick."""
        if not self._started:
            self.start()
        self.finished()
        tick = self._choose()
        deadline_ns = self.deadline_ns(tick)
        await self._approach(deadline_ns)
        start_ns = self._clock.spin_until_ns(deadline_ns)
        error_ns = None
        if tick == self.tick + 1 and tick > 0:
            error_ns = start_ns - self.started_ns - (deadline_ns - self.deadline_ns(tick - 1))
        self._statistics.woke(deadline_ns, start_ns, error_ns)
        self.tick, self.started_ns, self._working = tick, start_ns, True
        return tick

    async def _approach(self, deadline_ns: int) -> None:
        """Sleep until it is time to spin. Where sleeping is exact, nothing is late because it is slow."""
        clock, spin_ns = self._clock, self._spin_ns
        early_ns = deadline_ns - spin_ns - _EARLIER_NS
        rehearses = spin_ns > 0 and self.rehearse is not None and self.period_ns > _WARM_NS
        if rehearses and early_ns > clock.now_ns():
            await clock.sleep_until_ns(early_ns)
            self._rehearse_before(deadline_ns - spin_ns)
        await clock.sleep_until_ns(deadline_ns - spin_ns)

    def _rehearse_before(self, spin_ns: int) -> None:
        """Rehearse, unless that would last into the spin: worse than none. What it takes differs by half.

        What is counted on is the longest that one took, forgotten little by little.
        """
        began_ns, lasting_ns = self._clock.now_ns(), self._rehearsal_ns * 7 // 8
        if self.rehearse is None or began_ns + 2 * self._rehearsal_ns >= spin_ns:
            self._rehearsal_ns = lasting_ns
            return
        self.rehearse()
        self._rehearsal_ns = max(self._clock.now_ns() - began_ns, lasting_ns)

    def _choose(self) -> int:
        """The next tick that can still be on time; the ones before it are counted by cause."""
        tick, now_ns = self.tick + 1, self._clock.now_ns()
        while self.tick >= 0 and self.deadline_ns(tick) < self.started_ns + self.period_ns // 2:
            self._statistics.missed_wakeup += 1
            tick += 1
        while self.deadline_ns(tick) < now_ns:
            self._statistics.missed_overrun += 1
            tick += 1
        return tick
