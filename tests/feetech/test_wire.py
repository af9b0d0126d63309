"""The emulated bus: packets and registers, also as the SDK's own port handler sees them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
import scservo_sdk as scs
from hypothesis import given
from hypothesis import strategies as st

from drivers.feetech import registers as reg
from drivers.feetech.emulator import (
    FeetechEmulator,
    Instruction,
    checksum,
    status_packet,
    take_instructions,
)
from drivers.feetech.servo import SimpleServoBank
from runtime.clock import RealClock
from runtime.stepped import SteppedClock

instructions = st.builds(Instruction, st.integers(0, 0xFE), st.integers(0, 255), st.binary(max_size=60))


def packet(instruction: Instruction) -> bytes:
    body = bytes([instruction.servo_id, len(instruction.parameters) + 2, instruction.code])
    body += instruction.parameters
    return b"\xff\xff" + body + bytes([checksum(body)])


@given(st.lists(instructions, max_size=6), st.lists(st.integers(0, 400), max_size=8))
def test_instructions_are_found_however_they_are_cut(sent: list[Instruction], at: list[int]) -> None:
    data = b"".join(map(packet, sent))
    edges = [0, *sorted(min(a, len(data)) for a in at), len(data)]
    buffer = bytearray()
    found: list[Instruction] = []
    for a, b in pairwise(edges):
        buffer += data[a:b]
        found += take_instructions(buffer)
    assert found == sent


@given(st.binary(max_size=300))
def test_any_bytes_are_survived(data: bytes) -> None:
    buffer = bytearray(data)
    for instruction in take_instructions(buffer):
        assert packet(instruction) in data
    assert len(buffer) <= 260


def test_a_packet_behind_junk_is_found() -> None:
    good = Instruction(3, 1, b"")
    broken = bytearray(packet(Instruction(1, 2, b"\x38\x06")))
    broken[5] ^= 1
    for junk in (b"\xff", b"\xff\xff\xff", b"abc", bytes(broken), b"\xff\xff\x01\x01\x00"):
        assert list(take_instructions(bytearray(junk + packet(good)))) == [good], junk


@given(st.sampled_from([r for r in vars(reg).values() if isinstance(r, reg.Register)]), st.data())
def test_registers_hold_what_they_are_given(register: reg.Register, data: st.DataObject) -> None:
    top = (1 << (register.sign_bit if register.sign_bit is not None else 8 * register.size)) - 1
    value = data.draw(st.integers(-top if register.sign_bit is not None else 0, top))
    assert len(register.encode(value)) == register.size
    assert register.decode(register.encode(value)) == value
    with pytest.raises(ValueError, match=f"{register.name} takes"):
        register.encode(top + 1)


def test_sign_magnitude_is_the_published_one() -> None:
    assert reg.PRESENT_LOAD.encode(-1) == b"\x01\x04"
    assert reg.HOMING_OFFSET.encode(-2047) == b"\xff\x0f"
    assert reg.PRESENT_VELOCITY.decode(b"\x05\x80") == -5


@pytest.fixture
def wire(tmp_path: Path) -> Iterator[tuple[FeetechEmulator, SimpleServoBank]]:
    bank = SimpleServoBank(SteppedClock(), {1: 2000, 2: 2100})
    emulator = FeetechEmulator(bank, tmp_path / "arm")
    yield emulator, bank
    emulator.close()


class PatientPort(scs.PortHandler):
    """The SDK waits by the wall clock, for some 40 ms; here a thousand times as long."""

    def getCurrentTime(self) -> float:  # noqa: N802 - the SDK's name
        return float(super().getCurrentTime()) / 1000


@pytest.fixture
def port(wire: tuple[FeetechEmulator, SimpleServoBank]) -> Iterator[scs.PortHandler]:
    handler = PatientPort(wire[0].port)
    assert handler.openPort()
    yield handler
    handler.closePort()


def test_the_sdk_itself_runs_unchanged_on_it(
    wire: tuple[FeetechEmulator, SimpleServoBank], port: scs.PortHandler
) -> None:
    bank = wire[1]
    packets = scs.PacketHandler(0)
    assert packets.ping(port, 1) == (777, 0, 0)
    assert packets.write1ByteTxRx(port, 1, reg.TORQUE_ENABLE.address, 1) == (0, 0)
    assert packets.regWriteTxRx(port, 1, reg.GOAL_POSITION.address, 2, [0xC4, 0x09]) == (0, 0)
    assert bank.motion(1)[1] == 2000
    assert packets.action(port, 1) == 0
    assert packets.ping(port, 2)[0] == 777
    assert bank.motion(1)[1] == 2500
    reader = scs.GroupSyncRead(port, packets, *reg.STATE_BLOCK)
    assert reader.addParam(1)
    assert reader.addParam(2)
    assert reader.txRxPacket() == scs.COMM_SUCCESS
    assert reader.getData(2, reg.PRESENT_POSITION.address, 2) == 2100
    writer = scs.GroupSyncWrite(port, packets, reg.GOAL_POSITION.address, 2)
    writer.addParam(1, [0, 4])
    writer.addParam(2, [0, 5])
    assert writer.txPacket() == scs.COMM_SUCCESS
    assert packets.ping(port, 1)[0] == 777
    assert [bank.motion(i)[1] for i in (1, 2)] == [1024, 1280]


class WireClock(RealClock):
    """Time goes by on the wire alone."""

    def __init__(self) -> None:
        super().__init__()
        self.ns = 0

    def now_ns(self) -> int:
        return self.ns

    def wait_until_ns(self, deadline_ns: int) -> None:
        self.ns = max(self.ns, deadline_ns)


class DatedBank(SimpleServoBank):
    """Notes when it was asked and told."""

    def __init__(self, clock: WireClock) -> None:
        super().__init__(clock, {1: 2000, 2: 2100})
        self.wire, self.dated = clock, list[tuple[str, int, int]]()

    def set_goal(self, servo_id: int, ticks: int) -> None:
        self.dated.append(("goal", servo_id, self.wire.ns))
        super().set_goal(servo_id, ticks)


def test_bytes_take_their_time_on_the_wire(tmp_path: Path) -> None:
    clock = WireClock()
    bank = DatedBank(clock)
    emulator = FeetechEmulator(bank, tmp_path / "arm", clock=clock)
    port = PatientPort(emulator.port)
    assert port.openPort()
    packets = scs.PacketHandler(0)
    us, late = 1000, 500_000  # Return_Delay_Time as shipped
    try:
        assert packets.read2ByteTxRx(port, 1, reg.PRESENT_POSITION.address)[:2] == (2000, 0)
        assert clock.ns == 80 * us + late + 80 * us
        packets.write1ByteTxRx(port, 1, reg.RETURN_DELAY_TIME.address, 0)
        began = clock.ns
        reader = scs.GroupSyncRead(port, packets, *reg.STATE_BLOCK)
        assert reader.addParam(1)
        assert reader.addParam(2)
        assert reader.txRxPacket() == scs.COMM_SUCCESS
        assert clock.ns - began == 100 * us + 120 * us + late + 120 * us
        began = clock.ns
        writer = scs.GroupSyncWrite(port, packets, reg.GOAL_POSITION.address, 2)
        writer.addParam(1, [0, 4])
        writer.addParam(2, [0, 5])
        writer.txPacket()
        assert packets.ping(port, 1)[0] == 777
        assert {(each, ns - began) for _, each, ns in bank.dated} == {(1, 140 * us), (2, 140 * us)}
        assert clock.ns - began == (140 + 60 + 60 + 80 + 80) * us  # the SDK's ping asks for the model, too
    finally:
        port.closePort()
        emulator.close()


def test_goals_are_kept_inside_the_servos_own_limits(
    wire: tuple[FeetechEmulator, SimpleServoBank], port: scs.PortHandler
) -> None:
    packets = scs.PacketHandler(0)
    packets.write2ByteTxRx(port, 1, reg.MAX_POSITION_LIMIT.address, 2200)
    packets.write2ByteTxRx(port, 1, reg.GOAL_POSITION.address, 4000)
    assert wire[1].motion(1)[1] == 2200


def test_an_id_can_be_changed_and_is_kept_only_when_unlocked(
    wire: tuple[FeetechEmulator, SimpleServoBank], port: scs.PortHandler
) -> None:
    packets = scs.PacketHandler(0)
    packets.write1ByteTxRx(port, 2, reg.ID.address, 9)
    assert packets.ping(port, 9)[0] == 777
    wire[0].power_cycle()
    assert packets.ping(port, 2)[0] == 777
    packets.write1ByteTxRx(port, 2, reg.LOCK.address, 0)
    packets.write1ByteTxRx(port, 2, reg.ID.address, 9)
    wire[0].power_cycle()
    assert packets.ping(port, 9)[0] == 777


def test_the_middle_can_be_set_by_the_servo(
    wire: tuple[FeetechEmulator, SimpleServoBank], port: scs.PortHandler
) -> None:
    packets = scs.PacketHandler(0)
    packets.write1ByteTxRx(port, 1, reg.TORQUE_ENABLE.address, reg.TORQUE_CALIBRATE_MIDDLE)
    assert packets.read2ByteTxRx(port, 1, reg.PRESENT_POSITION.address)[0] == 2048
    assert packets.read1ByteTxRx(port, 1, reg.TORQUE_ENABLE.address)[0] == 0


def test_what_is_read_only_stays(
    wire: tuple[FeetechEmulator, SimpleServoBank], port: scs.PortHandler
) -> None:
    packets = scs.PacketHandler(0)
    packets.write2ByteTxRx(port, 1, reg.MODEL_NUMBER.address, 5)
    packets.write2ByteTxRx(port, 1, reg.PRESENT_POSITION.address, 5)
    assert packets.ping(port, 1)[0] == 777
    assert packets.read2ByteTxRx(port, 1, reg.PRESENT_POSITION.address)[0] == 2000


def test_a_goal_turns_torque_on(wire: tuple[FeetechEmulator, SimpleServoBank], port: scs.PortHandler) -> None:
    packets = scs.PacketHandler(0)
    assert packets.read1ByteTxRx(port, 1, reg.TORQUE_ENABLE.address)[0] == 0
    for register in (reg.ACCELERATION, reg.TORQUE_LIMIT, reg.P_COEFFICIENT, reg.HOMING_OFFSET):
        packets.write1ByteTxRx(port, 1, register.address, 0)
        assert packets.read1ByteTxRx(port, 1, reg.TORQUE_ENABLE.address)[0] == 0
    packets.write2ByteTxRx(port, 1, reg.GOAL_POSITION.address, 2300)
    assert packets.read1ByteTxRx(port, 1, reg.TORQUE_ENABLE.address)[0] == 1
    assert wire[1].motion(1)[1:] == (2300, True)


def test_a_restart_undoes_what_is_not_in_the_eeprom(
    wire: tuple[FeetechEmulator, SimpleServoBank], port: scs.PortHandler
) -> None:
    packets = scs.PacketHandler(0)
    written = ((reg.P_COEFFICIENT, 16), (reg.MAXIMUM_ACCELERATION, 254), (reg.ACCELERATION, 254))
    for register, value in written:
        packets.write1ByteTxRx(port, 1, register.address, value)
        assert packets.read1ByteTxRx(port, 1, register.address)[0] == value
    packets.write2ByteTxRx(port, 1, reg.TORQUE_LIMIT.address, 500)
    packets.write2ByteTxRx(port, 1, reg.GOAL_POSITION.address, 2300)
    wire[0].restart(1)
    servo = wire[0].servos[1]
    registers = (*(register for register, _ in written), reg.TORQUE_LIMIT, reg.TORQUE_ENABLE, reg.LOCK)
    assert [servo.get(register) for register in registers] == [32, 100, 0, 1000, 0, 1]
    # Without a goal since then, torque holds the servo where it is.
    here = wire[1].motion(1)[0]
    packets.write1ByteTxRx(port, 1, reg.TORQUE_ENABLE.address, 1)
    assert wire[1].motion(1)[0] == here


def test_what_was_locked_is_not_saved_by_a_later_unlocked_write(
    wire: tuple[FeetechEmulator, SimpleServoBank], port: scs.PortHandler
) -> None:
    packets = scs.PacketHandler(0)
    packets.write1ByteTxRx(port, 1, reg.P_COEFFICIENT.address, 16)
    packets.write1ByteTxRx(port, 1, reg.LOCK.address, 0)
    packets.write1ByteTxRx(port, 1, reg.I_COEFFICIENT.address, 3)
    packets.write1ByteTxRx(port, 1, reg.MAXIMUM_ACCELERATION.address, 200)
    wire[0].power_cycle()
    servo = wire[0].servos[1]
    registers = (reg.P_COEFFICIENT, reg.I_COEFFICIENT, reg.MAXIMUM_ACCELERATION)
    assert [servo.get(register) for register in registers] == [32, 3, 200]


def test_a_new_mode_lets_go_and_no_acceleration_exceeds_its_maximum(
    wire: tuple[FeetechEmulator, SimpleServoBank], port: scs.PortHandler
) -> None:
    packets = scs.PacketHandler(0)
    packets.write1ByteTxRx(port, 1, reg.ACCELERATION.address, 254)
    assert packets.read1ByteTxRx(port, 1, reg.ACCELERATION.address)[0] == 100
    packets.write1ByteTxRx(port, 1, reg.TORQUE_ENABLE.address, 1)
    packets.write1ByteTxRx(port, 1, reg.OPERATING_MODE.address, 1)
    assert packets.read2ByteTxRx(port, 1, reg.TORQUE_ENABLE.address)[0] == 0  # and the acceleration


@pytest.mark.parametrize("speed", sorted(reg.BAUD_CODES))
def test_a_servo_speaks_at_the_speed_that_it_was_told(
    wire: tuple[FeetechEmulator, SimpleServoBank], port: scs.PortHandler, speed: int
) -> None:
    packets = scs.PacketHandler(0)
    packets.write1ByteTxRx(port, 1, reg.BAUD_RATE.address, reg.BAUD_CODES[speed])
    assert packets.ping(port, 2)[0] == 777
    port.ser.baudrate = speed
    assert packets.ping(port, 1)[0] == 777
    wire[0].power_cycle()
    port.ser.baudrate = 1_000_000
    assert packets.ping(port, 1)[0] == 777


def test_a_broadcast_ping_is_answered_by_all_and_a_quiet_servo_acknowledges_nothing(
    wire: tuple[FeetechEmulator, SimpleServoBank], port: scs.PortHandler
) -> None:
    port.ser.timeout = 30
    port.ser.write(packet(Instruction(reg.BROADCAST_ID, 1, b"")))
    assert port.ser.read(12) == status_packet(1, 0) + status_packet(2, 0)
    port.ser.write(packet(Instruction(1, 3, bytes([reg.RESPONSE_STATUS_LEVEL.address, 0]))))
    port.ser.write(packet(Instruction(1, 3, bytes([reg.ACCELERATION.address, 7]))))
    port.ser.write(packet(Instruction(1, 2, bytes([reg.ACCELERATION.address, 1]))))
    assert port.ser.read(7) == status_packet(1, 0, b"\x07")


def test_the_port_goes_and_comes_under_the_same_path(
    wire: tuple[FeetechEmulator, SimpleServoBank],
) -> None:
    emulator = wire[0]
    assert Path(emulator.port).is_symlink()
    emulator.unplug()
    emulator.unplug()
    assert not os.path.lexists(emulator.port)
    assert not emulator.plugged
    emulator.plug()
    emulator.plug()
    assert os.path.exists(emulator.port)
    emulator.close()
    emulator.close()
    assert not os.path.lexists(emulator.port)
