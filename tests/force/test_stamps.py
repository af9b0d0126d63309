"""Arrival times to sample times."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from drivers.force.stamps import WINDOW, Dejitter

PERIOD = 5_000_000


def test_an_even_stream_is_stamped_as_it_arrives() -> None:
    grid = Dejitter(PERIOD)
    assert [grid.stamps(i * PERIOD, 1)[0] for i in range(50)] == [i * PERIOD for i in range(50)]


def test_delays_do_not_reach_the_stamps() -> None:
    grid = Dejitter(PERIOD)
    for i in range(400):
        late = (i * 7919 % 13) * PERIOD // 40  # up to 1.5 ms
        (stamp,) = grid.stamps(i * PERIOD + late, 1)
        assert abs(stamp - i * PERIOD) < 200_000


def test_known_losses_move_the_grid_at_once() -> None:
    grid = Dejitter(PERIOD)
    grid.stamps(0, 1)
    assert grid.stamps(4 * PERIOD, 1, lost=3) == [4 * PERIOD]


def test_unnoticed_losses_move_it_after_a_window() -> None:
    grid = Dejitter(PERIOD)
    grid.stamps(0, 1)
    arrivals = [(3 + i) * PERIOD for i in range(WINDOW + 3)]
    lags = [a - grid.stamps(a, 1)[0] for a in arrivals]
    assert lags == [2 * PERIOD] * (WINDOW - 1) + [0] * 4


def test_a_gap_starts_a_new_grid() -> None:
    grid = Dejitter(PERIOD)
    grid.stamps(0, 1)
    assert grid.stamps(10**9, 2) == [10**9 - PERIOD, 10**9]


def test_a_sensor_with_a_slow_clock_is_followed() -> None:
    grid, true = Dejitter(PERIOD), PERIOD * 101 // 100
    stamp = 0
    for i in range(3000):
        (stamp,) = grid.stamps(i * true, 1)
    assert 0 <= 2999 * true - stamp < PERIOD


@given(st.lists(st.tuples(st.integers(0, 100_000_000), st.integers(0, 6), st.integers(0, 2)), max_size=40))
def test_stamps_increase_and_are_never_later_than_arrival(steps: list[tuple[int, int, int]]) -> None:
    grid, now, last, samples = Dejitter(PERIOD), 1_000_000_000, -(10**12), 0
    for wait, count, lost in steps:
        now += wait + 1
        for stamp in grid.stamps(now, count, lost):
            assert stamp > last
            last = stamp
        samples += count
        assert last <= now + samples  # a nanosecond each, where more arrive than there is time for
