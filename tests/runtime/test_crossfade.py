"""From one chunk over to the next without a jump: neither where it begins, nor where the old one ends."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from runtime.blends import BLENDS, BlendOptions, blend_from, crossfade
from runtime.horizon import Horizon
from runtime.messages import ActionChunk, Floats
from tests.runtime.control_rig import Chunks, Rig

D = 2
ROUNDING = 1e-12
values = st.lists(st.floats(-3, 3), min_size=1, max_size=40)


def rows(each: list[float] | Floats) -> Floats:
    """``[n, D]`` rows of equal joints."""
    return np.repeat(np.asarray(each, float)[:, None], D, axis=1)


def blended(old: Floats, new: Floats, steps: int) -> Floats:
    return crossfade(old, new, np.ones(len(old), np.int64), steps=steps)


def weights(count: int, steps: int) -> Floats:
    """Of the new rows, where there are `count` of both; and at the rows before and behind them."""
    between = blended(np.zeros((count, 1)), np.ones((count, 1)), steps)[:, 0]
    return np.concatenate([[0.0], between, [1.0]])


def horizon(blend: str, rate_hz: float = 30.0, **options: int) -> Horizon:
    return Horizon(D, blend_from(BlendOptions.model_validate({"blend": blend, **options})), rate_hz=rate_hz)


def played(plan: Horizon) -> Floats:
    """The first joint, to the last row."""
    out = []
    while (row := plan.take()) is not None:
        out.append(float(row[0]))
    return np.array(out)


def step_to(new_at: int, blend: str, length: int = 20, **options: int) -> Floats:
    """A chunk of zeros, and from row `new_at` on, which is executed next, one of ones."""
    plan = horizon(blend, **options)
    plan.splice(ActionChunk(rows(np.zeros(length)), 0, 0))
    before = [plan.take() for _ in range(new_at)]
    plan.splice(ActionChunk(rows(np.ones(length)), new_at, 0))
    return np.concatenate([[float(row[0]) for row in before if row is not None], played(plan)])


# --- the weights


@given(st.integers(1, 60), st.integers(0, 70))
def test_weights_go_from_nothing_to_one_and_never_back(count: int, steps: int) -> None:
    span = min(steps or count, count)
    found = weights(count, steps)
    assert (np.diff(found) >= 0).all()
    assert (found[1 : span + 1] > 0).all()
    assert (found[1 : span + 1] < 1).all()
    assert (found[span + 1 :] == 1).all()
    np.testing.assert_allclose(found[: span + 2], 1 - found[: span + 2][::-1], atol=ROUNDING)


@given(st.integers(1, 60), st.integers(0, 70))
def test_no_change_of_speed_is_as_hard_as_on_a_straight_line(count: int, steps: int) -> None:
    """Whose whole speed comes and goes in one row."""
    parts = min(steps or count, count) + 1
    found = weights(count, steps)
    bends = np.abs(np.diff(np.concatenate([[0.0], found, [1.0]]), 2))
    assert bends.max() <= 1 / parts + ROUNDING
    assert bends.max() <= max(3 / parts**2 - 2 / parts**3, 6 / parts**2 - 12 / parts**3) + ROUNDING
    assert np.diff(found).max() <= 1.5 / parts + ROUNDING


def test_of_one_row_that_both_have_each_says_half() -> None:
    assert blended(rows([1.0]), rows([2.0]), 10).tolist() == [[1.5] * D]


@given(values, values, st.integers(0, 50))
def test_it_stays_between_the_two_and_changes_neither(old: list[float], new: list[float], steps: int) -> None:
    count = min(len(old), len(new))
    before, after = rows(old[:count]), rows(new[:count])
    copies = before.copy(), after.copy()
    out = blended(before, after, steps)
    assert (out >= np.minimum(before, after) - ROUNDING).all()
    assert (out <= np.maximum(before, after) + ROUNDING).all()
    np.testing.assert_array_equal((before, after), copies)
    assert blended(before, before, steps).tobytes() == before.tobytes()
    if 0 < steps < count:
        assert out[steps:].tobytes() == after[steps:].tobytes()


def test_it_is_what_nobody_has_to_ask_for() -> None:
    assert BlendOptions().blend == "crossfade"
    assert BLENDS["crossfade"](rows([0.0]), rows([1.0]), np.ones(1, np.int64))[0, 0] == 0.5


# --- through the horizon


def test_no_jump_where_the_old_chunk_ends_nor_where_the_new_one_begins() -> None:
    """Rows 8 to 19 belong to both: thirteen steps from the last of the old alone to the first of the new."""
    found = step_to(8, "crossfade", crossfade_steps=0)
    share = np.arange(14) / 13
    expected = np.concatenate([np.zeros(7), 3 * share**2 - 2 * share**3, np.ones(7)])
    np.testing.assert_allclose(found, expected, atol=ROUNDING)


def test_constant_weights_jump_at_both() -> None:
    found = step_to(8, "weighted_average")
    np.testing.assert_allclose(found, np.repeat([0.0, 0.7, 1.0], [8, 12, 8]), atol=ROUNDING)


def test_it_is_done_after_so_many_steps() -> None:
    found = step_to(8, "crossfade", crossfade_steps=3)
    np.testing.assert_allclose(found[7:13], [0, 5 / 32, 0.5, 27 / 32, 1, 1], atol=ROUNDING)


@given(values, values, st.integers(0, 40), st.integers(0, 5), st.integers(0, 50))
@settings(deadline=None)
def test_no_row_is_farther_from_the_one_before_than_in_the_chunks_and_by_the_fade(
    old: list[float], new: list[float], executed: int, late: int, steps: int
) -> None:
    """With the largest difference of the two as what is faded over."""
    assume(executed < len(old))
    late = min(late, executed, len(new) - 1)
    plan = horizon("crossfade", crossfade_steps=steps)
    plan.splice(ActionChunk(rows(old), 0, 0))
    begun = [plan.take() for _ in range(executed)]
    assert plan.splice(ActionChunk(rows(new), executed - late, 0)).verdict == "spliced"
    last = [float(row[0]) for row in begun[-1:] if row is not None]
    path = np.concatenate([last, played(plan)])
    both = min(len(old) - executed, len(new) - late)
    a, b = np.array(old[executed - len(last) : executed + both]), np.array(new[late : late + both])
    span = min(steps or both, both)
    apart = np.abs(a[len(last) :] - b).max(initial=0.0)
    own = [np.abs(np.diff(each)).max(initial=0.0) for each in (old, new)]
    inside = np.abs(np.diff(path[: len(last) + both])).max(initial=0.0)
    assert inside <= max(own) + 1.5 * apart / (span + 1) + ROUNDING


@given(st.lists(st.floats(-1, 1), min_size=2, max_size=8), st.integers(1, 12), st.integers(0, 12))
@settings(deadline=None)
def test_a_fade_begun_before_the_former_has_ended_goes_on_from_there(
    levels: list[float], every: int, steps: int
) -> None:
    """Chunks that say a level each, a new one every so many rows: the next row is all but as it was before,
    and the last that was there is all but the new chunk's."""
    plan, most, path = horizon("crossfade", crossfade_steps=steps), float(np.ptp(levels)), []
    for number, level in enumerate(levels):
        before = plan.pending()[:, 0]
        plan.splice(ActionChunk(rows(np.full(20, level)), number * every, 0))
        if len(before):
            after, parts = plan.pending()[:, 0], min(steps or len(before), len(before)) + 1
            end = 3 / parts**2 - 2 / parts**3
            assert abs(after[0] - before[0]) <= end * most + ROUNDING
            assert abs(after[parts - 2] - level) <= end * most + ROUNDING
            assert (after[parts - 1 :] == level).all()
        path += [float(row[0]) for _ in range(every) if (row := plan.take()) is not None]
    assert len(path) == every * len(levels)
    assert min(levels) - ROUNDING <= min(path) <= max(path) <= max(levels) + ROUNDING


