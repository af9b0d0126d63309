"""One definition of units: what LeRobot's arms say and obey, from the arm's own calibration."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
from pydantic import ValidationError

from drivers.arms import describe
from drivers.feetech.calibration import JointCalibration, JointMap
from runtime.joints import JointLayout, side_by_side
from runtime.units import LEROBOT, Plausibility, UnitError, UnitMap, calibrated, joint_units, translated

RANGES = {"shoulder_lift": (750, 3390), "elbow_flex": (890, 3080), "gripper": (2030, 3480)}
"""In ticks; nothing here is the model's middle or range."""


def calibration(drive_mode: int = 0) -> dict[str, JointCalibration]:
    return {
        name: JointCalibration(
            id=number, homing_offset=-17 * number, range_min=low, range_max=high, drive_mode=drive_mode
        )
        for number, (name, (low, high)) in enumerate(RANGES.items(), 2)
    }


def lerobot_says(ticks: np.ndarray, convention: str, drive_mode: int) -> list[float]:
    """`MotorsBus._normalize` of LeRobot 0.4.4, in our own words."""
    said = []
    for tick, (name, (low, high)) in zip(ticks.tolist(), RANGES.items(), strict=True):
        share = (min(high, max(low, tick)) - low) / (high - low)
        if name == "gripper":
            said.append(100 - 100 * share if drive_mode else 100 * share)
        elif convention == "lerobot_percent":
            said.append((100 - 200 * share) if drive_mode else (200 * share - 100))
        else:
            said.append((tick - (low + high) / 2) * 360 / 4095)
    return said


def arm(drive_mode: int, middle: float) -> tuple[JointMap, JointLayout]:
    ranges = {"shoulder_lift": (-3.14158, 0.2), "elbow_flex": (0.0, 3.14158), "gripper": (0.0, 1.0)}
    joints = JointMap.build(calibration(drive_mode), ranges, zero_rad={"elbow_flex": middle})
    layout = JointLayout(tuple(ranges), np.array(list(ranges.values())), (2,))
    return joints, calibrated(layout, joints.described())


@pytest.mark.parametrize("convention", LEROBOT)
@pytest.mark.parametrize("drive_mode", [0, 1])
@pytest.mark.parametrize("middle", [math.pi / 2, 1.3])
def test_the_same_ticks_are_the_same_state_and_the_same_action_the_same_goal(
    convention: str, drive_mode: int, middle: float
) -> None:
    joints, layout = arm(drive_mode, middle)
    units = joint_units(layout, UnitMap(convention=convention))  # type: ignore[arg-type]
    for ticks in (
        (750, 890, 2030),
        (3390, 3080, 3480),
        (2070, 1985, 2755),
        (1234, 2345, 3000),
        (700, 880, 2000),
    ):
        read = np.array(ticks)
        said = units.observed(joints.to_units(read))
        np.testing.assert_allclose(said, lerobot_says(read, convention, drive_mode), atol=1e-9)
        inside = np.clip(read, joints.low, joints.high)
        assert (joints.to_ticks(units.to_robot(units.to_policy(joints.to_units(inside)))) == inside).all()


def test_the_zero_of_degrees_is_the_calibrated_middle_not_the_models() -> None:
    _, layout = arm(0, 1.3)
    degrees, percent = (joint_units(layout, UnitMap(convention=each)) for each in LEROBOT)
    np.testing.assert_allclose(degrees.to_robot(np.zeros(3)), [(-3.14158 + 0.2) / 2, 1.3, 0.0])
    half = (3080 - 890) / 4096 * math.pi
    np.testing.assert_allclose(percent.to_robot(np.full(3, 100.0))[1:], [1.3 + half, 1.0])


def test_an_arm_without_calibration_in_ticks_has_the_range_of_its_model() -> None:
    layout = calibrated(describe().layout, {"shoulder_pan": {"gear": 3}})
    assert not layout.calibration
    units = joint_units(layout, UnitMap(convention="lerobot_degrees"))
    middle = layout.ranges.mean(axis=1)
    np.testing.assert_allclose(units.to_policy(middle + 0.5)[:5], math.degrees(0.5))


