"""Device threads and fault decisions, on a stepped clock."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping

import anyio
import pytest
from loguru import logger

from runtime.clock import RealClock
from runtime.device import DeviceOptions, DeviceThread
from runtime.faults import FaultLog, FaultOptions, FaultPolicy, decide
from runtime.messages import Decision, DeviceError, FaultKind
from runtime.realtime import RealtimeOptions, ahead_of_ordinary
from runtime.stepped import SteppedClock

MS = 1_000_000
RETRY, HOLD, STOP = Decision.RETRY, Decision.HOLD, Decision.STOP


class Script:
    """A driver that polls every 10 ms and fails when told to. `log` is what was called, and when."""

    name = "arm"

    def __init__(
        self, clock: SteppedClock, fail: Callable[[str, int], Exception | None] | None = None
    ) -> None:
        self.clock = clock
        self.fail = fail or (lambda call, ms: None)
        self.log: list[tuple[str, int]] = []
        self.delivers = True

    def _call(self, call: str) -> None:
        ms = self.clock.now_ns() // MS
        self.log.append((call, ms))
        error = self.fail(call, ms)
        if error is not None:
            raise error

    def open(self) -> None:
        self._call("open")

    def poll(self) -> bool:
        self._call("poll")
        self.clock.wait_until_ns(self.clock.now_ns() + 10 * MS)
        return self.delivers

    def close(self) -> None:
        self._call("close")

    def statistics(self) -> Mapping[str, int]:
        return {}

    def calls(self, call: str) -> list[int]:
        return [ms for name, ms in self.log if name == call]


def gone(kind: FaultKind = FaultKind.GONE, last_good_ms: int | None = None) -> DeviceError:
    last = None if last_good_ms is None else last_good_ms * MS
    return DeviceError("arm", kind, "/dev/ttyX", "no answer", last)


def policy(clock: SteppedClock, **options: object) -> FaultPolicy:
    return FaultPolicy(FaultOptions.model_validate(options), clock)


def thread_for(driver: Script, faults: FaultPolicy, **options: object) -> DeviceThread:
    settings = DeviceOptions.model_validate(options)
    return DeviceThread(driver, driver.clock, faults.device, faults.recovered, settings)


def test_a_device_is_polled_ahead_of_ordinary_threads_where_the_system_lets_it() -> None:
    """Where one is left without a processor while it has Python's lock, the control loop waits for it."""

    class Scheduled(Script):
        policies: set[int] = set()  # noqa: RUF012 - one test

        def poll(self) -> bool:
            self.policies.add(os.sched_getscheduler(0))
            return super().poll()

    clock = SteppedClock()
    driver = Scheduled(clock)
    thread = DeviceThread(driver, clock, policy(clock).device, realtime=RealtimeOptions())
    lets: list[bool] = []
    probe = threading.Thread(target=lambda: lets.append(ahead_of_ordinary(RealtimeOptions())))
    probe.start()
    probe.join()

    async def main() -> None:
        await thread.start()
        await clock.sleep_until_ns(35 * MS)
        assert await thread.stop()

    clock.run(main)
    fifo = os.SCHED_FIFO | os.SCHED_RESET_ON_FORK
    assert driver.policies == {fifo if lets == [True] else os.SCHED_OTHER}


def test_open_poll_close() -> None:
    clock = SteppedClock()
    driver = Script(clock)
    thread = thread_for(driver, policy(clock))
    assert (thread.state, thread.is_alive()) == ("closed", False)

    async def main() -> None:
        await thread.start()
        assert thread.state == "running"
        assert thread.is_alive()
        await clock.sleep_until_ns(35 * MS)
        assert await thread.stop()
        assert not thread.is_alive()

    clock.run(main)
    assert driver.log == [("open", 0), *(("poll", ms) for ms in (0, 10, 20, 30)), ("close", 40)]
    assert thread.state == "ended"


def test_a_first_open_that_fails_is_raised_and_leaves_nothing() -> None:
    clock = SteppedClock()
    driver = Script(clock, lambda call, ms: gone("not_found") if call == "open" else None)
    faults = policy(clock)
    thread = thread_for(driver, faults)

    async def main() -> None:
        with pytest.raises(DeviceError, match="not_found") as caught:
            await thread.start()
        assert caught.value.where == "/dev/ttyX"
        assert not thread.is_alive()

    clock.run(main)
    assert driver.calls("poll") == []
    assert driver.calls("close") == [0]
    assert faults.log.counts == {"arm": {"not_found": 1}}


