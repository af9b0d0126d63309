"""The whole stage, against any input at all."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from runtime.arm_model import ArmModel
from runtime.clearance import Gaps
from runtime.fingers import Fingers
from runtime.limits import SafetyOptions
from runtime.messages import Clip
from runtime.safety import UNKNOWN_POSITION, SafetyStage

DT = 1 / 30
OPTIONS = SafetyOptions()
FROM_EVERY_TEST = settings(
    deadline=None,
    max_examples=80,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

anything = npst.arrays(np.float64, 6, elements=st.floats(allow_nan=True, allow_infinity=True))
plausible = npst.arrays(np.float64, 6, elements=st.floats(-4, 4))
vectors = st.one_of(anything, plausible)
forces = st.one_of(st.none(), st.floats(), npst.arrays(np.float64, 3, elements=st.floats()))
loads = st.one_of(st.none(), anything, npst.arrays(np.float64, 6, elements=st.floats(-1, 1)))
steps = st.one_of(st.just(DT), st.floats())


def check(stage: SafetyStage, target: np.ndarray, start: np.ndarray, dt: float) -> None:
    """In range, or on the way back to it, and no faster than permitted."""
    limits = stage.limits
    assert target.shape == (6,)
    assert np.isfinite(target).all()
    assert (target >= np.minimum(limits.lower, start)).all()
    assert (target <= np.maximum(limits.upper, start)).all()
    assert (np.abs(target - start) <= limits.velocity * dt + 1e-9).all()


def possible(stage: SafetyStage, values: np.ndarray) -> np.ndarray:
    """Which of the values a joint can have at all: in range, or a turn outside."""
    with np.errstate(invalid="ignore"):
        return (values >= stage.limits.lower - np.pi * 2) & (values <= stage.limits.upper + np.pi * 2)


@FROM_EVERY_TEST
@given(vectors, vectors, vectors, forces, loads, steps)
def test_any_single_call(
    arm: ArmModel, requested: Any, present: Any, previous: Any, force: Any, load: Any, dt: Any
):
    stage = SafetyStage(OPTIONS, arm)
    result = stage.apply(requested, present, previous, force, load, dt)
    start = np.where(possible(stage, previous), previous, present)
    if not possible(stage, start).all():
        assert result.stop_reason == UNKNOWN_POSITION
        assert np.isnan(result.target).all()
        return
    used = dt if np.isfinite(dt) and dt > 0 else DT
    check(stage, result.target, start, min(used, OPTIONS.max_step_s))
    own, table = arm.clearances(start)
    after_own, after_table = arm.clearances(result.target)
    assert after_own >= min(own, OPTIONS.self_clearance_m) - 1e-9
    assert after_table >= min(table, OPTIONS.table_clearance_m) - 1e-9


@FROM_EVERY_TEST
@given(st.lists(st.tuples(vectors, forces, loads), min_size=1, max_size=8), vectors, loads)
def test_a_rehearsal_leaves_no_trace(
    arm: ArmModel, asked: list[Any], elsewhere: np.ndarray, other_load: np.ndarray | None
):
    plain, rehearsing = SafetyStage(OPTIONS, arm), SafetyStage(OPTIONS, arm)
    previous = home = arm.middle()
    other = np.zeros(6) if other_load is None else other_load
    for requested, force, load in asked:
        rehearsing.rehearse(previous, elsewhere, other, DT)
        first = plain.apply(requested, home, previous, force, load, DT)
        second = rehearsing.apply(requested, home, previous, force, load, DT)
        assert first.target.tobytes() == second.target.tobytes()
        assert (first.clips, first.stop_reason) == (second.clips, second.stop_reason)
        previous = first.target


@FROM_EVERY_TEST
@given(st.data())
def test_any_sequence_keeps_velocity_acceleration_range_and_clearance(arm: ArmModel, data: st.DataObject):
    stage = SafetyStage(OPTIONS, arm)
    previous = np.array([0.0, -1.57, 1.57, 1.57, 0.0, 0.5])
    velocity = np.zeros(6)
    for step in range(15):
        if step % 3 == 0:
            requested = data.draw(vectors)
            force = data.draw(st.sampled_from([0.0, 0.0, 0.0, 27.0, 60.0]))
        result = stage.apply(requested, previous, previous, force, np.zeros(6), DT)
        check(stage, result.target, previous, DT)
        now = (result.target - previous) / DT
        if not result.clips & (Clip.COLLISION | Clip.FORCE | Clip.STALL):
            assert (np.abs(now - velocity) <= stage.limits.acceleration * DT + 1e-6).all()
        own, table = arm.clearances(result.target)
        assert own >= OPTIONS.self_clearance_m - 1e-9
        assert table >= OPTIONS.table_clearance_m - 1e-9
        previous, velocity = result.target, now


@FROM_EVERY_TEST
@given(npst.arrays(np.float64, 6, elements=st.floats(-0.5, 0.5)), st.booleans())
def test_an_arm_outside_its_range_stays_or_comes_back_at_the_permitted_speed(
    arm: ArmModel, outside: np.ndarray, to_middle: bool
):
    stage = SafetyStage(OPTIONS, arm)
    limits = stage.limits
    edge = np.where(outside < 0, limits.lower, limits.upper)
    previous = start = np.where(np.abs(outside) > 0.1, edge + outside, arm.middle())
    floors = np.minimum(arm.clearances(start), (OPTIONS.self_clearance_m, OPTIONS.table_clearance_m))
    requested, away = arm.middle() if to_middle else start + 2 * outside, np.inf
    for _ in range(30):
        result = stage.apply(requested, previous, previous, None, np.zeros(6), DT)
        check(stage, result.target, previous, DT)
        beyond = np.maximum(limits.lower - result.target, result.target - limits.upper).max()
        assert beyond <= away
        assert (np.array(arm.clearances(result.target)) >= floors - 1e-9).all()
        previous, away = result.target, max(beyond, 0.0)
    if not to_middle:
        np.testing.assert_array_equal(previous[np.abs(outside) > 0.1], start[np.abs(outside) > 0.1])


def test_a_folded_arm_is_not_sent_through_the_table_by_a_range_it_rests_outside(arm: ArmModel):
    """Into that range in one step the arm would go 40 mm deep into itself and the table."""
    options = SafetyOptions(joints={"shoulder_lift": {"lower_rad": -2.0}})
    stage = SafetyStage(options, arm)
    folded = np.array([0.0, -3.1, 3.1, 1.0, 0.0, 0.3])
    for _ in range(3):
        result = stage.apply(folded, folded, folded, None, np.zeros(6), DT)
        assert result.clips == Clip.NONE
        np.testing.assert_array_equal(result.target, folded)


@pytest.mark.parametrize("joint", range(6))
@pytest.mark.parametrize("side", [-1, 1])
def test_a_joint_brakes_before_the_end_of_its_range(joint: int, side: int):
    stage = SafetyStage(OPTIONS, _Ghost())
    previous, velocity = np.zeros(6) + 0.5, np.zeros(6)
    speeds = []
    for _ in range(200):
        requested = previous.copy()
        requested[joint] = side * 9.0
        target = stage.apply(requested, previous, previous, None, None, DT).target
        now = (target - previous) / DT
        assert (np.abs(now - velocity) <= stage.limits.acceleration * DT + 1e-9).all()
        previous, velocity = target, now
        speeds.append(abs(now[joint]))
    end = stage.limits.upper[joint] if side > 0 else stage.limits.lower[joint]
    assert previous[joint] == pytest.approx(end, abs=1e-3)
    assert max(speeds) > 0.9 * min(stage.limits.velocity[joint], 2.4)


def test_a_trajectory_within_the_limits_passes_unchanged(arm: ArmModel, home: np.ndarray):
    stage = SafetyStage(OPTIONS, arm)
    previous = home
    for tick in range(1, 120):
        requested = home + 0.25 * (1 - np.cos(tick / 20)) * np.array([1, -1, -1, -0.5, 1, 0.3])
        result = stage.apply(requested, previous, previous, 1.0, np.zeros(6), DT)
        assert result.clips == Clip.NONE
        np.testing.assert_allclose(result.target, requested, atol=1e-12)
        previous = result.target


def test_wrong_shapes_and_types_hold_the_arm(arm: ArmModel, home: np.ndarray):
    for wrong in (np.zeros(5), np.zeros((6, 1)), None, "up", [object()] * 6):
        result = SafetyStage(OPTIONS, arm).apply(wrong, home, home, None, None, DT)  # type: ignore[arg-type]
        assert result.clips == Clip.NOT_FINITE
        np.testing.assert_array_equal(result.target, home)


def test_target_stays_near_an_arm_that_does_not_follow(arm: ArmModel, home: np.ndarray):
    stage = SafetyStage(OPTIONS, arm)
    previous = home
    seen = Clip.NONE
    for _ in range(60):
        result = stage.apply(home + np.array([2, 0, 0, 0, 0, 0]), home, previous, None, None, DT)
        previous = result.target
        seen |= result.clips
    assert seen & Clip.RELATIVE
    assert previous[0] - home[0] <= OPTIONS.max_relative_target_rad + 1e-9


@FROM_EVERY_TEST
@given(st.data())
def test_the_step_from_an_arm_that_stands_still_is_never_exceeded(data: st.DataObject):
    stage = SafetyStage(OPTIONS, _Ghost())
    present = data.draw(npst.arrays(np.float64, 6, elements=st.floats(0.0, 1.0)))
    previous = present
    for _ in range(6):
        requested = data.draw(vectors)
        for _ in range(6):
            previous = stage.apply(requested, present, previous, None, None, DT).target
            assert (np.abs(previous - present) <= stage.limits.relative + 1e-9).all()


def test_a_target_far_from_the_arm_comes_back_to_it(arm: ArmModel, home: np.ndarray):
    stage = SafetyStage(OPTIONS, arm)
    previous = home + np.array([1.5, 0, 0, 0, 0, 0])
    for _ in range(60):
        previous = stage.apply(home + np.array([2.0, 0, 0, 0, 0, 0]), home, previous, None, None, DT).target
    assert previous[0] - home[0] == pytest.approx(OPTIONS.max_relative_target_rad, abs=1e-3)


def test_a_long_gap_is_not_credited(arm: ArmModel, home: np.ndarray):
    result = SafetyStage(OPTIONS, arm).apply(home + 0.5, home, home, None, None, 10.0)
    assert (np.abs(result.target - home) <= OPTIONS.max_velocity_rad_s * OPTIONS.max_step_s + 1e-9).all()


def test_a_fresh_stage_starts_from_rest_after_reset(arm: ArmModel, home: np.ndarray):
    stage = SafetyStage(OPTIONS, arm)
    previous = home
    for _ in range(6):
        previous = stage.apply(home + np.array([1, 0, 0, 0, 0, 0]), previous, previous, None, None, DT).target
    stage.reset()
    result = stage.apply(home + np.array([1, 0, 0, 0, 0, 0]), previous, previous, None, None, DT)
    assert abs(result.target[0] - previous[0]) <= OPTIONS.max_acceleration_rad_s2 * DT * DT + 1e-9
    assert result.clips & Clip.ACCELERATION


class _Ghost:
    """An arm that is never near anything."""

    names = ("a", "b", "c", "d", "e", "gripper")
    ranges = np.array([[-2.2, 2.2]] * 5 + [[0.0, 1.0]])
    grippers = (5,)
    fingers = Fingers.of((5,))
    arms = ((0, 1, 2, 3, 4, 5),)
    reach_m = 1.0

    def gaps(self, q: np.ndarray) -> Gaps:
        return (1.0,), (1.0,)

    def grasp_heights(self, q: np.ndarray) -> np.ndarray:
        return q[1:2]


def driven(stage: SafetyStage, ticks: int, at: np.ndarray, to: float = 1.0) -> tuple[np.ndarray, list[float]]:
    """Towards `to` on joint 0; where that ends, and the speed of each target on the way."""
    speeds = []
    for _ in range(ticks):
        asked = at.copy()
        asked[0] = to
        target = stage.apply(asked, at, at, None, None, DT).target
        speeds.append(float((target - at)[0] / DT))
        at = target
    return at, speeds


def test_a_limited_speed_is_braked_to_within_the_acceleration_and_kept(arm: ArmModel) -> None:
    stage = SafetyStage(OPTIONS, arm)
    at, speeds = driven(stage, 9, arm.middle() * [0, 1, 1, 1, 1, 1] - [1.5, 0, 0, 0, 0, 0])
    assert speeds[-1] == pytest.approx(OPTIONS.max_velocity_rad_s)
    stage.limit_speed(0.1)
    at, slower = driven(stage, 8, at)
    changes = -np.diff([speeds[-1], *slower])
    assert (changes <= OPTIONS.max_acceleration_rad_s2 * DT + 1e-9).all()
    assert slower[-3:] == pytest.approx([0.1 * OPTIONS.max_velocity_rad_s] * 3)
    stage.limit_speed(1.0)
    _, faster = driven(stage, 1, at)
    assert faster[0] > slower[-1]
    assert (stage.limits.velocity == SafetyStage(OPTIONS, arm).limits.velocity).all()  # to the last bit


def test_a_limited_speed_goes_with_the_snapshot_and_an_old_one_has_none(arm: ArmModel) -> None:
    stage, other = SafetyStage(OPTIONS, arm), SafetyStage(OPTIONS, arm)
    stage.limit_speed(0.2)
    at, _ = driven(stage, 3, arm.middle())
    stage.rehearse(at, at, np.zeros(6), DT)
    other.restore(stage.snapshot())
    assert driven(other, 5, at)[1] == driven(stage, 5, at)[1]
    old = SafetyStage(OPTIONS, arm).snapshot()
    del old["_speed"], old["_fastest"]
    fresh = SafetyStage(OPTIONS, arm)
    fresh.restore(old)
    assert fresh.limits.velocity[0] == OPTIONS.max_velocity_rad_s


@pytest.mark.parametrize("share", [0.0, 0.049, 1.01, float("nan")])
def test_no_speed_beyond_the_limits_or_of_nothing(arm: ArmModel, share: float) -> None:
    with pytest.raises(ValueError, match=r"from 0\.05 to 1 of the velocity limits"):
        SafetyStage(OPTIONS, arm).limit_speed(share)


def test_a_brake_from_full_speed_takes_five_targets_and_never_goes_back(arm: ArmModel) -> None:
    stage = SafetyStage(OPTIONS, arm)
    at, speeds = driven(stage, 9, arm.middle() * [0, 1, 1, 1, 1, 1] - [1.5, 0, 0, 0, 0, 0])
    assert speeds[-1] == pytest.approx(OPTIONS.max_velocity_rad_s)
    moves = []
    for _ in range(8):
        target = stage.apply(stage.slowing(at, DT), at, at, None, None, DT).target
        moves.append(float((target - at)[0]))
        at = target
    assert min(moves) >= 0.0
    assert sum(move > 1e-9 for move in moves) <= 5
    assert sum(moves) == pytest.approx(2.5**2 / 2 / 18, rel=0.3)
