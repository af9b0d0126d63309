"""The thread that owns a device: opens it, polls it, reopens it when it went away, lets go of it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from types import MappingProxyType

import anyio
from loguru import logger
from pydantic import Field

from runtime.clock import NS_PER_S, Clock, ClockThread
from runtime.interfaces import Driver
from runtime.latest import Latest
from runtime.messages import Decision, DeviceError, FaultKind
from runtime.options import Options
from runtime.realtime import RealtimeOptions, ahead_of_ordinary

_COUNTED_NS = NS_PER_S // 10
_NOTHING: Mapping[str, int] = MappingProxyType({})

FaultReport = Callable[[DeviceError], Decision]
"""Counts a fault and says what it asks for; called on the device's thread, so it must not block."""


class DeviceOptions(Options):
    """How a device's thread goes on after a fault.

    Attributes:
        retry_pause_s: wait before polling again after a fault whose decision is ``retry``.
        retries: faults in a row that are retried before the device is closed and reopened.
        reopen_first_s: wait before the first attempt to reopen; doubled after every failed one.
        reopen_longest_s: the longest such wait.
        first_data_s: a run is not begun with a device that is open and delivers nothing for this long.
        join_timeout_s: how long `DeviceThread.stop` waits for the thread.
    """

    retry_pause_s: float = Field(default=0.01, gt=0)
    retries: int = Field(default=10, ge=0)
    reopen_first_s: float = Field(default=0.25, gt=0)
    reopen_longest_s: float = Field(default=4.0, gt=0)
    first_data_s: float = Field(default=5.0, gt=0)
    join_timeout_s: float = Field(default=6.0, gt=0)


class DeviceThread:
    """Runs one driver on one clock thread.

    `report` is told every `DeviceError` (`runtime.faults.FaultPolicy.device`); `recovered` is told the
    device's name once it polls well again. Both are called on the device's thread. Anything else that a
    driver raises is a defect and is reported as a `DeviceError` of kind ``crashed``.

    With `realtime` it polls ahead of ordinary threads, if the system lets it: what it does is short and comes
    often, and whoever takes the processor away from it in the middle of that, while it holds Python's lock,
    holds up the control loop, too.

    Attributes:
        state: ``closed``, ``opening``, ``running``, ``retrying``, ``reopening`` (until it delivers again) or
            ``ended``; written by the device's thread, for anyone to read.
    """

    def __init__(
        self,
        driver: Driver,
        clock: Clock,
        report: FaultReport,
        recovered: Callable[[str], None] | None = None,
        options: DeviceOptions | None = None,
        realtime: RealtimeOptions | None = None,
    ) -> None:
        self.driver = driver
        self.name = driver.name
        self.state = "closed"
        self._clock = clock
        self._report = report
        self._recovered = recovered
        self._options = options or DeviceOptions()
        self._realtime = realtime
        self._stopping = self._delivered = False
        self._returned = 0
        self._wake = clock.signal()
        self._thread: ClockThread | None = None
        self._opened: asyncio.Event | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._open_error: DeviceError | None = None
        self._counts: Latest[Mapping[str, int]] = Latest()
        self._counted_ns = -_COUNTED_NS

    @property
    def counts(self) -> Mapping[str, int]:
        """What the driver's `statistics` were a moment ago, and in the end; for any thread."""
        return self._counts.newest() or _NOTHING

    # --- on the loop

    async def start(self) -> None:
        """Open the device; returns when the thread polls it.

        Raises:
            DeviceError: the first `open` failed. The thread has ended; nothing is left open.
        """
        if self._thread is not None:
            raise RuntimeError(f"the device thread {self.name} was started already")
        self._opened = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._thread = self._clock.spawn(f"device-{self.name}", self._main)
        try:
            await self._opened.wait()
        except BaseException:
            await self.stop()
            raise
        if self._open_error is not None:
            await self._thread.join()
            raise self._open_error

    async def stop(self) -> bool:
        """Ask the thread to close its device and wait for it, shielded, at most `join_timeout_s`.

        Returns:
            ``False`` if the thread did not end in time: a blocking call of the driver does not return.
        """
        self._stopping = True
        self._wake.set()
        if self._thread is None:
            return True
        with anyio.move_on_after(self._options.join_timeout_s, shield=True):
            await self._thread.join()
            return True
        logger.error("{}: its thread did not end within {} s", self.name, self._options.join_timeout_s)
        return False

    def is_alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread is not None and self._thread.is_alive()

    # --- on the device's thread

    def _main(self) -> None:
        error: DeviceError | None = None
        try:
            self.state = "opening"
            error = self._attempt(self.driver.open)
            if error is not None:
                self._report(error)
                self._open_error = error
                return
            self.state = "running"
            self._announce()
            if self._realtime is not None:
                ahead_of_ordinary(self._realtime)
            self._serve()
        finally:
            self._close()
            self._count()
            self.state = "ended"
            self._announce()

    def _announce(self) -> None:
        if self._loop is not None and self._opened is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                self._loop.call_soon_threadsafe(self._opened.set)

    def _attempt(self, function: Callable[[], None]) -> DeviceError | None:
        try:
            function()
        except DeviceError as error:
            if error.device == self.name:
                return error
            return DeviceError(self.name, error.kind, error.where, error.detail, error.last_good_ns)
        except Exception as error:  # a driver's defect must not take the arm's hold away
            logger.opt(exception=error).error("{}: its driver raised {}", self.name, type(error).__name__)
            return DeviceError(self.name, FaultKind.CRASHED, "driver", f"{type(error).__name__}: {error}")
        return None

    def _serve(self) -> None:
        failures = 0
        while not self._stopping:
            error = self._attempt(self._poll)
            if (now_ns := self._clock.now_ns()) - self._counted_ns >= _COUNTED_NS:
                self._counted_ns = now_ns
                self._count()
            if error is None:
                if failures and self._delivered:
                    self._well()
                    failures = 0
                continue
            failures += 1
            decision = self._report(error)
            if decision is Decision.RETRY and failures <= self._options.retries:
                self.state = "retrying"
                self._pause(self._options.retry_pause_s)
            else:
                self._reopen()

    def _poll(self) -> None:
        self._delivered = self.driver.poll()

    def _count(self) -> None:
        """A driver's numbers are its thread's: others read what was posted of them."""
        try:
            self._counts.post(MappingProxyType(dict(self.driver.statistics())))
        except Exception as error:  # they are for the summary, and hold nothing
            logger.debug("{}: no statistics: {}: {}", self.name, type(error).__name__, error)

    def _reopen(self) -> None:
        """Close, and open again until it works; the device is well when a poll delivers something."""
        self.state = "reopening"
        self._close()
        pause_s = self._options.reopen_first_s
        while not self._stopping:
            self._pause(pause_s)
            if self._stopping:
                return
            error = self._attempt(self.driver.open)
            if error is None:
                return
            self._report(error)
            self._close()
            pause_s = min(2 * pause_s, self._options.reopen_longest_s)

    def _well(self) -> None:
        if self.state == "reopening":
            self._returned += 1
            if self._returned & (self._returned - 1) == 0:  # as of faults: a bad plug would fill the log
                logger.info("{}: delivers again (time {})", self.name, self._returned)
        self.state = "running"
        if self._recovered is not None:
            self._recovered(self.name)

    def _pause(self, seconds: float) -> None:
        if not self._stopping:
            self._wake.wait(round(seconds * NS_PER_S))

    def _close(self) -> None:
        error = self._attempt(self.driver.close)
        if error is not None:
            self._report(error)
