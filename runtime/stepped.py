"""A clock that moves only when nobody has anything left to do: discrete events over real threads.

At any moment exactly one of the loop and the threads started by `SteppedClock.spawn` runs; the others
are parked in a call of this clock. When the loop is about to block and no thread can run, the clock
jumps to the earliest time that anybody waits for, tells the simulation to come along, and wakes whom it
concerns. At one instant the order is fixed: simulation, threads in the order of their start, loop. A run
is therefore a function of its inputs alone, and takes as long as it computes.

A thread that is still parked when the loop ends is released by a `ClockClosed` raised in its wait.

Real I/O that is answered without simulated time passing (a servo bus transaction with an emulator, an
HTTP request to a local server under `SteppedClock.hold`) is simply waited for.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import itertools
import selectors
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping
from queue import Empty, SimpleQueue
from typing import Any, Protocol, TypeVar

import anyio
import anyio.lowlevel
import anyio.to_thread

from runtime.clock import NS_PER_S, ClockThread, RealClock, Signal, Wire

T = TypeVar("T")

READ_GUARD_S = 10.0
"""How long, in wall time, data that the simulation says it sent may take to arrive."""


OUTSIDE_GUARD_S = 60.0
"""How long, in wall time, an idle loop waits for real I/O that nobody declared by `SteppedClock.hold`."""


_LOOP_FOREVER_S = 24 * 3600.0
"""What asyncio cuts longer waits to (``asyncio.base_events.MAXIMUM_SELECT_TIMEOUT``)."""


class Simulation(Protocol):
    """What moves along with the clock."""

    def next_event_ns(self) -> int | None:
        """When it will next send something on a wire of its own accord."""

    def advance(self, to_ns: int) -> Mapping[str, int]:
        """Move to `to_ns`; returns how many units (frames, bytes) were sent, by wire name."""


class SteppedClockError(RuntimeError):
    """The stepped clock was used in a way that would never end or never repeat."""


class ClockClosed(BaseException):
    """Raised in a parked thread when its clock is closed: nothing will ever wake it. Not to be caught."""


class _Thread:
    """A participant. `gate` lets it run; it parks by handing control back to the scheduler."""

    def __init__(self, clock: SteppedClock, name: str, function: Callable[[], None]) -> None:
        self.name = name
        self.wake_ns: int | None = clock.now_ns()
        self.runnable = False
        self.done = False
        self.gate: SimpleQueue[int] = SimpleQueue()
        self._took = 0
        self._clock = clock
        self._function = function
        self._joiners: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []
        self.thread = threading.Thread(target=self._main, name=name, daemon=True)
        self.thread.start()

    def take_turn(self) -> None:
        """Wait for the next turn; one that is over, or was had, is none."""
        while (turn := self.gate.get()) != self._clock.turn or turn == self._took:
            pass
        self._took = turn

    def _main(self) -> None:
        self.take_turn()
        self._clock._thread_began(self)  # noqa: SLF001 - one mechanism in two classes
        try:
            if not self._clock.closed:
                self._function()
        except ClockClosed:
            pass
        finally:
            self.done = True
            for loop, event in self._joiners:
                with contextlib.suppress(RuntimeError):  # that loop is closed
                    loop.call_soon_threadsafe(event.set)
            self._clock._thread_done(self)  # noqa: SLF001 - one mechanism in two classes

    def is_alive(self) -> bool:
        return not self.done

    async def join(self) -> None:
        if not self.done:
            event = asyncio.Event()
            self._joiners.append((asyncio.get_running_loop(), event))
            await event.wait()
        self.thread.join()


class _SteppedSignal:
    def __init__(self, clock: SteppedClock) -> None:
        self._clock = clock
        self._set = False
        self._waiter: _Thread | None = None

    def set(self) -> None:
        self._set = True
        if self._waiter is not None:
            self._waiter.runnable = True
            self._clock.poke()

    def wait(self, timeout_ns: int | None = None) -> bool:
        deadline = None if timeout_ns is None else self._clock.now_ns() + timeout_ns
        me = self._clock.current_thread()
        while not self._set and (deadline is None or self._clock.now_ns() < deadline):
            if me is None:
                self._clock.step_or_fail(deadline)
                continue
            self._waiter = me
            try:
                self._clock.park(me, deadline)
            finally:
                self._waiter = None
        fired, self._set = self._set, False
        return fired


class _SteppedWire:
    def __init__(self, clock: SteppedClock, name: str, stream: bool) -> None:
        self._clock = clock
        self._name = name
        self._stream = stream
        self._credit = 0
        self._signal = _SteppedSignal(clock)

    def credit(self, units: int) -> None:
        self._credit += units
        self._signal.set()

    def reset(self) -> None:
        self._credit = 0

    def receive(self, read: Callable[[int, float], T | None], timeout_ns: int) -> T | None:
        deadline = self._clock.now_ns() + timeout_ns
        while self._credit == 0:
            left = deadline - self._clock.now_ns()
            if left <= 0:
                return None
            self._signal.wait(left)
        units = self._credit if self._stream else 1
        self._credit -= units
        return read(units, READ_GUARD_S)


class SteppedClock:
    """Simulated time, from `start_ns` on.

    `run` drives it by an event loop. Without a loop, a thread that is not the clock's own (a test's) drives
    it by waiting; such a clock is closed by `close`, or by leaving it as a context manager.
    """

    stepped = True
    spin_ns = 0

    def __init__(self, start_ns: int = 0) -> None:
        self._now_ns = start_ns
        self._simulation: Simulation | None = None
        self._threads: list[_Thread] = []
        """In the order of their start."""
        self._by_ident: dict[int, _Thread] = {}
        self._wires: dict[str, _SteppedWire] = {}
        self._sleepers: list[tuple[int, int, asyncio.Future[None]]] = []
        self._sequence = itertools.count()
        self._holds = 0
        self._hold_lock = threading.Lock()
        self._parked: SimpleQueue[int] = SimpleQueue()
        self.turn = self._back = 0
        """Of the thread that runs, and the last that was handed back."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._loop_ident: int | None = None
        self.closed = False
        self.round_up = False
        """Whether the loop waits for less than a nanosecond, which is how far its floats are from ours."""

    def __enter__(self) -> SteppedClock:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Release every thread that is still parked and wait for its end; time stands still for ever."""
        self.closed = True
        while self._threads:
            thread = self._threads[0]
            self.turn += 1
            thread.gate.put(self.turn)
            try:
                while self._parked.get(timeout=READ_GUARD_S) != self.turn:
                    pass
            except Empty:
                stuck = f"thread {thread.name} does not end although its clock was closed"
                raise SteppedClockError(stuck) from None
            thread.thread.join()

    # --- the Clock protocol

    def now_ns(self) -> int:
        return self._now_ns

    def wall_ns(self) -> int:
        return RealClock().wall_ns()

    async def sleep_until_ns(self, deadline_ns: int) -> None:
        if deadline_ns <= self._now_ns:
            await anyio.lowlevel.checkpoint()
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (deadline_ns, next(self._sequence), future))
        await future

    def wait_until_ns(self, deadline_ns: int) -> None:
        me = self.current_thread()
        while self._now_ns < deadline_ns:
            if me is None:
                self.step_or_fail(deadline_ns)
            else:
                self.park(me, deadline_ns)

    def spin_until_ns(self, deadline_ns: int) -> int:
        if deadline_ns > self._now_ns:
            raise SteppedClockError("a task spins on the stepped clock before its deadline")
        return self._now_ns

    def signal(self) -> Signal:
        return _SteppedSignal(self)

    def wire(self, name: str, *, stream: bool = False) -> Wire:
        if name not in self._wires:
            self._wires[name] = _SteppedWire(self, name, stream)
        return self._wires[name]

    def spawn(self, name: str, function: Callable[[], None]) -> ClockThread:
        if self.closed:
            raise SteppedClockError(f"thread {name} is started on a closed clock")
        thread = _Thread(self, name, function)
        self._threads.append(thread)
        return thread

    @contextlib.contextmanager
    def hold(self) -> Iterator[None]:
        with self._hold_lock:
            self._holds += 1
        try:
            yield
        finally:
            with self._hold_lock:
                self._holds -= 1
            self.poke()

    async def run_blocking(self, function: Callable[[], T]) -> T:
        with self.hold():
            return await anyio.to_thread.run_sync(function)

    def run(self, main: Callable[..., Awaitable[T]], *args: Any) -> T:
        """Run until `main` returns; then every thread still parked is released and the clock is closed."""
        if self.closed or self._loop is not None:
            raise SteppedClockError("a stepped clock runs one loop, once")
        options = {"loop_factory": self._make_loop}
        try:
            return anyio.run(main, *args, backend="asyncio", backend_options=options)
        finally:
            self._loop = None
            self.close()

    def _make_loop(self) -> asyncio.AbstractEventLoop:
        self._loop, self._loop_ident = _SteppedLoop(self), threading.get_ident()
        return self._loop

    def stall(self, duration_ns: int, *, threads: bool = False) -> None:
        """Time goes by and nobody runs, as while the whole process is stopped: called by the loop alone.

        Afterwards everybody is late who had something to do meanwhile, and what was sent waits on its wire.
        With `threads`, those run on, and the loop alone is held up, as by a callback that does not return.
        """
        until_ns = self._now_ns + duration_ns
        while self._now_ns < until_ns:
            if not threads:
                self._jump(until_ns)
            elif not self.run_threads():
                self._jump(min(self._next_ns(until_ns, loop=False) or until_ns, until_ns))

    # --- the scheduler

    def attach(self, simulation: Simulation) -> None:
        """Take `simulation` along from now on."""
        self._simulation = simulation

    def detach(self) -> None:
        """Leave the simulation behind (it is about to be closed)."""
        self._simulation = None

    def current_thread(self) -> _Thread | None:
        """The participant that calls, or ``None`` for the loop's (or a test's) own thread."""
        return self._by_ident.get(threading.get_ident())

    def park(self, thread: _Thread, wake_ns: int | None) -> None:
        """Hand control back until `wake_ns` or until made runnable.

        Raises:
            ClockClosed: nobody will ever wake this thread.
        """
        if not self.closed:
            thread.wake_ns = wake_ns
            self._hand_back()
            thread.take_turn()
        if self.closed:
            raise ClockClosed

    def poke(self) -> None:
        """Have a blocked loop look again; needed only when neither it nor a participant calls."""
        loop = self._loop
        if loop is None or threading.get_ident() == self._loop_ident or self.current_thread() is not None:
            return
        with contextlib.suppress(RuntimeError):  # closed meanwhile
            loop.call_soon_threadsafe(lambda: None)

    def _thread_began(self, thread: _Thread) -> None:
        self._by_ident[threading.get_ident()] = thread

    def _thread_done(self, thread: _Thread) -> None:
        del self._by_ident[threading.get_ident()]
        self._threads.remove(thread)
        self._hand_back()

    def _hand_back(self) -> None:
        self._back = self.turn
        self._parked.put(self.turn)

    def run_threads(self) -> bool:
        """Run every thread that can run now, one after the other; whether there was any."""
        ran = False
        while (thread := self._ready()) is not None:
            thread.runnable, thread.wake_ns = False, None
            self._run_one(thread)
            ran = True
        return ran

    def _run_one(self, thread: _Thread) -> None:
        """Let `thread` run until it has handed control back; an interrupt comes up only after that.

        The interrupt may come between what a queue does and the next bytecode, so that nobody knows whether
        that was done: each turn has a number, is given again, and counts once.
        """
        self.turn += 1
        interrupt: KeyboardInterrupt | None = None
        while self._back != self.turn:
            try:
                thread.gate.put(self.turn)
                while self._parked.get() != self.turn:
                    pass
            except KeyboardInterrupt as error:
                if interrupt is not None:  # the second time: whatever the thread does, it does not end
                    raise
                interrupt = error
        if interrupt is not None:
            raise interrupt

    def _ready(self) -> _Thread | None:
        """The first of the threads that can run now."""
        now = self._now_ns
        for thread in self._threads:
            if thread.runnable or (thread.wake_ns is not None and thread.wake_ns <= now):
                return thread
        return None

    def step(self, limit_ns: int | None) -> bool:
        """Run what can run now or, if nothing can, jump to the next event, at most `limit_ns`.

        Returns:
            ``False`` if there is nothing to wait for at all.
        """
        if self.run_threads():
            return True
        target = self._next_ns(limit_ns)
        if target is None:
            return False
        self._jump(target)
        return True

    def step_or_fail(self, limit_ns: int | None) -> None:
        """Like `step`, for a caller that would otherwise wait for ever.

        Raises:
            SteppedClockError: there is nothing to wait for.
        """
        if self.closed:
            raise SteppedClockError("a wait on a closed clock would never end")
        if not self.step(limit_ns):
            raise SteppedClockError(self.stuck())

    def stuck(self) -> str:
        """One line that says who waits although nothing can happen any more."""
        waiting = ", ".join(t.name for t in self._threads) or "no thread"
        return f"at {self._now_ns} ns nothing is left to wait for: {waiting} parked, no sleep, no event"

    def _next_ns(self, limit_ns: int | None, *, loop: bool = True) -> int | None:
        candidates = [t.wake_ns for t in self._threads if t.wake_ns is not None]
        while self._sleepers and self._sleepers[0][2].done():  # cancelled
            heapq.heappop(self._sleepers)
        candidates += [s[0] for s in self._sleepers[:1] if loop]
        if limit_ns is not None:
            candidates.append(limit_ns)
        if self._simulation is not None and (event := self._simulation.next_event_ns()) is not None:
            candidates.append(event)
        return max(min(candidates), self._now_ns) if candidates else None

    def _jump(self, target_ns: int) -> None:
        sent: Mapping[str, int] = {}
        if self._simulation is not None:
            sent = self._simulation.advance(target_ns)
        self.round_up &= self._now_ns == target_ns
        self._now_ns = target_ns
        for name, units in sent.items():
            wire = self._wires.get(name)
            if wire is not None and units:
                wire.credit(units)

    def wake_sleepers(self) -> bool:
        """Complete the loop's sleeps that are due; whether there was any."""
        woke = False
        while self._sleepers and self._sleepers[0][0] <= self._now_ns:
            _, _, future = heapq.heappop(self._sleepers)
            if not future.done():
                future.set_result(None)
                woke = True
        return woke

    @property
    def held(self) -> bool:
        """Whether real I/O is in flight, so that time may not move."""
        return self._holds > 0


