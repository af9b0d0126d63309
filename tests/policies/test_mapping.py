"""Joint units, keys and images between robot and policy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pydantic import ValidationError

from policies.mapping import ImageRule, KeyMap, ObservationMap, fit_image, fit_plane
from policies.remote.serving.robot_side import RobotSide
from runtime.interfaces import NoAnswerError, PolicyError
from runtime.joints import JointLayout
from runtime.messages import ArmState, Frame, Observation, Tip, TrackedMask
from runtime.units import CONVENTIONS, UnitMap

NAMES = ("shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper")
RANGES = np.array([[-2.0, 2.0], [0.0, 3.0], [-3.0, 0.0], [-1.5, 1.5], [-2.8, 2.8], [0.0, 1.0]])
ROBOT = JointLayout(NAMES, RANGES, (len(NAMES) - 1,))
MIDDLE = np.array([0.0, 1.5, -1.5, 0.0, 0.0, 0.5])


def make(keys: KeyMap | None = None, **units: object) -> ObservationMap:
    return ObservationMap(keys or KeyMap(), UnitMap.model_validate(units), ROBOT)


def observe(position: np.ndarray = MIDDLE, **rest: object) -> Observation:
    arm = ArmState(5, position, np.arange(6) * 0.1, np.arange(6) * 0.01)
    return Observation(3, 0, 5, arm, **rest)  # type: ignore[arg-type]


def test_lerobot_percent_is_the_joint_range_with_the_gripper_from_0_to_100() -> None:
    mapped = make(convention="lerobot_percent")
    low = mapped.state_vectors(observe(RANGES[:, 0]))["state"]
    high = mapped.state_vectors(observe(RANGES[:, 1]))["state"]
    np.testing.assert_allclose(low, [-100] * 5 + [0])
    np.testing.assert_allclose(high, [100] * 5 + [100])


def test_radians_about_a_zero_with_a_reversed_axis_and_a_gripper_that_closes_upwards() -> None:
    mapped = make(zero_rad={"shoulder_lift": 1.5}, reversed=("elbow_flex",), gripper_open_high=False)
    state = mapped.state_vectors(observe())["state"]
    np.testing.assert_allclose(state, [0, 0, 1.5, 0, 0, 0.5])
    open_hand = mapped.state_vectors(observe(np.array([0, 0, 0, 0, 0, 1.0])))["state"]
    assert open_hand[5] == 0.0


def test_symmetric_units_span_minus_one_to_one() -> None:
    mapped = make(convention="symmetric")
    np.testing.assert_allclose(mapped.state_vectors(observe(RANGES[:, 0]))["state"], [-1.0] * 6)
    np.testing.assert_allclose(mapped.state_vectors(observe(MIDDLE))["state"], [0.0] * 6, atol=1e-15)


def test_where_the_object_is_is_in_the_state_and_in_the_text() -> None:
    """The state has where it was seen last, metres in the base frame; the text where it was seen first."""
    keys = KeyMap(state={"state": ("tip.z", "gripper", "tip.x")}, instruction="prompt", instruction_tip=True)
    mapped = make(keys)
    assert (keys.wants_tip, keys.tracked) == (True, ("head",))
    (need,) = keys.tip_needs()
    assert (need.camera, need.depth, need.mask, need.calibration) == ("head", True, True, True)
    tip = Tip(np.array([0.2, 0.1, 0.03]), np.full(3, 0.001), np.array([0.25, 0.1, 0.02]), 5)
    made = mapped.observation(observe(instruction="lift it", tip=tip))
    assert made["state"].tolist() == [0.03, 0.5, 0.2]
    assert made["prompt"] == "lift it. The object is at x 0.250 m, y 0.100 m, z 0.020 m."
    with pytest.raises(NoAnswerError, match="no action for this view: where the object is was not seen yet"):
        mapped.observation(observe(instruction="lift it"))
    side = RobotSide(KeyMap(state=keys.state), UnitMap(), ROBOT)
    told = side.observation({"state": np.array([0.03, 0.5, 0.2])}, {}, "lift it").tip
    assert told is not None
    assert (told.point_m[[0, 2]].tolist(), bool(np.isnan(told.sigma_m).all())) == ([0.2, 0.03], True)
    assert not KeyMap().tip_needs()
    with pytest.raises(ValidationError, match=r"tip_camera = 'top' has no effect without tip\.x"):
        KeyMap(tip_camera="top")
    assert KeyMap(tip_camera="top", instruction_tip=True).tracked == ("top",)
    with pytest.raises(PolicyError, match=r"entry 'tip\.w'; accepted: .*tip\.x\|y\|z"):
        make(KeyMap(state={"state": ("tip.w",)}))


@given(
    arrays(np.float64, (4, 6), elements=st.floats(-3, 3)),
    st.sampled_from(CONVENTIONS),
    st.booleans(),
)
def test_actions_come_back_as_they_went(rows: np.ndarray, convention: str, high: bool) -> None:
    mapped = make(convention=convention, gripper_open_high=high, reversed=("wrist_roll",))
    there = mapped.rows_to_policy(rows)
    back = mapped.actions_to_robot(mapped.split_action(there), MIDDLE)
    np.testing.assert_allclose(back, rows, atol=1e-9)


def test_keys_split_state_and_action_and_missing_joints_stay() -> None:
    keys = KeyMap(
        state={
            "single_arm": NAMES[:5],
            "extra": ("gripper", "elbow_flex.velocity", "gripper.load", "force.1", "zero"),
        },
        action={"arm": ("wrist_roll", "skip", "shoulder_pan")},
        instruction="task",
    )
    mapped = make(keys)
    made = mapped.observation(observe(force_n=np.array([1.0, 2.0]), instruction="lift"))
    np.testing.assert_allclose(made["single_arm"], MIDDLE[:5])
    np.testing.assert_allclose(made["extra"], [0.5, 0.2, 0.05, 2.0, 0.0])
    assert made["task"] == "lift"
    rows = mapped.actions_to_robot({"arm": np.array([[0.7, 9.0, 0.3]])}, MIDDLE)
    np.testing.assert_allclose(rows, [[0.3, 1.5, -1.5, 0.0, 0.7, 0.5]])
    assert (mapped.state_size, mapped.action_size) == (10, 3)


def test_a_number_is_the_same_in_every_observation_whatever_the_units() -> None:
    mapped = make(
        KeyMap(state={"s": ("0.35", "-1e-1", "zero", "shoulder_pan")}), convention="lerobot_degrees"
    )
    made = mapped.state_vectors(observe(np.full(6, np.pi)))["s"]
    np.testing.assert_allclose(made, [0.35, -0.1, 0.0, 180.0])


def test_the_end_effectors_pose_is_a_position_and_a_rotation_in_two_ways() -> None:
    entries = [f"end_effector.{each}" for each in ("x", "y", "z")]
    entries += [f"end_effector.rot6d.{i}" for i in range(6)]
    entries += [f"end_effector.axis_angle.{i}" for i in range(3)]
    mapped = make(KeyMap(state={"s": tuple(entries)}), convention="lerobot_degrees")
    assert mapped.wants_poses
    assert not make().wants_poses
    pose = np.eye(4)
    pose[:3] = [[0.0, -1.0, 0.0, 0.1], [1.0, 0.0, 0.0, 0.2], [0.0, 0.0, 1.0, 0.3]]  # a quarter turn about z
    made = mapped.state_vectors(observe(end_effector={"": pose}))["s"]
    expected = [0.1, 0.2, 0.3, 0.0, -1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, np.pi / 2]
    np.testing.assert_allclose(made, expected, atol=1e-12)
    with pytest.raises(PolicyError, match=r"'end_effector.x': no end effector of arm '' \(there is: none\)"):
        mapped.state_vectors(observe())


def test_the_end_effector_of_one_of_several_arms() -> None:
    both = JointLayout(("left.pan", "right.pan"), np.array([[-1.0, 1.0]] * 2))
    mapped = ObservationMap(KeyMap(state={"s": ("right.end_effector.y",)}), UnitMap(), both)
    poses = {arm: np.eye(4) for arm in ("left", "right")}
    poses["right"][1, 3] = 0.4
    arm = ArmState(0, np.zeros(2), np.zeros(2), np.zeros(2))
    assert mapped.state_vectors(Observation(0, 0, 0, arm, end_effector=poses))["s"] == [0.4]
    with pytest.raises(PolicyError, match=r"entry 'middle\.end_effector\.y'"):
        ObservationMap(KeyMap(state={"s": ("middle.end_effector.y",)}), UnitMap(), both)


def test_deltas_are_from_where_the_joint_was_observed_and_velocities_are_not_used() -> None:
    entries = ("shoulder_pan.delta", "gripper", "shoulder_pan.velocity", "elbow_flex.delta")
    mapped = make(KeyMap(action={"a": entries}), convention="lerobot_degrees", reversed=("elbow_flex",))
    given = np.array([[90.0, 25.0, 1e6, 9.0], [180.0, 50.0, -1e6, 18.0]])
    rows = mapped.actions_to_robot({"a": given}, MIDDLE)
    np.testing.assert_allclose(rows[:, 0], np.radians([90, 180]) + MIDDLE[0])
    np.testing.assert_allclose(rows[:, 2], MIDDLE[2] - np.radians([9, 18]))
    np.testing.assert_allclose(rows[:, 5], [0.25, 0.5])
    back = mapped.rows_to_policy(rows, MIDDLE)
    np.testing.assert_allclose(back, given * [1, 1, 0, 1], atol=1e-9)


def test_joints_of_several_arms_have_dots_in_their_names() -> None:
    names = ("left.pan", "left.velocity", "right.pan")
    both = JointLayout(names, np.array([[-1.0, 1.0]] * 3))
    keys = KeyMap(state={"s": ("left.velocity", "left.velocity.velocity", "right.pan.load")})
    mapped = ObservationMap(keys, UnitMap(), both)
    arm = ArmState(0, np.array([0.1, 0.2, 0.3]), np.array([1.0, 2.0, 3.0]), np.array([4.0, 5.0, 6.0]))
    np.testing.assert_allclose(mapped.state_vectors(Observation(0, 0, 0, arm))["s"], [0.2, 2.0, 6.0])


@pytest.mark.parametrize(
    ("keys", "units", "says"),
    [
        ({"state": {"s": ("knee",)}}, {}, r"state 's': entry 'knee'; accepted: .*shoulder_pan"),
        ({"state": {"s": ("gripper.torque",)}}, {}, "gripper.torque"),
        ({"state": {"s": ("force.x",)}}, {}, "force.x"),
        ({"state": {"s": ("nan",)}}, {}, "entry 'nan'"),
        ({"state": {"s": ("gripper.delta",)}}, {}, "gripper.delta"),
        ({"action": {"a": ("zero",)}}, {}, r"action 'a': entry 'zero'; accepted: <joint>.* or skip"),
        ({"action": {"a": ("0.5",)}}, {}, "entry '0.5'"),
        ({"state": {"s": ("end_effector.w",)}}, {}, "entry 'end_effector.w'"),
        ({"action": {"a": ("left.end_effector.x",)}}, {}, "end-effector actions are not supported"),
        ({"action": {"a": ("end_effector.x",)}}, {}, "end-effector actions are not supported"),
        ({"action": {"a": ("gripper", "gripper.delta")}}, {}, "'gripper' twice"),
        ({"action": {"a": ("gripper", "gripper")}}, {}, "'gripper' twice"),
        ({}, {"reversed": ("knee",)}, "joint 'knee'; the robot has"),
        ({}, {"convention": "symmetric", "range_rad": {"elbow_flex": (1.0, 1.0)}}, "range 1.0 to 1.0 rad"),
    ],
)
def test_a_wrong_map_says_what_is_accepted(keys: dict, units: dict, says: str) -> None:  # type: ignore[type-arg]
    with pytest.raises(PolicyError, match=says):
        make(KeyMap.model_validate(keys), **units)


def test_a_missing_camera_mask_depth_or_force_is_one_line() -> None:
    frame = Frame("head", 0, np.zeros((4, 6, 3), np.uint8))
    for keys, says in (
        (KeyMap(cameras={"wrist": "w"}), r"no camera 'wrist' in the observation \(there is: head\)"),
        (KeyMap(depths={"head": "d"}), "camera 'head' gives no depth"),
        (KeyMap(masks={"head": "m"}), r"no mask of camera 'head'.*none"),
        (KeyMap(state={"s": ("force.2",)}), "0 force channels"),
    ):
        with pytest.raises(PolicyError, match=says):
            make(keys).observation(observe(frames={"head": frame}))
    with pytest.raises(PolicyError, match=r"without 'action'; it gave other"):
        make().actions_to_robot({"other": np.zeros((1, 6))}, MIDDLE)
    with pytest.raises(PolicyError, match=r"shape \[1, 13\]; expected \[steps, 6\]"):
        make().actions_to_robot({"action": np.zeros((1, 13))}, MIDDLE)


def test_images_change_order_and_size_as_configured() -> None:
    image = np.zeros((4, 8, 3), np.uint8)
    image[..., 0] = 200
    image[:, 2:6, 2] = 100
    assert fit_image(image, ImageRule(order="bgr"))[0, 0].tolist() == [0, 0, 200]
    padded = fit_image(image, ImageRule(width=8, height=8, resize="pad"))
    assert padded.shape == (8, 8, 3)
    assert padded[:2].max() == 0
    assert (padded[2:6] == image).all()
    cropped = fit_image(image, ImageRule(width=4, height=4, resize="crop"))
    assert (cropped == image[:, 2:6]).all()
    assert fit_image(image, ImageRule(width=3, height=2)).shape == (2, 3, 3)


def test_masks_and_depths_are_never_interpolated() -> None:
    plane = np.array([[0, 1000], [3000, 65535]], np.uint16)
    assert set(np.unique(fit_plane(plane, ImageRule(width=7, height=5)))) == {0, 1000, 3000, 65535}


def test_frames_depths_and_masks_arrive_under_the_policys_names() -> None:
    frame = Frame("head", 0, np.full((4, 6, 3), 7, np.uint8), np.full((4, 6), 9, np.uint16))
    mask = TrackedMask("head", 0, np.ones((4, 6), np.uint8), 1.0)
    keys = KeyMap(cameras={"head": "rgb"}, depths={"head": "d"}, masks={"head": "m"})
    made = make(keys).observation(observe(frames={"head": frame}, masks={"head": mask}))
    assert (made["rgb"].shape, made["d"].dtype, int(made["m"].sum())) == ((4, 6, 3), np.uint16, 24)
