"""Signals while devices are set up: put off where things change together, and an orderly end elsewhere."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Put off signals while the servos' EEPROM and the file change together: some 50 ms."""
    signals = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class EndedError(Exception):
    """SIGTERM or SIGHUP came."""


@contextlib.contextmanager
def ended_by_signals() -> Iterator[None]:
    def end(number: int, frame: FrameType | None) -> None:
        del frame
        raise EndedError(signal.Signals(number).name)

    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
