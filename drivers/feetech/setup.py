"""What is written to the servos before and after a session, so that nothing moves by itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from loguru import logger

from drivers.feetech import registers as reg
from drivers.feetech.alarms import AlarmLog
from drivers.feetech.bus import FeetechBus
from drivers.feetech.calibration import Calibration, JointCalibration, JointMap
from drivers.feetech.eeprom import EepromWrite, write_all
from drivers.feetech.options import FeetechOptions
from drivers.feetech.port import BusPort
from drivers.feetech.witness import HeldRegisters, mark
from drivers.serial_port import find_port
from runtime.clock import NS_PER_S, Clock
from runtime.messages import DeviceError, FaultKind

HOLD_TOLERANCE_TICKS = 60
"""A goal no further away than this (5 degrees) is reached in an instant, and needs no stopping."""
STANDING_TICKS_PER_S = 40
_HOLD_STEP_TICKS, _HOLD_STEP_NS, _HOLD_STEPS = 50, NS_PER_S // 30, 15
"""A goal is drawn back by 4 degrees at a time, at 2.3 rad/s."""

_CALIBRATED = (
    (reg.HOMING_OFFSET, "homing_offset"),
    (reg.MIN_POSITION_LIMIT, "range_min"),
    (reg.MAX_POSITION_LIMIT, "range_max"),
)


def connect(
    device: str,
    config: FeetechOptions,
    names: Mapping[int, str],
    clock: Clock,
    *,
    path: str = "",
    alarms: AlarmLog | None = None,
) -> FeetechBus:
    """Find and open the port of `config`; nothing is said to the servos yet.

    `names` are the joints by servo id; `path` is the port to open where it is known which one.

    Raises:
        DeviceError: ``not_found``, ``in_use``, ``no_permission``, ``cannot_open``.
    """
    path = path or find_port(device, config.port, config.serial_number)
    # On a stepped clock this is wall time, during which simulated time stands still.
    timeout_s = config.lockstep_timeout_s if clock.stepped else config.packet_timeout_s
    port = BusPort(device, path, config.baudrate, timeout_s, emulated=clock.stepped)
    return FeetechBus(device, names, port, config.num_retry, alarms)


def check_calibration(
    bus: FeetechBus, joints: JointMap, may_write: bool, others: Mapping[str, Calibration] | None = None
) -> None:
    """See that the servos hold the calibration of the file, or make them: all of it or nothing.

    `others` are the files of the other arms, by what they are called: values of theirs are never overwritten.

    Raises:
        DeviceError: ``wrong_calibration``; what `drivers.feetech.eeprom.write_all` raises.
    """
    held = {
        name: {key: bus.read(servo_id, register) for register, key in _CALIBRATED}
        for name, servo_id in zip(joints.names, joints.ids, strict=True)
    }
    writes = [
        EepromWrite(joint.id, register, held[name][key], int(getattr(joint, key)))
        for name, joint in joints.calibration.items()
        for register, key in _CALIBRATED
        if held[name][key] != int(getattr(joint, key))
    ]
    if not writes:
        return
    if detail := _whose(held, joints.calibration, others or {}) or _why_not(bus, writes, may_write):
        raise DeviceError(bus.device, FaultKind.WRONG_CALIBRATION, bus.where, detail)
    write_all(bus, writes)


def _why_not(bus: FeetechBus, writes: Sequence[EepromWrite], may_write: bool) -> str:
    """Why the servos are not made to hold what the file has, in words; empty if nothing speaks against it."""
    if not may_write:
        first = writes[0]
        key = next(key for register, key in _CALIBRATED if register == first.register)
        return (
            f"{bus.name(first.servo_id)}: {first.register.name} is {first.old} in the servo and {key} is "
            f"{first.new} in the file; use the file of this arm, or write_calibration = true"
        )
    for servo_id in dict.fromkeys(write.servo_id for write in writes):
        if bus.read(servo_id, reg.TORQUE_ENABLE):
            return f"{bus.name(servo_id)}: torque is on; calibration is only written while it is off"
    return ""


def _whose(
    held: Mapping[str, Mapping[str, int]],
    own: Mapping[str, JointCalibration],
    others: Mapping[str, Calibration],
) -> str:
    """That the servos hold the values of another arm's file, in words; empty if they hold none's."""

    def same(file: Mapping[str, JointCalibration]) -> int:
        return sum(
            value == getattr(file[name], key)
            for name, values in held.items()
            if name in file
            for key, value in values.items()
        )

    for other, file in others.items():
        if same(file) > same(own) and 2 * same(file) >= len(held) * len(_CALIBRATED):
            return f"the servos hold the values of {other}, not of this arm's file: are the ports swapped?"
    return ""


def configure(bus: FeetechBus, joints: JointMap, config: FeetechOptions) -> HeldRegisters:
    """Set gains, limits and acceleration (not kept without power), then torque, without a jump.

    A servo with torque on keeps its goal: it holds already. One with torque off would run to whatever goal
    its register still has the moment torque comes on, so the goal is set to where it is first.

    Raises:
        DeviceError: ``refused``: a servo does not keep what was written.
    """
    for name, servo_id in zip(joints.names, joints.ids, strict=True):
        limit = config.joint_torque_limit_fraction.get(name, config.torque_limit_fraction)
        # Left open by other programs, the EEPROM would have what follows burnt in at every start.
        _set(bus, servo_id, reg.LOCK, 1)
        _set(bus, servo_id, reg.RETURN_DELAY_TIME, 0, wish=True)
        _set(bus, servo_id, reg.OPERATING_MODE, 0)  # first: a new mode resets the acceleration
        _set(bus, servo_id, reg.P_COEFFICIENT, config.p_gain)
        _set(bus, servo_id, reg.I_COEFFICIENT, config.i_gain)
        _set(bus, servo_id, reg.D_COEFFICIENT, config.d_gain)
        _accelerate(bus, servo_id, config.acceleration_100ticks_s2)
        _set(bus, servo_id, reg.TORQUE_LIMIT, mark(bus, servo_id, round(limit / reg.LOAD_FRACTION)))
        if not bus.read(servo_id, reg.TORQUE_ENABLE):
            bus.write(servo_id, reg.GOAL_POSITION, bus.read(servo_id, reg.PRESENT_POSITION))
            bus.write(servo_id, reg.TORQUE_ENABLE, 1)
    return HeldRegisters.take(bus, joints.ids)


def release(bus: FeetechBus, ids: Sequence[int]) -> HeldRegisters:
    """Let go of a leader, and mark its servos so that a restart shows."""
    for servo_id in ids:
        bus.write(servo_id, reg.TORQUE_ENABLE, 0)
        _set(bus, servo_id, reg.LOCK, 1)
        _set(bus, servo_id, reg.RETURN_DELAY_TIME, 0, wish=True)  # as shipped, each answer is 0.5 ms late
        most = bus.read(servo_id, reg.MAX_TORQUE_LIMIT)
        _set(bus, servo_id, reg.TORQUE_LIMIT, mark(bus, servo_id, most))
    return HeldRegisters.take(bus, ids)


def _accelerate(bus: FeetechBus, servo_id: int, value: int) -> None:
    most = bus.read(servo_id, reg.MAXIMUM_ACCELERATION)
    if 0 < most < value:
        _set(bus, servo_id, reg.MAXIMUM_ACCELERATION, value, wish=True)
    _set(bus, servo_id, reg.ACCELERATION, value, wish=True)


def _set(bus: FeetechBus, servo_id: int, register: reg.Register, value: int, *, wish: bool = False) -> None:
    """Let `register` hold `value`, until the next restart if that is possible.

    The maker's table has it that an EEPROM address takes writes while locked, without keeping them. Firmware
    that takes none is written for good, but for a mere `wish`.
    """
    if bus.read(servo_id, register) == value:
        return
    bus.write(servo_id, register, value)
    held = bus.read(servo_id, register)
    if held == value:
        return
    if wish:
        words = "{}: {} keeps {} {}, though {} was written"
        logger.debug(words, bus.device, bus.name(servo_id), register.name, held, value)
    elif any(register.address in area for area in reg.EEPROM):
        write_all(bus, [EepromWrite(servo_id, register, held, value)])
    else:
        detail = f"{bus.name(servo_id)}: {register.name} is {held} after {value} was written"
        raise DeviceError(bus.device, FaultKind.REFUSED, bus.where, detail, bus.last_good_ns)


def hold_here(bus: FeetechBus, ids: Sequence[int], clock: Clock) -> None:
    """Stop servos that are still on their way, a step of the goal at a time, until each is near its goal.

    Set to where the servo was when it was asked, a goal could lie far behind it by the time it is written: on
    a busy machine it would jump back. Servos that stand still keep their goal: a joint would sag further, and
    a gripper drop what it holds. Those without torque get none: it would switch them on, with whatever gains
    and limits they have.
    """
    for _ in range(_HOLD_STEPS):
        nearer = _nearer_goals(bus, ids)
        if not nearer:
            return
        bus.sync_write(reg.GOAL_POSITION, nearer)
        clock.wait_until_ns(clock.now_ns() + _HOLD_STEP_NS)


def _nearer_goals(bus: FeetechBus, ids: Sequence[int]) -> dict[int, int]:
    """Of servos on their way to a goal that is far, one that is a step nearer."""
    present = bus.sync_read(ids, *reg.STATE_BLOCK)
    block = reg.TORQUE_ENABLE.address, reg.GOAL_POSITION.end - reg.TORQUE_ENABLE.address
    answers = bus.sync_read(ids, *block).items()
    goals = {servo_id: data[reg.GOAL_POSITION.address - block[0] :] for servo_id, data in answers if data[0]}
    at = reg.PRESENT_VELOCITY.address - reg.STATE_BLOCK[0]
    nearer = {}
    for servo_id in present.keys() & goals.keys():
        here, goal = reg.PRESENT_POSITION.decode(present[servo_id]), reg.GOAL_POSITION.decode(goals[servo_id])
        moves = abs(reg.PRESENT_VELOCITY.decode(present[servo_id][at:])) > STANDING_TICKS_PER_S
        if moves and abs(goal - here) > HOLD_TOLERANCE_TICKS:
            nearer[servo_id] = goal + min(max(here - goal, -_HOLD_STEP_TICKS), _HOLD_STEP_TICKS)
    return nearer
