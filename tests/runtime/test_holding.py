"""When a gripper held something."""

from __future__ import annotations

import numpy as np

from runtime.holding import held_rows, longest_hold

TIMES = np.arange(100, dtype=np.int64) * 33_333_333


def trace(*parts: tuple[int, float]) -> np.ndarray:
    return np.concatenate([np.full(count, value) for count, value in parts])


def test_jaws_that_are_told_to_close_further_than_they_do_hold_something() -> None:
    position = trace((30, 0.8), (40, 0.3), (30, 0.8))
    target = trace((30, 0.8), (40, 0.0), (30, 0.8))
    assert held_rows(TIMES, position, target) == [(30, 70)]


def test_jaws_that_close_on_nothing_hold_nothing() -> None:
    target = trace((30, 0.8), (70, 0.0))
    assert held_rows(TIMES, trace((30, 0.8), (70, 0.005)), target) == []
    assert held_rows(TIMES[:0], target[:0], target[:0]) == []


def test_a_slip_of_a_moment_is_one_hold_and_force_tells_contact_from_lag() -> None:
    position = trace((20, 0.8), (30, 0.3), (2, 0.0), (28, 0.3), (20, 0.8))
    target = trace((20, 0.8), (60, 0.0), (20, 0.8))
    assert held_rows(TIMES, position, target) == [(20, 80)]
    late = trace((30, 0.0), (50, 2.0), (20, 0.0))  # the jaws still close in the first ten rows
    assert held_rows(TIMES, position, target, late) == [(30, 80)]
    unwired = np.zeros((100, 2))
    assert held_rows(TIMES, position, target, unwired) == [(20, 80)]


def test_the_longest_of_several_is_the_one() -> None:
    assert longest_hold(TIMES, [(0, 10), (20, 50), (60, 70)]) == (20, 50)
    assert longest_hold(TIMES, []) is None
