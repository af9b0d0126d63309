"""What waits to be sent to one page: of each kind the newest, and no queue."""

from __future__ import annotations

import asyncio

from dexrun.panel.server import messages
from dexrun.panel.server.messages import Watched

_ANSWERS = 64


class PageMail:
    """Of one page. Everything is the event loop's.

    A page that reads slowly gets fewer pictures and ticks, never older ones; what it sent commands for is
    answered in any case.

    Attributes:
        name: for the run's log.
        watched: what it wants to see.
        beat_ns: when it was heard of last. in_control: whether it has sent a command.
    """

    def __init__(self, name: str, now_ns: int) -> None:
        self.name = name
        self.watched = Watched()
        self.beat_ns = now_ns
        self.in_control = False
        self._newest: dict[str, str | bytes] = {}
        self._answers: list[str] = []
        self._there = asyncio.Event()
        self._shown: dict[str, int] = {}
        self._sent_ns: dict[str, int] = {}
        self._drawing: set[str] = set()

    def put(self, key: str, message: str | bytes) -> None:
        """Send `message`, in the place of one of the same `key` that has not gone yet."""
        self._newest[key] = message
        self._there.set()

    def answer(self, number: int, *, ok: bool, error: str) -> None:
        """Say what became of its command `number`."""
        if len(self._answers) < _ANSWERS:
            self._answers.append(messages.text("answer", {"id": number, "ok": ok, "error": error}))
        self._there.set()

    async def next(self) -> list[str | bytes]:
        """All that waits, answers first; waits until there is something."""
        await self._there.wait()
        self._there.clear()
        waiting = [*self._answers, *self._newest.values()]
        self._answers, self._newest = [], {}
        return waiting

    def waiting(self) -> int:
        """How many messages wait."""
        return len(self._answers) + len(self._newest)

    # --- pictures: one of a stream on its way at a time

    def watch(self, watched: Watched) -> None:
        """Want this from now on."""
        self.watched = watched
        self._drawing &= set(watched.streams)

    def wants(self, stream: str, index: int, now_ns: int) -> bool:
        """Whether it is ready for picture `index` of `stream`."""
        rate = self.watched.streams.get(stream)
        if rate is None or stream in self._drawing or index <= self._shown.get(stream, -1):
            return False
        return now_ns - self._sent_ns.get(stream, -1 << 62) >= 0.9e9 / rate

    def expect(self, stream: str, index: int, now_ns: int) -> None:
        """Picture `index` of `stream` is made for it, or sent."""
        self._drawing.add(stream)
        self._shown[stream], self._sent_ns[stream] = index, now_ns

    def seen(self, stream: str) -> None:
        """It has drawn the last one."""
        self._drawing.discard(stream)

    def forget(self) -> None:
        """Another run begins: nothing of it was shown yet."""
        self._shown, self._sent_ns = {}, {}
        self._drawing = set()
