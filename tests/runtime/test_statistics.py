"""Histograms against numpy, and the summary's fields."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.clock import NS_PER_S
from runtime.messages import Clip
from runtime.ring import Ring
from runtime.statistics import Histogram, RunStatistics
from runtime.tick import TickFlag


@given(
    values=st.lists(st.one_of(st.integers(0, 200), st.integers(0, 2**62)), min_size=1, max_size=200),
    share=st.sampled_from([0.0, 0.01, 0.5, 0.99, 1.0]),
)
@settings(deadline=None)
def test_quantiles_are_right_to_a_percent(values: list[int], share: float) -> None:
    histogram = Histogram()
    for value in values:
        histogram.record(value)
    exact = sorted(values)[max(1, int(np.ceil(len(values) * share))) - 1]
    assert histogram.quantile(share) == pytest.approx(exact, rel=0.008, abs=0.5)
    assert (histogram.count, histogram.total, histogram.max) == (len(values), sum(values), max(values))


@given(st.lists(st.integers(-5, 10**12)), st.lists(st.integers(-5, 10**12)))
def test_what_is_added_is_as_if_it_had_been_counted_there(first: list[int], second: list[int]) -> None:
    both, one, other = Histogram(), Histogram(), Histogram()
    for value in first:
        one.record(value)
    for value in second:
        other.record(value)
    for value in (*first, *second):
        both.record(value)
    one.add(other)
    assert vars(one) == vars(both)


def test_an_empty_histogram_says_zero() -> None:
    assert Histogram().summary() == {"p50": 0.0, "p99": 0.0, "max": 0.0}


def test_negative_and_huge_values_are_kept_in_bounds() -> None:
    histogram = Histogram()
    histogram.record(-5)
    histogram.record(2**80)
    assert (histogram.count, histogram.quantile(0.0), histogram.max) == (2, 0.0, 2**80)


def test_the_summary_has_the_fields_of_the_design() -> None:
    statistics = RunStatistics()
    ring = Ring({"force": ((3,), "<f8")}, 4)
    statistics.meter("force", ring)
    ring.push(0, force=0)  # before the first tick: nothing of the run's
    for tick in range(10):
        statistics.woke(tick * 50_000_000 - 3000, tick * 50_000_000, None if tick == 0 else -1000 * tick)
        statistics.work.record(250_000)
        ring.push(tick, force=0)
    ring.push(10, force=0)  # after the last
    statistics.missed_overrun += 2
    statistics.missed_wakeup += 1
    statistics.starved += 4
    statistics.ticked(Clip.RANGE | Clip.VELOCITY, TickFlag.NONE)
    statistics.ticked(Clip.RANGE, TickFlag.NONE)
    statistics.spliced("spliced", 0.02, 0.1)
    statistics.spliced("spliced", None, 0.3)
    statistics.spliced("stale", None, 0.2)
    summary = statistics.summary()
    assert summary["ticks"] == 10
    assert summary["missed_ticks"] == 3
    assert summary["missed_by_cause"] == {"overrun": 2, "wakeup": 1}
    assert summary["starved_ticks"] == 4
    assert summary["period_error_us"] == pytest.approx({"p50": 5, "p99": 9, "max": 9}, rel=0.01)
    assert summary["wakeup_error_us"] == pytest.approx({"p50": 3, "p99": 3, "max": 3}, rel=0.01)
    assert summary["work_us"] == pytest.approx({"p50": 250, "p99": 250, "max": 250}, rel=0.01)
    assert summary["loop_lag_us"] == {"p50": 0, "p99": 0, "max": 0}
    assert summary["sensor_rates_hz"] == {"force": 20.0}
    assert summary["clips"] == {"range": 2, "velocity": 1}
    policy = summary["policy"]
    assert isinstance(policy, dict)
    assert (policy["chunks"], policy["dropped_chunks"]) == (3, 1)
    assert policy["dropped_by_reason"] == {"stale": 1}
    assert policy["inference_s"] == pytest.approx({"p50": 0.2, "max": 0.3}, rel=0.01)
    assert policy["seam_rad"] == pytest.approx({"p50": 0.02, "p99": 0.02, "max": 0.02}, rel=0.01)


class Ticking:
    """A loop at 20 Hz and a camera that delivers once a tick while `alive`."""

    def __init__(self) -> None:
        self.statistics = RunStatistics()
        self.camera = Ring({"x": ((), "<f8")}, 4)
        self.statistics.meter("camera", self.camera)
        self.now_ns = 0
        self.alive = True

    def run(self, seconds: int) -> None:
        for _ in range(20 * seconds):
            self.statistics.woke(self.now_ns, self.now_ns, None)
            if self.alive:
                self.camera.push(self.now_ns, x=0)
            self.now_ns += NS_PER_S // 20

    def recent(self) -> tuple[float, float]:
        rates = self.statistics.recent_rates_hz(self.now_ns)
        return rates.get("camera", 0.0), self.statistics.recent_tick_hz(self.now_ns)


def test_the_sensors_rates_are_those_between_the_first_tick_and_the_last() -> None:
    loop = Ticking()
    assert loop.statistics.rates_hz() == {}
    assert loop.recent() == (0.0, 0.0)
    loop.now_ns = 100 * NS_PER_S  # it took long to come up
    loop.run(10)
    assert loop.statistics.rates_hz() == {"camera": 20.0}
    loop.alive = False  # a gap counts
    loop.run(10)
    assert loop.statistics.rates_hz() == {"camera": pytest.approx(10.0, abs=0.05)}
    before = loop.statistics.rates_hz()
    loop.camera.push(0, x=0)
    loop.now_ns += 100 * NS_PER_S  # and to go down
    assert loop.statistics.rates_hz() == before


def test_the_terminal_is_told_of_the_newest_seconds() -> None:
    loop = Ticking()
    loop.run(60)
    assert loop.recent() == (20.0, 20.0)
    loop.alive = False
    loop.run(1)
    assert loop.recent()[0] == pytest.approx(10.0, abs=1.5)
    loop.run(2)
    assert loop.recent() == (0.0, 20.0)
    loop.now_ns -= NS_PER_S // 50  # between two ticks
    assert loop.recent()[1] == 20.0
    loop.now_ns += 6 * NS_PER_S  # the loop itself hangs
    assert loop.recent()[1] < 6.0