def test_starting_twice_is_a_mistake() -> None:
    clock = SteppedClock()
    thread = thread_for(Script(clock), policy(clock))

    async def main() -> None:
        await thread.start()
        with pytest.raises(RuntimeError, match="already"):
            await thread.start()
        await thread.stop()

    clock.run(main)


def test_a_device_that_goes_away_is_reopened_with_backoff_on_the_clock() -> None:
    clock = SteppedClock()

    def fail(call: str, ms: int) -> Exception | None:
        return gone(last_good_ms=90) if call != "close" and 100 <= ms < 2000 else None

    driver = Script(clock, fail)
    faults = policy(clock)
    thread = thread_for(driver, faults, reopen_first_s=0.25, reopen_longest_s=1.0)
    seen: list[tuple[int, str, Decision | None]] = []

    async def main() -> None:
        await thread.start()
        for ms in (95, 105, 1500, 3000):
            await clock.sleep_until_ns(ms * MS)
            active = faults.active()
            seen.append((ms, thread.state, active and active[0]))
            if ms == 105:
                assert active is not None
                assert "gone" in active[1]
        await thread.stop()

    clock.run(main)
    assert seen == [
        (95, "running", None),
        (105, "reopening", HOLD),
        (1500, "reopening", HOLD),
        (3000, "running", None),
    ]
    # 250 ms, 500 ms, then 1000 ms, the longest
    assert driver.calls("open") == [0, 350, 850, 1850, 2850]
    assert faults.active() is None
    (gap,) = faults.log.gaps
    assert (gap.device, gap.kind, gap.from_ns) == ("arm", "gone", 90 * MS)
    assert gap.to_ns == 2860 * MS


def test_a_device_that_opens_again_but_delivers_nothing_has_not_recovered() -> None:
    clock = SteppedClock()
    driver = Script(clock, lambda call, ms: gone("timeout") if call == "poll" and ms == 100 else None)
    faults = policy(clock)
    thread = thread_for(driver, faults, reopen_first_s=0.25)

    async def main() -> None:
        await thread.start()
        await clock.sleep_until_ns(95 * MS)
        driver.delivers = False
        await clock.sleep_until_ns(2000 * MS)
        assert thread.state == "reopening"
        assert faults.active() is not None
        driver.delivers = True
        await clock.sleep_until_ns(2050 * MS)
        assert thread.state == "running"
        assert faults.active() is None
        await thread.stop()

    clock.run(main)
    assert driver.calls("open") == [0, 350]
    (gap,) = faults.log.gaps
    assert gap.to_ns is not None
    assert gap.to_ns >= 2000 * MS


def test_that_a_device_is_back_is_said_once_and_only_when_it_delivers() -> None:
    clock = SteppedClock()
    driver = Script(clock, lambda call, ms: gone("silent") if call == "poll" and 100 <= ms < 5000 else None)
    thread = thread_for(driver, policy(clock), reopen_first_s=0.25)
    said: list[str] = []

    async def main() -> None:
        await thread.start()
        await clock.sleep_until_ns(6000 * MS)
        await thread.stop()

    sink = logger.add(lambda message: said.append(str(message)), level="INFO", format="{message}")
    try:
        clock.run(main)
    finally:
        logger.remove(sink)
    assert len(driver.calls("open")) > 10
    assert [line for line in said if "again" in line] == ["arm: delivers again (time 1)\n"]


def test_retry_polls_again_and_gives_up_after_enough() -> None:
    clock = SteppedClock()
    driver = Script(clock, lambda call, ms: gone("bad_checksum") if call == "poll" and ms >= 20 else None)
    thread = thread_for(
        driver, policy(clock, device="retry"), retries=3, retry_pause_s=0.005, reopen_first_s=1
    )

    async def main() -> None:
        await thread.start()
        await clock.sleep_until_ns(100 * MS)
        assert thread.state == "reopening"
        await thread.stop()

    clock.run(main)
    assert driver.calls("poll") == [0, 10, 20, 25, 30, 35]
    assert driver.calls("close") == [35, 100]


