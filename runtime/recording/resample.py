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

Stamps = NDArray[np.int64]

MISSED_PERIODS = 2.5
"""Samples further apart than this many of the sensor's usual periods are a gap."""


LARGEST = float(np.finfo(np.float32).max) / 1000
"""Of a value in the robot's units; every convention's scale leaves it a finite float32."""


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


def newest(stamps: Stamps, at: Stamps) -> NDArray[np.int64]:
    """Per point of `at`, the index of the newest sample that is not from after it; -1 where there is none."""
    return np.asarray(np.searchsorted(stamps, at, side="right") - 1, np.int64)


def answering(stamps: Stamps, at: Stamps, within_ns: int) -> NDArray[np.int64]:
    """Per point of `at`, the index of the first sample from then on, if it came sooner than `within_ns`.

    Else the one nearest in time: what was still in force, where nothing new was given.

    Raises:
        ValueError: there are no samples.
    """
    closest = nearest(stamps, at)
    after = np.clip(np.searchsorted(stamps, at), 0, len(stamps) - 1)
    wait = stamps[after] - at
    return np.where((wait >= 0) & (wait < within_ns), after, closest)


def finite_rows(stamps: Stamps, values: NDArray[Any]) -> tuple[Stamps, NDArray[Any]]:
    """Only the samples ``[N, ...]`` that are finite numbers throughout, in single precision, too.

    No sensor and no joint gives what is left out; a recording may say it all the same.
    """
    keep = (np.abs(values.reshape(len(values), -1)) <= LARGEST).all(axis=1)
    return stamps[keep], values[keep]


def distinct(stamps: Stamps, values: NDArray[Any]) -> tuple[Stamps, NDArray[Any]]:
    """Only the first of samples with equal stamps; `stamps` may be unordered."""
    unique, first = np.unique(stamps, return_index=True)
    return unique, values[first]


def usual_period_ns(stamps: Stamps) -> int:
    """The median distance of samples; 0 if there are fewer than two."""
    return int(np.median(np.diff(stamps))) if len(stamps) > 1 else 0


def gaps(stamps: Stamps, start_ns: int, end_ns: int) -> list[SampleGap]:
    """Where samples are further apart than `MISSED_PERIODS` usual periods; so far, too, from start and end.

    `start_ns` and `end_ns` are those of the episode, in all of which the sensor should have given samples.
    """
    limit = round(MISSED_PERIODS * usual_period_ns(stamps))
    edges = np.concatenate([[min(start_ns, stamps[0])], stamps, [max(end_ns, stamps[-1])]])
    where = np.flatnonzero(np.diff(edges) > limit)
    return [SampleGap(int(edges[i]), int(edges[i + 1])) for i in where]