class _SteppedSelector(selectors.DefaultSelector):
    """Where an idle loop would block, let the clock move instead."""

    def __init__(self, clock: SteppedClock) -> None:
        super().__init__()
        self._clock = clock

    def select(self, timeout: float | None = None) -> Any:
        clock = self._clock
        if timeout is not None and timeout >= _LOOP_FOREVER_S:
            timeout = None  # a sleep without end: time does not move for its sake
        limit = None if timeout is None else clock.now_ns() + max(0, round(timeout * NS_PER_S))
        if limit is not None and limit <= clock.now_ns():
            clock.round_up = bool(timeout)
            return super().select(0)
        while True:
            clock.run_threads()
            events = super().select(0)
            # Sleeps first: what real I/O or the loop's own timers bring at the same instant comes after them,
            # however fast the machine is.
            if clock.wake_sleepers() or events or (limit is not None and limit <= clock.now_ns()):
                return events
            if clock.held:
                return super().select(None)
            if not clock.step(limit):
                return self._await_outside()

    def _await_outside(self) -> Any:
        """Only something outside the clock (a socket, a child, another thread) can go on from here."""
        events = super().select(OUTSIDE_GUARD_S)
        if not events:
            raise SteppedClockError(self._clock.stuck())
        return events


class _SteppedLoop(asyncio.SelectorEventLoop):
    def __init__(self, clock: SteppedClock) -> None:
        self._clock = clock
        super().__init__(_SteppedSelector(clock))

    def time(self) -> float:
        # A deadline a few 1e-17 s away would be waited for for ever: it never is a nanosecond away.
        return (self._clock.now_ns() + self._clock.round_up) / NS_PER_S
