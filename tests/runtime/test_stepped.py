"""The stepped clock: order, credits, waits, ends and mistakes."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from queue import SimpleQueue
from typing import Any

import anyio
import anyio.to_thread
import pytest

from runtime import stepped
from runtime.stepped import SteppedClock, SteppedClockError

MS = 1_000_000


class Script:
    """A simulation that sends what it was told, when it was told, and notes how it was moved."""

    def __init__(self, events: list[tuple[int, Mapping[str, int]]], log: list[Any] | None = None) -> None:
        self.events = list(events)
        self.moves: list[int] = []
        self._log = log

    def next_event_ns(self) -> int | None:
        return self.events[0][0] if self.events else None

    def advance(self, to_ns: int) -> Mapping[str, int]:
        self.moves.append(to_ns)
        if self._log is not None:
            self._log.append(("simulation", to_ns))
        sent: dict[str, int] = {}
        while self.events and self.events[0][0] <= to_ns:
            for name, units in self.events.pop(0)[1].items():
                sent[name] = sent.get(name, 0) + units
        return sent


def test_order_at_one_instant_is_simulation_threads_loop() -> None:
    clock, log = SteppedClock(), []
    clock.attach(Script([(5 * MS, {})], log))

    def thread(name: str) -> None:
        clock.wait_until_ns(5 * MS)
        log.append((name, clock.now_ns()))

    async def main() -> None:
        clock.spawn("first", lambda: thread("first"))
        clock.spawn("second", lambda: thread("second"))
        await clock.sleep_until_ns(5 * MS)
        log.append(("loop", clock.now_ns()))

    clock.run(main)
    assert log == [(who, 5 * MS) for who in ("simulation", "first", "second", "loop")]


def test_loop_timers_and_sleeps_follow_the_clock() -> None:
    clock, log = SteppedClock(7), []

    async def sleeper(at_ns: int) -> None:
        await clock.sleep_until_ns(at_ns)
        log.append(clock.now_ns())

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            for at_ns in (30, 10, 20, 10):
                tasks.start_soon(sleeper, at_ns * MS)
        with anyio.move_on_after(0.5) as scope:
            await anyio.sleep_forever()
        assert scope.cancelled_caught

    clock.run(main)
    assert log == [10 * MS, 10 * MS, 20 * MS, 30 * MS]
    assert clock.now_ns() == 530 * MS


def test_a_past_deadline_yields_once_and_takes_no_time() -> None:
    clock, log = SteppedClock(100), []

    async def other() -> None:
        log.append("other")

    async def main() -> None:
        task = asyncio.create_task(other())
        await clock.sleep_until_ns(50)
        log.append("main")
        await task

    clock.run(main)
    assert log == ["other", "main"]
    assert clock.now_ns() == 100


def test_a_cancelled_sleep_does_not_move_time() -> None:
    clock = SteppedClock()

    async def main() -> None:
        with anyio.move_on_after(0.01):
            await clock.sleep_until_ns(10_000 * MS)
        await clock.sleep_until_ns(20 * MS)

    clock.run(main)
    assert clock.now_ns() == 20 * MS


def test_cancelled_sleeps_are_not_visited_on_the_way() -> None:
    clock, simulation = SteppedClock(), Script([])
    clock.attach(simulation)

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            for at in (5, 6, 7):
                tasks.start_soon(clock.sleep_until_ns, at * MS)
            await anyio.lowlevel.checkpoint()
            tasks.cancel_scope.cancel()
        await clock.sleep_until_ns(10 * MS)

    clock.run(main)
    assert simulation.moves == [10 * MS]


def test_framed_wire_gives_one_frame_at_a_time() -> None:
    with SteppedClock() as clock:
        clock.attach(Script([(3 * MS, {"head": 1}), (4 * MS, {"head": 2, "nobody": 5})]))
        wire = clock.wire("head")

        def read(units: int, timeout_s: float) -> tuple[int, int]:
            assert timeout_s > 0
            return clock.now_ns(), units

        got = [wire.receive(read, 50 * MS) for _ in range(3)]
        assert got == [(3 * MS, 1), (4 * MS, 1), (4 * MS, 1)]
        assert wire.receive(read, 50 * MS) is None
        assert clock.now_ns() == 54 * MS


def test_stream_wire_gives_all_bytes_so_far() -> None:
    with SteppedClock() as clock:
        clock.attach(Script([(1 * MS, {"force": 7}), (2 * MS, {"force": 8}), (9 * MS, {"force": 4})]))
        wire = clock.wire("force", stream=True)
        assert clock.wire("force", stream=True) is wire
        clock.wait_until_ns(2 * MS)
        assert wire.receive(lambda units, _: units, MS) == 15
        assert wire.receive(lambda units, _: units, 10 * MS) == 4
        assert clock.now_ns() == 9 * MS


def test_data_at_the_very_deadline_is_received() -> None:
    with SteppedClock() as clock:
        clock.attach(Script([(5 * MS, {"w": 1})]))
        assert clock.wire("w").receive(lambda units, _: units, 5 * MS) == 1


def test_reset_forgets_what_was_announced() -> None:
    with SteppedClock() as clock:
        clock.attach(Script([(1 * MS, {"w": 3})]))
        wire = clock.wire("w")
        clock.wait_until_ns(2 * MS)
        wire.reset()
        assert wire.receive(lambda units, _: units, MS) is None


def test_signal_ends_one_wait() -> None:
    with SteppedClock() as clock:
        signal_, log = clock.signal(), []

        def waiter() -> None:
            log.append((signal_.wait(), clock.now_ns()))
            log.append((signal_.wait(3 * MS), clock.now_ns()))

        clock.spawn("waiter", waiter)
        clock.wait_until_ns(2 * MS)
        signal_.set()
        clock.wait_until_ns(20 * MS)
        assert log == [(True, 2 * MS), (False, 5 * MS)]


def test_a_signal_set_before_the_wait_is_not_lost() -> None:
    with SteppedClock() as clock:
        signal_ = clock.signal()
        signal_.set()
        assert signal_.wait() is True
        assert signal_.wait(MS) is False
        assert clock.now_ns() == MS


def test_a_signal_between_two_threads() -> None:
    with SteppedClock() as clock:
        ping, pong, log = clock.signal(), clock.signal(), []

        def left() -> None:
            for _ in range(3):
                clock.wait_until_ns(clock.now_ns() + MS)
                ping.set()
                pong.wait()
                log.append(("left", clock.now_ns()))

        def right() -> None:
            for _ in range(3):
                ping.wait()
                log.append(("right", clock.now_ns()))
                pong.set()

        clock.spawn("left", left)
        clock.spawn("right", right)
        clock.wait_until_ns(10 * MS)
        assert log == [(who, n * MS) for n in (1, 2, 3) for who in ("right", "left")]


def test_time_stands_still_while_held() -> None:
    clock = SteppedClock()

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(clock.sleep_until_ns, MS)
            started, release = threading.Event(), threading.Event()

            def work() -> int:
                started.set()
                release.wait(10)
                return clock.now_ns()

            async def let_go() -> None:
                await anyio.to_thread.run_sync(started.wait)
                release.set()

            tasks.start_soon(let_go)
            assert await clock.run_blocking(work) == 0

    clock.run(main)
    assert clock.now_ns() == MS


def test_a_hold_that_another_thread_ends_lets_the_loop_go_on() -> None:
    clock, entered = SteppedClock(), threading.Event()

    def outside() -> None:
        with clock.hold():
            entered.set()
            assert clock.held

    async def main() -> None:
        worker = threading.Thread(target=outside)
        worker.start()
        entered.wait(10)
        await clock.sleep_until_ns(MS)
        worker.join()

    clock.run(main)
    assert clock.now_ns() == MS


def test_a_signal_from_an_outside_thread_wakes_a_blocked_loop() -> None:
    clock = SteppedClock()
    signal_ = clock.signal()

    async def main() -> None:
        waiter = clock.spawn("waiter", signal_.wait)
        outside = threading.Timer(0.01, signal_.set)
        outside.start()
        with clock.hold():
            await waiter.join()
        outside.join()

    clock.run(main)
    assert clock.now_ns() == 0


def test_join_before_and_after_the_end() -> None:
    clock = SteppedClock()

    async def main() -> None:
        thread = clock.spawn("t", lambda: clock.wait_until_ns(4 * MS))
        assert thread.is_alive()
        await thread.join()
        assert clock.now_ns() == 4 * MS
        assert not thread.is_alive()
        await thread.join()

    clock.run(main)


def test_a_thread_started_by_a_thread() -> None:
    with SteppedClock() as clock:
        log: list[str] = []

        def parent() -> None:
            clock.spawn("child", lambda: log.append("child"))
            log.append("parent")
            clock.wait_until_ns(MS)
            log.append("parent again")

        clock.spawn("parent", parent)
        clock.wait_until_ns(2 * MS)
        assert log == ["parent", "child", "parent again"]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_raises_ends_and_stops_nobody() -> None:
    with SteppedClock() as clock:

        def bad() -> None:
            clock.wait_until_ns(MS)
            raise ValueError("boom")

        thread = clock.spawn("bad", bad)
        clock.wait_until_ns(5 * MS)
        assert not thread.is_alive()
        assert clock.now_ns() == 5 * MS


def test_parked_threads_are_released_when_the_loop_ends() -> None:
    clock, log = SteppedClock(), []

    def forever() -> None:
        try:
            clock.signal().wait()
        finally:
            log.append("finally")

    def sleeper() -> None:
        try:
            clock.wait_until_ns(10**15)
        finally:
            with pytest.raises(stepped.ClockClosed) as caught:
                clock.wait_until_ns(10**15)  # waiting again on the way out does not hang
            log.append(type(caught.value).__name__)

    async def main() -> None:
        clock.spawn("forever", forever)
        clock.spawn("sleeper", sleeper)
        await clock.sleep_until_ns(MS)
        clock.spawn("never started", lambda: log.append("ran"))

    clock.run(main)
    assert sorted(log) == ["ClockClosed", "finally"]
    assert not [t for t in threading.enumerate() if t.name in {"forever", "sleeper", "never started"}]


def test_parked_threads_are_released_when_the_loop_fails() -> None:
    clock = SteppedClock()

    async def main() -> None:
        clock.spawn("forever", clock.signal().wait)
        await clock.sleep_until_ns(MS)
        raise KeyError("main")

    with pytest.raises(KeyError):
        clock.run(main)


def test_an_exception_in_the_simulation_ends_the_run() -> None:
    class Broken(Script):
        def advance(self, to_ns: int) -> Mapping[str, int]:
            raise ConnectionError("the world has gone")

    clock = SteppedClock()
    clock.attach(Broken([]))
    with pytest.raises(ConnectionError):
        clock.run(clock.sleep_until_ns, MS)


def test_a_wait_without_end_is_an_error_not_a_hang() -> None:
    with SteppedClock() as clock:
        clock.spawn("stuck", clock.signal().wait)
        with pytest.raises(SteppedClockError, match="stuck parked"):
            clock.signal().wait()


def test_a_loop_without_anything_to_wait_for_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stepped, "OUTSIDE_GUARD_S", 0.01)
    clock = SteppedClock()
    with pytest.raises(SteppedClockError, match="nothing is left to wait for"):
        clock.run(anyio.sleep_forever)


def test_spinning_before_the_deadline_is_an_error() -> None:
    clock = SteppedClock(5)
    assert clock.spin_until_ns(5) == 5
    with pytest.raises(SteppedClockError):
        clock.spin_until_ns(6)


def test_a_closed_clock_says_so() -> None:
    clock = SteppedClock()
    clock.close()
    with pytest.raises(SteppedClockError):
        clock.spawn("late", lambda: None)
    with pytest.raises(SteppedClockError):
        clock.wait_until_ns(MS)
    with pytest.raises(SteppedClockError):
        clock.run(clock.sleep_until_ns, MS)


def exchange() -> list[tuple[str, int]]:
    """What a reader, a worker and the loop did, and when."""
    clock, log = SteppedClock(), []
    clock.attach(Script([(n * 7 * MS, {"w": 1}) for n in range(1, 40)]))
    wire, wake = clock.wire("w"), clock.signal()

    def reader() -> None:
        while clock.now_ns() < 250 * MS:
            if wire.receive(lambda units, _: units, 100 * MS):
                log.append(("reader", clock.now_ns()))
                wake.set()

    def worker() -> None:
        while clock.now_ns() < 250 * MS:
            woken = wake.wait(5 * MS)
            log.append((f"worker {woken}", clock.now_ns()))

    async def main() -> None:
        threads = [clock.spawn("reader", reader), clock.spawn("worker", worker)]
        for n in range(8):
            await clock.sleep_until_ns(n * 33 * MS)
            log.append(("loop", clock.now_ns()))
        for thread in threads:
            await thread.join()

    clock.run(main)
    return log


def test_runs_repeat_exactly() -> None:
    first = exchange()
    assert first == exchange()
    assert len(first) > 80


INTERRUPTED = """
import signal, sys, threading
from runtime.stepped import SteppedClock
clock = SteppedClock()
def busy():
    print("busy", flush=True)
    sys.stdin.readline()          # real work; time stands still
    clock.wait_until_ns(10**12)
