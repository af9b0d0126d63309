"""The real clock: nothing here depends on how fast the machine is."""

from __future__ import annotations

import asyncio
import gc
import signal
import subprocess
import sys
import threading
import time
import weakref

import anyio
import pytest

from runtime.clock import RealClock

MS = 1_000_000


def test_now_is_the_monotonic_clock_of_all_processes() -> None:
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
    now = RealClock().now_ns()
    assert before <= now <= time.clock_gettime_ns(time.CLOCK_MONOTONIC)


def test_sleeps_end_in_the_order_of_their_deadlines_and_not_early() -> None:
    clock, log = RealClock(), []

    async def sleeper(name: str, deadline: int) -> None:
        await clock.sleep_until_ns(deadline)
        log.append((name, clock.now_ns() >= deadline))

    async def main() -> None:
        start = clock.now_ns() + 300 * MS  # all four sleep by then, however busy the machine is
        async with anyio.create_task_group() as tasks:
            for name, ms in (("c", 9), ("a", 3), ("b", 6), ("past", -500)):
                tasks.start_soon(sleeper, name, start + ms * MS)

    clock.run(main)
    assert log == [(name, True) for name in ("past", "a", "b", "c")]


def test_a_cancelled_sleep_does_not_wake_or_hold_the_others() -> None:
    clock, log = RealClock(), []

    async def main() -> None:
        start = clock.now_ns()
        first = asyncio.create_task(clock.sleep_until_ns(start + 2 * MS))
        second = asyncio.create_task(clock.sleep_until_ns(start + 4 * MS))
        await asyncio.sleep(0)
        first.cancel()
        await second
        log.append(clock.now_ns() >= start + 4 * MS)
        await clock.sleep_until_ns(clock.now_ns() + MS)  # the timer still works

    clock.run(main)
    assert log == [True]


def test_sleeps_in_a_loop_of_somebody_else() -> None:
    clock = RealClock()

    async def main() -> int:
        deadline = clock.now_ns() + 2 * MS
        await clock.sleep_until_ns(deadline)
        return clock.now_ns() - deadline

    assert asyncio.run(main()) > -MS  # asyncio's own timers may be early by its resolution


def test_two_loops_at_once() -> None:
    clock, done = RealClock(), []

    async def main() -> None:
        for _ in range(3):
            await clock.sleep_until_ns(clock.now_ns() + MS)
        done.append(threading.get_ident())

    other = threading.Thread(target=clock.run, args=(main,))
    other.start()
    clock.run(main)
    other.join()
    assert len(set(done)) == 2


def test_run_returns_and_raises() -> None:
    clock = RealClock()

    async def main(value: int) -> int:
        await anyio.lowlevel.checkpoint()
        if value < 0:
            raise KeyError(value)
        return value + 1

    assert clock.run(main, 4) == 5
    with pytest.raises(KeyError):
        clock.run(main, -1)


def test_signals_wake_once() -> None:
    signal = RealClock().signal()
    signal.set()
    assert signal.wait() is True
    assert signal.wait(0) is False
    assert signal.wait(-5) is False


def test_threads_are_joined_on_the_loop() -> None:
    clock = RealClock()

    async def main() -> None:
        release = threading.Event()
        thread = clock.spawn("t", release.wait)
        assert thread.is_alive()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(thread.join)
            tasks.start_soon(thread.join)
            await anyio.lowlevel.checkpoint()
            release.set()
        assert not thread.is_alive()
        await thread.join()

    clock.run(main)


def test_waiting_to_join_can_be_given_up() -> None:
    clock, release = RealClock(), threading.Event()

    async def main() -> None:
        thread = clock.spawn("t", release.wait)
        with anyio.move_on_after(0.001) as scope:
            await thread.join()
        assert scope.cancelled_caught
        release.set()
        await thread.join()

    clock.run(main)


def test_a_wire_reads_whatever_the_device_has() -> None:
    wire = RealClock().wire("force", stream=True)
    assert wire.receive(lambda units, timeout_s: (units, timeout_s), 250 * MS) == (1, 0.25)
    wire.reset()


