"""Counters and histograms of a server, in Prometheus' text format (version 0.0.4)."""

from __future__ import annotations

import bisect
import threading
from collections.abc import Sequence

LATENCY_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
BATCH = (1, 2, 4, 8, 16, 32, 64)


class _Histogram:
    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def lines(self, name: str) -> list[str]:
        running, out = 0, []
        for bound, count in zip((*self.bounds, "+Inf"), self.counts, strict=True):
            running += count
            out.append(f'{name}_bucket{{le="{bound}"}} {running}')
        return [*out, f"{name}_sum {self.total:.9g}", f"{name}_count {running}"]


class Metrics:
    """What happened so far. Written from the loop and the inference thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counters: dict[str, dict[str, int]] = {
            "dexrun_serve_requests_total": {},
            "dexrun_serve_refusals_total": {},
        }
        self._gauges: dict[str, float] = {"dexrun_serve_clients": 0, "dexrun_serve_pending": 0}
        self._histograms = {
            "dexrun_serve_latency_seconds": _Histogram(LATENCY_S),
            "dexrun_serve_inference_seconds": _Histogram(LATENCY_S),
            "dexrun_serve_batch_size": _Histogram(BATCH),
        }
        self._help = {
            "dexrun_serve_requests_total": "Requests answered, by endpoint.",
            "dexrun_serve_refusals_total": "Messages refused, by reason.",
            "dexrun_serve_clients": "Clients known at present.",
            "dexrun_serve_pending": "Observations that wait for inference.",
            "dexrun_serve_latency_seconds": "From a whole message to its reply.",
            "dexrun_serve_inference_seconds": "One call of the policy.",
            "dexrun_serve_batch_size": "Observations in one call of the policy.",
        }

    def request(self, endpoint: str) -> None:
        """Count an answered request."""
        self._count("dexrun_serve_requests_total", endpoint)

    def refuse(self, reason: str) -> int:
        """Count a refused message; how many there were for this reason."""
        return self._count("dexrun_serve_refusals_total", reason)

    def _count(self, name: str, label: str) -> int:
        with self._lock:
            count = self._counters[name][label] = self._counters[name].get(label, 0) + 1
        return count

    def observe(self, name: str, value: float) -> None:
        """Add to a histogram: ``latency_seconds``, ``inference_seconds`` or ``batch_size``."""
        with self._lock:
            histogram = self._histograms[f"dexrun_serve_{name}"]
            histogram.counts[bisect.bisect_left(histogram.bounds, value)] += 1
            histogram.total += value

    def gauge(self, name: str, value: float) -> None:
        """Set ``clients``."""
        self._gauges[f"dexrun_serve_{name}"] = value

    def change(self, name: str, by: int) -> None:
        """Add to ``pending``, from any thread."""
        with self._lock:
            self._gauges[f"dexrun_serve_{name}"] += by

    def counter(self, name: str, label: str) -> int:
        """A counter's value: name ``requests`` or ``refusals``."""
        return self._counters[f"dexrun_serve_{name}_total"].get(label, 0)

    def text(self) -> str:
        """Everything, for a scrape."""
        with self._lock:
            lines: list[str] = []
            for name, values in self._counters.items():
                label = "endpoint" if "requests" in name else "reason"
                lines += self._head(name, "counter")
                lines += [f'{name}{{{label}="{key}"}} {value}' for key, value in sorted(values.items())]
            for name, gauge in self._gauges.items():
                lines += [*self._head(name, "gauge"), f"{name} {gauge:g}"]
            for name, histogram in self._histograms.items():
                lines += [*self._head(name, "histogram"), *histogram.lines(name)]
        return "\n".join(lines) + "\n"

    def _head(self, name: str, kind: str) -> list[str]:
        return [f"# HELP {name} {self._help[name]}", f"# TYPE {name} {kind}"]
