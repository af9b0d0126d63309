"""Threads of the real clock: joined on the loop, and started without making it wait."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Generic, TypeVar

T = TypeVar("T")


class LoopThread:
    """Runs `function` on a daemon thread; implements `runtime.clock.ClockThread`."""

    def __init__(self, name: str, function: Callable[[], None]) -> None:
        self.name = name
        self._function = function
        self._done = False
        self._joiners: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []
        self._thread = threading.Thread(target=self._main, name=name, daemon=True)

    def start(self) -> None:
        """Returns once it runs, which may be milliseconds later. Raises `RuntimeError` where it cannot."""
        try:
            self._thread.start()
        except BaseException:
            self._finish()
            raise

    def _main(self) -> None:
        try:
            self._function()
        finally:
            self._finish()

    def _finish(self) -> None:
        # Published before the joiners are read; `done` does it the other way round. Whichever of the
        # two runs first, the GIL orders them, so that no joiner is missed.
        self._done = True
        for loop, event in self._joiners:
            with contextlib.suppress(RuntimeError):  # that loop is closed
                loop.call_soon_threadsafe(event.set)

    def is_alive(self) -> bool:
        """Whether its function has not returned yet."""
        return self._thread.is_alive()

    async def done(self) -> None:
        """Wait, on the loop, until its function has returned. The thread itself may last a little longer."""
        event = asyncio.Event()
        self._joiners.append((asyncio.get_running_loop(), event))
        if not self._done:
            await event.wait()

    async def join(self) -> None:
        """Wait until its function has returned and the thread has ended."""
        await self.done()
        self._thread.join()


class ThreadCall(Generic[T]):
    """A call on another thread, and what came of it."""

    def __init__(self, function: Callable[[], T]) -> None:
        self._function = function
        self._value: list[T] = []
        self._error: BaseException | None = RuntimeError("no thread could be started for it")

    def run(self) -> None:
        """On the other thread. Never raises."""
        try:
            self._value.append(self._function())
        except BaseException as error:
            self._error = error
        else:
            self._error = None

    def result(self) -> T:
        """Once, after `run`: what it returned; raises what it raised."""
        error, self._error = self._error, None
        try:
            if error is not None:
                raise error
            return self._value[0]
        finally:
            del error  # its traceback holds this frame, and nobody may be collecting such circles


class Starter:
    """A thread that starts others.

    ``Thread.start`` waits until the new thread has run, and a new thread is an ordinary one: beside two busy
    processes that took 11 ms at p99 and up to 44 ms, in which the loop stood still.
    """

    def __init__(self) -> None:
        self._threads: SimpleQueue[LoopThread | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._main, name="starter", daemon=True)
        self._thread.start()

    def start(self, thread: LoopThread) -> None:
        """Soon, and without waiting for it."""
        self._threads.put(thread)

    def _main(self) -> None:
        while (thread := self._threads.get()) is not None:
            with contextlib.suppress(RuntimeError):  # who waits for it is told that it is over
                thread.start()

    def close(self) -> None:
        """What was asked for is started before this returns."""
        self._threads.put(None)
        self._thread.join()
