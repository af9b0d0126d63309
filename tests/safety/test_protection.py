"""Collision, force and stall checks."""

from __future__ import annotations

import math

import numpy as np
import pytest

from runtime.arm_model import ArmModel
from runtime.clearance import FREE_LAG_RAD, Gaps, Margins, farthest_clear
from runtime.fingers import Fingers
from runtime.limits import JointOverride, SafetyOptions
from runtime.messages import Clip
from runtime.safety import SafetyStage

DT = 1 / 30
OPTIONS = SafetyOptions()


def drive(
    stage: SafetyStage, start: np.ndarray, goal: np.ndarray, ticks: int = 200
) -> tuple[np.ndarray, Clip]:
    previous, seen = start, Clip.NONE
    for _ in range(ticks):
        result = stage.apply(goal, previous, previous, None, None, DT)
        previous = result.target
        seen |= result.clips
    return previous, seen


def test_the_arm_stops_above_the_table(arm: ArmModel, home: np.ndarray):
    down = home + np.array([0, 1.0, 0.3, 0, 0, 0])
    assert arm.clearance(down) < 0
    end, seen = drive(SafetyStage(OPTIONS, arm), home, down)
    _, table = arm.clearances(end)
    assert seen & Clip.COLLISION
    assert OPTIONS.table_clearance_m <= table < OPTIONS.table_clearance_m + 0.003


def test_the_arm_does_not_fold_into_its_base(arm: ArmModel, home: np.ndarray):
    folded = np.array([0.0, -2.6, 3.1, 1.7, 0.0, 0.5])
    assert arm.clearances(folded)[0] < OPTIONS.self_clearance_m
    end, seen = drive(SafetyStage(OPTIONS, arm), home, folded)
    assert seen & Clip.COLLISION
    assert arm.clearances(end)[0] >= OPTIONS.self_clearance_m


def test_an_arm_that_starts_too_close_may_move_away_only(arm: ArmModel, home: np.ndarray):
    low = home.copy()
    while arm.clearances(low)[1] > 0.0005:
        low += np.array([0, 0.002, 0, 0, 0, 0])
    stage = SafetyStage(OPTIONS, arm)
    further = stage.apply(low + np.array([0, 0.05, 0, 0, 0, 0]), low, low, None, None, DT)
    assert arm.clearances(further.target)[1] >= arm.clearances(low)[1] - 1e-9
    away, _ = drive(SafetyStage(OPTIONS, arm), low, home)
    np.testing.assert_allclose(away, home, atol=1e-6)


def test_closing_jaws_is_no_collision(arm: ArmModel, home: np.ndarray):
    end, seen = drive(SafetyStage(OPTIONS, arm), home, np.append(home[:5], 0.0))
    assert not seen & Clip.COLLISION
    assert end[5] == pytest.approx(0.0, abs=1e-3)


class Wall:
    """One joint, and something thin in its way."""

    names = ("a",)
    ranges = np.array([[-1.0, 1.0]])
    grippers = ()
    fingers = Fingers.of()
    arms = ((0,),)
    reach_m = 1.0

    def gaps(self, q: np.ndarray) -> Gaps:
        return (abs(float(q[0]) - 0.5) - 0.03,), (1.0,)

    def grasp_heights(self, q: np.ndarray) -> np.ndarray:
        return np.zeros(1)


class Ground:
    """Two joints, metres: along and up. The table, and a post of 40 mm across at 0.5 m that is 0.2 m high."""

    names = ("along", "up")
    ranges = np.array([[-1.0, 1.0], [0.0, 1.0]])
    grippers = ()
    fingers = Fingers.of()
    arms = ((0, 1),)
    reach_m = 0.02

    def gaps(self, q: np.ndarray) -> Gaps:
        beside, above = abs(float(q[0]) - 0.5) - 0.02, float(q[1]) - 0.2
        post = max(beside, above) if min(beside, above) < 0 else math.hypot(beside, above)
        return (1.0,), (min(0.02, float(q[1]), post),)

    def grasp_heights(self, q: np.ndarray) -> np.ndarray:
        return np.array([q[1]])


def pursued(
    here: list[float], start: list[float], end: list[float], lag_m_per_rad: float = 0.03
) -> list[float]:
    margins = Margins(0.004, 0.003, lag_m_per_rad)
    found = farthest_clear(Ground(), np.array(start), np.array(end), margins, np.array(here))
    return [round(value, 3) for value in found.tolist()]


def test_near_the_table_a_target_waits_for_the_arm() -> None:
    """6 mm above it there are 3 to spare: enough for the arm to be 0.1 rad behind, beyond what is free."""
    assert pursued([0.0, 0.006], [0.11, 0.006], [0.13, 0.006]) == [0.13, 0.006]
    reached = pursued([0.0, 0.006], [0.11, 0.006], [0.16, 0.006])
    assert 0.128 <= reached[0] <= FREE_LAG_RAD + 0.1
    assert pursued([0.0, 0.006], [0.11, 0.006], [0.16, 0.006], lag_m_per_rad=0.0) == [0.16, 0.006]
    low = pursued([0.0, 0.002], [0.03, 0.006], [0.08, 0.006])
    assert low[0] < FREE_LAG_RAD + 0.02, "the arm itself is lower than its target"
    assert pursued([0.0, 0.02], [0.38, 0.02], [0.42, 0.02]) == [0.42, 0.02], "there is room"


