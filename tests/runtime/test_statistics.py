"""Histograms against numpy, and the summary's fields."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.messages import Clip
from runtime.ring import Ring
from runtime.statistics import Histogram, RunStatistics


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
    statistics.meter("force", ring, 0)
    for tick in range(10):
        statistics.woke(tick * 100, tick * 100 + 3000, None if tick == 0 else -1000 * tick)
        statistics.work.record(250_000)
        ring.push(tick, force=0)
    statistics.missed_overrun += 2
    statistics.missed_wakeup += 1
    statistics.starved += 4
    statistics.clipped(Clip.RANGE | Clip.VELOCITY)
    statistics.clipped(Clip.RANGE)
    statistics.spliced("spliced", 0.02, 0.1)
    statistics.spliced("spliced", None, 0.3)
    statistics.spliced("stale", None, 0.2)
    summary = statistics.summary(500_000_000)
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


def test_rates_start_again() -> None:
    ring = Ring({"x": ((), "<f8")}, 4)
    statistics = RunStatistics()
    ring.push(0, x=0)
    statistics.meter("x", ring, 100)
    assert statistics.rates_hz(100) == {"x": 0.0}
    ring.push(0, x=0)
    assert statistics.rates_hz(1_000_000_100) == {"x": 1.0}
