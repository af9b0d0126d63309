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
import ctypes
import heapq
import itertools
import os
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any, Protocol, TypeVar

import anyio
import anyio.lowlevel

from runtime.threads import LoopThread, Starter, ThreadCall

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

    @property
    def spin_ns(self) -> int:
        """How long before a deadline a pacer stops sleeping and spins; 0 where sleeping is exact."""

    def now_ns(self) -> int:
        """The present."""

    def wall_ns(self) -> int:
        """Nanoseconds since the Unix epoch, for naming things; read once per run."""

    async def sleep_until_ns(self, deadline_ns: int) -> None:
        """Suspend this task until `deadline_ns` (returns at once, after one yield, if it has passed)."""

    def wait_until_ns(self, deadline_ns: int) -> None:
        """Block this thread until `deadline_ns`."""

    def spin_until_ns(self, deadline_ns: int) -> int:
        """Burn the last stretch before `deadline_ns` on the processor; returns the time at which it ended."""

    def signal(self) -> Signal:
        """Make a signal whose waits follow this clock."""

    def wire(self, name: str, *, stream: bool = False) -> Wire:
        """Name an incoming wire; `stream` counts bytes, otherwise whole frames."""

    def spawn(self, name: str, function: Callable[[], None]) -> ClockThread:
        """Run `function` on a thread of its own. It must not raise."""

    def hold(self) -> AbstractContextManager[None]:
        """Keep simulated time still while real I/O or computation on other threads is in flight."""

    async def run_blocking(self, function: Callable[[], T]) -> T:
        """Run `function` on a thread of its own while simulated time stands still; raises what it raises."""

    def run(self, main: Callable[..., Awaitable[T]], *args: Any) -> T:
        """Run an event loop that follows this clock until `main` returns."""


def single_threaded(clock: Clock) -> bool:
    """Whether nobody else can run beside whoever moves this clock on: it spawns nothing, and nobody waits."""
    return bool(getattr(clock, "one_thread", False))


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
    def reset(self) -> None:
        """Nothing is known here: the device's own buffers are all there is."""

    def receive(self, read: Callable[[int, float], T | None], timeout_ns: int) -> T | None:
        return read(1, timeout_ns / NS_PER_S)


class _TimeSpec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class _TimerSpec(ctypes.Structure):
    _fields_ = (("interval", _TimeSpec), ("value", _TimeSpec))


class _LoopTimer:
    """Sleeps of one loop on a ``timerfd``: the kernel's own precision, where libuv's timers have 1 ms.

    The two system calls neither block nor give up the GIL (`ctypes.PyDLL`): under a thread that hogs the
    GIL, every time it is given up costs one switch interval to have it back.
    """

    _ABSOLUTE = 1

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        libc = ctypes.PyDLL(None, use_errno=True)
        self._set = libc.timerfd_settime
        self._fd: int = libc.timerfd_create(time.CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create failed")
        self._spec = _TimerSpec()
        self._reference = ctypes.byref(self._spec)
        self._sleepers: list[tuple[int, int, asyncio.Future[None]]] = []
        self._order = itertools.count()
        self._loop = loop
        loop.add_reader(self._fd, self._fire)

    def sleep(self, deadline_ns: int) -> asyncio.Future[None]:
        future: asyncio.Future[None] = self._loop.create_future()
        sleeper = (deadline_ns, next(self._order), future)
        heapq.heappush(self._sleepers, sleeper)
        if self._sleepers[0] is sleeper:
            self._arm(deadline_ns)
        return future

    def _arm(self, deadline_ns: int) -> None:
        # Setting the timer also clears its readiness, so that it never has to be read. 0 disarms it.
        self._spec.value.seconds, self._spec.value.nanoseconds = divmod(deadline_ns, NS_PER_S)
        self._set(self._fd, self._ABSOLUTE, self._reference, None)

    def _fire(self) -> None:
        sleepers, now_ns = self._sleepers, time.monotonic_ns()
        while sleepers and (sleepers[0][0] <= now_ns or sleepers[0][2].done()):
            future = heapq.heappop(sleepers)[2]
            if not future.done():
                future.set_result(None)
        self._arm(sleepers[0][0] if sleepers else 0)

    def close(self) -> None:
        self._loop.remove_reader(self._fd)
        os.close(self._fd)


class RealClock:
    """``CLOCK_MONOTONIC``: one domain for every process of this machine."""

    stepped = False

    def __init__(self, spin_ns: int = 3 * NS_PER_S // 1000) -> None:
        self.spin_ns = spin_ns
        self._timers: dict[asyncio.AbstractEventLoop, _LoopTimer] = {}
        self._starters: dict[asyncio.AbstractEventLoop, Starter] = {}

    def now_ns(self) -> int:
        return time.monotonic_ns()

    def wall_ns(self) -> int:
        return time.time_ns()

    async def sleep_until_ns(self, deadline_ns: int) -> None:
        """As the protocol says; to some 0.1 ms in a loop started by `run`, elsewhere to about 1 ms."""
        left_ns = deadline_ns - time.monotonic_ns()
        timer = self._timers.get(asyncio.get_running_loop())
        if left_ns <= 0 or timer is None:
            await asyncio.sleep(max(0, left_ns) / NS_PER_S)
        else:
            await timer.sleep(deadline_ns)

    def wait_until_ns(self, deadline_ns: int) -> None:
        while (left := deadline_ns - time.monotonic_ns()) > 0:
            time.sleep(left / NS_PER_S)

    def spin_until_ns(self, deadline_ns: int) -> int:
        """As the protocol says; the GIL is kept.

        Whoever asks for it in that time gets it when this returns, so what comes next may be late; the value
        returned is not.
        """
        # The interpreter gives the GIL up between bytecodes, and here there are none.
        return next(filter(deadline_ns.__le__, iter(time.monotonic_ns, None)))

    def signal(self) -> Signal:
        return _RealSignal()

    def wire(self, name: str, *, stream: bool = False) -> Wire:
        del name, stream
        return _RealWire()

    def spawn(self, name: str, function: Callable[[], None]) -> ClockThread:
        thread = LoopThread(name, function)
        thread.start()
        return thread

    @contextlib.contextmanager
    def hold(self) -> Iterator[None]:
        yield

    async def run_blocking(self, function: Callable[[], T]) -> T:
        """As the protocol says. A cancelled call is left to itself, and the end of the process with it."""
        await anyio.lowlevel.checkpoint_if_cancelled()
        # Not a worker of anyio's: the interpreter waits for those before it exits, however long they take.
        call = ThreadCall(function)
        thread = LoopThread("blocking", call.run)
        starter = self._starters.get(asyncio.get_running_loop())
        if starter is None:
            thread.start()
        else:
            starter.start(thread)
        await thread.done()
        return call.result()

    def run(self, main: Callable[..., Awaitable[T]], *args: Any) -> T:
        return anyio.run(self._run, main, args, backend="asyncio", backend_options={"use_uvloop": True})

    async def _run(self, main: Callable[..., Awaitable[T]], args: tuple[Any, ...]) -> T:
        loop = asyncio.get_running_loop()
        with contextlib.ExitStack() as stack:
            self._starters[loop] = starter = Starter()
            stack.callback(starter.close)
            stack.callback(self._starters.pop, loop)
            if sys.platform.startswith("linux"):
                self._timers[loop] = timer = _LoopTimer(loop)
                stack.callback(timer.close)
                stack.callback(self._timers.pop, loop)
            return await main(*args)
