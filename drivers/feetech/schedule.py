"""When a bus is read: at a rate of its own, and in step with a control loop, right before its ticks."""

from __future__ import annotations

from loguru import logger

from runtime.beat import Beat
from runtime.clock import NS_PER_S
from runtime.latest import Latest

_SPARE_NS, _STEP_NS, _LATE = NS_PER_S // 5_000, NS_PER_S // 10_000, 0.1
"""What a reading takes besides its bytes, at first; how that is corrected; how many take longer."""
_MARGIN_NS = NS_PER_S // 1_000
"""Added to that, or the loop's quiet time if that is longer: it waits for its tick (`Beat.quiet_ns`), and a
thread that has Python's lock makes it late. Where there is time to spare it covers the rest of them; on a
busy machine nothing does, and to begin still earlier would make every reading old for the sake of a few."""
_SHORT_NS = 8 * NS_PER_S // 1_000


class ReadTimes:
    """The next reading of one bus, `rate_hz` times a second.

    In step with a loop it is the nearest whole number a tick, at least one, evenly spread. The last of them
    begins as long before the tick as its bytes take on the wire, and what readings took besides of late.

    Where ticks are `_SHORT_NS` apart or less, a bus that writes goals is read right after each instead: that
    is early enough for the next, and one reply tells that the goal has gone by, too. Where no goal comes, it
    is read in the middle between two ticks.

    Args:
        goals: whether any are written.

    Attributes:
        due_ns: when the next one is to begin.
        before_goal: whether a goal may come right after it.
        after_goal: whether it is due as soon as one was written.
    """

    def __init__(self, rate_hz: float, beat: Latest[Beat], *, goals: bool = False) -> None:
        self._rate_hz, self._beat, self._goals = rate_hz, beat, goals
        self._period_ns = round(NS_PER_S / rate_hz)
        self._spare_ns = float(_SPARE_NS)
        self._followed: Beat | None = None
        self._place = 0
        self.due_ns = 0
        self.before_goal = self.after_goal = False

    def begin(self, now_ns: int) -> None:
        """The next one is due at once."""
        self.due_ns, self.before_goal, self.after_goal = now_ns, False, False

    def wrote(self, now_ns: int) -> None:
        """A goal was written."""
        if self.after_goal:
            self.due_ns = now_ns

    def took(self, ended_ns: int, wire_ns: int) -> None:
        """The one that was due has ended; its bytes took `wire_ns` of that on the wire."""
        if self.after_goal:
            return
        late = ended_ns - self.due_ns - wire_ns > self._spare_ns
        # A quantile, which one long reading does not change.
        self._spare_ns += _STEP_NS * (1 - _LATE if late else -_LATE)
        longest_ns = self._followed.period_ns / 3 if self._followed is not None else _SPARE_NS
        self._spare_ns = min(max(self._spare_ns, 0.0), longest_ns)

    def plan(self, began_ns: int, wire_ns: int) -> None:
        """Choose the one after that which was begun; its bytes will take `wire_ns`.

        Where one was late by a period, those that were due meanwhile are left out.
        """
        beat = self._beat.newest()
        if beat is None:
            on_time = self.due_ns + self._period_ns
            self.due_ns = on_time if on_time > began_ns else began_ns + self._period_ns
            return
        self.after_goal = self._goals and beat.period_ns <= _SHORT_NS
        if self.after_goal:
            self.due_ns, self.before_goal = beat.at_ns(2 * beat.after(began_ns) + 1, 2), True
            return
        parts = max(1, round(self._rate_hz * beat.period_ns / NS_PER_S))
        ahead_ns = wire_ns + round(self._spare_ns) + max(_MARGIN_NS, beat.quiet_ns)
        place = beat.after(began_ns + ahead_ns - beat.period_ns // (2 * parts), parts)
        if beat is self._followed:
            place = max(place, self._place + 1)
        self._followed, self._place = beat, place
        self.due_ns = beat.at_ns(place, parts) - ahead_ns
        self.before_goal = self._goals and place % parts == 0


class KeepingUp:
    """Says when a bus does not write every target that is posted: of those, the newest is written.

    Attributes:
        replaced: targets that another one took the place of before they could be written.
    """

    WINDOW_NS = NS_PER_S
    ENOUGH = 0.9

    def __init__(self, device: str) -> None:
        self._device = device
        self.replaced = 0
        self._times = 0
        self._last = -1
        self.forget()

    def forget(self) -> None:
        """The arm was opened anew."""
        self._last = -1
        self._since_ns, self._taken, self._posted = -1, 0, 0

    def taken(self, index: int, now_ns: int) -> None:
        """The `index`-th post was taken out of the box."""
        posted, self._last = (1 if self._last < 0 else index - self._last), index
        self.replaced += posted - 1
        if self._since_ns < 0:
            self._since_ns = now_ns
            return
        self._taken, self._posted = self._taken + 1, self._posted + posted
        if now_ns - self._since_ns >= self.WINDOW_NS:
            self._look((now_ns - self._since_ns) / NS_PER_S)
            self._since_ns, self._taken, self._posted = now_ns, 0, 0

    def _look(self, seconds: float) -> None:
        if self._taken >= self.ENOUGH * self._posted:
            return
        self._times += 1
        if self._times & (self._times - 1) == 0:
            logger.warning(
                "{}: its bus writes {:.0f} of {:.0f} targets a second, each time the newest; a lower "
                "rate of the loop is as quick, and even (time {})",
                self._device,
                self._taken / seconds,
                self._posted / seconds,
                self._times,
            )
