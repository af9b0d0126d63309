"""When a control loop ticks, for threads that want to have something ready just before."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from runtime.clock import NS_PER_S


@dataclass(frozen=True, slots=True)
class Beat:
    """Tick ``n`` is due at ``origin_ns + n * period``, exactly, for any ``n``.

    Attributes:
        origin_ns: when tick 0 is due.
        period: in nanoseconds.
        quiet_ns: for so long before a tick the loop waits for it with Python's lock in its hands: what is to
            be ready then must be ready before.
    """

    origin_ns: int
    period: Fraction
    quiet_ns: int = 0

    @classmethod
    def of(cls, origin_ns: int, rate_hz: float, quiet_ns: int = 0) -> Beat:
        """Of a loop with so many ticks a second."""
        return cls(origin_ns, NS_PER_S / Fraction(rate_hz).limit_denominator(1_000_000), quiet_ns)

    @property
    def period_ns(self) -> int:
        """Rounded down."""
        return int(self.period)

    def at_ns(self, place: int, parts: int = 1) -> int:
        """When tick ``place / parts`` is due: with three parts, 3 is tick 1, and 4 a third of a period on."""
        period = self.period
        return self.origin_ns + place * period.numerator // (period.denominator * parts)

    def after(self, now_ns: int, parts: int = 1) -> int:
        """The first place that is due after `now_ns`."""
        passed = (now_ns - self.origin_ns) * parts
        place = passed * self.period.denominator // self.period.numerator
        while self.at_ns(place, parts) <= now_ns:
            place += 1
        return place