def test_one_bad_poll_that_is_retried_recovers() -> None:
    clock = SteppedClock()
    driver = Script(clock, lambda call, ms: gone("no_reply") if call == "poll" and ms == 20 else None)
    faults = policy(clock, rules={"arm.no_reply": "retry"})
    thread = thread_for(driver, faults)

    async def main() -> None:
        await thread.start()
        await clock.sleep_until_ns(100 * MS)
        assert thread.state == "running"
        assert faults.active() is None
        await thread.stop()

    clock.run(main)
    assert driver.calls("open") == [0]
    assert faults.log.counts == {"arm": {"no_reply": 1}}
    assert [g.to_ns is not None for g in faults.log.gaps] == [True]


@pytest.mark.parametrize("where", ["open", "poll", "close"])
def test_a_drivers_defect_is_a_fault_and_not_the_end(where: str) -> None:
    clock = SteppedClock()
    driver = Script(clock, lambda call, ms: ZeroDivisionError("oops") if call == where and ms == 0 else None)
    faults = policy(clock)
    thread = thread_for(driver, faults)

    async def main() -> None:
        if where == "open":
            with pytest.raises(DeviceError, match="ZeroDivisionError: oops"):
                await thread.start()
            return
        await thread.start()
        if where == "poll":
            await clock.sleep_until_ns(1000 * MS)
            assert thread.state == "running"
        await thread.stop()

    clock.run(main)
    assert faults.log.counts == ({"arm": {"crashed": 1}} if where != "close" else {})


def test_stopping_does_not_wait_for_the_backoff() -> None:
    clock = SteppedClock()
    driver = Script(clock, lambda call, ms: gone() if ms >= 20 and call != "close" else None)
    thread = thread_for(driver, policy(clock), reopen_first_s=3600, reopen_longest_s=3600)

    async def main() -> None:
        await thread.start()
        await clock.sleep_until_ns(500 * MS)
        assert await thread.stop()

    clock.run(main)
    assert clock.now_ns() == 500 * MS


def test_a_driver_that_never_returns_is_given_up_in_time() -> None:
    clock = SteppedClock()
    driver = Script(clock)
    driver.poll = lambda: clock.wait_until_ns(10**15)  # type: ignore[method-assign]
    thread = thread_for(driver, policy(clock), join_timeout_s=2)

    async def main() -> None:
        await thread.start()
        assert not await thread.stop()
        assert clock.now_ns() == 2000 * MS

    clock.run(main)


def test_stopping_is_shielded_from_cancellation() -> None:
    clock = SteppedClock()
    driver = Script(clock)
    thread = thread_for(driver, policy(clock))

    async def main() -> None:
        async def serve() -> None:
            await thread.start()
            try:
                await anyio.sleep_forever()
            finally:
                await thread.stop()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(serve)
            await clock.sleep_until_ns(25 * MS)
            tasks.cancel_scope.cancel()
        assert not thread.is_alive()

    clock.run(main)
    assert driver.log[-1] == ("close", 30)


def test_cancelled_while_opening() -> None:
    clock = SteppedClock()
    driver = Script(clock)
    driver.open = lambda: clock.wait_until_ns(300 * MS)  # type: ignore[method-assign]
    thread = thread_for(driver, policy(clock))

    async def main() -> None:
        with anyio.move_on_after(0.1):
            await thread.start()
        assert not thread.is_alive()

    clock.run(main)
    assert driver.calls("close") == [300]


def test_on_the_real_clock() -> None:
    clock = RealClock()

    class Quick(Script):
        def poll(self) -> bool:
            self.log.append(("poll", 0))
            clock.wait_until_ns(clock.now_ns() + MS)
            return True

    driver = Quick(SteppedClock())
    thread = DeviceThread(driver, clock, lambda error: HOLD)

    async def main() -> None:
        await thread.start()
        while not driver.calls("poll"):
            await clock.sleep_until_ns(clock.now_ns() + MS)
        assert await thread.stop()

    clock.run(main)
    assert driver.log[-1][0] == "close"


# --- decisions


