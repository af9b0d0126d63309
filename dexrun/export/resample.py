"""Putting samples that each have their own stamp onto one grid. Pure functions on arrays.

Stamps are int64 nanoseconds of one clock, ascending; equal ones may occur. A sample's *stamp error* is how
far it lies from the grid point that it is used for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.clock import NS_PER_S
from runtime.messages import Floats

Stamps = NDArray[np.int64]

MISSED_PERIODS = 2.5
"""Samples further apart than this many of the sensor's usual periods are a gap."""


@dataclass(frozen=True, slots=True)
class SampleGap:
    """Nothing came between these two samples, for longer than usual."""

    start_ns: int
    end_ns: int

    @property
    def seconds(self) -> float:
        return (self.end_ns - self.start_ns) / NS_PER_S


def grid(start_ns: int, end_ns: int, fps: float) -> Stamps:
    """Points ``start + round(i / fps)`` up to and including `end_ns`; none if the end is before the start.

    Rounded one by one, never added up, so that the grid does not drift.

    Raises:
        ValueError: `fps` is not positive.
    """
    if not fps > 0:
        raise ValueError(f"fps is {fps}; expected a positive number")
    if end_ns < start_ns:
        return np.zeros(0, np.int64)
    count = int((end_ns - start_ns) * fps / NS_PER_S) + 2
    points = start_ns + np.rint(np.arange(count) * (NS_PER_S / fps)).astype(np.int64)
    return np.asarray(points[points <= end_ns])


def shifted(stamps: Stamps, latency_s: float) -> Stamps:
    """When what was stamped so really happened: `latency_s` earlier."""
    return stamps - round(latency_s * NS_PER_S)


def nearest(stamps: Stamps, at: Stamps) -> NDArray[np.int64]:
    """Per point of `at`, the index of the sample nearest in time; of two equally near ones, the earlier.

    Raises:
        ValueError: there are no samples.
    """
    if len(stamps) == 0:
        raise ValueError("there is no sample to take the nearest of")
    after = np.clip(np.searchsorted(stamps, at), 0, len(stamps) - 1)
    before = np.maximum(after - 1, 0)
    return np.where(np.abs(stamps[after] - at) < np.abs(at - stamps[before]), after, before)


def linear(stamps: Stamps, values: NDArray[Any], at: Stamps) -> Floats:
    """`values` ``[N, ...]`` at the points `at`, between samples on the straight line.

    A point that coincides with a sample has that sample's value, bit for bit; before the first and after
    the last sample theirs is held.

    Raises:
        ValueError: there are no samples, or `values` is of another length.
    """
    if len(stamps) == 0 or len(values) != len(stamps):
        raise ValueError(f"{len(values)} values at {len(stamps)} stamps cannot be interpolated")
    series = np.asarray(values, np.float64)
    right = np.clip(np.searchsorted(stamps, at, side="right"), 1, max(len(stamps) - 1, 1))
    right = np.minimum(right, len(stamps) - 1)
    left = np.maximum(right - 1, 0)
    span = (stamps[right] - stamps[left]).astype(np.float64)
    offset = np.clip((at - stamps[left]).astype(np.float64), 0.0, span)
    share = np.divide(offset, span, out=np.zeros_like(span), where=span > 0)
    share[at >= stamps[right]] = 1.0
    share = share.reshape(-1, *([1] * (series.ndim - 1)))
    low, high = series[left], series[right]
    between = low * (1.0 - share) + high * share
    return np.where(share >= 1.0, high, np.where(share <= 0.0, low, between))


def finite_rows(stamps: Stamps, values: NDArray[Any]) -> tuple[Stamps, NDArray[Any]]:
    """Only the samples ``[N, ...]`` that are finite numbers throughout."""
    keep = np.isfinite(values.reshape(len(values), -1)).all(axis=1)
    return stamps[keep], values[keep]


def distinct(stamps: Stamps, values: NDArray[Any]) -> tuple[Stamps, NDArray[Any]]:
    """Only the first of samples with equal stamps; `stamps` may be unordered."""
    unique, first = np.unique(stamps, return_index=True)
    return unique, values[first]


def usual_period_ns(stamps: Stamps) -> int:
    """The median distance of samples; 0 if there are fewer than two."""
    return int(np.median(np.diff(stamps))) if len(stamps) > 1 else 0


def gaps(stamps: Stamps, longest_ns: int = 0) -> list[SampleGap]:
    """Where samples are further apart than `MISSED_PERIODS` usual periods, and than `longest_ns`."""
    limit = max(round(MISSED_PERIODS * usual_period_ns(stamps)), longest_ns)
    where = np.flatnonzero(np.diff(stamps) > limit)
    return [SampleGap(int(stamps[i]), int(stamps[i + 1])) for i in where]
