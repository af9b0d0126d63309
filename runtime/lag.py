"""Watches the event loop and names what held it up. Always on."""

from __future__ import annotations

import asyncio
import sys
import threading
import traceback
from collections import deque
from dataclasses import dataclass
from types import FrameType

import anyio
from loguru import logger
from pydantic import Field

from runtime.clock import NS_PER_S, Clock, ClockThread
from runtime.options import Options
from runtime.statistics import Histogram


class LagOptions(Options):
    """How the loop is watched.

    Attributes:
        beat_s: how often the loop's heartbeat is due.
        threshold_s: a beat this late has its culprit looked for and named. A tick of the control loop, with
            its spin, is well below it.
        stack_depth: innermost frames that are kept of the culprit.
    """

    beat_s: float = Field(default=0.02, gt=0)
    threshold_s: float = Field(default=0.01, gt=0)
    stack_depth: int = Field(default=8, ge=1)


@dataclass(slots=True)
class Lag:
    """The loop was held up: by `task`, where `stack` was when the watcher looked, innermost frame last.

    No task: the loop waited for events, and was not woken.
    `running` are the other threads that were computing then, each with where it was.
    """

    at_ns: int
    late_ns: int
    task: str
    stack: tuple[str, ...]
    running: tuple[str, ...] = ()

    def __str__(self) -> str:
        where = f", at {self.stack[-1]}" if self.stack else ""
        beside = f"; running beside it: {'; '.join(self.running)}" if self.running else ""
        if not self.task:
            beside = beside or "; no thread of this program was computing: the machine was busy with others"
            return f"the loop woke {self.late_ns / 1e6:.1f} ms late, and was itself idle{beside}"
        by = "what was over before it was looked at" if self.task == "unknown" else self.task
        return f"the loop was held up for {self.late_ns / 1e6:.1f} ms by {by}{where}{beside}"


class LagMonitor:
    """A heartbeat on the loop, and a watcher thread that looks at the loop's stack while a beat is overdue.

    The heartbeat's lateness goes into `histogram`; what held it up into `lags` (the newest 64), and one
    line into the log for the 1st, 2nd, 4th, 8th... whose culprit was seen. On a stepped clock, where a
    callback takes no time, nothing is ever late. A thread that hogs the GIL, or a busy machine, makes the
    loop late without being on its stack: such a lag has no task, and the threads that were computing at the
    time are named.
    """

    def __init__(
        self, clock: Clock, histogram: Histogram | None = None, options: LagOptions | None = None
    ) -> None:
        self.histogram = histogram if histogram is not None else Histogram()
        self.lags: deque[Lag] = deque(maxlen=64)
        self.count = 0
        self._named = 0
        self._clock = clock
        self._options = options or LagOptions()
        self._beat_ns = round(self._options.beat_s * NS_PER_S)
        self._limit_ns = round(self._options.threshold_s * NS_PER_S)
        self._due_ns = 0  # written by the loop, read by the watcher: one reference, whole under the GIL
        self._seen: Lag | None = None
        self._stopping = False
        self._wake = clock.signal()
        self._loop_ident = 0
        self._loop: asyncio.AbstractEventLoop | None = None

    async def run(self) -> None:
        """Watch the running loop until cancelled."""
        self._loop, self._loop_ident = asyncio.get_running_loop(), threading.get_ident()
        self._due_ns = self._clock.now_ns() + self._beat_ns
        watcher = self._clock.spawn("loop-lag", self._watch)
        try:
            while True:
                await self._clock.sleep_until_ns(self._due_ns)
                self._beat(self._clock.now_ns())
        finally:
            await self._stop(watcher)

    async def _stop(self, watcher: ClockThread) -> None:
        self._stopping = True
        self._wake.set()
        with anyio.CancelScope(shield=True):  # asyncio's own shield does not hold in a cancelled scope
            await watcher.join()

    def _beat(self, now_ns: int) -> None:
        late_ns = now_ns - self._due_ns
        self._due_ns = now_ns + self._beat_ns
        self.histogram.record(late_ns)
        seen, self._seen = self._seen, None
        if late_ns > self._limit_ns:
            lag = seen or Lag(now_ns, late_ns, "unknown", ())
            lag.late_ns = late_ns
            self.lags.append(lag)
            self.count += 1
            seen_something = bool(lag.stack or lag.running)
            self._named += seen_something
            if seen_something and self._named & (self._named - 1) == 0:
                asyncio.get_running_loop().call_soon(self._report, lag, self._named)

    def _report(self, lag: Lag, count: int) -> None:
        logger.warning("{} (time {})\n{}", lag, count, "\n".join(lag.stack))

    def _watch(self) -> None:
        while not self._stopping:
            now_ns = self._clock.now_ns()
            overdue_ns = now_ns - self._due_ns
            seen = self._seen
            # A machine that paused shows an idle loop first; who holds it up after that is looked for on.
            if overdue_ns > self._limit_ns and (seen is None or not seen.stack):
                look = self._look(now_ns, overdue_ns)
                self._seen = look if look.stack or seen is None else seen
            self._wake.wait(max(self._limit_ns - overdue_ns, self._limit_ns // 2))

    def _look(self, now_ns: int, overdue_ns: int) -> Lag:
        frames = sys._current_frames()  # noqa: SLF001 - the documented way to a stack
        task = asyncio.current_task(self._loop) if self._loop is not None else None
        stack = _stack(frames.get(self._loop_ident), self._options.stack_depth)
        name = f"task {task.get_name()}" if task is not None else "a callback" if stack else ""
        others = {i: f for i, f in frames.items() if i not in (self._loop_ident, threading.get_ident())}
        return Lag(now_ns, overdue_ns, name, stack, _running(others))


def _stack(frame: FrameType | None, depth: int) -> tuple[str, ...]:
    """``file:line in function``, innermost last; nothing if the loop only waits for events."""
    summary = traceback.extract_stack(frame) if frame is not None else []
    lines = [f"{entry.filename}:{entry.lineno} in {entry.name}" for entry in summary]
    waiting = bool(summary) and (summary[-1].name in {"select", "run_forever", "run_until_complete", "run"})
    return () if waiting else tuple(lines[-depth:])


def _running(frames: dict[int, FrameType]) -> tuple[str, ...]:
    """Threads that the system has running or waiting for a processor, and where they are."""
    out = []
    for thread in threading.enumerate():
        frame = frames.get(thread.ident or 0)
        if frame is not None and _computes(thread.native_id):
            code = frame.f_code
            out.append(f"{thread.name} at {code.co_filename}:{frame.f_lineno} in {code.co_name}")
    return tuple(out)


def _computes(native_id: int | None) -> bool:
    try:
        with open(f"/proc/self/task/{native_id}/stat", "rb") as text:
            return text.read().rpartition(b")")[2].split()[0] == b"R"
    except (OSError, IndexError):
        return False