def test_the_most_specific_rule_wins() -> None:
    rules = {"arm.gone": "stop", "arm.*": "retry", "*.timeout": "retry", "*.gone": "hold"}
    options = FaultOptions.model_validate({"rules": rules, "policy": "stop"})
    assert decide(options, "arm", "gone") is STOP
    assert decide(options, "arm", "timeout") is RETRY
    assert decide(options, "head", "gone") is HOLD
    assert decide(options, "head", "timeout") is RETRY
    assert decide(options, "head", "other") is HOLD
    assert decide(options, "policy", "raised") is STOP
    assert decide(options, "planner", "timeout") is RETRY
    assert decide(FaultOptions(), "planner", "prose") is HOLD


def test_the_most_careful_active_decision_counts_until_recovery() -> None:
    faults = policy(SteppedClock(5), rules={"head.*": "stop", "wrist.*": "retry"})
    assert faults.active() is None
    assert faults.device(DeviceError("wrist", FaultKind.TIMEOUT, "x", "y")) is RETRY
    assert faults.device(DeviceError("head", FaultKind.TIMEOUT, "x", "y")) is STOP
    assert faults.device(DeviceError("force", FaultKind.SILENT, "x", "no")) is HOLD
    active = faults.active()
    assert active is not None
    assert active[0] is STOP
    faults.recovered("head")
    active = faults.active()
    assert active is not None
    assert active[0] is HOLD
    assert "force at x" in active[1]
    faults.recovered("force")
    faults.recovered("wrist")
    faults.recovered("never failed")
    assert faults.active() is None


def test_a_drivers_numbers_are_read_on_its_own_thread_alone() -> None:
    clock = SteppedClock()
    threads: set[str] = set()

    class Counting(Script):
        def statistics(self) -> Mapping[str, int]:
            threads.add(threading.current_thread().name)
            if len(self.calls("poll")) == 5:
                raise ZeroDivisionError("a defect in it holds nothing")
            return {"late": len(self.calls("poll"))}

    faults = policy(clock)
    thread = thread_for(Counting(clock), faults)
    seen: list[int] = []

    async def main() -> None:
        assert thread.counts == {}
        await thread.start()
        for _ in range(3):
            await clock.sleep_until_ns(clock.now_ns() + 110 * MS)
            seen.append(thread.counts["late"])
        await thread.stop()

    clock.run(main)
    assert seen == [1 + 10, 1 + 20, 1 + 30]  # ten times a second
    assert thread.counts["late"] == len(thread.driver.calls("poll"))  # type: ignore[attr-defined]
    assert threads == {"device-arm"}
    assert faults.active() is None


def test_a_fault_is_its_threads_devices_whatever_the_driver_calls_itself() -> None:
    clock = SteppedClock()

    def fail(call: str, ms: int) -> Exception | None:
        wrong = call == "poll" and 50 <= ms < 100
        return DeviceError("My Arm 3000", FaultKind.NO_REPLY, "COM3", "nothing") if wrong else None

    faults = policy(clock)
    thread = thread_for(Script(clock, fail), faults)

    async def main() -> None:
        await thread.start()
        await clock.sleep_until_ns(60 * MS)
        active = faults.active()
        assert active is not None
        assert active[1] == "arm at COM3: no_reply: nothing"
        await clock.sleep_until_ns(2000 * MS)
        assert faults.active() is None
        await thread.stop()

    clock.run(main)


def test_summary_adds_what_drivers_survived() -> None:
    log = FaultLog()
    assert log.count("arm", FaultKind.NO_REPLY) == 1
    assert log.count("arm", FaultKind.NO_REPLY, 2) == 3
    total = log.summary({"arm": {"no_reply": 4, "bad_checksum": 1}, "head": {"timeout": 0}})
    assert total == {"arm": {"no_reply": 7, "bad_checksum": 1}}
    assert log.counts == {"arm": {"no_reply": 3}}


def test_one_gap_per_outage() -> None:
    log = FaultLog()
    log.open_gap("arm", "gone", 10)
    log.open_gap("arm", "not_found", 20)
    log.open_gap("head", "frozen", 15)
    log.close_gap("arm", 30)
    log.open_gap("arm", "gone", 40)
    spans = [(g.device, g.kind, g.from_ns, g.to_ns) for g in log.gaps]
    assert spans == [("arm", "gone", 10, 30), ("head", "frozen", 15, None), ("arm", "gone", 40, None)]
