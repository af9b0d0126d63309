"""Processes that do an export's work, and how they say how far they are."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from typing import Any

_LOOK_S = 0.1
_counter: Any = None


_STOP = -(1 << 60)


class StoppedError(Exception):
    """The export is over; what is left of this task is not wanted."""


def count(images: int) -> None:
    """Say that so many more images are done; called in any process.

    Raises:
        StoppedError: the export failed elsewhere, or was interrupted.
    """
    if _counter is not None:
        with _counter.get_lock():
            if _counter.value < 0:
                raise StoppedError
            _counter.value += images


def _set_counter(counter: Any) -> None:
    global _counter
    _counter = counter


def _begin(counter: Any) -> None:
    """In a new process. Ctrl-C reaches all of them; only the first one answers it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _set_counter(counter)


class Workers:
    """Processes, or, where one is enough, this one."""

    def __init__(self, jobs: int) -> None:
        import multiprocessing

        wanted = jobs or len(os.sched_getaffinity(0))
        context = multiprocessing.get_context("spawn")
        self._counter = context.Value("q", 0)
        self._pool: ProcessPoolExecutor | None = None
        if wanted > 1:
            self._pool = ProcessPoolExecutor(
                wanted, mp_context=context, initializer=_begin, initargs=(self._counter,)
            )

    def __enter__(self) -> Workers:
        _set_counter(self._counter)
        return self

    def __exit__(self, *error: object) -> None:
        if error[0] is not None:
            self._counter.value = _STOP
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
        _set_counter(None)

    def map(
        self, call: Callable[..., Any], arguments: Sequence[tuple[Any, ...]], told: Callable[[int, int], None]
    ) -> list[Any]:
        """Results in order; the first failure ends it."""
        self._counter.value = 0
        if self._pool is None:
            results = []
            for done, values in enumerate(arguments, 1):
                results.append(call(*values))
                told(done, self._counter.value)
            return results
        futures = [self._pool.submit(call, *values) for values in arguments]
        self._follow(futures, told)
        return [future.result() for future in futures]

    def _follow(self, futures: Sequence[Future[Any]], told: Callable[[int, int], None]) -> None:
        waiting = set(futures)
        while waiting:
            finished, waiting = wait(waiting, _LOOK_S, FIRST_COMPLETED)
            told(len(futures) - len(waiting), self._counter.value)
            for future in finished:
                future.result()
