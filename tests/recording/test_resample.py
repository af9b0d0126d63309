"""Laying samples onto a grid: pure functions, tried on anything."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.recording import resample

S = 1_000_000_000
stamps_lists = st.lists(st.integers(0, 10**12), min_size=1, max_size=40).map(
    lambda xs: np.array(sorted(xs), np.int64)
)
points = st.lists(st.integers(-(10**11), 11 * 10**11), max_size=40).map(lambda xs: np.array(xs, np.int64))


@given(st.integers(0, 10**18), st.integers(0, 20 * S), st.floats(0.5, 200))
def test_a_grid_begins_at_its_start_ends_in_time_and_never_drifts(start: int, span: int, fps: float) -> None:
    grid = resample.grid(start, start + span, fps)
    assert grid[0] == start
    assert grid[-1] <= start + span < grid[-1] + S / fps + 1
    assert np.abs(grid - start - np.arange(len(grid)) * S / fps).max() <= 0.51


def test_a_grid_that_ends_before_it_begins_is_empty() -> None:
    assert len(resample.grid(10, 9, 30)) == 0


def test_a_grid_needs_a_rate() -> None:
    with pytest.raises(ValueError, match="fps is 0"):
        resample.grid(0, 1, 0)


@given(stamps_lists, points)
def test_nothing_is_nearer_than_the_nearest(stamps: np.ndarray, at: np.ndarray) -> None:
    index = resample.nearest(stamps, at)
    if len(at):
        distances = np.abs(stamps[None] - at[:, None])
        assert (np.abs(stamps[index] - at) == distances.min(axis=1)).all()


def test_of_two_equally_near_samples_the_earlier_is_taken() -> None:
    assert resample.nearest(np.array([0, 10]), np.array([5, 6])).tolist() == [0, 1]


def test_without_samples_nothing_is_near() -> None:
    with pytest.raises(ValueError, match="no sample"):
        resample.nearest(np.zeros(0, np.int64), np.array([1]))


@given(stamps_lists, points)
def test_the_newest_sample_is_never_from_the_future(stamps: np.ndarray, at: np.ndarray) -> None:
    for point, index in zip(at, resample.newest(stamps, at), strict=True):
        earlier = stamps[stamps <= point]
        assert index == len(earlier) - 1


@given(stamps_lists, points, st.integers(1, 10**9))
def test_a_target_answers_what_was_seen_before_it(stamps: np.ndarray, at: np.ndarray, within: int) -> None:
    index = resample.answering(stamps, at, within)
    for point, chosen in zip(at, stamps[index], strict=True):
        later = stamps[stamps >= point]
        if len(later) and later[0] - point < within:
            assert chosen == later[0]
        else:
            assert abs(chosen - point) == np.abs(stamps - point).min()


def test_gaps_are_where_samples_are_missing_and_where_they_begin_late_or_end_early() -> None:
    every = np.arange(30) * S // 30
    stamps = np.delete(every, [10, 11, 12, 20])
    (gap,) = resample.gaps(stamps, 0, int(every[-1]))
    assert (gap.start_ns, gap.end_ns) == (9 * S // 30, 13 * S // 30)
    assert gap.seconds == pytest.approx(4 / 30)
    assert resample.gaps(every, -S // 30, S) == []  # a period more or less is no loss
    early, late = resample.gaps(every, -S, 2 * S)
    assert (early.start_ns, early.end_ns, late.start_ns, late.end_ns) == (-S, 0, every[-1], 2 * S)
    (whole,) = resample.gaps(stamps[:1], 0, S)
    assert whole.seconds == 1.0


def test_rows_that_are_not_numbers_are_left_out() -> None:
    stamps, values = resample.finite_rows(np.arange(3), np.array([[0.0, 1], [np.nan, 1], [2, np.inf]]))
    assert len(resample.finite_rows(np.arange(2), np.array([[0.0, 1e40], [0.0, -1e36]]))[0]) == 0
    assert (stamps.tolist(), values.tolist()) == ([0], [[0.0, 1.0]])


def test_of_repeated_stamps_the_first_counts() -> None:
    stamps, values = resample.distinct(np.array([5, 5, 3]), np.array([1, 2, 3]))
    assert (stamps.tolist(), values.tolist()) == ([3, 5], [3, 1])


def test_latency_moves_stamps_back() -> None:
    assert resample.shifted(np.array([S]), 0.25).tolist() == [3 * S // 4]
