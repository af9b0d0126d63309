"""What can go wrong on the bus, over the wire."""

from __future__ import annotations

import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import serial
from loguru import logger

from drivers.feetech import registers as reg
from drivers.feetech.emulator import FeetechEmulator
from drivers.feetech.port import BusPort
from runtime.messages import DeviceError
from tests.feetech.rig import CALIBRATION, MS, NAMES, encoder, rig, shipped


def test_a_lost_packet_is_asked_for_again(tmp_path: Path) -> None:
    with rig(tmp_path) as r:
        r.arm.open()
        r.run(2)
        r.emulator.faults.lose_next(1)
        r.run(1)
        assert r.arm.states.published == 3
        assert r.arm.statistics() == {"shoulder_pan.no_reply": 1}


def test_only_the_missing_servo_is_asked_again(tmp_path: Path) -> None:
    with rig(tmp_path) as r:
        r.arm.open()
        r.run(2)
        before = r.emulator.instructions
        r.emulator.faults.lose_next(6)
        r.run(1)
        assert r.emulator.instructions == before + 2
        assert r.arm.states.published == 3
        assert sum(r.arm.statistics().values()) == 6


def test_corrupted_packets_are_noticed(tmp_path: Path) -> None:
    with rig(tmp_path, start={"shoulder_pan": 2222}) as r:
        r.arm.open()
        r.run(1)
        first = r.arm.states.newest()
        assert first is not None
        for _ in range(12):
            r.emulator.faults.corrupt_next(1)
            r.run(1)
        last = r.arm.states.newest()
        assert last is not None
        assert last["position"].tolist() == first["position"].tolist()
        assert sum(r.arm.statistics().values()) >= 10
        assert r.arm.states.published >= 11


def test_a_bus_that_loses_and_corrupts_at_random_still_delivers(tmp_path: Path) -> None:
    with rig(tmp_path, emulator={"seed": 3}, num_retry=6) as r:
        r.arm.open()
        r.emulator.faults.lose_fraction = 0.05
        r.emulator.faults.corrupt_fraction = 0.05
        r.run(60)
        assert r.arm.states.published == 60
        assert sum(r.arm.statistics().values()) > 10


def test_junk_on_the_line_never_becomes_a_position(tmp_path: Path) -> None:
    chance = random.Random(11)
    with rig(tmp_path, give_up_s=10) as r:
        r.arm.open()
        r.run(1)
        first = r.arm.states.newest()
        assert first is not None
        for _ in range(40):
            junk = chance.choices([0xFF, 1, 2, 6, 8, 0, 200], k=chance.randrange(1, 30))
            r.emulator._held_back = bytes(junk)
            r.run(1)
            state = r.arm.states.newest()
            assert state is not None
            assert state["position"].tolist() == first["position"].tolist()
        assert r.arm.states.published >= 30


def test_a_babbling_line_ends_the_transaction(tmp_path: Path) -> None:
    with rig(tmp_path) as r:
        r.arm.open()
        r.run(1)
        r.emulator._held_back = b"\x00" * 3000
        r.run(2)
        assert r.arm.states.published >= 2


def test_a_late_packet_is_not_taken_for_a_fresh_one(tmp_path: Path) -> None:
    with rig(tmp_path, start={"shoulder_pan": 1500}) as r:
        r.arm.open()
        r.run(1)
        r.emulator.faults.delay_next(1)
        r.run(1)
        r.bank.place(1, encoder("shoulder_pan", 2500))
        r.bank.override(1, position=encoder("shoulder_pan", 2500))
        r.run(1)
        state = r.arm.states.newest()
        assert state is not None
        assert state["position"][0] == pytest.approx(500 * 2 * np.pi / 4096)
        assert r.arm.states.published == 3


def test_a_silent_servo_costs_one_timeout_a_cycle_and_then_fails_by_name(tmp_path: Path) -> None:
    with rig(tmp_path, give_up_s=0.05) as r:
        r.arm.open()
        r.run(3)
        good_ns = r.arm.states.newest_stamp_ns()
        before = r.emulator.instructions
        r.emulator.faults.silent.add(3)
        with pytest.raises(DeviceError) as caught:
            r.run(100)
        error = caught.value
        assert (error.kind, error.last_good_ns) == ("no_reply", good_ns)
        assert "silent: elbow_flex" in error.detail
        assert r.clock.now_ns() == (good_ns or 0) + 50 * MS
        # Five cycles: three attempts in the first, one in each that followed.
        assert r.emulator.instructions - before == 3 + 4
        assert r.arm.statistics() == {"elbow_flex.no_reply": 7}
        assert r.arm.states.published == 3


