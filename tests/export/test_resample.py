"""Laying samples onto a grid: pure functions, tried on anything."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dexrun.export import resample

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


@given(stamps_lists, points, st.integers(0, 2**32 - 1))
def test_what_is_interpolated_lies_between_its_neighbours(
    stamps: np.ndarray, at: np.ndarray, seed: int
) -> None:
    values = np.random.default_rng(seed).normal(size=(len(stamps), 3))
    out = resample.linear(stamps, values, at)
    assert out.shape == (len(at), 3)
    for t, row in zip(at, out, strict=True):
        before, after = values[stamps <= t], values[stamps >= t]
        low = before[-1] if len(before) else values[0]
        high = after[0] if len(after) else values[-1]
        assert (np.minimum(low, high) - 1e-12 <= row).all()
        assert (row <= np.maximum(low, high) + 1e-12).all()


@given(stamps_lists, st.integers(0, 2**32 - 1))
def test_at_a_sample_interpolation_gives_the_sample_bit_for_bit(stamps: np.ndarray, seed: int) -> None:
    unique = np.unique(stamps)
    values = np.random.default_rng(seed).normal(size=len(unique)) * 1e9
    assert resample.linear(unique, values, unique).tobytes() == values.tobytes()


def test_half_way_is_half_way() -> None:
    out = resample.linear(np.array([0, 10]), np.array([[0.0, 4.0], [1.0, 0.0]]), np.array([-5, 5, 20]))
    assert out.tolist() == [[0.0, 4.0], [0.5, 2.0], [1.0, 0.0]]


def test_lengths_must_agree() -> None:
    with pytest.raises(ValueError, match="1 values at 2 stamps"):
        resample.linear(np.array([0, 1]), np.array([1.0]), np.array([0]))


def test_gaps_are_where_samples_are_missing() -> None:
    stamps = np.delete(np.arange(30) * S // 30, [10, 11, 12, 20])
    (gap,) = resample.gaps(stamps)
    assert (gap.start_ns, gap.end_ns) == (9 * S // 30, 13 * S // 30)
    assert gap.seconds == pytest.approx(4 / 30)
    assert resample.gaps(stamps, longest_ns=S) == []
    assert resample.gaps(stamps[:1]) == []


def test_rows_that_are_not_numbers_are_left_out() -> None:
    stamps, values = resample.finite_rows(np.arange(3), np.array([[0.0, 1], [np.nan, 1], [2, np.inf]]))
    assert (stamps.tolist(), values.tolist()) == ([0], [[0.0, 1.0]])


def test_of_repeated_stamps_the_first_counts() -> None:
    stamps, values = resample.distinct(np.array([5, 5, 3]), np.array([1, 2, 3]))
    assert (stamps.tolist(), values.tolist()) == ([3, 5], [3, 1])


def test_latency_moves_stamps_back() -> None:
    assert resample.shifted(np.array([S]), 0.25).tolist() == [3 * S // 4]
