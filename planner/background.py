"""An event loop on a thread of its own, for work that must not run on the control loop.

The thread is deliberately unknown to the clock: it does real network I/O against the wall, while the
caller keeps simulated time still with ``clock.hold()``.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class BackgroundClosedError(Exception):
    """The loop was closed before the work was done."""


def _nothing() -> None:
    pass


class BackgroundLoop:
    """Runs coroutines elsewhere; `call` awaits them here."""

    def __init__(self, name: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._closing = False
        self._ended: Callable[[], object] = _nothing
        self._thread = threading.Thread(target=self._main, name=name, daemon=True)
        self._thread.start()

    def _main(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
        finally:
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            self._loop.run_until_complete(self._loop.shutdown_default_executor())
            self._loop.close()
            self._ended()

    async def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Run `work` over there and wait for it here; cancelling the wait cancels the work.

        Raises:
            BackgroundClosedError: `close` came first.
        """
        if self._closing:
            work.close()
            raise BackgroundClosedError
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if self._closing and task is not None and not task.cancelling():
                raise BackgroundClosedError from None
            raise

    async def close(self) -> None:
        """Cancel what is running there, end the loop, and wait for its thread. Idempotent."""
        if self._closing:
            return
        self._closing = True
        here, ended = asyncio.get_running_loop(), asyncio.Event()
        self._ended = lambda: here.call_soon_threadsafe(ended.set)
        self._loop.call_soon_threadsafe(lambda: self._loop.create_task(self._wind_down()))
        await ended.wait()
        self._thread.join()  # has nothing left to do

    async def _wind_down(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        self._loop.stop()
