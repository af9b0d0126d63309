"""What the planner did, for ``summary.json``."""

from __future__ import annotations

import statistics
from collections import Counter
from dataclasses import dataclass, field


@dataclass
class PlannerStatistics:
    """Counters of one run; all on the loop.

    Attributes:
        calls: questions asked.
        retries: exchanges beyond the first of their call.
        errors: calls that ended in `PlannerError`.
        faults: exchanges that gave nothing usable, by kind, whether or not a later one did.
    """

    calls: int = 0
    retries: int = 0
    errors: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    _latencies_s: list[float] = field(default_factory=list)

    def latency(self, seconds: float) -> None:
        """Note how long a call took, retries and failures included."""
        self._latencies_s.append(seconds)

    def fault(self, kind: str) -> None:
        """Note an exchange that gave nothing usable."""
        self.faults[kind] += 1

    def summary(self) -> dict[str, object]:
        """``{calls, retries, errors, faults {<kind>: count}, latency_s {p50, max}}``."""
        taken = self._latencies_s
        return {
            "calls": self.calls,
            "retries": self.retries,
            "errors": self.errors,
            "faults": dict(sorted(self.faults.items())),
            "latency_s": {
                "p50": statistics.median(taken) if taken else None,
                "max": max(taken) if taken else None,
            },
        }