def test_a_slow_emulator_is_not_taken_for_a_silent_servo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    glances = 0

    def glance(port: BusPort, timeout_s: float) -> bool:
        nonlocal glances
        glances += 1
        if glances == 20:
            r.emulator._lock.release()
        return select(port, timeout_s)

    select = BusPort._select
    with rig(tmp_path) as r:
        r.arm.open()
        r.run(1)
        r.emulator._lock.acquire()
        monkeypatch.setattr(BusPort, "_select", glance)
        r.run(1)
        assert glances >= 20
        assert (r.arm.states.published, r.arm.statistics()) == (2, {})


def test_the_others_obey_while_one_is_silent(tmp_path: Path) -> None:
    with rig(tmp_path) as r:
        r.arm.open()
        r.run(1)
        r.emulator.faults.silent.add(1)
        r.run(1)
        r.arm.targets.post(r.clock.now_ns(), position=np.zeros(6))
        r.run(1)
        assert r.bank.motion(2)[1] == encoder("shoulder_lift", 2000)


def test_a_servo_that_is_back_is_back(tmp_path: Path) -> None:
    with rig(tmp_path) as r:
        r.arm.open()
        r.emulator.faults.silent.add(3)
        r.run(2)
        r.emulator.faults.clear()
        r.run(2)
        assert r.arm.states.published == 2


def test_unplugged_and_back(tmp_path: Path) -> None:
    with rig(tmp_path, start={"shoulder_pan": 2000}) as r:
        r.arm.open()
        r.run(2)
        r.emulator.unplug()
        with pytest.raises(DeviceError) as caught:
            r.run(1)
        assert caught.value.kind == "gone"
        r.arm.close()
        with pytest.raises(DeviceError) as caught:
            r.arm.open()
        assert caught.value.kind == "not_found"
        # A target from before the gap must not be obeyed after it.
        r.arm.targets.post(r.clock.now_ns(), position=np.full(6, 0.5))
        r.emulator.plug()
        r.arm.open()
        r.run(5)
        assert r.arm.states.published == 6
        assert r.arm.sent.published == 0
        assert r.bank.motion(1) == (encoder("shoulder_pan", 2000), encoder("shoulder_pan", 2000), True)


def test_found_again_by_the_adapters_serial_number(tmp_path: Path) -> None:
    ports: list[SimpleNamespace] = []
    with rig(tmp_path, lister=lambda: ports) as r:
        ports.append(SimpleNamespace(device=r.emulator.port, serial_number="58FA"))
        r.arm.open()
        r.run(1)
        r.emulator.unplug()
        with pytest.raises(DeviceError):
            r.run(1)
        # It comes back as another device, and something else has taken its old name.
        other = FeetechEmulator(r.bank, tmp_path / "ttyACM1", registers=shipped())
        try:
            (tmp_path / "arm").touch()
            ports[:] = [SimpleNamespace(device=other.port, serial_number="58FA")]
            r.arm.open()
            r.run(2)
            assert r.arm.states.published == 3
        finally:
            r.arm.close()
            other.close()


def test_a_power_cut_makes_no_jump(tmp_path: Path) -> None:
    with rig(tmp_path, start={"shoulder_lift": 2000}) as r:
        r.arm.open()
        r.run(1)
        r.emulator.power_cycle()
        r.bank.place(2, encoder("shoulder_lift", 1200))  # it fell
        r.arm.open()
        r.run(5)
        assert r.bank.motion(2) == (encoder("shoulder_lift", 1200), encoder("shoulder_lift", 1200), True)


def test_a_servo_that_cut_its_torque_is_named_and_is_not_sent_back_in_a_jump(tmp_path: Path) -> None:
    with rig(tmp_path, start={"shoulder_lift": 2000}) as r:
        r.arm.open()
        r.run(3)
        good_ns = r.arm.states.newest_stamp_ns()
        r.emulator.overload(2)
        r.bank.place(2, encoder("shoulder_lift", 1200))  # it fell
        with pytest.raises(DeviceError) as caught:
            r.run(3)  # the alarm is seen at the first, and looked into at once
        error = caught.value
        assert (error.kind, error.last_good_ns) == ("torque_lost", (good_ns or 0) + 10 * MS)
        assert error.detail == "torque is off, though nobody switched it off: shoulder_lift"
        assert r.arm.statistics() == {"shoulder_lift.alarm_overload": 1}
        assert not r.bank.motion(2)[2]
        r.arm.open()
        r.run(150)
        here = encoder("shoulder_lift", 1200)
        assert r.bank.motion(2) == (here, here, True)