@pytest.mark.parametrize("rate_hz", [10.0, 25.0])
def test_rows_of_a_policy_slower_than_the_loop_are_counted_as_its_own(rate_hz: float) -> None:
    """The row that is begun is finished as it was; no tick goes farther than its part of a row."""
    plan = horizon("crossfade", crossfade_steps=4)
    plan.splice(ActionChunk(rows(np.zeros(20)), 0, 0, rate_hz=rate_hz))
    for _ in range(8):
        plan.take()
    first = plan.open_step
    plan.splice(ActionChunk(rows(np.ones(10)), plan.step, 0, rate_hz=rate_hz))
    share = np.arange(1.0, 5.0) / 5
    np.testing.assert_allclose(plan.pending()[first - plan.step :, 0][:4], share**2 * (3 - 2 * share))
    points = np.concatenate([[0.0], played(plan)])
    assert np.diff(points).min() >= 0
    assert np.diff(points).max() <= 1.5 * 1.5 / 5 * rate_hz / 30.0


def test_through_the_loop_no_chunk_that_is_cut_short_makes_the_arm_jump() -> None:
    """Six rows of each are executed at most; two are left when the next is there, 1 higher or lower."""
    answers: list[float] = []

    def level(step: int) -> list[float]:
        answers.append(float(len(answers) % 2))
        return [answers[-1]] * 20

    hardest = {}
    for blend in ("crossfade", "weighted_average", "latest"):
        answers.clear()
        rig = Rig({"blend": blend, "execute_steps": 6, "request_below": 0.5})

        async def main(rig: Rig = rig) -> None:
            rig.loop.follow(Chunks(level, delay=1))
            await rig.ticks(60)

        rig.run(main)
        assert rig.statistics.starved == 0
        assert len(answers) > 10
        hardest[blend] = float(np.abs(np.diff(rig.requested()[5:])).max())
    share = np.arange(4) / 3
    steps = np.diff(share**2 * (3 - 2 * share))
    assert hardest == pytest.approx({"latest": 1.0, "weighted_average": 0.7, "crossfade": steps.max()})