def test_two_arms_keep_each_their_own_calibration() -> None:
    _, one = arm(0, 1.3)
    _, other = arm(1, 1.7)
    both = side_by_side({"left": one, "right": other})
    units = joint_units(both, UnitMap(convention="lerobot_degrees"))
    np.testing.assert_allclose(units.to_robot(np.zeros(6))[[1, 4]], [1.3, 1.7])
    assert both.part("right").calibration == other.calibration
    assert units.scale[1] == -units.scale[4], "LeRobot's degrees count as the servo does"


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"joint_unit": "deg"}, "joint_unit is now part of convention.*lerobot_degrees"),
        ({"convention": "degrees"}, "lerobot_degrees"),
        ({"convention": "lerobot_percent", "range_rad": {"a": (0, 1)}}, "range_rad has no effect"),
        ({"convention": "lerobot_degrees", "zero_rad": {"a": 1.0}}, "zero_rad has no effect"),
    ],
)
def test_units_that_mean_nothing_are_refused(given: dict, says: str) -> None:  # type: ignore[type-arg]
    with pytest.raises(ValidationError, match=says):
        UnitMap.model_validate(given)


def test_a_name_alone_is_a_unit_map_and_unknown_joints_are_named() -> None:
    assert UnitMap.model_validate("lerobot_percent").said() == {"convention": "lerobot_percent"}
    with pytest.raises(UnitError, match="joint 'knee'; the robot has shoulder_pan"):
        joint_units(describe().layout, UnitMap(reversed=("knee",)))


def test_what_older_data_sets_say_is_understood_where_it_means_the_same() -> None:
    old = {"joint_unit": "percent", "gripper_unit": "percent", "zero_rad": {}, "reversed": ["elbow_flex"]}
    assert translated(old) == {"convention": "lerobot_percent", "reversed": ["elbow_flex"]}
    assert translated({"joint_unit": "rad"}) == {"convention": "rad"}
    degrees = {"joint_unit": "deg", "gripper_unit": "percent"}
    assert translated(degrees) == degrees
    assert translated({"convention": "rad"}) == {"convention": "rad"}


@pytest.mark.parametrize(
    ("convention", "value", "says"),
    [
        (
            "rad",
            [86.0, 1.0, 0.5],
            "shoulder_lift is 86, which as rad is impossible .*; as lerobot_degrees it would",
        ),
        ("lerobot_percent", [300.0, 0, 0], "which as lerobot_percent is impossible .*; no convention makes"),
        ("symmetric", [0.0, 0.0, 40.0], "gripper is 40, .* as lerobot_degrees"),
        ("lerobot_degrees", [100.0, 90.0, 100.0], ""),
        ("rad", [-3.1, 0.1, 0.99], ""),
    ],
)
def test_impossible_numbers_are_named_with_both_readings(
    convention: str, value: list[float], says: str
) -> None:
    _, layout = arm(0, 1.3)
    known = Plausibility(layout, UnitMap(convention=convention))  # type: ignore[arg-type]
    line = known.doubt(np.array(value), np.array(value))
    assert re.search(says, line) if says else line == ""


def test_a_data_set_in_radians_is_not_taken_for_degrees() -> None:
    _, layout = arm(0, 1.3)
    low, high = np.array([-2.5, 0.2, 0.0]), np.array([0.1, 2.9, 1.0])
    degrees, radians = (Plausibility(layout, UnitMap(convention=each)) for each in ("lerobot_degrees", "rad"))
    line = degrees.doubt(low, high, spans=True)
    assert "as lerobot_degrees is hardly a motion; as rad it would be one" in line
    assert not radians.doubt(low, high, spans=True)
    assert not degrees.doubt(low * 20, high * 20, spans=True)