def test_a_brownout_without_an_alarm_is_seen_with_the_next_health(tmp_path: Path) -> None:
    with rig(tmp_path, health_period_s=0.05) as r:
        r.arm.open()
        r.run(2)
        r.emulator.power_cycle()
        with pytest.raises(DeviceError, match=f"P_Coefficient 32 instead of 16.*: {', '.join(NAMES)}"):
            r.run(5)
        assert r.arm.states.published == 5
        with pytest.raises(DeviceError, match="lost power for a moment"):
            r.run(1)  # as long as it lasts, whoever polls on


def test_a_leader_that_restarted_is_noticed_too(tmp_path: Path) -> None:
    with rig(tmp_path, role="leader", health_period_s=0.02) as r:
        r.arm.open()
        r.run(5)
        r.emulator.restart(3)
        with pytest.raises(DeviceError, match=r"Torque_Limit 1000 instead of 999\): elbow_flex$"):
            r.run(3)
        r.arm.open()
        r.run(5)
        assert not any(r.bank.motion(i)[2] for i in range(1, 7))


def test_a_servo_that_let_go_gets_no_goal_which_would_switch_it_on(tmp_path: Path) -> None:
    with rig(tmp_path, start=dict.fromkeys(NAMES[:4], 2000)) as r:
        r.arm.open()
        r.run(1)
        r.emulator.servos[2].write(reg.TORQUE_ENABLE.address, b"\0")
        r.bank.place(2, encoder("shoulder_lift", 1200))  # it fell
        r.arm.targets.post(r.clock.now_ns(), position=np.full(6, 0.5))
        with pytest.raises(DeviceError) as caught:
            r.arm.poll()
        assert caught.value.kind == "torque_lost"
        assert caught.value.detail.endswith(": shoulder_lift")
        assert r.arm.sent.published == 0
        assert not r.bank.motion(2)[2]


def test_a_lost_packet_costs_no_goal(tmp_path: Path) -> None:
    with rig(tmp_path, start=dict.fromkeys(NAMES[:4], 2000)) as r:
        r.arm.open()
        r.run(1)
        r.emulator.faults.lose_next(3)
        r.arm.targets.post(r.clock.now_ns(), position=np.zeros(6))
        r.arm.poll()
        sent = r.arm.sent.newest()
        assert sent is not None
        assert np.isfinite(sent["position"]).all()
        assert r.bank.motion(1)[1] == encoder("shoulder_pan", 2000)


def test_a_goal_whose_packet_was_lost_is_what_the_next_one_is_said_to_start_from(tmp_path: Path) -> None:
    with rig(tmp_path, start=dict.fromkeys(NAMES[:4], 2000)) as r:
        r.arm.open()
        r.run(1)
        seen, held = [], 0
        for tick in range(5):
            r.arm.targets.post(r.clock.now_ns(), position=np.full(6, 0.05 * tick))
            r.run(1)
            sample = r.arm.sent.newest()
            assert sample is not None
            seen.append((sample["position"][0], sample["position"][1]))
            if tick == 2:  # shoulder_pan did not get it
                r.emulator.servos[1].write(reg.GOAL_POSITION.address, reg.GOAL_POSITION.encode(held))
            held = r.emulator.servos[1].get(reg.GOAL_POSITION)
        assert [pan for pan, _ in seen] == pytest.approx([0, 0.05, 0.1, 0.05, 0.2], abs=2e-3)
        assert [lift for _, lift in seen] == pytest.approx([0, 0.05, 0.1, 0.15, 0.2], abs=2e-3)
        assert r.arm.statistics() == {"shoulder_pan.lost_goal": 1}


def test_goals_that_stream_hide_no_restart(tmp_path: Path) -> None:
    with rig(tmp_path, start=dict.fromkeys(NAMES[:4], 2000)) as r:
        r.arm.open()
        r.run(1)
        r.emulator.restart(4, 6)
        r.arm.targets.post(r.clock.now_ns(), position=np.zeros(6))
        with pytest.raises(DeviceError) as caught:
            r.arm.poll()
        assert caught.value.kind == "restarted"
        assert caught.value.detail.endswith(": wrist_flex, gripper")
        assert r.arm.sent.published == 0


