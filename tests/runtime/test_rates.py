"""Chunks at a rate of their own: what is played between their rows, and what is counted in which unit."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.blends import BLENDS, BlendName, BlendOptions, blend_from
from runtime.horizon import Horizon
from runtime.inputs import LeaderSource
from runtime.interpolation import limited, slope_between
from runtime.messages import ActionChunk, Floats
from runtime.ring import Ring
from runtime.snapshots import from_json, to_json
from runtime.tick import TickFlag
from tests.runtime.control_rig import MS, STATES, Chunks, Rig

D = 3
LOOP_HZ = 100.0
WAVE = np.sin(2 * np.pi * 0.4 * np.arange(40) / 10.0)
"""A joint that swings at 0.4 Hz, as a policy of 10 Hz sees it."""

rates = st.sampled_from([10.0, 15.0, 30.0, 50.0, 99.0, 130.0, 250.0])
joint = st.lists(st.floats(-3, 3), min_size=1, max_size=30)


def chunk(values: Floats | list[float], rate_hz: float, step: int = 0, **more: object) -> ActionChunk:
    """``[n, D]`` rows of equal joints."""
    return ActionChunk(np.repeat(np.array(values, float)[:, None], D, 1), step, 0, rate_hz=rate_hz, **more)  # type: ignore[arg-type]


def at_loop(rate_hz: float = LOOP_HZ) -> Horizon:
    return Horizon(D, rate_hz=rate_hz)


def played(horizon: Horizon, ticks: int = 10_000) -> Floats:
    """First joint of every point until the rows are over."""
    out = []
    for _ in range(ticks):
        row = horizon.take()
        if row is None:
            break
        out.append(float(row[0]))
    return np.array(out)


@given(
    st.lists(
        st.one_of(
            st.just(None),
            st.tuples(st.integers(0, 6), st.lists(st.floats(-3, 3), min_size=1, max_size=9)),
        ),
        max_size=60,
    ),
    st.sampled_from(["latest", "weighted_average", "temporal_ensemble"]),
    st.sampled_from([0.0, LOOP_HZ]),
)
@settings(deadline=None)
def test_at_equal_rates_rows_are_played_as_they_are(
    steps: list[tuple[int, list[float]] | None], name: str, rate_hz: float
) -> None:
    """Bit for bit, whatever is spliced when."""
    blend = blend_from(BlendOptions.model_validate({"blend": name}))
    horizon = Horizon(D, blend, rate_hz=LOOP_HZ)
    for each in steps:
        if each is None:
            expected = horizon.pending()[:1]
            row = horizon.take()
            assert (row is None) == (len(expected) == 0)
            assert row is None or row.tobytes() == expected[0].tobytes()
        else:
            age, values = each
            assert horizon.open_step == horizon.step
            horizon.splice(chunk(values, rate_hz, max(0, horizon.step - age)))


@given(joint, rates)
@settings(deadline=None)
def test_no_point_is_beyond_the_rows_on_either_side(values: list[float], rate_hz: float) -> None:
    horizon = at_loop()
    horizon.splice(chunk(values, rate_hz))
    points = played(horizon)
    per_tick = rate_hz / LOOP_HZ
    assert len(points) == int(np.ceil((len(values) - 1) / per_tick - 1e-6)) + 1
    for tick, point in enumerate(points):
        at = min(tick * per_tick, len(values) - 1.0)
        around = values[int(at + 1e-6)], values[int(np.ceil(at - 1e-6))]
        assert min(around) <= point <= max(around)
        if around[0] == around[1]:
            assert point == around[0]
    assert horizon.step == len(values)
    assert points[-1] == values[-1]


@given(st.floats(-1, 1), st.floats(-0.5, 0.5), rates)
@settings(deadline=None)
def test_what_is_straight_stays_straight(start: float, slope: float, rate_hz: float) -> None:
    horizon = at_loop()
    horizon.splice(chunk(start + slope * np.arange(20), rate_hz))
    points = played(horizon)[:-1]
    np.testing.assert_allclose(points, start + slope * np.arange(len(points)) * rate_hz / LOOP_HZ, atol=1e-9)


@pytest.mark.parametrize(("rate_hz", "smoother"), [(10.0, 8.0), (15.0, 5.0), (30.0, 2.0)])
def test_between_rows_velocity_does_not_jump(rate_hz: float, smoother: float) -> None:
    """Beside straight lines, whose whole change of velocity falls into one tick."""
    rows = np.sin(2 * np.pi * 0.4 * np.arange(int(4 * rate_hz)) / rate_hz)
    horizon = at_loop()
    horizon.splice(chunk(rows, rate_hz))
    points = played(horizon)[:-10]
    lines = np.interp(np.arange(len(points)) * rate_hz / LOOP_HZ, np.arange(len(rows)), rows)
    jump, jump_of_lines = (np.abs(np.diff(each, 2)).max() for each in (points, lines))
    assert jump < jump_of_lines / 1.5
    true = np.sin(2 * np.pi * 0.4 * np.arange(len(points)) / LOOP_HZ)
    assert np.abs(points - true).mean() < np.abs(lines - true).mean() / smoother


@given(joint, joint, rates, st.integers(0, 60), st.integers(-3, 3), st.data())
@settings(deadline=None)
def test_a_splice_between_two_rows_moves_no_point_that_was_begun(
    old: list[float], new: list[float], rate_hz: float, ticks: int, late: int, data: st.DataObject
) -> None:
    with_splice, without = at_loop(), at_loop()
    for horizon in (with_splice, without):
        horizon.splice(chunk(old, rate_hz))
        played(horizon, ticks)
    begun, step = with_splice.open_step > with_splice.step, with_splice.step
    splice = with_splice.splice(chunk(new, rate_hz, max(0, step - late)))
    assert splice.verdict in ("spliced", "late", "gap")
    while begun and with_splice.step == without.step == step and len(without):
        point, expected = with_splice.take(), without.take()
        assert point is not None
        assert expected is not None
        if without.step == step:
            assert point.tobytes() == expected.tobytes()
    if begun and splice.verdict == "spliced" and rate_hz < LOOP_HZ:
        assert abs(float(point[0]) - float(expected[0])) <= 6.0 * rate_hz / LOOP_HZ * 3.0 + 1e-9


@given(joint, joint, rates, st.integers(0, 60))
@settings(deadline=None)
def test_latest_plays_the_new_rows_from_the_first_that_was_not_begun(
    old: list[float], new: list[float], rate_hz: float, ticks: int
) -> None:
    horizon = at_loop()
    horizon.splice(chunk(old, rate_hz))
    played(horizon, ticks)
    first = horizon.open_step
    begun = horizon.pending()[: first - horizon.step, 0].tolist()
    expected = [*begun, *new[max(0, first - horizon.step) :]]
    if horizon.splice(chunk(new, rate_hz, horizon.step)).verdict == "spliced":
        assert horizon.pending()[:, 0].tolist() == expected


def test_discrete_joints_stay_at_the_row_that_was_reached() -> None:
    rows = np.zeros((6, D))
    rows[:, 0], rows[:, 2] = np.arange(6.0), [0, 0, 1, 1, 0, 0]
    horizon = at_loop()
    horizon.splice(ActionChunk(rows, 0, 0, rate_hz=30.0, discrete=(2,)))
    for _ in range(14):
        before = horizon.step
        row = horizon.take()
        assert row is not None
        assert row[2] == rows[horizon.step - 1, 2]
        assert horizon.step - before <= 1


@pytest.mark.parametrize("blend", sorted(BLENDS))
def test_discrete_joints_have_no_value_between_two_chunks(blend: BlendName) -> None:
    horizon = Horizon(D, blend_from(BlendOptions(blend=blend)), 100, 30.0)
    for step, value in ((0, 0.0), (2, 1.0)):
        horizon.splice(ActionChunk(np.full((8, D), value), step, 0, discrete=(2,)))
        horizon.take()
        horizon.take()
    assert set(horizon.pending()[:, 2].tolist()) == {1.0}
    assert (blend in ("latest", "rtc")) == (set(horizon.pending()[:, 0].tolist()) == {1.0})


@pytest.mark.parametrize("rate_hz", [50.0, -1.0, float("nan"), float("inf")])
def test_a_chunk_of_another_rate_is_dropped(rate_hz: float) -> None:
    horizon = at_loop()
    horizon.splice(chunk([0, 1, 2, 3], 30.0))
    horizon.take()
    assert horizon.splice(chunk([5, 6, 7], rate_hz)).verdict == "rate"
    assert horizon.splice(chunk([5, 6, 7], 30.0, discrete=(D,))).verdict == "rate"
    assert horizon.pending()[:, 0].tolist() == [1, 2, 3]
    epoch = horizon.restart()
    assert (
        horizon.splice(ActionChunk(np.zeros((2, D)), horizon.step, epoch, rate_hz=50.0)).verdict == "spliced"
    )


def test_after_a_pause_the_next_piece_sets_out_from_standstill() -> None:
    horizon = at_loop()
    horizon.splice(chunk([0, 1], 10.0))
    assert played(horizon)[-1] == 1.0
    horizon.splice(chunk([2, 3], 10.0, 2))
    first = played(horizon)[:2]
    assert 0 < first[0] - 1.0 < 0.05  # a tenth of the way at a steady pace
    assert first[1] - first[0] > first[0] - 1.0


@given(joint, joint, rates, st.integers(1, 40))
@settings(deadline=None)
def test_a_snapshot_goes_on_in_the_middle_of_a_piece(
    old: list[float], new: list[float], rate_hz: float, ticks: int
) -> None:
    first, second = at_loop(), at_loop()
    first.splice(chunk(old, rate_hz))
    played(first, ticks)
    second.restore(from_json(json.loads(json.dumps(to_json(first.snapshot())))))
    for horizon in (first, second):
        horizon.splice(chunk(new, rate_hz, horizon.step))
    assert played(first).tobytes() == played(second).tobytes()


def test_a_snapshot_older_than_rates_is_played_on_straight_lines() -> None:
    horizon, again = at_loop(), at_loop()
    horizon.splice(chunk([0.0, 1.0, 5.0, 2.0], 0.0))
    horizon.take()
    state = horizon.snapshot()
    for name in ("way", "rows_per_tick", "discrete"):
        del state[name]
    again.restore(state)
    points = []
    for speed in (0.5, 0.25, 0.5, 0.5, 0.75):
        row = again.take(speed)
        assert row is not None
        points.append(float(row[0]))
    assert points == [0.5, 0.75, 2.0, 4.0, 3.5]


def test_a_snapshot_older_than_discrete_joints_were_apart_blends_them() -> None:
    """As what was recorded then did."""
    horizon, again = (Horizon(D, blend_from(BlendOptions(blend="average")), 100, 30.0) for _ in range(2))
    horizon.splice(ActionChunk(np.zeros((8, D)), 0, 0, discrete=(2,)))
    state = horizon.snapshot()
    del state["blends_discrete"]
    again.restore(state)
    second = Horizon(D, blend_from(BlendOptions(blend="average")), 100, 30.0)
    second.restore(again.snapshot())  # and of a snapshot that was made of it
    for each, found in ((horizon, 1.0), (again, 0.5), (second, 0.5)):
        each.splice(ActionChunk(np.ones((8, D)), 0, 0, discrete=(2,)))
        assert set(each.pending()[:, 2].tolist()) == {found}


@given(st.floats(-5, 5), st.floats(-5, 5))
def test_slopes_are_within_what_keeps_a_piece_one_way(before: float, after: float) -> None:
    slope = float(slope_between(np.array([before]), np.array([after]))[0])
    for chord in (before, after):
        assert slope == pytest.approx(float(limited(np.array([slope]), np.array([chord]))[0]), abs=1e-100)


# --- the control loop


def line(step: int) -> list[float]:
    """A ramp whose value is its step."""
    return [float(step + k) for k in range(10)]


def test_a_slow_policy_is_asked_once_per_step_and_told_what_is_frozen_in_its_own_steps() -> None:
    rig = Rig({"request_below": 1.0, "blend": "latest"})
    source = Chunks(line, delay=7, rate_hz=25.0)

    async def main() -> None:
        rig.loop.follow(source)
        await rig.ticks(120)

    rig.run(main)
    asked = [step for step, *_ in source.requests]
    assert asked[1:] == sorted(set(asked[1:]))  # the first, with nothing, may be repeated
    for step, _, committed, frozen in source.requests[3:]:
        assert committed == [float(step + k) for k in range(len(committed))]
        assert frozen in (2, 3)  # 7 ticks are 1.75 rows, and some of a row was played already
    points = np.array(rig.requested()[-60:])
    np.testing.assert_allclose(np.diff(points), 0.25, atol=1e-9)
    assert rig.statistics.starved == 0
    assert rig.statistics.seam.max == 0


def test_starved_ticks_are_ticks_and_the_plan_waits() -> None:
    rig = Rig({"request_below": 0.0, "blend": "latest"})
    source = Chunks(line, delay=20, rate_hz=50.0)

    async def main() -> None:
        rig.loop.follow(source)
        await rig.ticks(150)

    rig.run(main)
    points, flags = np.array(rig.requested()), rig.flags()
    starved = [bool(flag & TickFlag.STARVED) for flag in flags]
    assert sum(starved) == rig.statistics.starved > 10
    steps = np.diff(points)
    assert (steps >= 0).all()
    assert steps.max() <= 0.75 + 1e-9
    assert all(steps[n - 1] == 0 for n in range(1, len(points)) if starved[n])


def test_fast_rows_are_played_several_to_a_tick() -> None:
    rig = Rig({"blend": "latest"})

    async def main() -> None:
        rig.loop.follow(Chunks(lambda step: [float(step + k) for k in range(50)], delay=3, rate_hz=250.0))
        await rig.ticks(80)

    rig.run(main)
    np.testing.assert_allclose(np.diff(rig.requested()[-40:]), 2.5, atol=1e-9)
    assert rig.statistics.starved == 0


def test_stretch_makes_slow_rows_last_too() -> None:
    """10 rows at 50 Hz last 20 ticks, and a chunk takes 24: half a chunk per inference in the long run."""
    rig = Rig({"blend": "latest", "stretch": True})

    async def main() -> None:
        rig.loop.follow(Chunks(line, delay=24, rate_hz=50.0))
        await rig.ticks(150)
        rig.statistics.starved = rig.statistics.stretched = 0
        await rig.ticks(250)

    rig.run(main)
    assert rig.statistics.starved == 0
    assert rig.statistics.stretched > 200
    speeds = np.diff(rig.requested()[-250:])
    assert 0.05 < speeds.min() < speeds.max() < 0.5
    assert speeds.mean() == pytest.approx(10 / 2 / 25, abs=0.03)


def test_only_so_many_steps_of_a_slow_chunk_are_executed() -> None:
    rig = Rig({"blend": "latest", "request_below": 1.0, "execute_steps": 3})
    left: list[int] = []

    async def main() -> None:
        rig.loop.follow(Chunks(line, delay=1, rate_hz=50.0))
        for _ in range(60):
            await rig.ticks(1)
            left.append(len(rig.loop.horizon))

    rig.run(main)
    assert 3 <= max(left) <= 4  # a row that was begun is finished


def test_a_faster_loop_is_nearer_to_its_leader() -> None:
    """A leader says the time 100 times a second: how old is what was posted of it, at any millisecond?"""
    ages: dict[float, float] = {}
    for rate_hz in (30.0, 100.0):
        rig, leader = Rig({"rate_hz": rate_hz}), Ring(STATES, 8)
        seen: list[int] = []

        def person(rig: Rig = rig, leader: Ring = leader) -> None:
            due = 3 * MS
            while True:
                rig.clock.wait_until_ns(due)
                leader.push(due, position=due, velocity=0, load=0)
                due += 10 * MS

        async def main(rig: Rig = rig, leader: Ring = leader, seen: list[int] = seen) -> None:
            rig.clock.spawn("leader", person)
            rig.loop.follow(LeaderSource(leader))
            await rig.ticks(5)
            for _ in range(600):
                await rig.clock.sleep_until_ns(rig.clock.now_ns() + MS)
                target = rig.loop.target
                assert target is not None
                seen.append(rig.clock.now_ns() - round(target[0]))

        rig.run(main)
        ages[rate_hz] = float(np.mean(seen)) / MS
    assert ages[30.0] == pytest.approx(1000 / 30 / 2 + 5, abs=2.0)
    assert ages[100.0] == pytest.approx(10 / 2 + 7, abs=1.0)  # the leader speaks 7 ms before each tick
    assert ages[100.0] < 0.6 * ages[30.0]
