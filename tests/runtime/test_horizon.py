"""Blends against their definitions, and the horizon against a plain list of rows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime import blends
from runtime.blends import BLENDS, BlendOptions, blend_from
from runtime.horizon import Horizon, Splice, splice_rows
from runtime.messages import ActionChunk, Floats

D = 3
TOLERANCE = {"rtol": 1e-12, "atol": 1e-12}


def rows(values: list[float]) -> Floats:
    """``[n, D]`` rows of equal joints."""
    return np.repeat(np.array(values, float)[:, None], D, axis=1)


def chunk(values: list[float], step: int, epoch: int = 0) -> ActionChunk:
    return ActionChunk(rows(values), step, epoch)


def taken(horizon: Horizon, count: int) -> list[float]:
    out = []
    for _ in range(count):
        row = horizon.take()
        assert row is not None
        out.append(float(row[0]))
    return out


# --- blends


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (BlendOptions(blend="latest"), 2.0),
        (BlendOptions(blend="rtc"), 2.0),
        (BlendOptions(blend="average"), 1.5),
        (BlendOptions(blend="weighted_average"), 1.7),
        (BlendOptions(blend="weighted_average", new_weight=0.25), 1.25),
        (BlendOptions(blend="conservative"), 1.3),
    ],
)
def test_constant_blends(options: BlendOptions, expected: float) -> None:
    out = blend_from(options)(rows([1.0]), rows([2.0]), np.array([1]))
    np.testing.assert_allclose(out, rows([expected]), **TOLERANCE)


def test_every_name_is_a_blend() -> None:
    names = BlendOptions.model_fields["blend"].annotation
    assert set(names.__args__) == set(BLENDS)  # type: ignore[union-attr]


@given(
    predictions=st.lists(st.lists(st.floats(-3, 3), min_size=D, max_size=D), min_size=1, max_size=12),
    decay=st.floats(-0.5, 1.0),
)
@settings(deadline=None)
def test_temporal_ensemble_is_the_weighted_mean_of_all_predictions(
    predictions: list[list[float]], decay: float
) -> None:
    values = np.array(predictions)
    weights = np.exp(-decay * np.arange(len(values)))
    expected = (weights[:, None] * values).sum(0) / weights.sum()
    running = values[:1]
    for count in range(1, len(values)):
        running = blends.temporal_ensemble(running, values[count : count + 1], np.array([count]), decay=decay)
    np.testing.assert_allclose(running[0], expected, rtol=1e-9, atol=1e-9)


@given(
    name=st.sampled_from(sorted(BLENDS)),
    old=st.lists(st.floats(-3, 3), min_size=1, max_size=8),
    counts=st.integers(1, 50),
    shift=st.floats(-1, 1),
)
@settings(deadline=None)
def test_a_blend_lies_between_its_arguments_and_changes_neither(
    name: str, old: list[float], counts: int, shift: float
) -> None:
    before, after, count = rows(old), rows(old) + shift, np.full(len(old), counts)
    copies = before.copy(), after.copy(), count.copy()
    out = blend_from(BlendOptions.model_validate({"blend": name}))(before, after, count)
    assert out.shape == before.shape
    assert (out >= np.minimum(before, after) - 1e-9).all()
    assert (out <= np.maximum(before, after) + 1e-9).all()
    for now, then in zip((before, after, count), copies, strict=True):
        np.testing.assert_array_equal(now, then)


# --- splicing


@given(
    old=st.lists(st.floats(-3, 3), max_size=8),
    new=st.lists(st.floats(-3, 3), min_size=1, max_size=8),
    data=st.data(),
)
@settings(deadline=None)
def test_splice_rows(old: list[float], new: list[float], data: st.DataObject) -> None:
    offset = data.draw(st.integers(0, len(old)))
    merged, count = splice_rows(rows(old), np.arange(1, len(old) + 1), rows(new), offset, blends.average)
    assert len(merged) == len(count) == offset + len(new)
    for index in range(offset + len(new)):
        if index < offset:
            expected, n = old[index], index + 1
        elif index < len(old):
            expected, n = 0.5 * old[index] + 0.5 * new[index - offset], index + 2
        else:
            expected, n = new[index - offset], 1
        assert merged[index, 0] == pytest.approx(expected)
        assert count[index] == n


def test_rows_consumed_before_arrival_are_dropped() -> None:
    horizon = Horizon(D)
    assert horizon.splice(chunk([0, 1, 2, 3, 4], 0)) == Splice("spliced", 0, None)
    assert taken(horizon, 3) == [0, 1, 2]
    assert horizon.splice(chunk([10, 11, 12, 13, 14], 1)) == Splice("spliced", 2, 9.0)
    assert horizon.step == 3
    assert taken(horizon, 3) == [12, 13, 14]
    assert len(horizon) == 0


def test_a_starved_horizon_does_not_advance() -> None:
    """What was consumed counts, not what time it is: the plan goes on where the arm stopped."""
    horizon = Horizon(D)
    horizon.splice(chunk([0, 1], 0))
    assert taken(horizon, 2) == [0, 1]
    for _ in range(7):
        assert horizon.take() is None
    assert horizon.step == 2
    assert horizon.splice(chunk([0.1, 1.1, 2.1, 3.1], 0)) == Splice("spliced", 2, pytest.approx(1.1))
    assert taken(horizon, 2) == [2.1, 3.1]


def test_old_rows_beyond_the_new_chunk_are_dropped() -> None:
    horizon = Horizon(D)
    horizon.splice(chunk(list(range(10)), 0))
    horizon.splice(chunk([5, 6], 0))
    assert taken(horizon, 2) == [5, 6]
    assert horizon.take() is None


def test_a_chunk_for_later_keeps_the_rows_before_it() -> None:
    horizon = Horizon(D)
    horizon.splice(chunk([0, 1, 2], 0))
    assert horizon.splice(chunk([22, 33], 2)).seam == 0.0
    assert taken(horizon, 4) == [0, 1, 22, 33]


@pytest.mark.parametrize(
    ("bad", "verdict"),
    [
        (chunk([1, 2], 0, epoch=1), "stale"),
        (chunk([1, 2], 0), "late"),
        (chunk([1, 2], 5), "gap"),
        (chunk([1.0] * 3000, 2), "too_long"),
        (ActionChunk(np.zeros((4, D + 1)), 2, 0), "shape"),
        (ActionChunk(np.zeros(D), 2, 0), "shape"),
        (ActionChunk(np.array([["a"] * D]), 2, 0), "shape"),  # type: ignore[arg-type]
        (ActionChunk(np.zeros((0, D)), 2, 0), "late"),
        (chunk([np.nan], 2), "not_finite"),
        (chunk([1, np.inf], 2), "not_finite"),
    ],
)
def test_bad_chunks_are_dropped_and_the_plan_stays(bad: ActionChunk, verdict: str) -> None:
    horizon = Horizon(D, capacity=2048)
    horizon.splice(chunk([0, 1, 2, 3], 0))
    assert taken(horizon, 2) == [0, 1]
    assert horizon.splice(bad).verdict == verdict
    assert taken(horizon, 2) == [2, 3]


def test_a_restart_forgets_and_counts_epochs() -> None:
    horizon = Horizon(D)
    horizon.splice(chunk([0, 1, 2], 0))
    assert taken(horizon, 1) == [0]
    assert horizon.restart() == 1
    assert (len(horizon), horizon.step) == (0, 1)
    assert horizon.splice(chunk([9, 9], 1)).verdict == "stale"
    assert horizon.splice(chunk([7, 8], 1, epoch=1)) == Splice("spliced", 0, None)
    assert taken(horizon, 2) == [7, 8]


@pytest.mark.parametrize(
    ("grippers", "seam"),
    [((2,), 0.3), ((0, 2), 0.3), ((1,), 1.0), ((), 1.0), ((0, 1, 2), None)],
)
def test_the_seam_is_in_radians_and_leaves_grippers_out(grippers: tuple, seam: float | None) -> None:
    horizon = Horizon(D, grippers=grippers)
    horizon.splice(ActionChunk(np.array([[0.0, 0.0, 0.0]] * 3), 0, 0))
    splice = horizon.splice(ActionChunk(np.array([[0.1, -0.3, 1.0]] * 3), 0, 0))
    assert splice.seam == (None if seam is None else pytest.approx(seam))
    assert horizon.pending().shape == (3, D)


def test_pending_is_a_copy() -> None:
    horizon = Horizon(D)
    horizon.splice(chunk([0, 1, 2], 0))
    horizon.pending()[:] = 99
    assert taken(horizon, 3) == [0, 1, 2]


def test_a_long_prepared_motion_fits() -> None:
    horizon = Horizon(6)
    assert horizon.splice(ActionChunk(np.zeros((1024, 6)), 0, 0)).verdict == "spliced"
    assert len(horizon) == 1024


@given(
    steps=st.lists(
        st.one_of(
            st.just(("take",)),
            st.tuples(st.just("chunk"), st.integers(0, 6), st.integers(1, 10), st.integers(0, 1)),
        ),
        max_size=60,
    )
)
@settings(deadline=None)
def test_with_latest_every_row_executed_is_the_newest_plan_for_its_step(steps: list[tuple]) -> None:
    """Row k of a chunk for tick t is executed at step t + k or never."""
    horizon, plan, executed, number = Horizon(D), {}, 0, 0
    for step in steps:
        if step[0] == "take":
            row = horizon.take()
            if executed in plan:
                assert row is not None
                assert row[0] == plan[executed]
                executed += 1
            else:
                assert row is None
        else:
            _, age, length, epoch = step
            number += 1
            tick = max(0, executed - age)
            values = [number + k / 100 for k in range(length)]
            verdict = horizon.splice(chunk(values, tick, epoch)).verdict
            usable = epoch == 0 and tick + length > executed
            assert (verdict == "spliced") == usable
            if usable:
                plan = {tick + k: v for k, v in enumerate(values)}
        assert horizon.step == executed


@pytest.mark.parametrize("decay", [0.0, 0.01, 0.3])
def test_act_temporal_ensemble_over_a_run(decay: float) -> None:
    """A chunk at every step, as ACT does it, against its definition over all chunks kept."""
    rng, horizon, length = np.random.default_rng(0), None, 8
    horizon = Horizon(D, blend_from(BlendOptions(blend="temporal_ensemble", ensemble_decay=decay)))
    chunks = []
    for step in range(30):
        chunks.append(rng.normal(size=(length, D)))
        assert horizon.splice(ActionChunk(chunks[-1], step, 0)).verdict == "spliced"
        row = horizon.take()
        predictions = [c[step - s] for s, c in enumerate(chunks) if step - s < length]
        weights = np.exp(-decay * np.arange(len(predictions)))
        expected = (weights[:, None] * np.array(predictions)).sum(0) / weights.sum()
        np.testing.assert_allclose(row, expected, rtol=1e-9, atol=1e-12)


# --- played slower


@given(
    st.lists(st.floats(-10, 10), min_size=2, max_size=30),
    st.lists(st.floats(0.01, 1.0), min_size=1, max_size=400),
)
def test_played_slower_every_point_lies_between_its_rows_and_none_is_left_out(
    values: list[float], speeds: list[float]
) -> None:
    horizon = Horizon(D)
    horizon.splice(chunk(values, 0))
    assert horizon.take() is not None
    played = 0.0
    for speed in speeds:
        row = horizon.take(speed)
        if row is None:
            assert len(horizon) == 0
            break
        played = float(np.ceil(played - 1e-9)) + (played == int(played)) if speed == 1.0 else played + speed
        played = min(played, len(values) - 1.0)
        around = values[int(played + 1e-6)], values[min(int(np.ceil(played - 1e-6)), len(values) - 1)]
        assert min(around) <= row[0] <= max(around)
        assert horizon.step == int(played + 1e-6) + 1
        assert horizon.left == pytest.approx(len(values) - 1 - played, abs=1e-6)


def test_full_speed_goes_on_with_whole_rows() -> None:
    horizon = Horizon(D)
    horizon.splice(chunk([0.0, 1.0, 2.0, 3.0, 4.0], 0))
    at = [float(row[0]) for speed in (1, 0.5, 0.25, 1, 1, 0.5, 1) if (row := horizon.take(speed)) is not None]
    assert at == [0.0, 0.5, 0.75, 1.0, 2.0, 2.5, 3.0]
    assert horizon.step == 4


def test_a_new_epoch_begins_with_a_whole_row() -> None:
    horizon = Horizon(D)
    horizon.splice(chunk([0.0, 1.0], 0))
    horizon.take()
    horizon.take(0.5)
    epoch = horizon.restart()
    horizon.splice(chunk([5.0, 6.0], horizon.step, epoch))
    row = horizon.take(0.5)
    assert row is not None
    assert row[0] == 5.0