@pytest.mark.parametrize("restarted", [1, 6])
def test_a_restart_shows_even_if_torque_is_on_again_and_all_gains_are_the_servos_own(
    tmp_path: Path, restarted: int
) -> None:
    own: dict[str, Any] = {"p_gain": 32, "acceleration_100ticks_s2": 0}
    limits = {"joint_torque_limit_fraction": {"gripper": 1.0}}
    with rig(tmp_path, health_period_s=0.05, **own, **limits) as r:
        r.arm.open()
        r.run(2)
        r.emulator.restart(restarted)
        servo = r.emulator.servos[restarted]
        servo.write(reg.GOAL_POSITION.address, reg.GOAL_POSITION.encode(2500))
        assert servo.get(reg.TORQUE_ENABLE) == 1
        with pytest.raises(DeviceError, match=r"restarted: .*Torque_Limit 1000 instead of 999"):
            r.run(6)
        r.arm.open()
        assert servo.get(reg.TORQUE_LIMIT) == 999


def test_a_servo_that_was_silent_is_looked_at_once_it_is_back(tmp_path: Path) -> None:
    with rig(tmp_path, health_period_s=100) as r:
        r.arm.open()
        r.run(2)
        r.emulator.faults.silent.add(3)
        r.run(2)
        r.emulator.faults.clear()
        r.emulator.restart(3)
        with pytest.raises(DeviceError, match=r"restarted: .*: elbow_flex"):
            r.run(3)


def test_an_alarm_is_told_when_it_comes_and_when_it_goes_and_fills_no_log(tmp_path: Path) -> None:
    said: list[str] = []
    sink = logger.add(said.append, format="{level} {message}")
    try:
        with rig(tmp_path) as r:
            r.arm.open()
            r.run(1)
            for _ in range(9):
                r.emulator.servos[6].alarms = 32
                r.run(1)
                r.emulator.servos[6].alarms = 0
                r.run(1)
            assert r.arm.statistics() == {"gripper.alarm_overload": 9}
    finally:
        logger.remove(sink)
    raised = [line.strip() for line in said if "raises" in line]
    assert raised[0] == "WARNING arm: gripper (servo 6) raises its overload alarm (time 1)"
    assert [line[-2] for line in raised] == ["1", "2", "4", "8"]
    assert sum("gripper (servo 6): no overload alarm any more" in line for line in said) == 4


def test_firmware_that_takes_no_write_while_locked_is_written_for_good_and_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    sink = logger.add(said.append, format="{message}")
    with rig(tmp_path) as r:
        servo = r.emulator.servos[3]
        write = servo.write

        def refuse(start: int, data: bytes) -> None:
            if start >= 40 or servo.get(reg.LOCK) == 0:
                write(start, data)

        monkeypatch.setattr(servo, "write", refuse)
        try:
            r.arm.open()
        finally:
            logger.remove(sink)
        assert servo.get(reg.P_COEFFICIENT) == 16
        assert servo.get(reg.LOCK) == 1
        r.run(2)
    told = [line.strip() for line in said if "EEPROM" in line]
    assert told == ["arm: EEPROM of elbow_flex (servo 3): P_Coefficient 32 -> 16"]


def test_a_register_that_keeps_another_value_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with rig(tmp_path) as r:
        servo = r.emulator.servos[6]
        write = servo.write
        monkeypatch.setattr(servo, "write", lambda at, data: write(at, data) if at != 48 else None)
        with pytest.raises(DeviceError, match="refused: gripper: Torque_Limit is 1000 after 500 was written"):
            r.arm.open()


def test_a_port_that_is_not_there(tmp_path: Path) -> None:
    ports = [SimpleNamespace(device="/dev/ttyACM7", serial_number="X1")]
    port = str(tmp_path / "none")
    with rig(tmp_path, port=port, lister=lambda: ports) as r, pytest.raises(DeviceError) as caught:
        r.arm.open()
    text = str(caught.value)
    assert text == f"arm at {tmp_path}/none: not_found: no such port; ports that are there: /dev/ttyACM7 (X1)"


def test_a_serial_number_that_is_not_there(tmp_path: Path) -> None:
    said = "arm at ABC: not_found: no serial port has this serial number"
    with rig(tmp_path, serial_number="ABC") as r, pytest.raises(DeviceError, match=said):
        r.arm.open()


def test_a_port_that_is_in_use(tmp_path: Path) -> None:
    with rig(tmp_path) as r:
        with serial.Serial(r.emulator.port, 1_000_000, exclusive=True):
            with pytest.raises(DeviceError) as caught:
                r.arm.open()
            assert caught.value.kind == "in_use"
        r.arm.open()


