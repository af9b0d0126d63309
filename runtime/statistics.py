"""What a run measured about itself, in fixed memory."""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

from runtime.clock import NS_PER_S
from runtime.messages import Clip
from runtime.ring import Ring
from runtime.tick import TickFlag

_BITS = 6
_LARGEST = 2.0**62
_LINEAR = 1 << (_BITS + 1)

_STARVED, _WAITING, _STRETCHED = TickFlag.STARVED.value, TickFlag.WAITING.value, TickFlag.STRETCHED.value
_HELD = (TickFlag.HOLDING | TickFlag.STOPPED).value
_MARK_NS, _MARKS = NS_PER_S // 4, 9
"""What is recent reaches back over eight of these: two seconds."""


class Histogram:
    """Counts non-negative integers in buckets 1/64 wide of their value; exact below 128.

    A quantile is right to 0.8 %; the maximum, the count and the sum are exact. Recording costs well under a
    microsecond and allocates nothing that stays.
    """

    def __init__(self) -> None:
        self._buckets = [0] * ((64 - _BITS) << _BITS)
        self.count = 0
        self.total = 0
        self.max = 0

    def record(self, value: int) -> None:
        """Count `value`; a negative one counts as 0."""
        value = max(0, value)
        self._buckets[self._index(value)] += 1
        self.count += 1
        self.total += value
        self.max = max(self.max, value)

    def _index(self, value: int) -> int:
        shift = max(0, value.bit_length() - _BITS - 1)
        return min((shift << _BITS) + (value >> shift), len(self._buckets) - 1)

    def add(self, other: Histogram) -> None:
        """Count all that `other` counted, too."""
        self._buckets = [a + b for a, b in zip(self._buckets, other._buckets, strict=True)]
        self.count += other.count
        self.total += other.total
        self.max = max(self.max, other.max)

    def quantile(self, share: float) -> float:
        """The value that `share` of all recorded ones do not exceed; 0 if there is none."""
        rank = max(1, -(-self.count * share // 1))
        seen = list(accumulate(self._buckets[: self._index(self.max) + 1]))
        if seen[-1] < rank:
            return 0.0
        return min(_middle(bisect_left(seen, rank)), float(self.max))

    def summary(self, scale: float = 1.0, digits: int = 3) -> dict[str, float]:
        """``{"p50", "p99", "max"}`` times `scale`."""
        values = {"p50": self.quantile(0.5), "p99": self.quantile(0.99), "max": float(self.max)}
        return {key: round(value * scale, digits) for key, value in values.items()}


def whole(value: float) -> int:
    """`value` as something to count: what a policy returns can be any number at all."""
    return round(min(value, _LARGEST)) if value > 0 else 0  # NaN is not


def _middle(index: int) -> float:
    if index < _LINEAR:
        return float(index)
    shift = (index >> _BITS) - 1
    return float((index - (shift << _BITS)) << shift) + ((1 << shift) - 1) / 2


@dataclass(frozen=True, slots=True)
class _Mark:
    """How far everything was at one tick; `published` by sensor."""

    at_ns: int
    ticks: int
    published: tuple[int, ...]


def _rate(count: int, elapsed_ns: int) -> float:
    return round(count * NS_PER_S / elapsed_ns, 2) if elapsed_ns > 0 else 0.0


class RunStatistics:
    """The control loop's part of ``summary.json``. Written by the loop's task; `summary` any time.

    Attributes:
        period_error: ``|start - start of the tick before - period|``, ns, between neighbouring ticks.
        wakeup_error: ``start - deadline``, ns.
        work: time from a tick's start to its end, ns.
        loop_lag: how late the event loop ran what was due, ns (`runtime.lag.LagMonitor`).
        seam: jumps at splices, in units of 1e-6 rad.
        inference: inference times, ns.
    """

    def __init__(self) -> None:
        self.ticks = 0
        self.missed_overrun = 0
        self.missed_wakeup = 0
        self.starved = 0
        self.waiting = 0
        self.stretched = 0
        self.held = 0
        self.clips: dict[str, int] = {}
        self.splices: dict[str, int] = {}
        self.period_error = Histogram()
        self.wakeup_error = Histogram()
        self.work = Histogram()
        self.loop_lag = Histogram()
        self.seam = Histogram()
        self.inference = Histogram()
        self._sensors: dict[str, Ring] = {}
        self._first: _Mark | None = None
        self._last: _Mark | None = None
        self._recent: deque[_Mark] = deque(maxlen=_MARKS)

    @property
    def missed(self) -> int:
        """Ticks that were skipped, for whatever reason."""
        return self.missed_overrun + self.missed_wakeup

    def woke(self, deadline_ns: int, start_ns: int, period_error_ns: int | None) -> None:
        """A tick starts; `period_error_ns` is ``None`` if the tick before it was not its neighbour."""
        self.ticks += 1
        self._mark(start_ns)
        self.wakeup_error.record(start_ns - deadline_ns)
        if period_error_ns is not None:
            self.period_error.record(abs(period_error_ns))

    def ticked(self, clips: Clip, flags: TickFlag) -> None:
        """Count a tick by what was special about it, and each reason in `clips` once."""
        bits = flags.value  # the operators of an enumeration make objects, and this is done in every tick
        self.starved += bool(bits & _STARVED)
        self.waiting += bool(bits & _WAITING)
        self.stretched += bool(bits & _STRETCHED)
        self.held += bool(bits & _HELD)
        if not clips:
            return
        for clip in Clip:
            if clip & clips:
                name = str(clip.name).lower()
                self.clips[name] = self.clips.get(name, 0) + 1

    def spliced(self, verdict: str, seam_rad: float | None, inference_s: float) -> None:
        """Count a chunk by what became of it."""
        self.splices[verdict] = self.splices.get(verdict, 0) + 1
        if inference_s > 0:
            self.inference.record(whole(inference_s * NS_PER_S))
        if seam_rad is not None:
            self.seam.record(whole(seam_rad * 1e6))

    def meter(self, name: str, ring: Ring) -> None:
        """Report how fast `ring` is written as the sensor `name`. Before the first tick."""
        self._sensors[name] = ring

    def _mark(self, now_ns: int) -> None:
        published = tuple(ring.published for ring in self._sensors.values())
        self._last = mark = _Mark(now_ns, self.ticks, published)
        if self._first is None:
            self._first = mark
        if not self._recent or now_ns - self._recent[-1].at_ns >= _MARK_NS:
            self._recent.append(mark)

    def rates_hz(self) -> dict[str, float]:
        """What every sensor delivered between the first tick and the last; a gap counts, as nothing."""
        if self._first is None or self._last is None:
            return {}
        return self._between(self._first, self._last.published, self._last.at_ns)

    def recent_rates_hz(self, now_ns: int) -> dict[str, float]:
        """What every sensor delivered in the newest two seconds. On any thread."""
        if not self._recent:
            return {}
        published = tuple(ring.published for ring in self._sensors.values())
        return self._between(self._recent[0], published, now_ns)

    def _between(self, first: _Mark, published: Sequence[int], until_ns: int) -> dict[str, float]:
        counts = zip(self._sensors, first.published, published, strict=True)
        return {name: _rate(after - before, until_ns - first.at_ns) for name, before, after in counts}

    def recent_tick_hz(self, now_ns: int) -> float:
        """Ticks a second in the newest two; the one that is not due yet is not missing. On any thread."""
        if not self._recent or self._last is None:
            return 0.0
        last, first = self._last, self._recent[0]
        count, elapsed_ns = last.ticks - first.ticks, last.at_ns - first.at_ns
        return _rate(count, max(elapsed_ns, now_ns - first.at_ns - elapsed_ns // max(1, count)))

    def summary(self) -> dict[str, object]:
        """Fields as in DESIGN.md's ``summary.json``, and what tells their causes apart."""
        chunks = sum(self.splices.values())
        spliced = self.splices.get("spliced", 0)
        inference: Mapping[str, float] = self.inference.summary(1e-9)
        return {
            "ticks": self.ticks,
            "missed_ticks": self.missed,
            "missed_by_cause": {"overrun": self.missed_overrun, "wakeup": self.missed_wakeup},
            "starved_ticks": self.starved,
            "waiting_ticks": self.waiting,
            "stretched_ticks": self.stretched,
            "held_ticks": self.held,
            "period_error_us": self.period_error.summary(1e-3),
            "wakeup_error_us": self.wakeup_error.summary(1e-3),
            "work_us": self.work.summary(1e-3),
            "loop_lag_us": self.loop_lag.summary(1e-3),
            "sensor_rates_hz": self.rates_hz(),
            "clips": dict(self.clips),
            "policy": {
                "chunks": chunks,
                "dropped_chunks": chunks - spliced,
                "dropped_by_reason": {k: n for k, n in self.splices.items() if k != "spliced"},
                "inference_s": {"p50": inference["p50"], "max": inference["max"]},
                "seam_rad": self.seam.summary(1e-6, 6),
            },
        }
