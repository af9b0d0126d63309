"""Deadlines on a clock whose sleeps and work can be made late, to the nanosecond."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.beat import Beat
from runtime.clock import NS_PER_S, RealClock
from runtime.latest import Latest
from runtime.pacer import Pacer
from runtime.statistics import RunStatistics
from runtime.stepped import SteppedClock

MS = 1_000_000


class Late(SteppedClock):
    """Comes back late from the sleeps named in `late`: how late by number of the sleep."""

    def __init__(self, late: dict[int, int] | None = None, start_ns: int = 0) -> None:
        super().__init__(start_ns)
        self.late = late or {}
        self.sleeps: list[int] = []

    async def sleep_until_ns(self, deadline_ns: int) -> None:
        self.sleeps.append(deadline_ns)
        await super().sleep_until_ns(deadline_ns + self.late.get(len(self.sleeps) - 1, 0))


def run(
    clock: Late, ticks: int, work: dict[int, int] | None = None, rate_hz: float = 100
) -> tuple[list[tuple[int, int]], RunStatistics]:
    """Ticks with their starts in ms, and the statistics. `work` gives the work of a tick in ns."""
    statistics, seen = RunStatistics(), []
    pacer = Pacer(clock, rate_hz, statistics)

    async def main() -> None:
        pacer.start(0)
        for _ in range(ticks):
            tick = await pacer.next()
            seen.append((tick, clock.now_ns()))
            await SteppedClock.sleep_until_ns(clock, clock.now_ns() + (work or {}).get(tick, 0))
            pacer.finished()

    clock.run(main)
    return seen, statistics


def test_on_time() -> None:
    seen, statistics = run(Late(), 5)
    assert seen == [(n, n * 10 * MS) for n in range(5)]
    assert (statistics.ticks, statistics.missed) == (5, 0)
    assert statistics.period_error.max == statistics.wakeup_error.max == 0


def test_a_late_wake_up_moves_no_later_deadline() -> None:
    seen, statistics = run(Late({2: 3 * MS}), 5)
    assert seen == [(0, 0), (1, 10 * MS), (2, 23 * MS), (3, 30 * MS), (4, 40 * MS)]
    assert statistics.missed == 0
    assert statistics.wakeup_error.max == 3 * MS
    assert statistics.period_error.max == 3 * MS


def test_a_very_late_wake_up_skips_the_deadlines_it_slept_through() -> None:
    seen, statistics = run(Late({2: 27 * MS}), 5)
    # woken at 47 instead of 20: 30 and 40 have passed, and 50 would follow by less than half a period
    assert [t for t, _ in seen] == [0, 1, 2, 6, 7]
    assert seen[3] == (6, 60 * MS)
    assert (statistics.missed_wakeup, statistics.missed_overrun) == (3, 0)


def test_an_overrun_skips_and_is_told_from_a_late_wake_up() -> None:
    seen, statistics = run(Late(), 4, {1: 25 * MS})
    assert seen == [(0, 0), (1, 10 * MS), (4, 40 * MS), (5, 50 * MS)]
    assert (statistics.missed_overrun, statistics.missed_wakeup) == (2, 0)
    assert statistics.work.max == 25 * MS
    assert statistics.wakeup_error.max == 0
    assert statistics.period_error.count == 2  # 0 to 1 and 4 to 5: the others are no neighbours


def test_work_up_to_the_next_deadline_is_no_overrun() -> None:
    seen, statistics = run(Late(), 3, {0: 10 * MS})
    assert [t for t, _ in seen] == [0, 1, 2]
    assert statistics.missed == 0


@given(
    late=st.dictionaries(st.integers(0, 20), st.integers(0, 60 * MS)),
    work=st.dictionaries(st.integers(0, 20), st.integers(0, 60 * MS)),
)
@settings(deadline=None, max_examples=50)
def test_never_early_never_back_to_back_all_accounted_for(late: dict[int, int], work: dict[int, int]) -> None:
    seen, statistics = run(Late(late), 15, work)
    for (tick, start), (following, next_start) in itertools.pairwise(seen):
        assert following > tick
        assert next_start - start >= 5 * MS
    assert all(start >= tick * 10 * MS for tick, start in seen)
    assert statistics.ticks + statistics.missed == seen[-1][0] + 1


@given(rate=st.sampled_from([1.0, 30.0, 29.97, 60.0, 100.0, 1000 / 3]), tick=st.integers(0, 10**12))
def test_deadlines_do_not_drift_ever(rate: float, tick: int) -> None:
    pacer = Pacer(SteppedClock(), rate, RunStatistics())
    exact = tick * NS_PER_S / Fraction(rate).limit_denominator(1_000_000)
    assert 0 <= exact - pacer.deadline_ns(tick) < 1


def test_the_first_tick_is_one_period_after_the_start() -> None:
    clock = SteppedClock(7 * MS)
    pacer = Pacer(clock, 50, RunStatistics())

    async def main() -> None:
        assert await pacer.next() == 0
        assert clock.now_ns() == 27 * MS
        assert await pacer.next() == 1

    clock.run(main)


def test_sleeps_end_before_the_deadline_and_the_rest_is_spun() -> None:
    class Spinning(Late):
        spin_ns = MS  # type: ignore[assignment]
        spun: list[int] = []  # noqa: RUF012 - one test

        def spin_until_ns(self, deadline_ns: int) -> int:
            self.spun.append(deadline_ns - self.now_ns())
            self._now_ns = deadline_ns
            return deadline_ns

    # At most a tenth of a period, which others need, too.
    for rate_hz, spin_ns in ((25, MS), (100, MS), (200, MS // 2), (500, MS // 5)):
        clock, period_ns = Spinning(), NS_PER_S // rate_hz
        clock.spun = []
        seen, _ = run(clock, 3, rate_hz=rate_hz)
        assert seen == [(n, n * period_ns) for n in range(3)]
        assert clock.sleeps == [n * period_ns - spin_ns for n in range(3)]
        assert clock.spun == [0, spin_ns, spin_ns]


class Spinning(Late):
    """Notes when it was rehearsed on it."""

    spin_ns = MS  # type: ignore[assignment]

    def __init__(self) -> None:
        super().__init__()
        self.rehearsed: list[int] = []

    def spin_until_ns(self, deadline_ns: int) -> int:
        self._now_ns = max(deadline_ns, self._now_ns)
        return self._now_ns

    def work(self, *lasting_ns: int) -> Callable[[], None]:
        """What is rehearsed; it lasts so long, time after time."""
        each = itertools.cycle(lasting_ns)

        def rehearse() -> None:
            self.rehearsed.append(self.now_ns())
            self._now_ns += next(each)

        return rehearse


def rehearsed(
    *lasting_ns: int, ticks: int, late: Mapping[int, int] | None = None, rate_hz: float = 100
) -> list[int]:
    """When it was rehearsed before `ticks` ticks, at 100 Hz 10 ms apart, all of which have to be on time."""
    clock = Spinning()
    if late:
        clock.late = dict(late)
    pacer = Pacer(clock, rate_hz, RunStatistics())
    pacer.rehearse = clock.work(*lasting_ns)

    async def main() -> None:
        pacer.start(10 * MS)
        for _ in range(ticks):
            await pacer.next()
            assert clock.now_ns() == pacer.deadline_ns(pacer.tick)

    clock.run(main)
    return clock.rehearsed


def test_it_rehearses_once_before_the_spin() -> None:
    assert rehearsed(300_000, ticks=2) == [7 * MS, 17 * MS]


def test_a_rehearsal_that_could_last_into_the_spin_is_not_begun() -> None:
    assert rehearsed(1_100_000, ticks=3) == [7 * MS, 27 * MS]


def test_nor_is_one_for_which_the_loop_came_back_too_late() -> None:
    assert rehearsed(300_000, ticks=2, late={2: 2_600_000}) == [7 * MS]


def test_after_a_short_period_nothing_has_left_the_caches() -> None:
    assert rehearsed(100_000, ticks=3, rate_hz=200) == []


def test_how_long_a_rehearsal_once_took_is_forgotten() -> None:
    """Else one that was held up would have been the last."""
    times = rehearsed(1_900_000, *[100_000] * 1000, ticks=20)
    assert times[:2] == [7 * MS, 67 * MS]  # until then it might take nearly as long again
    assert len(times) == 15


def test_where_nothing_spins_nothing_is_rehearsed() -> None:
    clock = Late()
    pacer = Pacer(clock, 100, RunStatistics())
    pacer.rehearse = lambda: pytest.fail("rehearsed")

    async def main() -> None:
        assert [await pacer.next() for _ in range(3)] == [0, 1, 2]

    clock.run(main)


@pytest.mark.parametrize("spin_ns", [0, MS])
def test_on_the_real_clock_no_tick_is_early(spin_ns: int) -> None:
    clock, starts = RealClock(spin_ns), []
    pacer = Pacer(clock, 200, RunStatistics())

    async def main() -> None:
        for _ in range(5):
            tick = await pacer.next()
            starts.append((clock.now_ns(), pacer.deadline_ns(tick)))

    clock.run(main)
    assert all(start >= deadline for start, deadline in starts)


@given(
    st.sampled_from([0.3, 7.5, 29.97, 30.0, 60.0, 100.0, 999.0]),
    st.integers(-(10**12), 10**15),
    st.integers(-(10**12), 10**15),
    st.integers(1, 8),
)
def test_a_beat_says_what_is_due_next(rate_hz: float, origin_ns: int, now_ns: int, parts: int) -> None:
    beat = Beat.of(origin_ns, rate_hz)
    place = beat.after(now_ns, parts)
    assert beat.at_ns(place - 1, parts) <= now_ns < beat.at_ns(place, parts)
    assert beat.at_ns(place * parts, parts) == beat.at_ns(place)


def test_whoever_wants_to_be_ready_before_a_tick_is_told_when_they_are() -> None:
    clock, box = Late(start_ns=5 * MS), Latest[Beat]()
    pacer = Pacer(clock, 30, RunStatistics(), box)
    assert box.newest() is None

    async def main() -> list[int]:
        return [clock.now_ns() for _ in range(3) if await pacer.next() >= 0]

    starts = clock.run(main)
    beat = box.newest()
    assert beat is not None
    assert starts == [beat.at_ns(tick) for tick in range(3)]


@pytest.mark.parametrize(("rate_hz", "quiet_ns"), [(30, MS), (100, MS), (200, MS // 2)])
def test_and_for_how_long_the_loop_keeps_the_lock_before_one(rate_hz: float, quiet_ns: int) -> None:
    clock, box = Spinning(), Latest[Beat]()
    pacer = Pacer(clock, rate_hz, RunStatistics(), box)
    pacer.start(10 * MS)
    beat = box.newest()
    assert beat is not None
    assert beat.quiet_ns == quiet_ns
