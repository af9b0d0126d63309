"""What both ends count: whose clock said what, what was lost, how long a round trip is."""

from __future__ import annotations

from collections import Counter, deque

from runtime.clock import NS_PER_S

_RECENT = 256


class RoundTrips:
    """How long datagrams are under way, from stamps that came back.

    Attributes:
        newest_ns: of the last one; -1: none yet. least_ns: of the recent ones.
    """

    def __init__(self) -> None:
        self._recent: deque[int] = deque(maxlen=_RECENT)
        self.newest_ns = -1

    def heard(self, stamp_ns: int, since_ns: int, now_ns: int) -> None:
        """One's own `stamp_ns` came back, after it had lain with the other side for `since_ns`."""
        trip = now_ns - stamp_ns - since_ns
        if 0 <= trip < 60 * NS_PER_S and since_ns >= 0:
            self.newest_ns = trip
            self._recent.append(trip)

    @property
    def least_ns(self) -> int:
        return min(self._recent, default=0)

    def percentile_ns(self, share: float) -> int:
        """Of the recent ones; 0 where there are none."""
        ordered = sorted(self._recent)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0


class Arrivals:
    """By number, what came once, what came again, too late or never.

    Attributes:
        counts: ``came``, ``lost``, ``reordered``, ``duplicate``.
    """

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._newest = 0
        self._seen: deque[int] = deque(maxlen=_RECENT)

    def take(self, number: int) -> bool:
        """Whether `number` is newer than all before; what is older is counted and has no effect."""
        if number > self._newest:
            self.counts["lost"] += number - self._newest - 1
            self.counts["came"] += 1
            self._newest = number
            self._seen.append(number)
            return True
        if number in self._seen or number < self._newest - _RECENT:
            self.counts["duplicate"] += 1
        else:
            self._seen.append(number)
            self.counts["reordered"] += 1
            self.counts["lost"] -= 1
        return False

    def begin(self) -> None:
        """Another session: numbers count from 1 again."""
        self._newest = 0
        self._seen.clear()


class LossWindow:
    """The share that was lost lately.

    Args:
        seconds: how long a window is.
    """

    def __init__(self, seconds: float) -> None:
        self._length_ns = round(seconds * NS_PER_S)
        self._since_ns = -1
        self._before = (0, 0)
        self.share = 0.0

    def look(self, counts: Counter[str], now_ns: int) -> bool:
        """Whether a window has ended; `share` is its."""
        if self._since_ns < 0:
            self._since_ns = now_ns
        if now_ns - self._since_ns < self._length_ns:
            return False
        came, lost = (
            counts[key] - before for key, before in zip(("came", "lost"), self._before, strict=True)
        )
        self.share = max(0, lost) / max(1, came + lost)
        self._since_ns, self._before = now_ns, (counts["came"], counts["lost"])
        return True
