"""The clock of a simulation in one process: it is set by who steps it, and nobody waits on it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NoReturn, TypeVar

from runtime.clock import ClockThread, Signal, Wire

T = TypeVar("T")


class SetClock:
    """Implements `runtime.clock.Clock` for one thread; `set` moves it on.

    Raises:
        RuntimeError: from whatever would wait: nobody else is there to move the time.
    """

    stepped = True
    spin_ns = 0
    one_thread = True

    def __init__(self) -> None:
        self._now_ns = 0

    def set(self, now_ns: int) -> None:
        """It is `now_ns`."""
        self._now_ns = now_ns

    def now_ns(self) -> int:
        """The present."""
        return self._now_ns

    def wall_ns(self) -> int:
        """Simulated, too: two runs are alike."""
        return self._now_ns

    async def sleep_until_ns(self, deadline_ns: int) -> None:
        """Never comes."""
        self._refuse(deadline_ns)

    def wait_until_ns(self, deadline_ns: int) -> None:
        """Never comes."""
        self._refuse(deadline_ns)

    def spin_until_ns(self, deadline_ns: int) -> int:
        """Never comes."""
        self._refuse(deadline_ns)

    def signal(self) -> Signal:
        """Nobody waits for one."""
        self._refuse("a signal")

    def wire(self, name: str, *, stream: bool = False) -> Wire:
        """There are no wires."""
        del stream
        self._refuse(name)

    def spawn(self, name: str, function: Callable[[], None]) -> ClockThread:
        """There is one thread."""
        del function
        self._refuse(name)

    def hold(self) -> AbstractContextManager[None]:
        """Time stands still anyway."""
        return nullcontext()

    async def run_blocking(self, function: Callable[[], T]) -> T:
        """Here and now."""
        return function()

    def run(self, main: Callable[..., Awaitable[T]], *args: Any) -> T:
        """There is no event loop."""
        del args
        self._refuse(main)

    def _refuse(self, what: object) -> NoReturn:
        raise RuntimeError(f"nothing can wait in a simulation of one thread ({what})")