def test_waits_and_spins_end_at_their_deadline() -> None:
    clock = RealClock()
    for wait in (clock.wait_until_ns, clock.spin_until_ns):
        deadline = clock.now_ns() + MS
        wait(deadline)
        assert clock.now_ns() >= deadline
        wait(deadline - 5 * MS)


def test_the_whole_spin_keeps_the_gil_and_says_when_it_ended() -> None:
    """Whatever is due between two bytecodes (another thread, here a signal's handler) comes after it."""
    clock, handled = RealClock(spin_ns=100 * MS), []
    before = signal.signal(signal.SIGALRM, lambda *_: handled.append(clock.now_ns()))

    def comes_after() -> bool:
        handled.clear()
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        deadline = clock.now_ns() + 100 * MS
        ended = clock.spin_until_ns(deadline)
        return bool(handled) and deadline <= ended <= handled[0]

    try:
        # On a busy machine the signal may come before the spin has begun.
        assert any(comes_after() for _ in range(20))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_the_loop_starts_no_thread_for_blocking_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """A new thread comes up when the system lets it, and starting it waits for that."""
    clock, started_by = RealClock(), []
    start = threading.Thread.start

    def noted(thread: threading.Thread) -> None:
        if thread.name == "blocking":
            started_by.append(threading.get_ident())
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", noted)
    assert clock.run(clock.run_blocking, lambda: 3) == 3
    assert len(started_by) == 1
    assert threading.get_ident() not in started_by


def test_blocking_work_without_a_thread_for_it_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = RealClock()

    def start(thread: threading.Thread) -> None:
        if thread.name == "blocking":
            raise RuntimeError("can't start new thread")
        real(thread)

    real = threading.Thread.start
    monkeypatch.setattr(threading.Thread, "start", start)
    with pytest.raises(RuntimeError, match="no thread could be started"):
        clock.run(clock.run_blocking, lambda: 3)


def test_blocking_work_runs_elsewhere() -> None:
    clock = RealClock()

    async def main() -> bool:
        with clock.hold():
            return await clock.run_blocking(threading.get_ident) != threading.get_ident()

    assert clock.run(main)


def test_blocking_work_raises_what_it_raises_and_leaves_no_thread() -> None:
    clock, errors = RealClock(), (KeyError("k"), SystemExit(3))

    def fail(error: BaseException) -> None:
        raise error

    async def main() -> None:
        before = threading.active_count()
        for error in errors:
            with pytest.raises(type(error)) as caught:
                await clock.run_blocking(lambda error=error: fail(error))
            assert caught.value is error
        assert threading.active_count() == before

    clock.run(main)


class LoudError(Exception):
    pass


def test_an_error_of_blocking_work_is_freed_without_a_collection() -> None:
    clock = RealClock()

    def fail() -> None:
        raise LoudError

    async def main() -> weakref.ref[LoudError] | None:
        try:
            await clock.run_blocking(fail)
        except LoudError as error:
            return weakref.ref(error)
        return None

    gc.disable()
    try:
        freed = clock.run(main)
    finally:
        gc.enable()
    assert freed is not None
    assert freed() is None


def test_blocking_work_can_be_given_up_and_is_not_begun_once_cancelled() -> None:
    clock, begun, release = RealClock(), threading.Event(), threading.Event()
    log: list[str] = []

    def work() -> None:
        begun.set()
        release.wait()
        log.append("done")

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(clock.run_blocking, work)
            await clock.run_blocking(begun.wait)
            tasks.cancel_scope.cancel()
        with anyio.CancelScope() as scope:
            scope.cancel()
            await clock.run_blocking(lambda: log.append("begun"))

    clock.run(main)
    (left,) = [thread for thread in threading.enumerate() if thread.name == "blocking"]
    assert log == []
    release.set()
    left.join()
    assert log == ["done"]


GIVEN_UP = """
import threading, anyio
from runtime.clock import RealClock
clock, begun = RealClock(), threading.Event()

def for_ever():
    begun.set()
    threading.Event().wait()

async def main():
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(clock.run_blocking, for_ever)
        await clock.run_blocking(begun.wait)
        tasks.cancel_scope.cancel()

clock.run(main)
"""


def test_the_process_does_not_wait_for_work_that_was_given_up() -> None:
    assert subprocess.run([sys.executable, "-c", GIVEN_UP], timeout=60).returncode == 0
