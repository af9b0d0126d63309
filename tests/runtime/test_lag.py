"""The loop-lag monitor: what is late, by how much, and whose fault it is."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Iterator

import anyio
import pytest

from runtime.clock import RealClock
from runtime.lag import Lag, LagMonitor, LagOptions
from runtime.stepped import SteppedClock

MS = 1_000_000


def hog_the_loop(monitor: LagMonitor) -> None:
    while monitor._seen is None or not monitor._seen.stack:
        pass


def named(monitor: LagMonitor) -> Iterator[Lag]:
    return (lag for lag in monitor.lags if lag.stack and "in hog_the_loop" in lag.stack[-1])


@pytest.mark.parametrize("as_task", [True, False])
def test_the_culprit_is_named(as_task: bool) -> None:
    clock = RealClock()
    monitor = LagMonitor(clock, options=LagOptions(beat_s=0.005, threshold_s=0.02))

    async def culprit() -> None:
        hog_the_loop(monitor)

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(monitor.run)
            while not any(named(monitor)):  # on a busy machine, something else may be late first
                if as_task:
                    await asyncio.create_task(culprit(), name="the culprit")
                else:
                    asyncio.get_running_loop().call_soon(hog_the_loop, monitor)
                await clock.sleep_until_ns(clock.now_ns() + MS)
            tasks.cancel_scope.cancel()

    clock.run(main)
    lag = next(named(monitor))
    assert lag.late_ns > 20 * MS
    assert lag.task == ("task the culprit" if as_task else "a callback")
    assert "test_lag.py" in str(lag)
    assert monitor.histogram.max >= lag.late_ns
    assert monitor.count >= 1


def test_the_end_waits_for_the_watcher_also_when_cancelled() -> None:
    clock, log, release = RealClock(), list[str](), threading.Event()
    monitor = LagMonitor(clock)
    monitor._watch = release.wait

    async def watched() -> None:
        try:
            await monitor.run()
        finally:
            log.append("over")

    async def release_late() -> None:
        with anyio.CancelScope(shield=True):
            for _ in range(20):
                await anyio.lowlevel.checkpoint()
            log.append("watcher released")
            release.set()

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(watched)
            tasks.start_soon(release_late)
            await anyio.lowlevel.checkpoint()
            tasks.cancel_scope.cancel()

    clock.run(main)
    assert log == ["watcher released", "over"]


def test_on_a_stepped_clock_nothing_is_ever_late() -> None:
    clock = SteppedClock()
    monitor = LagMonitor(clock, options=LagOptions(beat_s=0.02))

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(monitor.run)
            await clock.sleep_until_ns(1010 * MS)
            tasks.cancel_scope.cancel()

    clock.run(main)
    assert (monitor.histogram.count, monitor.histogram.max, monitor.count) == (50, 0, 0)


def test_beats_after_a_late_one_are_not_doubled() -> None:
    clock = SteppedClock()
    monitor = LagMonitor(clock, options=LagOptions(beat_s=0.01, threshold_s=0.005))
    seen = []

    async def main() -> None:
        monitor._due_ns = 10 * MS
        for now in (10, 20, 57, 67):
            monitor._beat(now * MS)
            seen.append(monitor._due_ns // MS)
        await anyio.lowlevel.checkpoint()

    clock.run(main)
    assert seen == [20, 30, 67, 77]
    (lag,) = monitor.lags
    assert (lag.late_ns, lag.task) == (27 * MS, "unknown")


def test_a_thread_that_hogs_the_gil_is_named() -> None:
    clock, before, stopping = RealClock(), sys.getswitchinterval(), False
    monitor = LagMonitor(clock, options=LagOptions(beat_s=0.002, threshold_s=0.001))

    def hog_the_gil() -> None:
        while not stopping:
            pass

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(monitor.run)
            while not any("hog_the_gil" in each for lag in monitor.lags for each in lag.running):
                await clock.sleep_until_ns(clock.now_ns() + MS)
            tasks.cancel_scope.cancel()

    hog = threading.Thread(target=hog_the_gil, name="the hog")
    sys.setswitchinterval(0.02)
    hog.start()
    try:
        clock.run(main)
    finally:
        stopping = True
        hog.join()
        sys.setswitchinterval(before)
    blamed = [lag for lag in monitor.lags if lag.running]
    assert "the hog at" in str(blamed[-1])
