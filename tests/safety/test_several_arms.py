"""Grippers anywhere in the joint vector, and several arms in one model under one safety stage."""

import numpy as np
import pytest

from runtime.arm_model import ArmModel, ModelError, ModelParts
from runtime.joints import side_by_side
from runtime.limits import SafetyOptions
from runtime.messages import Clip
from runtime.safety import SafetyStage
from tests.safety.arms import CRANE_PARTS, TWO_PARTS, crane, crane_spec, two_cranes

DT = 1.0 / 30.0
OPTIONS = SafetyOptions()


def test_two_arms_are_one_joint_vector():
    one, model = crane(), two_cranes()
    assert model.names == TWO_PARTS.names
    assert model.grippers == (2, 5)
    assert model.arms == ((0, 1, 2), (3, 4, 5))
    expected = side_by_side({"left": one.layout, "right": one.layout})
    np.testing.assert_array_equal(model.ranges, expected.ranges)


def test_each_arm_has_kinematics_of_its_own_in_the_common_frame():
    one, model = crane(), two_cranes(apart_m=1.0)
    at_base = np.diag([-1.0, -1.0, 1.0, 1.0])
    at_base[0, 3] = 1.0
    left, right = model.arm("left"), model.arm("right")
    assert right.names == ("pan", "lift", "jaw")
    for q in np.random.default_rng(0).uniform(one.ranges[:, 0], one.ranges[:, 1], (20, 3)):
        np.testing.assert_allclose(left.fk(q), one.fk(q), atol=1e-12)
        np.testing.assert_allclose(right.fk(q), at_base @ one.fk(q), atol=1e-12)
        whole = np.concatenate([q, one.middle()])
        np.testing.assert_allclose(
            model.grasp_heights(whole), [one.grasp_height(q), one.grasp_height(one.middle())], atol=1e-12
        )


def test_inverse_kinematics_moves_one_arm_and_leaves_the_other():
    model = two_cranes(apart_m=1.0)
    right = model.arm("right", at=np.array([2.0, -1.0, 0.0, 0.0, 0.0, 0.5]))
    wanted = np.array([0.6, -0.4, 0.3])
    found = right.ik(right.fk(wanted), np.array([0.0, 0.0, 0.3]))
    np.testing.assert_allclose(found.q, wanted, atol=1e-3)
    assert found.position_error_m < 1e-4


def test_of_which_arm_must_be_said():
    model = two_cranes()
    with pytest.raises(ModelError, match="of which arm"):
        model.fk(model.middle())
    with pytest.raises(ModelError, match="no arm is called 'top'; there is left, right"):
        model.arm("top")


def test_joints_of_several_arms_bear_their_names():
    parts = ModelParts(("pan", "lift", "jaw"), {"a": "grasp", "b": "grasp"}, (2,))
    with pytest.raises(ModelError, match=r"each is called <arm>\.<joint>"):
        ArmModel(crane_spec(), parts)


def test_arms_near_each_other_count_as_self_collision():
    model = two_cranes(apart_m=0.4)
    crossing = np.zeros(6)
    own, table = model.clearances(crossing)
    assert own < 0.0
    assert table == model.reach_m
    away = crossing.copy()
    away[3] = 1.5
    assert model.clearance(away) == model.reach_m
    # The view of one arm sees the other where it stands.
    left = model.arm("left", at=away)
    assert left.clearance(np.zeros(3)) == model.reach_m
    left.stand(crossing)
    assert left.clearance(np.zeros(3)) < 0.0
    assert left.copy().clearance(np.zeros(3)) < 0.0


def test_the_safety_stage_keeps_arms_off_each_other():
    model = two_cranes(apart_m=0.4)
    stage = SafetyStage(OPTIONS, model)
    start = np.array([1.2, 0.0, 0.5, 0.0, 0.0, 0.5])
    target, seen = start.copy(), Clip.NONE
    for _ in range(200):
        result = stage.apply(np.array([0.0, 0.0, 0.5, 0.0, 0.0, 0.5]), target, target, None, None, DT)
        target, seen = result.target, seen | result.clips
    assert seen & Clip.COLLISION
    assert target[0] > 0.05
    own, _ = model.clearances(target)
    assert own >= OPTIONS.self_clearance_m - 1e-6
    np.testing.assert_array_equal(target[3:], start[3:])


