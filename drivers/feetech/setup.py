"""What is written to the servos before and after a session, so that nothing moves by itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from drivers.feetech import registers as reg
from drivers.feetech.bus import FeetechBus
from drivers.feetech.calibration import JointMap
from drivers.feetech.options import FeetechOptions
from drivers.feetech.port import BusPort
from drivers.serial_port import Lister, find_port, list_ports
from runtime.clock import Clock
from runtime.messages import DeviceError, FaultKind

HOLD_TOLERANCE_TICKS = 60
"""A goal no further away than this (5 degrees) is reached in an instant, and needs no stopping."""
STANDING_TICKS_PER_S = 40

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
    serial_number: str = "",
    lister: Lister = list_ports,
) -> FeetechBus:
    """Find and open the port of `config`; nothing is said to the servos yet.

    `names` are the joints by servo id; `serial_number` is what is known of the adapter beyond `config`.

    Raises:
        DeviceError: ``not_found``, ``in_use``, ``no_permission``, ``cannot_open``.
    """
    path = find_port(device, config.port, config.serial_number or serial_number, lister)
    # On a stepped clock this is wall time, during which simulated time stands still.
    timeout_s = config.lockstep_timeout_s if clock.stepped else config.packet_timeout_s
    port = BusPort(device, path, config.baudrate, timeout_s, emulated=clock.stepped)
    return FeetechBus(device, names, port, config.num_retry)


def check_calibration(bus: FeetechBus, joints: JointMap, may_write: bool) -> None:
    """See that the servos hold the calibration of the file, or make them.

    Raises:
        DeviceError: ``wrong_calibration``.
    """
    for name, servo_id in zip(joints.names, joints.ids, strict=True):
        for register, key in _CALIBRATED:
            wanted = int(getattr(joints.calibration[name], key))
            held = bus.read(servo_id, register)
            if held == wanted:
                continue
            if not may_write:
                detail = (
                    f"{name}: {register.name} is {held} in the servo and {key} is {wanted} in the file; "
                    "use the file of this arm, or write_calibration = true"
                )
                raise DeviceError(bus.device, FaultKind.WRONG_CALIBRATION, bus.where, detail)
            if bus.read(servo_id, reg.TORQUE_ENABLE):
                detail = f"{name}: torque is on; calibration is only written while it is off"
                raise DeviceError(bus.device, FaultKind.WRONG_CALIBRATION, bus.where, detail)
            write_eeprom(bus, servo_id, register, wanted)


def write_eeprom(bus: FeetechBus, servo_id: int, register: reg.Register, value: int) -> None:
    """Set a register so that it is kept without power."""
    bus.write(servo_id, reg.LOCK, 0)
    bus.write(servo_id, register, value)
    bus.write(servo_id, reg.LOCK, 1)


def configure(bus: FeetechBus, joints: JointMap, config: FeetechOptions) -> None:
    """Set gains, limits and acceleration (not kept without power), then torque, without a jump.

    A servo with torque on keeps its goal: it holds already. One with torque off would run to whatever goal
    its register still has the moment torque comes on, so the goal is set to where it is first.
    """
    for name, servo_id in zip(joints.names, joints.ids, strict=True):
        limit = config.joint_torque_limit_fraction.get(name, config.torque_limit_fraction)
        for register, value in (
            (reg.LOCK, 1),  # left open by other programs; what follows would be burnt in at every start
            (reg.RETURN_DELAY_TIME, 0),
            (reg.OPERATING_MODE, 0),
            (reg.P_COEFFICIENT, config.p_gain),
            (reg.I_COEFFICIENT, config.i_gain),
            (reg.D_COEFFICIENT, config.d_gain),
            (reg.ACCELERATION, config.acceleration_100ticks_s2),
            (reg.TORQUE_LIMIT, round(limit / reg.LOAD_FRACTION)),
        ):
            if bus.read(servo_id, register) != value:
                bus.write(servo_id, register, value)
        if not bus.read(servo_id, reg.TORQUE_ENABLE):
            bus.write(servo_id, reg.GOAL_POSITION, bus.read(servo_id, reg.PRESENT_POSITION))
            bus.write(servo_id, reg.TORQUE_ENABLE, 1)


def hold_here(bus: FeetechBus, ids: Sequence[int]) -> None:
    """Stop servos that are still on their way.

    Those that stand still keep their goal: a joint would sag further, and a gripper drop what it holds.
    """
    present = bus.sync_read(ids, *reg.STATE_BLOCK)
    goals = bus.sync_read(ids, reg.GOAL_POSITION.address, reg.GOAL_POSITION.size)
    at = reg.PRESENT_VELOCITY.address - reg.STATE_BLOCK[0]
    moving = {}
    for servo_id in present.keys() & goals.keys():
        here = reg.PRESENT_POSITION.decode(present[servo_id])
        far = abs(reg.GOAL_POSITION.decode(goals[servo_id]) - here) > HOLD_TOLERANCE_TICKS
        if far and abs(reg.PRESENT_VELOCITY.decode(present[servo_id][at:])) > STANDING_TICKS_PER_S:
            moving[servo_id] = here
    if moving:
        bus.sync_write(reg.GOAL_POSITION, moving)
