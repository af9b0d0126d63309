"""``dexrun joints``: what every joint reads, and how its servo is, while a hand moves it."""

from __future__ import annotations

import argparse
import contextlib
import sys
from pathlib import Path

import numpy as np

from dexrun.printing import complain
from dexrun.setup.calibrate import BAUDRATES
from dexrun.setup.person import Person, Terminal
from drivers.arms import describe
from drivers.feetech import registers as reg
from drivers.feetech.bus import FeetechBus
from drivers.feetech.calibration import (
    Calibration,
    CalibrationError,
    JointCalibration,
    JointMap,
    TurnCounter,
    load_calibration,
)
from drivers.feetech.options import FeetechOptions
from drivers.feetech.setup import connect
from runtime.arm_model import ModelError
from runtime.body import RobotDescription
from runtime.clock import RealClock
from runtime.messages import DeviceError
from runtime.table_model import MeshesMissingError
from runtime.units import LEROBOT, UnitMap, calibrated, joint_units

RETRIES = 9
_HEAD = ("joint", "ticks", "rad", *(name.removeprefix("lerobot_") for name in LEROBOT), "since the start")


class JointReader:
    """Reads an arm's joints; writes nothing but, if asked to, torque off.

    Args:
        bus: open. robot: whose joints they are. calibration: of this arm.
    """

    def __init__(self, bus: FeetechBus, robot: RobotDescription, calibration: Calibration) -> None:
        ranges = dict(zip(robot.joints, robot.layout.ranges.tolist(), strict=True))
        self._bus = bus
        self._joints = JointMap.build(calibration, ranges, grippers=tuple(robot.grippers))
        layout = calibrated(robot.layout, self._joints.described())
        self._units = [joint_units(layout, UnitMap(convention=name)) for name in LEROBOT]
        self._turns = TurnCounter((self._joints.low + self._joints.high) / 2)
        self._first: np.ndarray | None = None

    def torque(self) -> list[str]:
        """The joints whose torque is on.

        Raises:
            DeviceError: a servo does not answer.
        """
        pairs = zip(self._joints.names, self._joints.ids, strict=True)
        return [name for name, servo_id in pairs if self._bus.read(servo_id, reg.TORQUE_ENABLE)]

    def let_go(self) -> None:
        """Torque off."""
        for servo_id in self._joints.ids:
            self._bus.write(servo_id, reg.TORQUE_ENABLE, 0)

    def rows(self) -> list[str]:
        """A table of what the joints read now.

        Raises:
            DeviceError: a servo does not answer.
        """
        data = self._read()
        ticks = self._turns.update(np.array([_of(each, reg.PRESENT_POSITION) for each in data]))
        self._first = ticks if self._first is None else self._first
        position = self._joints.to_units(ticks)
        said = [units.observed(position) for units in self._units]
        rows = [
            f"  {name:<16}{ticks[i]:>8}{position[i]:>9.3f}{said[0][i]:>10.2f}{said[1][i]:>10.2f}"
            f"{int(ticks[i] - self._first[i]):>+14}{self._state(name, data[i])}"
            for i, name in enumerate(self._joints.names)
        ]
        head = f"  {_HEAD[0]:<16}{_HEAD[1]:>8}{_HEAD[2]:>9}{_HEAD[3]:>10}{_HEAD[4]:>10}{_HEAD[5]:>17}"
        return [f"{head}{'load %':>9}{'V':>6}{'C':>5}{'lost':>6}  alarms", *rows]

    def _read(self) -> list[bytes]:
        """Of each servo the block from gains to current; one that stays silent ends this."""
        start, size = reg.HEALTH_BLOCK
        answers = self._bus.sync_read(self._joints.ids, start, size)
        for servo_id in self._joints.ids:
            if servo_id not in answers:
                self._bus.read(servo_id, reg.PRESENT_POSITION)  # says who is silent
                answers |= self._bus.sync_read([servo_id], start, size)
        return [answers[servo_id] for servo_id in self._joints.ids]

    def _state(self, name: str, data: bytes) -> str:
        load = 100 * reg.LOAD_FRACTION * _of(data, reg.PRESENT_LOAD)
        volts = reg.VOLTAGE_V * _of(data, reg.PRESENT_VOLTAGE)
        lost = sum(count for key, count in self._bus.errors.items() if key.startswith(f"{name}."))
        alarms = ", ".join(reg.alarm_names(_of(data, reg.STATUS))) or "-"
        return f"{load:>+6.0f}{volts:>6.1f}{_of(data, reg.PRESENT_TEMPERATURE):>5}{lost:>6}  {alarms}"


