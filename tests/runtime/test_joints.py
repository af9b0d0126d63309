"""The layout of a joint vector: grippers anywhere, one arm or several."""

import numpy as np
import pytest

from runtime.joints import JointLayout, posed, side_by_side

ARM = JointLayout(("pan", "lift", "jaw"), np.array([[-1.0, 1.0], [-2.0, 0.5], [0.0, 1.0]]), (2,))


def test_which_joints_are_grippers():
    assert ARM.others == (0, 1)
    assert ARM.gripper_names == ("jaw",)
    assert ARM.units == ["rad", "rad", "0..1"]
    first = JointLayout(("jaw", "pan"), np.array([[0, 1], [-1, 1]]), (0,))
    assert first.others == (1,)


@pytest.mark.parametrize("grippers", [(3,), (-1,), (2, 1), (1, 1)])
def test_grippers_are_joints_in_order(grippers: tuple[int, ...]):
    with pytest.raises(ValueError, match="grippers"):
        JointLayout(ARM.names, ARM.ranges, grippers)


def test_every_joint_has_a_name_and_a_range():
    with pytest.raises(ValueError, match="2 joints"):
        JointLayout(("a", "b"), np.zeros((3, 2)))
    with pytest.raises(ValueError, match="2 joints"):
        JointLayout(("a", "a"), np.zeros((2, 2)))


def test_two_arms_side_by_side():
    both = side_by_side({"left": ARM, "right": ARM})
    assert both.names == ("left.pan", "left.lift", "left.jaw", "right.pan", "right.lift", "right.jaw")
    assert both.grippers == (2, 5)
    assert both.of("right") == (3, 4, 5)
    right = both.part("right")
    assert (right.names, right.grippers) == (ARM.names, ARM.grippers)
    np.testing.assert_array_equal(right.ranges, ARM.ranges)
    with pytest.raises(KeyError, match="middle"):
        both.part("middle")


def test_a_pose_is_for_all_joints_or_for_those_that_are_no_grippers():
    assert posed(4, 4, (1, 3)) == [0, 1, 2, 3]
    assert posed(2, 4, (1, 3)) == [0, 2]
    assert posed(0, 4, (1, 3)) == []