def test_a_target_that_is_far_ahead_of_the_arm_may_come_back_to_it_or_stay() -> None:
    assert pursued([0.0, 0.004], [0.3, 0.004], [0.3, 0.004]) == [0.3, 0.004]
    assert pursued([0.0, 0.004], [0.3, 0.004], [0.27, 0.004]) == [0.27, 0.004]
    assert pursued([0.0, 0.004], [0.3, 0.004], [0.33, 0.004]) == [0.3, 0.004]


def test_a_corner_is_not_cut_by_an_arm_that_is_behind() -> None:
    """The target is past the post's edge, and the straight line from the arm goes through it."""
    here, start = [0.45, 0.13], [0.49, 0.25]
    assert 0.49 < pursued(here, start, [0.54, 0.25])[0] < 0.515
    assert pursued([0.49, 0.25], start, [0.54, 0.25]) == [0.54, 0.25]
    assert pursued(here, start, [0.45, 0.25]) == [0.45, 0.25], "away from it"


def test_a_thin_obstacle_is_not_jumped_over():
    end = farthest_clear(Wall(), np.array([0.2]), np.array([0.9]), Margins(0.0, 0.0))
    assert 0.45 <= end[0] <= 0.47


def test_force_limit_opens_the_gripper_towards_where_it_is(arm: ArmModel, home: np.ndarray):
    stage = SafetyStage(OPTIONS, arm)
    present = home.copy()
    previous = np.append(home[:5], 0.2)
    result = stage.apply(np.append(home[:5] + 0.01, 0.0), present, previous, [0.0, 55.0], None, DT)
    assert result.clips & Clip.FORCE
    assert result.target[5] == pytest.approx(0.2 + OPTIONS.force_ease_gripper_s * DT)
    np.testing.assert_array_equal(result.target[:5], previous[:5])


def test_force_limit_lets_the_arm_lift_and_the_gripper_open(arm: ArmModel, home: np.ndarray):
    up = home + np.array([0, -0.02, 0, 0, 0, 0.02])
    assert arm.grasp_height(up) > arm.grasp_height(home)
    result = SafetyStage(OPTIONS, arm).apply(up, home, home, 55.0, None, DT)
    np.testing.assert_allclose(result.target, up)


def test_under_force_an_arm_that_pushes_is_drawn_back(arm: ArmModel, home: np.ndarray):
    stage = SafetyStage(OPTIONS, arm)
    ahead = home + np.array([0.3, 0, 0, 0, 0, 0])
    previous = ahead
    for _ in range(40):
        result = stage.apply(ahead, home, previous, 55.0, None, DT)
        assert previous[0] - result.target[0] <= OPTIONS.force_ease_rad_s * DT + 1e-9
        previous = result.target
    assert previous[0] == pytest.approx(home[0] + OPTIONS.stall_offset_rad)
    np.testing.assert_array_equal(previous[1:], home[1:])


def test_near_the_force_limit_the_gripper_stops_closing(arm: ArmModel, home: np.ndarray):
    force = 0.9 * OPTIONS.max_force_n
    result = SafetyStage(OPTIONS, arm).apply(
        home - np.array([0, 0, 0, 0, 0, 0.01]), home, home, force, None, DT
    )
    assert result.clips == Clip.FORCE
    np.testing.assert_array_equal(result.target, home)


def test_a_lasting_force_latches_a_stop(arm: ArmModel, home: np.ndarray):
    stage = SafetyStage(OPTIONS, arm)
    reasons = [stage.apply(home, home, home, np.nan, None, DT).stop_reason for _ in range(95)]
    assert reasons[80] is None
    assert reasons[-1] == "force above 30 N for 3 s"
    assert stage.apply(home, home, home, 1.0, None, DT).stop_reason is None


def test_a_lasting_force_is_not_forgotten_in_a_gap(arm: ArmModel, home: np.ndarray):
    """80 N for 4 s in all, and the arm's state comes and goes: it lasts while nothing can be sent, too."""
    stage, reasons = SafetyStage(OPTIONS, arm), []
    for _ in range(24):
        reasons += [stage.apply(home, home, home, 80.0, None, DT).stop_reason for _ in range(2)]
        reasons += [stage.unsent(80.0, DT) for _ in range(3)]
        stage.interrupted()
    first = next(n for n, reason in enumerate(reasons) if reason)
    assert first == pytest.approx(90, abs=1)
    assert reasons[first] == "force above 30 N for 3 s"


def test_a_stall_is_not_forgotten_in_a_gap(arm: ArmModel, home: np.ndarray):
    stage, previous, reasons = SafetyStage(OPTIONS, arm), home, []
    goal = home - np.array([0.3, 0, 0, 0, 0, 0])
    for tick in range(120):
        load = np.clip(np.abs(previous - home) / 0.1, 0, 1)
        result = stage.apply(goal, home, previous, None, load, DT)
        previous = result.target
        reasons.append(result.stop_reason)
        if tick % 8 == 7:
            stage.interrupted()
    assert reasons[-1] == "stall: shoulder_pan pushing without motion for 3 s"


