"""Calibration files, the map between ticks and units, and making a calibration."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.feetech import registers as reg
from drivers.feetech.calibrate import Calibrator
from drivers.feetech.calibration import (
    CalibrationError,
    JointCalibration,
    JointMap,
    TurnCounter,
    load_calibration,
    save_calibration,
)
from drivers.feetech.emulator import FeetechEmulator
from drivers.feetech.options import FeetechOptions
from drivers.feetech.plausible import check_plausible
from drivers.feetech.servo import SimpleServoBank
from drivers.feetech.setup import connect
from runtime.messages import DeviceError
from runtime.stepped import SteppedClock
from tests.feetech.rig import CALIBRATION, NAMES, RANGES

JOINTS = JointMap.build(CALIBRATION, RANGES)
GOOD: dict[str, Any] = {n: j.model_dump() for n, j in CALIBRATION.items()}


def test_a_file_as_lerobot_writes_it_goes_there_and_back(tmp_path: Path) -> None:
    save_calibration(tmp_path / "deep" / "arm.json", CALIBRATION)
    assert load_calibration(tmp_path / "deep" / "arm.json", NAMES) == CALIBRATION
    assert json.loads((tmp_path / "deep" / "arm.json").read_text())["gripper"] == {
        "id": 6,
        "drive_mode": 0,
        "homing_offset": 50,
        "range_min": 2000,
        "range_max": 3500,
    }
    assert list((tmp_path / "deep").iterdir()) == [tmp_path / "deep" / "arm.json"]


@pytest.mark.parametrize(
    ("joint", "change", "message"),
    [
        ("gripper", {"range_max": 5000}, r"gripper.range_max: .* less than or equal to 4095 \(got 5000\)"),
        ("gripper", {"range_max": 100}, r"gripper: .*range_min \(2000\) must be below range_max \(100\)"),
        ("gripper", {"homing_offset": 2048}, r"gripper.homing_offset: .* 2047 \(got 2048\)"),
        ("gripper", {"id": "6"}, r"gripper.id: .*integer \(got '6'\)"),
        ("gripper", {"drive_mode": 2}, r"gripper.drive_mode"),
        ("gripper", {"offset": 2}, r"gripper.offset: Extra"),
        ("gripper", {"id": 5}, "id 5 is given to more than one joint"),
        ("gripper", None, r"no entry for gripper; it has shoulder_pan"),
    ],
)
def test_a_bad_file_is_told_in_one_line(
    tmp_path: Path, joint: str, change: dict[str, Any] | None, message: str
) -> None:
    data = {n: dict(j) for n, j in GOOD.items()}
    if change is None:
        del data[joint]
    else:
        data[joint] |= change
    path = tmp_path / "arm.json"
    path.write_text(json.dumps(data))
    with pytest.raises(CalibrationError, match=message) as caught:
        load_calibration(path, NAMES)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[]", '"x"', "\xff"])
def test_what_is_no_calibration_at_all_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "arm.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(CalibrationError) as caught:
        load_calibration(path, NAMES)
    assert "\n" not in str(caught.value)
    with pytest.raises(CalibrationError, match="No such file"):
        load_calibration(tmp_path / "none.json", NAMES)


def test_an_earlier_lerobots_file_is_called_that(tmp_path: Path) -> None:
    lists = {"homing_offset": [2048] * 6, "drive_mode": [0] * 6, "start_pos": [0] * 6, "end_pos": [4095] * 6}
    path = tmp_path / "arm.json"
    path.write_text(json.dumps({**lists, "calib_mode": ["DEGREE"] * 6, "motor_names": list(NAMES)}))
    with pytest.raises(CalibrationError, match=r"is of an earlier LeRobot \(lists, .*calibrate again"):
        load_calibration(path, NAMES)


@given(st.lists(st.floats(0, 1), min_size=6, max_size=6))
def test_ticks_and_units_are_inverse_within_the_range(places: list[float]) -> None:
    ticks = np.rint(JOINTS.low + np.array(places) * (JOINTS.high - JOINTS.low)).astype(np.int64)
    assert JOINTS.to_ticks(JOINTS.to_units(ticks)).tolist() == ticks.tolist()


@given(st.lists(st.floats(-100, 100), min_size=6, max_size=6))
def test_goals_never_leave_the_calibrated_range(values: list[float]) -> None:
    ticks = JOINTS.to_ticks(np.array(values))
    assert (ticks >= JOINTS.low).all()
    assert (ticks <= JOINTS.high).all()


def test_the_middle_of_the_range_is_the_middle_of_the_model_unless_said_otherwise() -> None:
    ranges = {"a": (0.0, 1.0), "b": (-1.0, 1.0)}
    joint = {"homing_offset": 0, "range_min": 1000, "range_max": 3000}
    calibration = {"a": JointCalibration(id=1, **joint), "b": JointCalibration(id=2, drive_mode=1, **joint)}
    middle = np.array([2000, 2000])
    plain = JointMap.build(calibration, ranges)
    assert plain.to_units(middle) == pytest.approx([0.5, 0.0])
    moved = JointMap.build(calibration, ranges, zero_rad={"b": 0.3})
    assert moved.to_units(middle) == pytest.approx([0.5, 0.3])
    assert moved.to_units(middle + 1024) == pytest.approx([0.5 + math.pi / 2, 0.3 - math.pi / 2])
    assert moved.signs().tolist() == [1, -1]
    with pytest.raises(CalibrationError, match="zero_rad: no joint 'c'; there are a, b"):
        JointMap.build(calibration, ranges, zero_rad={"c": 0.1})
    with pytest.raises(CalibrationError, match="joint 'b' is not in the model"):
        JointMap.build(calibration, {"a": (0, 1)})


def test_a_reversed_gripper_is_still_0_closed() -> None:
    joint = JointCalibration(id=6, drive_mode=1, homing_offset=0, range_min=1000, range_max=2000)
    joints = JointMap.build({"gripper": joint}, {})
    assert joints.to_units(np.array([2000])).tolist() == [0.0]
    assert joints.to_units(np.array([1250])).tolist() == [0.75]
    assert joints.to_ticks(np.array([1.0])).tolist() == [1000]


@given(st.floats(0, 4095), st.lists(st.integers(-2000, 2000), max_size=40))
def test_turns_are_followed(start: float, steps: list[int]) -> None:
    true = int(start)
    counter = TurnCounter(np.array([2047.5]))
    assert counter.update(np.array([true]))[0] == true
    for step in steps:
        true += step
        assert counter.update(np.array([true % 4096]))[0] == true


@given(st.integers(-3000, 7000), st.integers(0, 4095))
def test_a_goal_that_may_be_sent_lies_on_the_way(at: int, goal: int) -> None:
    counter = TurnCounter(np.array([2047.5]))
    for place in np.linspace(2000, at, 12).astype(np.int64):
        counter.update(np.array([place % 4096]))
    low, high = np.array([0]), np.array([4095])
    sent, may = counter.to_servo(np.array([goal]), low, high)
    # In position mode the servo turns by the difference of its own counts.
    moved = int(sent[0]) - at % 4096
    if may[0]:
        assert abs(moved) <= abs(goal - at)
        assert moved * (goal - at) >= 0


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[tuple[SimpleServoBank, FeetechEmulator, Calibrator]]:
    clock = SteppedClock()
    bank = SimpleServoBank(clock, {1: 3900, 2: 300, 3: 1000})
    emulator = FeetechEmulator(bank, tmp_path / "arm")
    names = {"lift": 1, "gripper": 2, "wrist_roll": 3}
    bus = connect("arm", FeetechOptions(port=emulator.port), {i: n for n, i in names.items()}, clock)
    yield bank, emulator, Calibrator(bus, names, reversed_joints=("gripper",))
    bus.close()
    emulator.close()


def test_an_arm_is_calibrated_by_moving_it(
    bench: tuple[SimpleServoBank, FeetechEmulator, Calibrator],
) -> None:
    bank, emulator, calibrator = bench
    calibrator.release()
    calibrator.set_middle()
    assert {n: r.now for n, r in calibrator.sample().items()} == dict.fromkeys(calibrator.ranges, 2047)
    # The lift's encoder wraps in the middle of its range; its readings do not any more.
    for lift, gripper in ((3000, 250), (3900, 300), (4600, 900), (3900, 300)):
        bank.place(1, lift % 4096)
        bank.override(1, position=lift % 4096)
        bank.override(2, position=gripper)
        calibrator.sample()
    assert [servo.get(reg.HOMING_OFFSET) for servo in emulator.servos.values()] == [0, 0, 0]
    calibration = calibrator.finish()
    assert calibration == {
        "lift": JointCalibration(id=1, homing_offset=1853, range_min=1147, range_max=2747),
        "gripper": JointCalibration(
            id=2, drive_mode=1, homing_offset=300 - 2047, range_min=1997, range_max=2647
        ),
        "wrist_roll": JointCalibration(id=3, homing_offset=1000 - 2047, range_min=0, range_max=4095),
    }
    with calibrator.written(calibration):
        pass
    emulator.power_cycle()
    assert emulator.servos[1].get(reg.HOMING_OFFSET) == 1853
    assert emulator.servos[2].get(reg.MAX_POSITION_LIMIT) == 2647


def test_a_joint_that_was_forgotten_is_named(
    bench: tuple[SimpleServoBank, FeetechEmulator, Calibrator],
) -> None:
    _, _, calibrator = bench
    with pytest.raises(CalibrationError, match="calibrating lift: set_middle comes first"):
        calibrator.finish()
    calibrator.release()
    calibrator.set_middle()
    calibrator.sample()
    with pytest.raises(CalibrationError, match="calibrating lift: it was not moved"):
        calibrator.finish()


def test_a_joint_that_went_over_the_end_is_named(
    bench: tuple[SimpleServoBank, FeetechEmulator, Calibrator],
) -> None:
    bank, _, calibrator = bench
    calibrator.release()
    calibrator.set_middle()
    for place in (3900, 5000, 6100):
        bank.override(1, position=place % 4096)
        calibrator.sample()
    with pytest.raises(CalibrationError, match=r"calibrating lift: it went over its encoder's end \(2047 to"):
        calibrator.finish()


def test_the_farthest_offset_fits_the_register(tmp_path: Path) -> None:
    clock = SteppedClock()
    bank = SimpleServoBank(clock, {1: 4095})
    emulator = FeetechEmulator(bank, tmp_path / "arm")
    bus = connect("arm", FeetechOptions(port=emulator.port), {1: "lift"}, clock)
    try:
        calibrator = Calibrator(bus, {"lift": 1})
        with pytest.raises(CalibrationError, match="release comes before set_middle"):
            calibrator.set_middle()
        calibrator.release()
        calibrator.set_middle()
        for place in (4095, 3600):
            bank.override(1, position=place)
            calibrator.sample()
        assert calibrator.finish()["lift"].homing_offset == 2047
    finally:
        bus.close()
        emulator.close()


COLLAPSED = {
    "folded": (2000, 2300, "not moved from stop to stop"),
    "over the seam": (0, 4095, "a full turn, and the joint has stops"),
    "nearly over the seam": (3, 4090, "a full turn, and the joint has stops"),
    "too far": (100, 3900, "and the joint has some 2086: it was moved over"),
}


@pytest.mark.parametrize("case", COLLAPSED)
def test_a_range_that_no_joint_of_the_model_has_is_refused(case: str) -> None:
    low, high, said = COLLAPSED[case]
    calibration = {"lift": JointCalibration(id=1, homing_offset=0, range_min=low, range_max=high)}
    with pytest.raises(CalibrationError, match=f"here: lift: its range is {low} to {high}, .*{said}"):
        check_plausible(calibration, {"lift": (-1.6, 1.6)}, (), "here")


def test_what_arms_do_have_is_taken() -> None:
    gripper = JointCalibration(id=1, homing_offset=0, range_min=1800, range_max=3300)
    check_plausible({"gripper": gripper}, {"gripper": (0.0, 1.7)}, ("gripper",), "here")
    roll = JointCalibration(id=1, homing_offset=0, range_min=0, range_max=4095)
    check_plausible({"roll": roll}, {"roll": (-2.75, 2.84)}, (), "here")  # LeRobot's, of every SO-101
    lift = JointCalibration(id=1, homing_offset=0, range_min=950, range_max=3150)
    check_plausible({"lift": lift}, {"lift": (-1.6, 1.6)}, (), "here")
    with pytest.raises(CalibrationError, match="a full turn: it was moved over"):
        check_plausible({"gripper": roll}, {"gripper": (0.0, 1.7)}, ("gripper",), "here")


def test_the_way_a_gripper_closes_is_seen(tmp_path: Path) -> None:
    bank = SimpleServoBank(SteppedClock(), {2: 650})
    emulator = FeetechEmulator(bank, tmp_path / "arm")
    bus = connect("arm", FeetechOptions(port=emulator.port), {2: "gripper"}, SteppedClock())
    try:
        for closed, mode in ((990, 1), (310, 0)):
            calibrator = Calibrator(bus, {"gripper": 2})
            bank.override(2, position=650)
            calibrator.release()
            calibrator.set_middle()
            for place in (300, 1000, 650):
                bank.override(2, position=place)
                calibrator.sample()
            assert calibrator.note_closed() == ["gripper"]
            bank.override(2, position=closed)
            assert calibrator.note_closed() == []
            assert calibrator.finish()["gripper"].drive_mode == mode
    finally:
        bus.close()
        emulator.close()


def test_lost_replies_do_not_end_it(bench: tuple[SimpleServoBank, FeetechEmulator, Calibrator]) -> None:
    _, emulator, calibrator = bench
    calibrator.release()
    calibrator.set_middle()
    emulator.faults.silent.add(2)
    for _ in range(30):
        assert "gripper" not in calibrator.sample()
    emulator.faults.clear()
    assert calibrator.sample()["gripper"].now == 2047
    emulator.faults.silent.add(2)
    for _ in range(39):
        calibrator.sample()
    with pytest.raises(DeviceError, match=r"no answer from servo 2 \(gripper\)"):
        calibrator.sample()


def test_servos_that_cannot_all_be_written_hold_what_they_held(
    bench: tuple[SimpleServoBank, FeetechEmulator, Calibrator],
) -> None:
    _, emulator, calibrator = bench
    registers = (reg.HOMING_OFFSET, reg.MIN_POSITION_LIMIT, reg.MAX_POSITION_LIMIT)
    calibration = {
        name: JointCalibration(id=i, homing_offset=5 * i, range_min=1000, range_max=2000 + i)
        for i, name in enumerate(("lift", "gripper", "wrist_roll"), start=1)
    }
    written = calibrator.written(calibration)
    with silent_later(emulator, 3), pytest.raises(DeviceError) as caught, written:
        pass
    assert "could not be put back" in caught.value.detail
    assert "Homing_Offset of wrist_roll (servo 3), 0 before and 15 to be written" in caught.value.detail
    emulator.faults.clear()
    with pytest.raises(OSError, match="full"), calibrator.written(calibration):
        raise OSError("full")
    emulator.power_cycle()
    held = [[servo.get(register) for register in registers] for servo in emulator.servos.values()]
    assert held == [[0, 0, 4095], [0, 0, 4095], [15, 0, 4095]]


@contextmanager
def silent_later(emulator: FeetechEmulator, servo_id: int) -> Iterator[None]:
    """The servo falls silent when its offset has been written."""
    write = emulator.servos[servo_id].write

    def last(start: int, data: bytes) -> None:
        write(start, data)
        if start == reg.HOMING_OFFSET.address:
            emulator.faults.silent.add(servo_id)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(emulator.servos[servo_id], "write", last)
        yield
