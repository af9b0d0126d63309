"""LeRobot's asynchronous client and server, re-created from their published rules, for comparison."""

from __future__ import annotations

import math

import numpy as np

from bench.splice_policies import JOINTS, RATE_HZ, Synthetic, Trace
from runtime.messages import Floats


def lerobot_queue(
    policy: Synthetic, latency_s: float, ticks: int, scale: Floats, new_weight: float = 0.7
) -> Trace:
    """LeRobot's asynchronous client and server, re-created from their published rules.

    Client, per tick: execute the first queued action, if any; if the queue is at most half full, send an
    observation numbered by the last executed step, marked ``must_go`` when the queue is empty and a chunk
    came since the last such mark. Server: keeps one observation, the newest; refuses, unless ``must_go``,
    those of a step that it answered before and those whose state moved by less than 1 (L2) since the last
    answered one; one inference at a time. A chunk's row `k` is for step ``observation + k``; rows of
    executed steps are dropped, rows of queued steps averaged, and the queue is replaced.
    """
    delay = math.ceil(latency_s * RATE_HZ - 1e-9)
    trace, client, server = Trace(), _Client(new_weight), _Server(policy, delay, scale)
    for tick in range(10 * ticks):
        for step, rows in server.finished(tick):
            client.receive(step, rows, trace, scale)
        client.act(trace)
        client.observe(server, tick)
        if len(trace.rows) >= ticks:
            break
    return trace


class _Client:
    def __init__(self, new_weight: float) -> None:
        self.queue: dict[int, Floats] = {}
        self.latest = -1
        self._chunk = 0
        self._must_go = True
        self._weight = new_weight
        self._position: Floats | None = None

    def receive(self, step: int, rows: Floats, trace: Trace, scale: Floats) -> None:
        """Replace the queue."""
        merged: dict[int, Floats] = {}
        for place, row in enumerate(rows, step):
            if place <= self.latest:
                continue
            if place in self.queue:
                merged[place] = (1 - self._weight) * self.queue[place] + self._weight * row
            else:
                merged[place] = row
        before = self.queue.get(min(merged, default=-1), self._position)
        if before is not None and merged:
            jump = np.abs(merged[min(merged)] - before)[:-1] / scale[:-1]
            trace.seams.append(float(jump.max()))
        trace.chunks += 1
        self.queue, self._chunk, self._must_go = merged, max(self._chunk, len(rows)), True

    def act(self, trace: Trace) -> None:
        """Execute the first queued action."""
        if self.queue:
            step = min(self.queue)
            self._position = self.queue.pop(step)
            self.latest = step
        elif self._chunk:
            trace.starved += 1
        if self._position is not None:
            trace.rows.append(self._position)
            trace.steps.append(self.latest)

    def observe(self, server: _Server, tick: int) -> None:
        """Send an observation if the queue is at most half full."""
        if len(self.queue) > 0.5 * self._chunk:
            return
        must_go = self._must_go and not self.queue
        position = self._position if self._position is not None else np.zeros(JOINTS)
        server.enqueue(tick, max(self.latest, 0), position, must_go)
        if must_go:
            self._must_go = False


class _Server:
    def __init__(self, policy: Synthetic, delay: int, scale: Floats) -> None:
        self._policy = policy
        self._delay = delay
        self._scale = scale
        self._waiting: tuple[int, Floats] | None = None
        self._running: tuple[int, int, Floats] | None = None
        self._answered: set[int] = set()
        self._last: Floats | None = None

    def enqueue(self, tick: int, step: int, position: Floats, must_go: bool) -> None:
        """Keep the observation, or refuse it."""
        similar = self._last is not None and float(np.linalg.norm(position - self._last)) < 1.0
        if must_go or self._last is None or not (step in self._answered or similar):
            self._waiting = (step, position)
            self._begin(tick)

    def _begin(self, tick: int) -> None:
        if self._running is None and self._waiting is not None:
            step, position = self._waiting
            self._waiting = None
            self._answered.add(step)
            self._last = position
            rows = self._policy.chunk(step, np.zeros((0, JOINTS)), 0)
            self._running = (tick + self._delay, step, rows)

    def finished(self, tick: int) -> list[tuple[int, Floats]]:
        """The chunk that is done at `tick`, if any; the next inference begins at once."""
        if self._running is None or self._running[0] > tick:
            return []
        _, step, rows = self._running
        self._running = None
        self._begin(tick)
        return [(step, rows)]