@pytest.mark.parametrize("rate_hz", [30, 100])
def test_a_stall_is_a_matter_of_time_not_of_ticks(arm: ArmModel, home: np.ndarray, rate_hz: int):
    stage = SafetyStage(OPTIONS, arm)
    ahead = home - np.array([0.2, 0, 0, 0, 0, 0])
    seen = [
        bool(stage.apply(ahead, home, ahead, None, np.ones(6), 1 / rate_hz).clips & Clip.STALL)
        for _ in range(rate_hz)
    ]
    assert seen.index(True) == pytest.approx(0.33 * rate_hz, abs=1.1)


def push(stage: SafetyStage, home: np.ndarray, joint: int, ticks: int) -> tuple[np.ndarray, Clip, str | None]:
    """Ask joint to move while it stands still; its load follows from how far the target is away."""
    goal = home.copy()
    goal[joint] -= 0.3
    previous, seen, reason = home, Clip.NONE, None
    for _ in range(ticks):
        load = np.clip(np.abs(previous - home) / 0.1, 0, 1)
        result = stage.apply(goal, home, previous, None, load, DT)
        previous, seen, reason = result.target, seen | result.clips, result.stop_reason
    return previous, seen, reason


def test_a_stalled_joint_is_asked_to_push_less_and_then_to_stop(arm: ArmModel, home: np.ndarray):
    stage = SafetyStage(OPTIONS, arm)
    end, seen, reason = push(stage, home, 0, 60)
    assert seen & Clip.STALL
    assert end[0] == pytest.approx(home[0] - OPTIONS.stall_offset_rad)
    assert reason is None
    _, _, reason = push(SafetyStage(OPTIONS, arm), home, 0, 130)
    assert reason == "stall: shoulder_pan pushing without motion for 3 s"


def test_a_gripper_may_hold_for_ever_without_letting_go(arm: ArmModel, home: np.ndarray):
    stage = SafetyStage(OPTIONS, arm)
    end, seen, reason = push(stage, home, 5, 400)
    assert seen & Clip.STALL
    assert reason is None
    assert end[5] == pytest.approx(home[5] - OPTIONS.stall_offset_gripper)


def test_a_stall_ends_when_the_push_does(arm: ArmModel, home: np.ndarray):
    stage = SafetyStage(OPTIONS, arm)
    end, _, _ = push(stage, home, 0, 60)
    for _ in range(30):
        result = stage.apply(home + np.array([0.04, 0, 0, 0, 0, 0]), home, end, None, np.zeros(6), DT)
        end = result.target
    assert end[0] == pytest.approx(home[0] + 0.04, abs=1e-6)


def test_overrides_are_checked_against_the_arm(arm: ArmModel):
    with pytest.raises(ValueError, match="no joint is called 'elbow'; there are shoulder_pan"):
        SafetyStage(SafetyOptions(joints={"elbow": JointOverride()}), arm)
    stage = SafetyStage(SafetyOptions(joints={"wrist_roll": JointOverride(max_velocity_rad_s=0.5)}), arm)
    assert stage.limits.velocity[4] == 0.5
    assert stage.limits.velocity[3] == OPTIONS.max_velocity_rad_s


@pytest.mark.parametrize(
    ("joint", "override", "message"),
    [
        (
            "elbow_flex",
            {"upper_rad": -1.0},
            "upper_rad = -1 is outside of what the joint can do, 0 to 3.14158",
        ),
        ("gripper", {"lower_rad": 1.2}, "lower_rad = 1.2 is outside of what the joint can do, 0 to 1"),
        ("elbow_flex", {"upper_rad": 0.005}, "elbow_flex leaves the empty range 0.01 to 0.005"),
        ("elbow_flex", {"lower_rad": 1.0, "upper_rad": 0.5}, "elbow_flex leaves the empty range 1 to 0.5"),
        (
            "wrist_roll",
            {"max_velocity_rad_s": 50},
            r"rad_s = 50 is more than safety.max_velocity_rad_s \(2.5\)",
        ),
        (
            "wrist_roll",
            {"max_acceleration_rad_s2": 21},
            r"21 is more than safety.max_acceleration_rad_s2 \(20\)",
        ),
        (
            "wrist_roll",
            {"max_relative_target_rad": 6},
            r"6 is more than safety.max_relative_target_rad \(0.6\)",
        ),
        ("gripper", {"max_relative_target_rad": 0.5}, r"0.5 is more than safety.max_relative_target_gripper"),
    ],
)
def test_a_joints_own_limits_are_tighter(arm: ArmModel, joint: str, override: dict[str, float], message: str):
    options = SafetyOptions(joints={joint: JointOverride(**override)})
    with pytest.raises(ValueError, match=rf"^(?=safety\.joints\.{joint}).*{message}"):
        SafetyStage(options, arm)
