"""The one clock of the process: what "now" is, and every way to wait for a later "now".

No other module calls ``time.*``, ``asyncio.sleep`` or ``anyio.sleep``. Two clocks implement the
protocol: `RealClock` here, and `runtime.stepped.SteppedClock`, on which simulated runs and tests are
exact. Code that takes a `Clock` must not be able to tell which one it has.

Waiting happens in three places, and each has its own call:

* a task on the loop awaits ``sleep_until_ns``;
* a thread started by ``spawn`` calls ``wait_until_ns``, or waits for a `Signal` set by another thread
  or by the loop;
* a driver's thread reads from its device through a `Wire`, so that on a stepped clock simulated time
  moves only when the device has nothing left to say.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any, Protocol, TypeVar

import anyio
import anyio.to_thread

T = TypeVar("T")

NS_PER_S = 1_000_000_000


class Signal(Protocol):
    """Wakes one waiting thread. Set from anywhere; consumed by the wait that it ends."""

    def set(self) -> None:
        """Wake the waiter, now or when it next waits. Never blocks."""

    def wait(self, timeout_ns: int | None = None) -> bool:
        """Block this thread until set; ``False`` if `timeout_ns` passed first."""


class Wire(Protocol):
    """One device's incoming data, as its driver's thread sees it."""

    def receive(self, read: Callable[[int, float], T | None], timeout_ns: int) -> T | None:
        """Call ``read(units, timeout_s)`` once data can be expected; ``None`` after `timeout_ns`.

        `read` is the blocking read of the real device. `units` is how much is known to be waiting: 1 on
        the real clock (where nothing is known); on a stepped clock one frame of a framed wire, and all
        the bytes sent so far of a stream. `read` must take exactly that much before it returns.
        """

    def reset(self) -> None:
        """Forget what was announced so far: the connection that it would have come over is new."""


class ClockThread(Protocol):
    """A thread that takes part in the clock."""

    name: str

    def is_alive(self) -> bool:
        """Whether its function has not returned yet."""

    async def join(self) -> None:
        """Wait, on the loop, until its function has returned; re-raises nothing."""


class Clock(Protocol):
    """Integer nanoseconds in one monotonic domain."""

    @property
    def stepped(self) -> bool:
        """Whether time is simulated. For reports; behaviour must not hang on it."""

    def now_ns(self) -> int:
        """The present."""

    def wall_ns(self) -> int:
        """Nanoseconds since the Unix epoch, for naming things; read once per run."""

    async def sleep_until_ns(self, deadline_ns: int) -> None:
        """Suspend this task until `deadline_ns` (returns at once, after one yield, if it has passed)."""

    def wait_until_ns(self, deadline_ns: int) -> None:
        """Block this thread until `deadline_ns`."""

    def spin_until_ns(self, deadline_ns: int) -> None:
        """Burn the last stretch before `deadline_ns` without giving up the processor."""

    def signal(self) -> Signal:
        """Make a signal whose waits follow this clock."""

    def wire(self, name: str, *, stream: bool = False) -> Wire:
        """Name an incoming wire; `stream` counts bytes, otherwise whole frames."""

    def spawn(self, name: str, function: Callable[[], None]) -> ClockThread:
        """Run `function` on a thread of its own. It must not raise."""

    def hold(self) -> AbstractContextManager[None]:
        """Keep simulated time still while real I/O or computation on other threads is in flight."""

    async def run_blocking(self, function: Callable[[], T]) -> T:
        """Run `function` on a worker thread while simulated time stands still."""

    def run(self, main: Callable[..., Awaitable[T]], *args: Any) -> T:
        """Run an event loop that follows this clock until `main` returns."""


class _RealSignal:
    def __init__(self) -> None:
        self._event = threading.Event()

    def set(self) -> None:
        self._event.set()

    def wait(self, timeout_ns: int | None = None) -> bool:
        fired = self._event.wait(None if timeout_ns is None else max(0, timeout_ns) / NS_PER_S)
        if fired:
            self._event.clear()
        return fired


class _RealWire:
    def receive(self, read: Callable[[int, float], T | None], timeout_ns: int) -> T | None:
        return read(1, timeout_ns / NS_PER_S)

    def reset(self) -> None:
        pass


class _RealThread:
    def __init__(self, name: str, function: Callable[[], None]) -> None:
        self.name = name
        self._thread = threading.Thread(target=function, name=name, daemon=True)
        self._thread.start()

    def is_alive(self) -> bool:
        return self._thread.is_alive()

    async def join(self) -> None:
        await anyio.to_thread.run_sync(self._thread.join, abandon_on_cancel=True)


class RealClock:
    """``CLOCK_MONOTONIC``: one domain for every process of this machine."""

    stepped = False

    def now_ns(self) -> int:
        return time.monotonic_ns()

    def wall_ns(self) -> int:
        return time.time_ns()

    async def sleep_until_ns(self, deadline_ns: int) -> None:
        await asyncio.sleep(max(0.0, (deadline_ns - time.monotonic_ns()) / NS_PER_S))

    def wait_until_ns(self, deadline_ns: int) -> None:
        while (left := deadline_ns - time.monotonic_ns()) > 0:
            time.sleep(left / NS_PER_S)

    def spin_until_ns(self, deadline_ns: int) -> None:
        now = time.monotonic_ns
        while now() < deadline_ns:
            pass

    def signal(self) -> Signal:
        return _RealSignal()

    def wire(self, name: str, *, stream: bool = False) -> Wire:
        del name, stream
        return _RealWire()

    def spawn(self, name: str, function: Callable[[], None]) -> ClockThread:
        return _RealThread(name, function)

    @contextlib.contextmanager
    def hold(self) -> Iterator[None]:
        yield

    async def run_blocking(self, function: Callable[[], T]) -> T:
        return await anyio.to_thread.run_sync(function, abandon_on_cancel=True)

    def run(self, main: Callable[..., Awaitable[T]], *args: Any) -> T:
        return anyio.run(main, *args, backend="asyncio", backend_options={"use_uvloop": True})
