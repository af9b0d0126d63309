"""Servos, contacts, fingertip force, and a person who clears the table."""

from __future__ import annotations

import numpy as np
import pytest

from drivers.arms import describe
from drivers.arms.so100 import JOINT_NAMES, JOINT_RANGES_RAD
from drivers.feetech.calibration import RAD_PER_TICK
from drivers.world.config import OperatorOptions, WorldConfig
from drivers.world.grasping import plan_grasp
from drivers.world.judge import judge
from drivers.world.operator import LeaderArm
from drivers.world.physics import start_joints
from drivers.world.reach import TopDown
from tests.world.rig import ENCODERS, ROBOT, SECOND, Teleoperation, aim, one_object, power, small, tabletop


@pytest.mark.parametrize("joint", range(6))
def test_ticks_and_angles_agree(joint: int) -> None:
    low, high = JOINT_RANGES_RAD[joint]
    for angle in np.linspace(low, high, 7):
        assert ENCODERS.position(joint, ENCODERS.ticks(joint, angle)) == pytest.approx(angle, abs=8e-4)
    entry = ENCODERS.calibration()[JOINT_NAMES[joint]]
    raw_mid = (entry["range_min"] + entry["range_max"]) / 2
    middle = ENCODERS.middles().get(JOINT_NAMES[joint], (low + high) / 2)
    assert ENCODERS.ticks(joint, middle) - entry["homing_offset"] == pytest.approx(raw_mid, abs=1)


def test_the_calibration_is_not_the_models_and_no_two_arms_have_the_same() -> None:
    entries = ENCODERS.calibration()
    for name, (low, high) in zip(JOINT_NAMES[:4], JOINT_RANGES_RAD, strict=False):
        travel = (entries[name]["range_max"] - entries[name]["range_min"]) * RAD_PER_TICK
        assert 0.03 < abs(travel - (high - low)) < 0.35
        assert 0.01 < abs(ENCODERS.middles()[name] - (low + high) / 2) < 0.2
    roll = entries["wrist_roll"]
    assert (roll["range_min"], roll["range_max"]) == (0, 4095), "as LeRobot has it"
    assert not any(entries[name] == other for name, other in ENCODERS.leaders().calibration().items())


def test_the_folded_arm_stays_and_the_stretched_one_sinks_without_torque() -> None:
    folded = tabletop(small())
    before = folded.bank.joints_rad()
    folded.advance(3 * SECOND)
    assert np.abs(folded.bank.joints_rad() - before).max() < 0.08
    stretched = tabletop(small(start_rad=(0.0, -1.5, 1.5, 1.2, 0.0)))
    high = stretched.data.site("grasp").xpos[2]
    stretched.advance(3 * SECOND)
    assert stretched.data.site("grasp").xpos[2] < high - 0.03


def test_the_arm_follows_its_goal() -> None:
    table = tabletop(small())
    power(table)
    goal = ROBOT.to_native([0.3, -1.7, 1.9, 1.3, 0.4, 0.5])
    aim(table, goal)
    table.advance(2 * SECOND)
    assert np.abs(table.bank.joints_rad() - goal).max() < 0.01
    reading = table.bank.reading(2)
    assert reading.position == ENCODERS.ticks(1, table.bank.joints_rad()[1])
    assert abs(reading.load) > 10, "gravity pulls at the shoulder"


def test_a_lower_torque_limit_lets_the_arm_sink() -> None:
    table = tabletop(small(start_rad=(0.0, -1.2, 1.2, 1.2, 0.0)))
    power(table)
    table.advance(SECOND)
    held = table.data.site("grasp").xpos[2]
    table.bank.set_torque_limit(2, 20)
    table.advance(3 * SECOND)
    assert table.data.site("grasp").xpos[2] < held - 0.03


