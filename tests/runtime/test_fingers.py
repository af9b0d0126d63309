"""Grippers and a hand's joints, opened and closed alike."""

from __future__ import annotations

import numpy as np
import pytest

from runtime.fingers import Fingers

FINGERS = Fingers.of((1,), {3: (1.0, -0.5), 2: (-1.0, 0.0), 4: (0.2, 0.2)})


def test_a_gripper_is_0_to_1_and_a_hand_goes_between_two_angles() -> None:
    q = np.array([9.0, 0.25, -0.5, 0.25, 0.7])
    assert FINGERS.joints.tolist() == [1, 2, 3, 4]
    assert FINGERS.of_hand.tolist() == [False, True, True, True]
    np.testing.assert_allclose(FINGERS.openings(q), [0.25, 0.5, 0.5, 0.0])
    np.testing.assert_allclose(FINGERS.opened_to(q, 1.0), [9.0, 1.0, 0.0, -0.5, 0.2])
    np.testing.assert_allclose(FINGERS.opened_to(q, np.zeros(4)), [9.0, 0.0, -1.0, 1.0, 0.2])
    assert q[1] == 0.25


def test_a_hand_is_kept_from_closing_further_in_whichever_direction_that_is() -> None:
    asked, limit = np.array([0.0, 0.0, -0.9, 0.9, 0.5]), np.array([5.0, 1.0, -0.5, 0.3, 0.1])
    np.testing.assert_allclose(FINGERS.no_further_closed(asked, limit), [0.0, 0.0, -0.5, 0.3, 0.5])
    opening = np.array([0.0, 0.0, -0.1, -0.4, 0.5])
    np.testing.assert_array_equal(FINGERS.no_further_closed(opening, limit), opening)


@pytest.mark.parametrize("joints", [1, 6])
def test_an_arm_without_fingers_is_left_alone(joints: int) -> None:
    none, q = Fingers.of(), np.arange(float(joints))
    assert none.openings(q).shape == (0,)
    np.testing.assert_array_equal(none.opened_to(q, none.openings(q)), q)
    np.testing.assert_array_equal(none.no_further_closed(q, q + 1), q)