def test_a_path_that_is_no_serial_port(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("hello")
    with rig(tmp_path, port=str(tmp_path / "file")) as r, pytest.raises(DeviceError) as caught:
        r.arm.open()
    assert caught.value.kind == "cannot_open"
    assert "\n" not in str(caught.value)


def test_a_missing_servo_is_named(tmp_path: Path) -> None:
    with rig(tmp_path) as r:
        r.emulator.faults.silent.add(4)
        with pytest.raises(DeviceError) as caught:
            r.arm.open()
        assert caught.value.kind == "no_reply"
        assert caught.value.detail == "no answer from servo 4 (wrist_flex); answering: 1, 2, 3, 5, 6"
        assert not any(r.bank.motion(i)[2] for i in range(1, 7))


def test_an_unpowered_arm_is_guessed(tmp_path: Path) -> None:
    with rig(tmp_path, num_retry=0) as r:
        r.emulator.faults.silent.update(range(1, 7))
        with pytest.raises(
            DeviceError, match=r"answering: none \(is the arm powered, .* its speed 1000000 bit/s\?\)"
        ):
            r.arm.open()


def test_the_wrong_baud_rate_is_not_understood(tmp_path: Path) -> None:
    with rig(tmp_path, num_retry=0, baudrate=115_200) as r:
        with pytest.raises(DeviceError) as caught:
            r.arm.open()
        assert caught.value.kind == "no_reply"


def test_a_servo_of_another_model_is_refused(tmp_path: Path) -> None:
    registers = shipped()
    registers[2][reg.MODEL_NUMBER] = 1284
    with rig(tmp_path, registers=registers) as r:
        with pytest.raises(DeviceError) as caught:
            r.arm.open()
        assert caught.value.kind == "wrong_model"
        assert "servo 2 (shoulder_lift) says 1284" in caught.value.detail


def test_another_arms_calibration_is_refused_and_nothing_moves(tmp_path: Path) -> None:
    registers = shipped()
    registers[2][reg.HOMING_OFFSET] = 5
    with rig(tmp_path, registers=registers) as r:
        with pytest.raises(DeviceError) as caught:
            r.arm.open()
        assert caught.value.kind == "wrong_calibration"
        assert "shoulder_lift: Homing_Offset is 5 in the servo and homing_offset is -200 in the file" in str(
            caught.value
        )
        assert not any(r.bank.motion(i)[2] for i in range(1, 7))


def test_a_calibration_is_written_when_asked_and_kept_without_power(tmp_path: Path) -> None:
    said: list[str] = []
    with rig(tmp_path, registers={i: {} for i in range(1, 7)}, write_calibration=True) as r:
        sink = logger.add(said.append, format="{message}")
        r.arm.open()
        logger.remove(sink)
        r.arm.close()
        r.emulator.power_cycle()
        for name in NAMES:
            joint = CALIBRATION[name]
            servo = r.emulator.servos[joint.id]
            assert servo.get(reg.HOMING_OFFSET) == joint.homing_offset
            assert servo.get(reg.MIN_POSITION_LIMIT) == joint.range_min
            assert servo.get(reg.P_COEFFICIENT) == 32
    told = [line for line in said if "EEPROM" in line]
    assert len(told) == 14  # two offsets are 0 already, and wrist_roll's limits are as shipped
    assert told[0].strip() == "arm: EEPROM of shoulder_pan (servo 1): Homing_Offset 0 -> 100"


def test_a_calibration_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    with rig(tmp_path, registers={i: {} for i in range(1, 7)}, write_calibration=True) as r:
        r.emulator.servos[6].write(reg.TORQUE_ENABLE.address, b"\1")
        with pytest.raises(DeviceError, match="gripper: torque is on"):
            r.arm.open()
        assert [servo.get(reg.HOMING_OFFSET) for servo in r.emulator.servos.values()] == [0] * 6


def test_a_calibration_is_not_written_under_torque(tmp_path: Path) -> None:
    with rig(tmp_path, registers={i: {} for i in range(1, 7)}, write_calibration=True) as r:
        r.emulator.servos[1].write(reg.TORQUE_ENABLE.address, b"\1")
        with pytest.raises(DeviceError, match="shoulder_pan: torque is on"):
            r.arm.open()


def test_closing_an_arm_that_is_gone_is_quiet(tmp_path: Path) -> None:
    with rig(tmp_path) as r:
        r.arm.open()
        r.run(1)
        r.emulator.unplug()
        r.arm.close()
        r.arm.close()
        with pytest.raises(DeviceError, match="not open"):
            r.arm.poll()
