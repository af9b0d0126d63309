"""The arm over the wire: states, targets, torque."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from drivers.feetech import registers as reg
from drivers.feetech.options import FeetechOptions
from drivers.feetech.setup import HOLD_TOLERANCE_TICKS
from runtime.interfaces import ArmDriver
from runtime.messages import DeviceError
from tests.feetech.rig import CALIBRATION, MS, NAMES, encoder, rig, shipped

MIDDLES = {"shoulder_pan": 2000, "shoulder_lift": 2000, "elbow_flex": 2000, "wrist_flex": 2000}


def test_reads_positions_in_the_models_frame(tmp_path: Path) -> None:
    start = MIDDLES | {"shoulder_pan": 2100, "elbow_flex": 2100, "gripper": 2750}
    with rig(tmp_path, start=start) as r:
        assert isinstance(r.arm, ArmDriver)
        r.arm.open()
        r.run(1)
        state = r.arm.states.newest()
        assert state is not None
        tick = 2 * math.pi / 4096
        roll = tick * (2500 - 2047.5)
        assert state["position"] == pytest.approx([100 * tick, 0, -100 * tick, 0, roll, 0.5])
        assert state.stamp_ns == r.clock.now_ns()


def test_reads_at_the_configured_rate(tmp_path: Path) -> None:
    with rig(tmp_path, state_rate_hz=50) as r:
        r.arm.open()
        r.run(6)
        assert r.clock.now_ns() == 1_100 * MS
        assert r.arm.states.published == 6


def test_writes_a_target_the_moment_it_is_posted(tmp_path: Path) -> None:
    with rig(tmp_path, start=MIDDLES) as r:
        r.arm.open()
        r.run(1)
        target = np.array([0.1, 0, 0.2, 0, 0, 1.0])
        r.arm.targets.post(r.clock.now_ns(), position=target)
        r.arm.poll()
        assert r.clock.now_ns() == 1_000 * MS
        sent = r.arm.sent.newest()
        assert sent is not None
        step = 4096 / (2 * math.pi)
        wanted = [round(2000 + 0.1 * step), 2000, round(2000 - 0.2 * step), 2000, 2048, 3500]
        assert sent["goal"].tolist() == wanted
        assert sent["position"] == pytest.approx(target, abs=1e-3)
        r.run(60)
        for name, goal in zip(NAMES, wanted, strict=True):
            assert r.bank.motion(CALIBRATION[name].id)[:2] == pytest.approx([encoder(name, goal)] * 2, abs=1)
        state = r.arm.states.newest()
        assert state is not None
        assert state["position"] == pytest.approx(target, abs=2e-3)


def test_velocity_and_load_have_the_joints_sign(tmp_path: Path) -> None:
    with rig(tmp_path, start=MIDDLES) as r:
        r.arm.open()
        for servo_id in (1, 3):
            r.bank.override(servo_id, velocity=-1024, load=250)
        r.run(1)
        state = r.arm.states.newest()
        assert state is not None
        quarter = math.pi / 2
        assert state["velocity"][[0, 2]] == pytest.approx([-quarter, quarter])
        assert state["load"][[0, 2]] == pytest.approx([0.25, -0.25])


def test_nothing_moves_when_torque_comes_on(tmp_path: Path) -> None:
    with rig(tmp_path, start={"shoulder_pan": 1500}) as r:
        # A goal left over from before: the servo runs to it as soon as torque is enabled.
        r.emulator.servos[1].write(reg.GOAL_POSITION.address, reg.GOAL_POSITION.encode(2900))
        r.emulator.servos[1].write(reg.TORQUE_ENABLE.address, b"\0")
        r.arm.open()
        r.run(50)
        position, goal, torque = r.bank.motion(1)
        assert (position, goal, torque) == (
            encoder("shoulder_pan", 1500),
            encoder("shoulder_pan", 1500),
            True,
        )


def test_an_arm_that_holds_keeps_its_goal_when_opened(tmp_path: Path) -> None:
    with rig(tmp_path, start=MIDDLES) as r:
        r.arm.open()
        r.run(1)
        r.arm.close()
        r.bank.place(2, encoder("shoulder_lift", 1990))
        r.bank.override(2, position=encoder("shoulder_lift", 1990))
        r.arm.open()
        assert r.bank.motion(2)[1] == encoder("shoulder_lift", 2000)


def test_closing_holds_and_torque_stays(tmp_path: Path) -> None:
    with rig(tmp_path, start=MIDDLES) as r:
        r.arm.open()
        r.run(1)
        r.arm.targets.post(r.clock.now_ns(), position=np.array([0.7, 0, 0, 0, 0, 0]))
        r.run(3)
        goals = [r.bank.motion(1)[1]]
        write = r.emulator.servos[1].write
        r.emulator.servos[1].write = lambda at, data: (  # type: ignore[method-assign]
            write(at, data), goals.append(r.bank.motion(1)[1]))  # fmt: skip
        r.arm.close()
        position, goal, torque = r.bank.motion(1)
        assert torque
        assert goals[0] - goal >= 100  # it does not run to where it was sent,
        assert goal - position == pytest.approx(0, abs=HOLD_TOLERANCE_TICKS)
        assert max(abs(now - before) for before, now in pairwise(goals)) <= 50  # and no goal jumps back
        r.clock.wait_until_ns(r.clock.now_ns() + 500 * MS)
        assert r.bank.motion(1)[0] == pytest.approx(goal, abs=1)


def test_a_target_that_waited_too_long_is_never_written(tmp_path: Path) -> None:
    with rig(tmp_path, start=MIDDLES) as r:
        r.arm.open()
        r.run(1)
        r.arm.targets.post(r.clock.now_ns(), position=np.array([0.7, 0, 0, 0, 0, 0]))
        r.clock.wait_until_ns(r.clock.now_ns() + 12_000 * MS)  # the process stood still
        r.run(3)
        assert r.arm.sent.published == 0
        assert r.arm.statistics()["old_target"] == 1
        r.arm.targets.post(r.clock.now_ns(), position=np.array([0.1, 0, 0, 0, 0, 0]))
        r.run(1)
        assert r.arm.sent.published == 1


def test_a_target_that_grew_old_while_the_servos_were_asked_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with rig(tmp_path, start=MIDDLES) as r:
        r.arm.open()
        r.run(1)
        powered = r.arm._watch.powered

        def stands_still(*arguments: Any) -> Any:
            r.clock.wait_until_ns(r.clock.now_ns() + 200 * MS)
            return powered(*arguments)

        monkeypatch.setattr(r.arm._watch, "powered", stands_still)
        r.arm.targets.post(r.clock.now_ns(), position=np.array([0.7, 0, 0, 0, 0, 0]))
        r.run(1)
        assert r.arm.sent.published == 0
        assert r.arm.statistics()["old_target"] == 1


def test_a_closed_gripper_keeps_squeezing_after_close(tmp_path: Path) -> None:
    with rig(tmp_path, start=MIDDLES) as r:
        r.arm.open()
        r.run(1)
        r.bank.override(6, position=encoder("gripper", 2600), velocity=0)
        r.arm.targets.post(r.clock.now_ns(), position=np.zeros(6))
        r.run(3)
        r.arm.close()
        assert r.bank.motion(6)[1] == encoder("gripper", 2000)


def test_torque_goes_off_at_the_end_only_when_asked(tmp_path: Path) -> None:
    with rig(tmp_path, torque_off_on_close=True) as r:
        r.arm.open()
        r.arm.close()
        assert not any(r.bank.motion(i)[2] for i in range(1, 7))


def test_torque_stays_when_the_port_is_closed_because_of_a_fault(tmp_path: Path) -> None:
    with rig(tmp_path, torque_off_on_close=True, start=MIDDLES) as r:
        r.arm.open()
        r.run(1)
        r.emulator.faults.silent.add(3)
        with pytest.raises(DeviceError):
            r.run(100)
        r.arm.close()
        assert all(r.bank.motion(i)[2] for i in range(1, 7))
        r.emulator.faults.silent.clear()
        r.arm.open()
        r.run(1)
        r.arm.close()
        assert not any(r.bank.motion(i)[2] for i in range(1, 7))


def test_a_leader_is_limp_and_never_written_a_goal(tmp_path: Path) -> None:
    with rig(tmp_path, role="leader", start=MIDDLES) as r:
        r.arm.open()
        r.run(1)
        r.arm.targets.post(r.clock.now_ns(), position=np.ones(6))
        r.bank.place(1, encoder("shoulder_pan", 2512))
        r.run(2)
        state = r.arm.states.newest()
        assert state is not None
        assert state["position"][0] == pytest.approx(math.pi / 4)
        assert r.arm.sent.published == 0
        assert not any(r.bank.motion(i)[2] for i in range(1, 7))


def test_limits_are_kept_by_map_and_servo(tmp_path: Path) -> None:
    with rig(tmp_path, start=MIDDLES) as r:
        r.arm.open()
        r.run(1)
        r.arm.targets.post(r.clock.now_ns(), position=np.full(6, 9.0))
        r.run(80)
        state = r.arm.states.newest()
        assert state is not None
        ends = np.array([1000, 1100, 1000, 1000]) * math.pi / 2048
        assert state["position"][:4] == pytest.approx(ends, abs=2e-3)
        assert state["position"][5] == pytest.approx(1.0, abs=2e-3)


def test_a_target_that_is_not_a_number_is_not_sent(tmp_path: Path) -> None:
    with rig(tmp_path) as r:
        r.arm.open()
        r.run(1)
        r.arm.targets.post(r.clock.now_ns(), position=np.array([0, 0, np.nan, 0, 0, 0]))
        r.run(1)
        assert r.arm.sent.published == 0
        assert r.arm.statistics() == {"bad_target": 1}


def test_health_comes_along_slowly(tmp_path: Path) -> None:
    with rig(tmp_path, health_period_s=0.1) as r:
        r.bank.override(3, voltage=74, temperature=55, current=-100)
        r.arm.open()
        r.run(21)
        assert r.arm.health.published == 3
        health = r.arm.health.newest()
        assert health is not None
        measured = [health[k][2] for k in ("voltage_v", "temperature_c", "current_a")]
        assert measured == pytest.approx([7.4, 55, -0.65])


def test_alarms_are_counted_once_with_the_joints_name(tmp_path: Path) -> None:
    with rig(tmp_path) as r:
        r.arm.open()
        r.run(2)
        r.bank.override(2, temperature=75)
        r.bank.override(4, voltage=35)
        r.emulator.servos[6].alarms = 32
        r.run(5)
        assert r.arm.statistics() == {
            "shoulder_lift.alarm_overtemperature": 1,
            "wrist_flex.alarm_voltage": 1,
            "gripper.alarm_overload": 1,
        }
        r.emulator.servos[6].alarms = 0
        r.run(1)
        r.emulator.servos[6].alarms = 32
        r.run(1)
        assert r.arm.statistics()["gripper.alarm_overload"] == 2


def test_gains_and_limits_reach_the_servos(tmp_path: Path) -> None:
    with rig(tmp_path, p_gain=20, i_gain=1, d_gain=30, joint_torque_limit_fraction={"gripper": 0.3}) as r:
        r.emulator.servos[3].write(reg.LOCK.address, b"\0")
        r.arm.open()
        servos = r.emulator.servos
        gains = (reg.P_COEFFICIENT, reg.I_COEFFICIENT, reg.D_COEFFICIENT)
        assert [servos[3].get(x) for x in gains] == [20, 1, 30]
        assert [servos[i].get(reg.TORQUE_LIMIT) for i in (1, 6)] == [999, 300]
        r.emulator.power_cycle()
        assert servos[3].get(reg.P_COEFFICIENT) == 32  # nothing was burnt into the EEPROM


def test_another_joints_torque_limit_leaves_the_grippers(tmp_path: Path) -> None:
    with rig(tmp_path, joint_torque_limit_fraction={"wrist_roll": 0.4}) as r:
        r.arm.open()
        assert [r.emulator.servos[i].get(reg.TORQUE_LIMIT) for i in (1, 5, 6)] == [999, 400, 500]


def test_the_wrist_turns_over_the_encoders_end_without_a_jump(tmp_path: Path) -> None:
    with rig(tmp_path, start={"wrist_roll": 4090}) as r:
        r.arm.open()
        seen = []
        for place in (4090, 4095, 4100, 4105):
            r.bank.place(5, place)
            r.bank.override(5, position=place % 4096)
            r.run(1)
            state = r.arm.states.newest()
            assert state is not None
            seen.append(state["position"][4])
        assert np.diff(seen) == pytest.approx([5 * 2 * math.pi / 4096] * 3)
        # The servo now counts from 0: a goal of 4095 would make it turn all the way back.
        r.arm.targets.post(r.clock.now_ns(), position=np.array([0, 0, 0, 0, 9.0, 0]))
        r.run(1)
        sent = r.arm.sent.newest()
        assert sent is not None
        assert sent["goal"][4] == 0


def test_a_limited_joint_beyond_the_encoders_end_is_left_alone(tmp_path: Path) -> None:
    registers = shipped()
    registers[1][reg.MIN_POSITION_LIMIT] = 5
    with rig(tmp_path, registers=registers, write_calibration=True, start=MIDDLES) as r:
        r.arm.open()
        r.run(1)
        for ticks in (1000, 10, -20):
            r.bank.override(1, position=encoder("shoulder_pan", ticks))
            r.run(1)
        before = r.bank.motion(1)[1]
        r.arm.targets.post(r.clock.now_ns(), position=np.zeros(6))
        r.run(1)
        assert r.bank.motion(1)[1] == before
        assert r.arm.statistics()["shoulder_pan.over_the_end"] == 1
        assert r.emulator.servos[1].get(reg.MIN_POSITION_LIMIT) == 1000  # the file's, written at opening


def test_a_configuration_needs_an_address() -> None:
    with pytest.raises(ValueError, match=r"give port .* or serial_number"):
        FeetechOptions()
