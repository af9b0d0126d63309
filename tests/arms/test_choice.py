"""What a recording keeps of its robot, and when it is not taken for that robot any more."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from drivers.arms.choice import recorded, remembered, robot_of
from runtime.arm_model import ModelError
from runtime.body_options import ArmOptions, BodyOptions
from tests.arms.test_model_file import JAW, MJCF

NAMES = ["shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper"]


def test_recordings_of_before_are_of_an_so100():
    assert recorded({"model": "so100", "joint_names": NAMES}).name == "so100"
    assert recorded({}).name == "so100"


def test_an_so100_of_before_its_pan_was_turned_is_the_one_that_it_was():
    """Recordings without a fingerprint are verified with the geometry that they were made with."""
    there = np.array([0.5, -1.9, 1.9, 1.5, 0.0, 0.3])
    then, now = recorded({"model": "so100"}), robot_of(ArmOptions())
    left, right = then.model().fk(there), now.model().fk(there * [-1, 1, 1, 1, 1, 1])
    np.testing.assert_allclose(left, right, atol=1e-9)
    assert left[1, 3] > 0.05, "positive was to the left"
    assert then.home[0] == -now.home[0]
    assert recorded(remembered({"": ArmOptions()}, now)).fingerprint == now.fingerprint != then.fingerprint


@pytest.mark.parametrize("model", ["so100", "so101"])
def test_a_known_robot_is_found_again(model: str):
    arm = ArmOptions(model=model)
    about = remembered({"": arm}, robot_of(arm))
    assert about["model"] == model
    assert recorded(about).name == model


def test_a_file_s_robot_is_found_again_with_what_was_said_of_it(tmp_path: Path):
    path = tmp_path / "crane.xml"
    path.write_text(MJCF)
    arm = ArmOptions(model=str(path), body=BodyOptions(joints=("jaw", "pan"), grippers=JAW))
    robot = recorded(remembered({"": arm}, robot_of(arm)))
    assert robot.joints == ("jaw", "pan")
    assert robot.layout.grippers == (0,)


def test_another_body_is_refused_in_one_line(tmp_path: Path):
    path = tmp_path / "crane.xml"
    path.write_text(MJCF)
    about = remembered({"": ArmOptions(model=str(path))}, robot_of(ArmOptions(model=str(path))))
    with pytest.raises(ModelError) as caught:
        recorded({**about, "model_sha256": "0" * 64})
    assert f"recorded with the arm '{path}' of sha256 000000000000; what is here by that name has" in str(
        caught.value
    )
    with pytest.raises(ModelError, match="recorded joints a, b are not those of the arm"):
        recorded({**about, "joint_names": ["a", "b"]})
    with pytest.raises(ModelError, match="No such file"):
        recorded({**about, "model": str(tmp_path / "gone.xml")})


def test_by_a_name_out_of_a_recording_nothing_is_opened_but_the_very_file(tmp_path: Path):
    other = tmp_path / "other.xml"
    other.write_text("<mujoco><include file='/etc/passwd'/></mujoco>")
    os.mkfifo(tmp_path / "pipe.xml")
    for about, said in (
        ({"model": str(other)}, "recorded with the arm"),  # not looked into
        ({"model": str(tmp_path / "pipe.xml"), "model_sha256": "0" * 64}, "not a file"),
        ({"model": "so100", "body": {"joints": 3}}, "does not describe an arm"),
        ({"arms": {"left": {"model": "so100"}}}, "does not describe an arm"),
        ({"joint_names": 7}, "does not describe an arm"),
    ):
        with pytest.raises(ModelError, match=said) as caught:
            recorded(about)
        assert "\n" not in str(caught.value)
