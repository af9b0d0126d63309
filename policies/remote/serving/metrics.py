"""Counters and histograms of a server, kept and written out by `prometheus_client`."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest

disable_created_metrics()  # type: ignore[no-untyped-call]  # when each counter was made: nobody asks

LATENCY_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
BATCH = (1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """What happened so far. Written from the loop and the inference thread.

    Attributes:
        registry: where the collectors are, for who wants a value of one.
        clients: clients known at present.
        pending: observations that wait for inference.
        latency_s: from a whole message to its reply.
        inference_s: one call of the policy.
        batch_size: observations in one call of the policy.
    """

    CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4

    def __init__(self) -> None:
        self.registry = one = CollectorRegistry()
        name = "dexrun_serve_{}".format
        self._requests = Counter(
            name("requests"), "Requests answered, by endpoint.", ["endpoint"], registry=one
        )
        self._refusals = Counter(name("refusals"), "Messages refused, by reason.", ["reason"], registry=one)
        self.clients = Gauge(name("clients"), "Clients known at present.", registry=one)
        self.pending = Gauge(name("pending"), "Observations that wait for inference.", registry=one)
        self.latency_s = Histogram(
            name("latency_seconds"), "From a whole message to its reply.", registry=one, buckets=LATENCY_S
        )
        self.inference_s = Histogram(
            name("inference_seconds"), "One call of the policy.", registry=one, buckets=LATENCY_S
        )
        self.batch_size = Histogram(
            name("batch_size"), "Observations in one call of the policy.", registry=one, buckets=BATCH
        )

    def request(self, endpoint: str) -> None:
        """Count an answered request."""
        self._requests.labels(endpoint).inc()

    def refuse(self, reason: str) -> None:
        """Count a refused message."""
        self._refusals.labels(reason).inc()

    def text(self) -> str:
        """Everything, for a scrape."""
        return generate_latest(self.registry).decode()

    def page(self, path: str) -> str | None:
        """What a ``GET`` of `path` is answered with; ``None`` if there is no such page."""
        if path == "/metrics":
            return self.text()
        return "OK\n" if path == "/healthz" else None
