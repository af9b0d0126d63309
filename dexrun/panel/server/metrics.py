"""``/metrics`` and ``/healthz`` of the run that is followed, out of what it says of itself.

Counts are the run's own and begin anew with it. Names, units and labels are in ``docs/panel.md``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.registry import Collector

from dexrun.panel.server.following import Following
from runtime.clock import NS_PER_S, Clock

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
FRESH_S = 2.0
_QUANTILES = {"p50": "0.5", "p99": "0.99", "max": "1"}
_SERVOS = {"temperature_c": "temperature_celsius", "voltage_v": "voltage_volts", "load": "load_ratio"}
_CHANNELS = "newtons, by channel of the force sensor"


class RunMetrics(Collector):
    """Collects from what the followed run said last."""

    def __init__(self, following: Following, clock: Clock) -> None:
        self._following = following
        self._clock = clock
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def page(self) -> bytes:
        """Everything, for a scrape."""
        return generate_latest(self._registry)

    def health(self) -> tuple[bool, str]:
        """Whether a run is alive, says so, and is not stopped; and one line."""
        self._following.refresh()
        run, status = self._following.run, self._following.status
        if run is None:
            return False, "no run is alive"
        if self._clock.now_ns() - self._following.heard_ns > FRESH_S * NS_PER_S:
            return False, f"{run.folder.name}: the control loop has made no tick for {FRESH_S:g} s"
        if status.get("latched"):
            return False, f"{run.folder.name} is stopped: {status.get('reason', '')}"
        return True, f"{run.folder.name}: {status.get('state', '')}"

    def collect(self) -> Iterator[Metric]:
        """See `Collector`."""
        healthy, _ = self.health()
        yield GaugeMetricFamily("dexrun_run_up", "1 while a run is alive and not stopped.", float(healthy))
        yield GaugeMetricFamily("dexrun_panel_pages", "Pages that are open.", len(self._following.pages))
        status = self._following.status
        if status:
            yield from _loop(status)
            yield from _sensors(status)
            yield from _counts(status)
            yield from _rest(status)


def _value(said: object) -> float:
    return float(said) if isinstance(said, int | float) else float("nan")


def _mapping(said: object) -> Mapping[str, Any]:
    return said if isinstance(said, Mapping) else {}


def _gauge(name: str, text: str, values: Mapping[str, Any], label: str) -> Metric:
    family = GaugeMetricFamily(f"dexrun_{name}", text, labels=[label])
    for key, value in values.items():
        family.add_metric([key], _value(value))
    return family


def _loop(status: Mapping[str, Any]) -> Iterator[Metric]:
    for key, text in (
        ("ticks", "Periods of the control loop."),
        ("missed", "Periods that were skipped, since the one before took too long."),
        ("starved", "Periods in which the policy's actions had run out."),
    ):
        yield CounterMetricFamily(f"dexrun_loop_{key}", text, _value(status.get(key)))
    yield GaugeMetricFamily("dexrun_loop_rate_hertz", "As measured.", _value(status.get("rate_hz")))
    yield GaugeMetricFamily("dexrun_loop_horizon_steps", "Actions left.", _value(status.get("horizon")))
    yield GaugeMetricFamily("dexrun_run_elapsed_seconds", "Since it began.", _value(status.get("elapsed_s")))
    for key, name, text in (
        ("period_error_us", "period_error", "How far periods were from their length."),
        ("work_us", "work", "What the work of a period took."),
    ):
        seconds = {
            _QUANTILES[q]: _value(v) / 1e6 for q, v in _mapping(status.get(key)).items() if q in _QUANTILES
        }
        yield _gauge(f"loop_{name}_seconds", text, seconds, "quantile")


def _sensors(status: Mapping[str, Any]) -> Iterator[Metric]:
    rates = _mapping(status.get("sensor_rates_hz"))
    yield _gauge("sensor_rate_hertz", "As measured, by sensor.", rates, "sensor")
    force = {str(channel): value for channel, value in enumerate(status.get("force_n") or ())}
    yield _gauge("force_newtons", f"In {_CHANNELS}.", force, "channel")
    servos = _mapping(status.get("servos"))
    for key, name in _SERVOS.items():
        values = {joint: said[key] for joint, said in servos.items() if key in _mapping(said)}
        yield _gauge(f"servo_{name}", "By joint, where its servo says so.", values, "joint")


def _counts(status: Mapping[str, Any]) -> Iterator[Metric]:
    faults = CounterMetricFamily("dexrun_device_faults", "By device and kind.", labels=["device", "kind"])
    for device, kinds in _mapping(status.get("faults")).items():
        for kind, count in _mapping(kinds).items():
            faults.add_metric([device, kind], _value(count))
    yield faults
    clips = CounterMetricFamily(
        "dexrun_safety_clips", "Targets that were changed, by reason.", labels=["reason"]
    )
    for reason, count in _mapping(status.get("clips")).items():
        clips.add_metric([reason], _value(count))
    yield clips


def _rest(status: Mapping[str, Any]) -> Iterator[Metric]:
    yield GaugeMetricFamily(
        "dexrun_safety_stopped", "1 while a stop is latched.", float(bool(status.get("latched")))
    )
    yield GaugeMetricFamily("dexrun_safety_speed_ratio", "Of the speed limits.", _value(status.get("speed")))
    info = GaugeMetricFamily(
        "dexrun_run_info", "1, for its labels.", labels=["mode", "state", "driving", "policy"]
    )
    policy = str(_mapping(status.get("policy")).get("type", ""))
    said = [str(status.get(key, "")) for key in ("mode", "state", "driving")]
    info.add_metric([*said, policy], 1.0)
    yield info
    attempts = [each for each in status.get("attempts") or () if isinstance(each, Mapping)]
    counted = {
        "begun": len(attempts),
        "grasped": sum(bool(each.get("grasped")) for each in attempts),
        "completed": sum(bool(each.get("completed")) for each in attempts),
    }
    yield _gauge("attempts", "At objects, by how far they came.", counted, "reached")