clock.spawn("busy", busy)
try:
    {drive}
except KeyboardInterrupt:
    print("interrupted", flush=True)
finally:
    clock.close()
print(threading.active_count(), flush=True)
"""


@pytest.mark.parametrize("drive", ["clock.wait_until_ns(10**9)", "clock.run(clock.sleep_until_ns, 10**9)"])
def test_an_interrupt_while_a_thread_runs_ends_the_process_cleanly(drive: str) -> None:
    program = INTERRUPTED.format(drive=drive)
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "busy\n"
        child.send_signal(signal.SIGINT)
        out, _ = child.communicate("\n", timeout=30)
    assert out == "interrupted\n1\n"
    assert child.returncode == 0


def test_an_interrupt_right_after_a_thread_was_heard_of_holds_nothing_up() -> None:
    """The interpreter may raise it there: what was taken from the queue is gone, and nobody was told."""

    class Interrupted(SimpleQueue[int]):
        times = 0

        def get(self, block: bool = True, timeout: float | None = None) -> int:
            item = super().get(block, 10.0 if timeout is None else timeout)
            self.times += 1
            if self.times == 3:
                raise KeyboardInterrupt
            return item

    with SteppedClock() as clock:
        clock._parked = Interrupted()
        woke: list[int] = []

        def naps() -> None:
            for _ in range(10):
                clock.wait_until_ns(clock.now_ns() + MS)
                woke.append(clock.now_ns() // MS)

        clock.spawn("naps", naps)
        with pytest.raises(KeyboardInterrupt):
            clock.wait_until_ns(20 * MS)
        clock.wait_until_ns(20 * MS)
        assert woke == list(range(1, 11))


def test_at_one_instant_sleeps_end_before_the_loops_own_timers() -> None:
    """Which of the two came first used to hang on what else, in real time, the loop had to do just then."""
    clock, log = SteppedClock(), []

    async def main() -> None:
        async def sleeper() -> None:
            await clock.sleep_until_ns(40 * MS)
            log.append("sleep")

        asyncio.get_running_loop().call_at(0.04, log.append, "timer")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(sleeper)
            await clock.sleep_until_ns(50 * MS)

    clock.run(main)
    assert log == ["sleep", "timer"]


@pytest.mark.parametrize("threads", [False, True])
def test_a_stall_makes_the_loop_late_and_the_threads_only_if_they_are_stalled_too(threads: bool) -> None:
    clock, woke = SteppedClock(), []
    script = Script([(3 * MS, {"wire": 1}), (6 * MS, {"wire": 1})])
    clock.attach(script)
    wire = clock.wire("wire")

    def reader() -> None:
        while wire.receive(lambda units, guard_s: units, 20 * MS):
            woke.append(("frame", clock.now_ns() // MS))

    async def sleeper() -> None:
        await clock.sleep_until_ns(5 * MS)
        woke.append(("loop", clock.now_ns() // MS))

    async def main() -> None:
        clock.spawn("reader", reader)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(sleeper)
            await clock.sleep_until_ns(1 * MS)
            clock.stall(9 * MS, threads=threads)
            assert clock.now_ns() == 10 * MS

    clock.run(main)
    at = [3, 6] if threads else [10, 10]
    assert sorted(woke) == [*(("frame", each) for each in at), ("loop", 10)]