def _of(data: bytes, register: reg.Register) -> int:
    return register.decode(data[register.address - reg.HEALTH_BLOCK[0] :])


def held(bus: FeetechBus, robot: RobotDescription) -> Calibration:
    """The calibration as the servos themselves hold it, as far as that says all: nothing turns backwards.

    Raises:
        DeviceError: a servo does not answer. CalibrationError: its range is empty.
    """
    found = {}
    for number, name in enumerate(robot.joints, start=1):
        low, high = (bus.read(number, at) for at in (reg.MIN_POSITION_LIMIT, reg.MAX_POSITION_LIMIT))
        offset = bus.read(number, reg.HOMING_OFFSET)
        try:
            found[name] = JointCalibration(id=number, homing_offset=offset, range_min=low, range_max=high)
        except ValueError:
            raise CalibrationError(
                f"{name}: the servo's range is {low} to {high} and its offset {offset}; give --calibration"
            ) from None
    return found


def _parsed(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="dexrun joints",
        description="Show each joint's ticks, radians (a gripper 0 to 1), LeRobot's degrees and percent, and "
        "its servo's load, voltage, temperature (C), lost packets and alarms. "
        "Without a terminal it reads once. Move a joint by hand: the last column is which way it counts.",
        epilog="example: dexrun joints --port /dev/ttyACM0 --calibration follower.json",
    )
    parser.add_argument("--port", required=True, help="serial port of the arm's bus")
    parser.add_argument("--calibration", type=Path, help="the arm's file; without it what the servos hold")
    parser.add_argument("--model", default="", help="of the arm, as arm.model: so100, so101 or a model file")
    parser.add_argument("--baudrate", type=int, default=1_000_000, choices=BAUDRATES)
    parser.add_argument("--let-go", action="store_true", help="switch torque off first: the arm drops")
    return parser.parse_args(arguments)


def _fail(message: str, code: int) -> int:
    complain(f"dexrun: {message}\n")
    return code


def main(arguments: list[str], person: Person | None = None) -> int:
    """The command; returns its exit code."""
    options = _parsed(arguments)
    try:
        robot = describe(options.model)
        given = load_calibration(options.calibration, robot.joints) if options.calibration else None
        names = dict(enumerate(robot.joints, start=1))
        if given is not None:
            names = {joint.id: name for name, joint in given.items()}
        config = FeetechOptions.model_validate(
            {"port": options.port, "baudrate": options.baudrate, "num_retry": RETRIES}
        )
    except (ModelError, MeshesMissingError, CalibrationError, ValueError) as error:
        return _fail(" ".join(str(error).split()), 2)
    try:
        with contextlib.closing(connect("arm", config, names, RealClock())) as bus:
            bus.check_models(names, reg.MODEL_STS3215)
            reader = JointReader(bus, robot, given or held(bus, robot))
            return _show(reader, options.let_go, person)
    except (DeviceError, CalibrationError) as error:
        return _fail(str(error), 3)
    except KeyboardInterrupt:
        return 0


def _show(reader: JointReader, let_go: bool, person: Person | None) -> int:
    """Once, or until Enter is pressed where somebody can."""
    seen = person or Terminal()
    if let_go:
        reader.let_go()
    elif holding := reader.torque():
        seen.show(f"torque is on: {', '.join(holding)}; --let-go switches it off (the arm drops)")
    seen.watch(reader.rows())
    if person is None and not (sys.stdin.isatty() and sys.stdout.isatty()):
        return 0
    with contextlib.suppress(EOFError):
        while not seen.confirmed():
            seen.watch(reader.rows())
    return 0
