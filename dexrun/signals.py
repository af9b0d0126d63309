"""The signals that end a run, from the program's first lines to its last. Imports nothing heavy."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any


def numbers() -> list[signal.Signals]:
    """Signals that end a run. Under nohup a hang-up is ignored from the start, and stays so."""
    hang_up = [] if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else [signal.SIGHUP]
    return [signal.SIGINT, signal.SIGTERM, *hang_up]


def leave_at_once() -> None:
    """Until a run begins, each is one line and the shell's exit code: there is nothing to let go of."""
    for number in numbers():
        signal.signal(number, _leave)


def _leave(number: int, frame: FrameType | None) -> None:
    """Not by an exception: half-imported libraries turn it into something else, or lose it."""
    del frame
    os.write(2, f"dexrun: interrupted ({signal.Signals(number).name})\n".encode())
    os._exit(128 + number)


def _nobody() -> None:
    """Listens yet."""


class Ending:
    """Notes them from before a run's folder exists until after its summary is written; use as a context.

    The handlers stay the same from end to end, so that none comes between two owners.
    """

    def __init__(self) -> None:
        self._came: list[signal.Signals] = []
        self._before: dict[signal.Signals, Any] = {}
        self._wake: Callable[[], object] = _nobody

    def __enter__(self) -> Ending:
        self._before = {number: signal.signal(number, self._note) for number in numbers()}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            # Back to leaving at once, the exit code of a run that is over could still be spoiled.
            signal.signal(number, signal.SIG_IGN if handler is _leave else handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        del frame
        self._came.append(signal.Signals(number))
        self._wake()

    @property
    def came(self) -> bool:
        """Whether one did; for whoever asks between two pieces of work."""
        return bool(self._came)

    async def next(self) -> signal.Signals:
        """The next one, or one that came before anybody asked. For one task."""
        import asyncio

        loop, came = asyncio.get_running_loop(), asyncio.Event()
        self._wake = lambda: loop.call_soon_threadsafe(came.set)
        try:
            while not self._came:  # looked at only now: until here nobody was woken
                await came.wait()
        finally:
            self._wake = _nobody
        return self._came.pop(0)
