"""When the next chunk can be here: delays are counted in ticks, from one request to the splice it led to.

Rows are the policy's, of which a tick plays `rows_per_tick` at full speed.
"""

from __future__ import annotations

from collections import deque

from runtime.snapshots import State, recall, remember

_STATE = ("_asked_tick", "_asked_step", "_in_flight", "_delays", "_speed")
_REMEMBERED = 16
_SPEED_STEP = 0.1
_SLOWEST = 0.01


class RequestTiming:
    """What the loop knows of its source's speed, and how fast it therefore plays the horizon."""

    def __init__(self) -> None:
        self._asked_tick, self._asked_step = -1, 0
        self._in_flight = False
        self._delays: deque[int] = deque(maxlen=_REMEMBERED)
        self._speed = 1.0

    def restart(self) -> None:
        """Another source is followed."""
        self._delays.clear()
        self._in_flight, self._speed = False, 1.0
        self._asked_step = -1

    def asked(self, tick: int, step: int) -> None:
        """A request was taken at the end of `tick`, with `step` rows executed."""
        self._asked_tick, self._asked_step, self._in_flight = tick, step, True

    def arrived(self, tick: int) -> None:
        """Its chunk is there at the beginning of `tick`."""
        self._delays.append(tick - self._asked_tick - 1)
        self._in_flight = False

    def asked_at(self, step: int) -> bool:
        """Whether the newest request was taken at `step` already."""
        return self._asked_step == step

    @property
    def delay(self) -> int:
        """Ticks without the chunk after the one that asked for it: the most of the newest 16, the first left
        out, which may hold a cold start (but for when it is the only one); 0 before there is one.
        """
        return max(list(self._delays)[1:] or self._delays, default=0)

    def speed(self, tick: int, step: int, left: float, rows: int, rows_per_tick: float = 1.0) -> float:
        """The share of full speed at which `left` rows last until the next chunk; changed gradually.

        It is expected `delay` ticks after its request, which goes out in this tick if it has not yet. Of its
        `rows`, those executed by then are lost; so no faster, either, than what will be left of them lasts
        for the chunk after it. In the long run that is half a chunk per inference.
        """
        asked = (self._asked_tick, self._asked_step) if self._in_flight else (tick, step)
        until_next = asked[0] + 1 + self.delay - tick
        wanted = 1.0
        if until_next > 0:
            lasting = (rows - (step - asked[1])) / (until_next + self.delay)
            wanted = min(1.0, min(left / until_next, max(0.0, lasting)) / rows_per_tick)
        self._speed += min(max(wanted - self._speed, -_SPEED_STEP), _SPEED_STEP)
        return max(self._speed, _SLOWEST)

    def snapshot(self) -> State:
        """What is remembered between ticks, for `restore`."""
        return remember(self, _STATE)

    def restore(self, state: State) -> None:
        """Go on from where another one was at its `snapshot`."""
        recall(self, _STATE, state)