def _move(table, joints: np.ndarray, seconds: float) -> None:
    start = table.bank.drive().goal_rad
    ticks = max(1, round(seconds * 30))
    for tick in range(1, ticks + 1):
        aim(table, start + (joints - start) * tick / ticks)
        table.advance(table.now_ns + SECOND // 30)


@pytest.mark.parametrize(
    ("shape", "size"),
    [
        ("cube", (0.020, 0.020, 0.020)),
        ("cube", (0.030, 0.030, 0.030)),
        ("cuboid", (0.022, 0.040, 0.022)),
        ("cylinder", (0.024, 0.024, 0.045)),
    ],
)
def test_objects_are_lifted_held_and_felt(shape: str, size: tuple[float, float, float]) -> None:
    table = tabletop(one_object(shape=shape, size_m=size, x_m=0.22, y_m=-0.03, yaw_rad=0.4))
    power(table)
    table.bank.set_torque_limit(6, 500)
    place, _ = table.object_pose(0)
    reach = TopDown(ROBOT)
    plan = plan_grasp(reach, table.objects[0], place, table.yaw_rad(0))
    opened, closed = plan.opening, 0.0
    _move(table, reach.whole(plan.above, opened), 1.5)
    _move(table, reach.whole(plan.at, opened), 1.0)
    assert np.abs(table.fingertip_force_n()).max() < 0.5
    _move(table, reach.whole(plan.at, closed), 0.7)
    _move(table, reach.whole(plan.above, closed), 1.0)
    _move(table, reach.whole(plan.above, closed), 1.0)
    lifted, _ = table.object_pose(0)
    assert lifted[2] > 0.05
    squeeze, _, along = table.fingertip_force_n()
    assert 5 < squeeze < 20
    assert abs(along) < 1
    assert table.held_objects() == {0}
    report = judge(table).objects[0]
    assert report.held
    assert not report.in_tray
    _move(table, reach.whole(plan.above, opened), 0.5)
    assert table.held_objects() == set()


def test_the_fingertips_feel_the_table() -> None:
    table = tabletop(small())
    power(table)
    reach = TopDown(ROBOT)
    above = reach.solve(np.array([0.2, -0.1, 0.06]), 0.0)
    into = reach.solve(np.array([0.2, -0.1, 0.012]), 0.0, above)
    for index in range(len(table.objects)):
        table.remove_object(index)
    _move(table, reach.whole(above, 0.0), 1.5)
    _move(table, reach.whole(into, 0.0), 1.0)
    squeeze, _, along = table.fingertip_force_n()
    assert squeeze == 0
    assert abs(along) > 1


def test_the_judge_counts_what_lies_in_the_tray() -> None:
    table = tabletop(small(seed=1))
    total = judge(table).objects_total
    assert judge(table).summary() == {"objects_total": total, "objects_in_tray": 0, "success": False}
    names = [o.name for o in judge(table).objects]
    for index in range(total):
        table.place_object(index, 0.08 + 0.03 * (index % 3), 0.16 + 0.05 * (index // 3))
        report = judge(table)
        assert report.objects_in_tray == index + 1
        assert report.success == (index + 1 == total)
        assert [o.name for o in report.objects if o.in_tray] == names[: index + 1]
    table.remove_object(0)
    assert judge(table).objects_total == total - 1
    table.move_object(1, (0.9, 0.0, 0.02))
    assert judge(table).objects[0].fallen
    table.place_object(total, 0.2, 0.0)
    assert judge(table).objects_total == total


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 3, 7])
def test_a_person_clears_a_random_table_at_the_first_attempt(seed: int) -> None:
    rig = Teleoperation(small(seed=seed, operator=OperatorOptions(enabled=True)))
    rig.run(200.0)
    report = judge(rig.table)
    assert report.success, report
    assert rig.operator.report.succeeded == rig.operator.report.episode == report.objects_total


def test_every_episode_goes_through_its_phases() -> None:
    rig = Teleoperation(one_object(x_m=0.2).model_copy(update={"operator": OperatorOptions(enabled=True)}))
    rig.run(60.0)
    order = ["approach", "grasp", "lift", "carry", "release", "return", "rest"]
    assert rig.phases == [(0, "waiting"), *((1, phase) for phase in order), (1, "done")]
    hand = rig.leader.bank.joints_rad()
    assert np.allclose(hand, start_joints(WorldConfig(), ROBOT), atol=1e-6)


def test_the_operator_clears_the_table_with_an_so101_too() -> None:
    config = one_object(x_m=0.22, y_m=-0.06, yaw_rad=0.3)
    rig = Teleoperation(
        config.model_copy(update={"operator": OperatorOptions(enabled=True)}), describe("so101")
    )
    rig.run(60.0)
    assert rig.operator.report.succeeded == 1
    assert judge(rig.table).success


def test_the_leader_stays_where_it_is_left_and_obeys_its_servos_when_powered() -> None:
    leader = LeaderArm(np.zeros(6), ENCODERS)
    leader.bank.set_goal(1, ENCODERS.ticks(0, 0.4))
    leader.step(0.005)
    assert leader.bank.joints_rad()[0] == 0
    leader.bank.set_torque(1, True)
    for _ in range(100):
        leader.step(0.005)
    assert leader.bank.joints_rad()[0] == pytest.approx(0.4, abs=1e-3)
    assert leader.bank.joints_rad()[1] == 0


def test_steps_are_counted_in_whole_nanoseconds() -> None:
    table = tabletop(small())
    table.advance(1_999_999)
    assert table.now_ns == 0
    table.advance(5_000_000)
    assert table.now_ns == 4_000_000
    for k in range(1, 31):
        table.advance(round(k * SECOND / 30))
    assert table.now_ns == SECOND


def test_a_witness_tells_what_a_driven_arm_hits_from_what_a_limp_one_falls_on() -> None:
    table = tabletop(small(start_rad=(0.0, -1.5, 1.5, 1.2, 0.0), watched=True))
    witness = table.witness
    assert witness is not None
    table.advance(SECOND)
    assert [seen["contacts"] for seen in witness.as_json().values()] == [{}, {}], "nobody drives it yet"
    power(table)
    table.advance(2 * SECOND)
    assert "table" not in witness.as_json()["driven"]["contacts"]
    aim(table, ROBOT.to_native([0.0, -0.3, 0.3, 1.2, 0.0, 0.5]))
    table.advance(4 * SECOND)
    driven = witness.as_json()["driven"]
    hit = driven["contacts"]["table"]
    assert hit["n"] > 20
    assert 2 * SECOND < hit["at_ns"] <= 4 * SECOND
    assert "table" in hit["between"]
    assert driven["speed"]["shoulder_lift"]["peak"] > 1.0
    before = witness.as_json()["driven"]
    power(table, on=False)
    table.advance(6 * SECOND)
    assert witness.as_json()["driven"] == before, "an arm that falls follows nobody"
    assert witness.as_json()["limp"]["contacts"]["table"]["n"] > 0


def test_nothing_is_watched_unasked() -> None:
    assert tabletop(small()).witness is None


def test_a_shoved_leader_jumps_no_further_than_its_stops() -> None:
    leader = LeaderArm(start_joints(small(), ROBOT), ENCODERS)
    rest = leader.bank.joints_rad()
    leader.hand = rest.copy()
    leader.shove(0, 0.4)
    leader.step(0.005)
    assert leader.bank.joints_rad()[0] == pytest.approx(rest[0] + 0.4)
    leader.shove(0, 50.0)
    leader.step(0.005)
    assert leader.bank.joints_rad()[0] == pytest.approx(JOINT_RANGES_RAD[0][1])
    leader.clear()
    leader.step(0.005)
    assert leader.bank.joints_rad() == pytest.approx(rest)
    leader.hand = None
    leader.shove(0, -0.3)
    leader.step(0.005)
    assert leader.bank.joints_rad()[0] == pytest.approx(rest[0] - 0.3), "nobody holds it: it stays there"