def test_an_arm_that_rests_too_near_brings_no_other_any_closer():
    model = two_cranes()
    stage = SafetyStage(OPTIONS, model)
    # The left one lies in the table, swung away; the right one is led down to it.
    start = np.array([1.5, -0.85, 0.5, -1.5, -0.3, 0.5])
    assert model.clearances(start)[1] < -0.01
    target, seen = start.copy(), Clip.NONE
    for _ in range(100):
        result = stage.apply(np.array([1.5, -0.85, 0.5, -1.5, -1.0, 0.5]), target, target, None, None, DT)
        target, seen = result.target, seen | result.clips
    assert seen & Clip.COLLISION
    up = target.copy()
    up[:3] = 1.5, 0.5, 0.5
    assert model.clearances(up)[1] >= OPTIONS.table_clearance_m - 1e-6
    np.testing.assert_array_equal(target[:3], start[:3])


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (0, 2, 1)])
def test_a_gripper_anywhere_has_a_gripper_s_limits(order: tuple[int, ...]):
    names = tuple(CRANE_PARTS.names[i] for i in order)
    at = names.index("jaw")
    model = crane(ModelParts(names, {"": "grasp"}, (at,)))
    stage = SafetyStage(OPTIONS, model)
    assert stage.limits.velocity[at] == OPTIONS.max_velocity_gripper_s
    assert stage.limits.acceleration[at] == OPTIONS.max_acceleration_gripper_s2
    assert stage.limits.relative[at] == OPTIONS.max_relative_target_gripper
    assert (stage.limits.lower[at], stage.limits.upper[at]) == (0.0, 1.0)
    others = [i for i in range(3) if i != at]
    assert (stage.limits.velocity[others] == OPTIONS.max_velocity_rad_s).all()


def test_an_arm_without_a_gripper_has_none():
    model = crane(ModelParts(("pan", "lift", "jaw"), {"": "grasp"}))
    assert model.grippers == ()
    np.testing.assert_allclose(model.ranges[2], [-0.5, 1.5])
    stage = SafetyStage(OPTIONS, model)
    present = np.array([0.0, 0.0, 0.5])
    result = stage.apply(present - [0, 0, 0.1], present, present, [100.0], None, DT)
    assert result.clips & Clip.FORCE
    np.testing.assert_array_equal(result.target, present)


def test_a_gripper_may_be_closed_at_the_upper_end():
    parts = ModelParts(("pan", "lift", "jaw"), {"": "grasp"}, (2,), {2: (1.5, 0.0)})
    model = crane(parts)
    q = np.array([0.1, 0.2, 0.0])
    np.testing.assert_allclose(model.to_native(q), [0.1, 0.2, 1.5])
    np.testing.assert_allclose(model.to_native(np.array([0.1, 0.2, 1.0])), [0.1, 0.2, 0.0])
    np.testing.assert_allclose(model.from_native(model.to_native(q + 0.1)), q + 0.1)


def test_force_opens_every_gripper_and_only_the_arm_that_lifts_moves():
    model = two_cranes(apart_m=1.0)
    stage = SafetyStage(OPTIONS, model)
    here = np.array([0.0, 0.0, 0.4, 0.0, 0.0, 0.4])
    previous = here.copy()
    previous[[2, 5]] = 0.2
    lift = previous + np.array([0.0, 0.002, -0.1, 0.0, -0.002, -0.1])
    result = stage.apply(lift, here, previous, [OPTIONS.max_force_n + 5.0], None, DT)
    assert result.clips & Clip.FORCE
    opened = 0.2 + OPTIONS.force_ease_gripper_s * DT
    np.testing.assert_allclose(result.target[[2, 5]], opened)
    assert result.target[1] > previous[1]
    np.testing.assert_array_equal(result.target[[3, 4]], previous[[3, 4]])


def test_a_gripper_holds_for_ever_and_a_joint_does_not():
    model = two_cranes(apart_m=1.0)
    for joint, stops in ((2, False), (5, False), (4, True)):
        stage = SafetyStage(OPTIONS, model)
        present = np.array([0.0, 0.0, 0.4, 0.0, 0.0, 0.4])
        asked = present.copy()
        asked[joint] -= 0.2
        load = np.zeros(6)
        load[joint] = 1.0
        target, reasons = present.copy(), []
        for _ in range(round((OPTIONS.stall_stop_s + 2.0) / DT)):
            result = stage.apply(asked, present, target, None, load, DT)
            target = result.target
            reasons.append(result.stop_reason)
        assert any(reasons) == stops, model.names[joint]
