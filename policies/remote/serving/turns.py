"""Who is read when, so that reading what is hostile holds up nobody whose messages are good.

A message has to be decoded before its token or its faults are known, and one that asks for much costs some
milliseconds. So whoever has had an answer, and was never refused for what was sent, is read at once. All
others are read one at a time, one of each in turn, and after each the loop rests from it: a processor that is
not kept busy is also what the operating system gives at once to who comes next.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import TypeVar

from runtime.clock import Clock

T = TypeVar("T")
REST = 4
"""How much longer than the reading took."""
MOST_REST_NS = 50_000_000


class Turns:
    """The order in which peers' messages are decoded. On one event loop only."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._reading = False
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}  # who is next first

    async def read(self, name: str, decode: Callable[[], T]) -> T:
        """`decode` of a message of the peer called `name`, when it is its turn; raises what that raises."""
        await self._turn(name)
        try:
            started = self._clock.now_ns()
            try:
                return decode()
            finally:
                ended = self._clock.now_ns()
                await self._clock.sleep_until_ns(ended + min(REST * (ended - started), MOST_REST_NS))
        finally:
            self._pass_on()

    async def _turn(self, name: str) -> None:
        if not self._reading:
            self._reading = True
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(name, deque()).append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():  # it had just been given
                self._pass_on()
            raise

    def _pass_on(self) -> None:
        while self._waiting:
            name = next(iter(self._waiting))
            turns = self._waiting.pop(name)
            turn = turns.popleft()
            if turns:
                self._waiting[name] = turns  # last in order
            if not turn.done():
                turn.set_result(None)
                return
        self._reading = False
