"""The simulated arms' servos: encoder ticks and registers on one side, joints of a model on the other."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle, islice, pairwise
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from drivers.feetech.servo import ServoReading
from runtime.body import RobotDescription
from runtime.messages import Floats

T = TypeVar("T")

TICKS_PER_TURN = 4096
TICKS_PER_RAD = TICKS_PER_TURN / (2 * math.pi)
HOMING_OFFSETS = (85, -132, 47, -60, 12, 210)
"""How far each encoder's own zero is from the calibrated one: no two arms are mounted alike."""
HOMED = 2047
"""What a servo reads where a person held the joint while it was homed."""
_HELD = (31, -64, 58, -37, 22, -45)
"""How far that was from the middle of the model's range (a gripper: its lower end), in ticks: by hand."""
_BEYOND = ((-38, -24), (26, 118), (91, 35), (21, 44), (0, 0), (15, 72))
"""How much further than the model a joint went when its range was found, at its two ends, in ticks."""
_FULL_TURN = 0.85
"""A joint that turns further than this share of a turn counts as one that turns all the way."""
SPEED_LIMIT_RAD_S = 5.2
"""About 50 revolutions a minute, a servo's no-load speed."""
STALL_CURRENT = 415
"""In 6.5 mA: 2.7 A."""
_SHORT, _TRAVEL = 0.3, 1024
"""A finger that slides some centimetres is geared so that its servo turns a quarter on the way."""
DEFAULT_P = 16
"""The gain at which the joint stiffness of the model holds (what LeRobot writes to the arms)."""


class Encoders:
    """An arm's encoders: ticks for the model's own joint positions, and the calibration that says so.

    The calibration is one as people make it: neither its middles nor its ranges are the model's. Only a
    gripper's ends are, since a hand finds them, at ticks of their own.

    Args:
        number: of the arm; no two have the same calibration.
    """

    def __init__(self, robot: RobotDescription, number: int = 0) -> None:
        self.names = robot.joints
        self._robot, self._number = robot, number
        self._offsets = _turned(HOMING_OFFSETS, number, len(self.names))
        pairs = zip(robot.joints, robot.ranges, strict=True)
        ends = [robot.grippers.get(name, pair) for name, pair in pairs]
        self._grippers = [name in robot.grippers for name in robot.joints]
        self._reversed = [first > last for first, last in ends]
        self._ends = [(min(pair), max(pair)) for pair in ends]
        travels = [high - low for low, high in self._ends]
        self._scale = [TICKS_PER_RAD if travel > _SHORT else _TRAVEL / travel for travel in travels]
        held = _turned(_HELD, number, len(self.names))
        rests = [
            low if gripper else (low + high) / 2
            for gripper, (low, high) in zip(self._grippers, self._ends, strict=True)
        ]
        self._homed = [rest + h / scale for rest, h, scale in zip(rests, held, self._scale, strict=True)]
        self._all_homed, self._all_scale = np.array(self._homed), np.array(self._scale)
        self._all_offsets = np.array(self._offsets)
        beyond = _turned(_BEYOND, number, len(self.names))
        self._calibrated = [self._range(joint, beyond[joint]) for joint in range(len(self.names))]

    def _range(self, joint: int, beyond: tuple[int, int]) -> tuple[int, int]:
        low, high = (HOMED + (end - self._homed[joint]) * self._scale[joint] for end in self._ends[joint])
        if high - low > _FULL_TURN * TICKS_PER_TURN and not self._grippers[joint]:
            return 0, TICKS_PER_TURN - 1
        more = (0, 0) if self._grippers[joint] else beyond
        return max(0, round(low - more[0])), min(TICKS_PER_TURN - 1, round(high + more[1]))

    def leaders(self) -> Encoders:
        """Those of this arm's leader."""
        return Encoders(self._robot, self._number + 3)

    @property
    def ends(self) -> tuple[Floats, Floats]:
        """Where the joints' stops are, the model's own positions ``[D]``: the lower ones, the upper ones."""
        lower, upper = np.array(self._ends).T
        return lower, upper

    def calibration(self) -> dict[str, dict[str, int]]:
        """In the layout of LeRobot's calibration files."""
        return {
            name: {
                "id": index + 1,
                "drive_mode": int(self._reversed[index]),
                "homing_offset": self._offsets[index],
                "range_min": self._calibrated[index][0],
                "range_max": self._calibrated[index][1],
            }
            for index, name in enumerate(self.names)
        }

    def middles(self) -> dict[str, float]:
        """By joint that is no gripper, the model's angle in the middle of its range: ``zero_rad``."""
        return {
            name: self.position(index, sum(self._calibrated[index]) / 2 + self._offsets[index])
            for index, name in enumerate(self.names)
            if not self._grippers[index]
        }

    def ticks(self, joint: int, position: float) -> int:
        """What the encoder of `joint` shows (before the homing offset) at a position of the model's."""
        turned = (position - self._homed[joint]) * self._scale[joint]
        return round(HOMED + turned) + self._offsets[joint]

    def all_ticks(self, positions: Floats) -> NDArray[np.int64]:
        """`ticks` of all joints ``[D]``."""
        turned = (positions - self._all_homed) * self._all_scale
        return np.asarray(np.rint(HOMED + turned) + self._all_offsets, np.int64)

    def all_speeds(self, velocities: Floats) -> NDArray[np.int64]:
        """`speed` of all joints ``[D]``."""
        return np.asarray(np.rint(velocities * self._all_scale), np.int64)

    def all_positions(self, ticks: NDArray[np.int64]) -> Floats:
        """`position` of all joints ``[D]``."""
        return np.asarray(self._all_homed + (ticks - self._all_offsets - HOMED) / self._all_scale)

    def position(self, joint: int, ticks: float) -> float:
        """The model's position at which the encoder of `joint` shows `ticks`."""
        return self._homed[joint] + (ticks - self._offsets[joint] - HOMED) / self._scale[joint]

    def speed(self, joint: int, velocity: float) -> int:
        """Ticks a second."""
        return round(velocity * self._scale[joint])


def _turned(table: Sequence[T], number: int, count: int) -> list[T]:
    """`count` entries of `table`, again and again, from another beginning for each arm."""
    return list(islice(cycle(table), number, number + count))


@dataclass(slots=True)
class Drive:
    """What the joints' motors are asked for: the physics reads it before every step."""

    goal_rad: Floats
    torque: Floats
    """1 where torque is on, else 0."""
    gain: Floats
    """Stiffness as a multiple of the model's."""
    limit: Floats
    """Fraction of stall torque that may be used."""


class ArmBank:
    """Implements `drivers.feetech.servo.ServoBank` for one arm.

    The bus thread reads and writes; the physics thread takes `drive` and gives `publish`. Each holds the
    lock for microseconds.

    Args:
        joints_rad: the model's own positions ``[D]`` at power-up.
        encoders: of its servos.

    Attributes:
        encoders: the same.
        changes: how often what is asked of the motors was written.
    """

    def __init__(self, joints_rad: Floats, encoders: Encoders) -> None:
        count = len(encoders.names)
        self.encoders = encoders
        self.changes = 0
        self._lock = threading.Lock()
        self._position = np.array(joints_rad, float)
        self._velocity = np.zeros(count)
        self._effort = np.zeros(count)
        self._goal = self._position.copy()
        self._torque = np.zeros(count)
        self._gain = np.ones(count)
        self._limit = np.ones(count)

    @property
    def ids(self) -> Sequence[int]:
        return range(1, len(self.encoders.names) + 1)

    def reading(self, servo_id: int) -> ServoReading:
        joint = servo_id - 1
        with self._lock:
            position, velocity = float(self._position[joint]), float(self._velocity[joint])
            effort = float(self._effort[joint])
        return ServoReading(
            position=self.encoders.ticks(joint, position),
            velocity=self.encoders.speed(joint, velocity),
            load=round(1000 * effort),
            current=round(abs(effort) * STALL_CURRENT),
        )

    def readings(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Position, velocity and load of all servos ``[D]``, as `reading` has them."""
        with self._lock:
            position, velocity, effort = self._position.copy(), self._velocity.copy(), self._effort.copy()
        return (
            self.encoders.all_ticks(position),
            self.encoders.all_speeds(velocity),
            np.asarray(np.rint(1000 * effort), np.int64),
        )

    def set_goals(self, ticks: NDArray[np.int64]) -> None:
        """`set_goal` of all servos ``[D]``."""
        goals = self.encoders.all_positions(ticks)
        with self._lock:
            self._goal[:] = goals
            self.changes += 1

    def set_goal(self, servo_id: int, ticks: int) -> None:
        with self._lock:
            self._goal[servo_id - 1] = self.encoders.position(servo_id - 1, ticks)
            self.changes += 1

    def set_torque(self, servo_id: int, enabled: bool) -> None:
        with self._lock:
            self._torque[servo_id - 1] = float(enabled)
            self.changes += 1

    def set_gains(self, servo_id: int, p: int, i: int, d: int) -> None:
        del i, d
        with self._lock:
            self._gain[servo_id - 1] = min(2.0, p / DEFAULT_P)
            self.changes += 1

    def set_torque_limit(self, servo_id: int, limit: int) -> None:
        with self._lock:
            self._limit[servo_id - 1] = min(1.0, limit / 1000)
            self.changes += 1

    def drive(self) -> Drive:
        """A copy of what is asked of the motors now."""
        with self._lock:
            return Drive(self._goal.copy(), self._torque.copy(), self._gain.copy(), self._limit.copy())

    def publish(self, position: Floats, velocity: Floats, effort: Floats) -> None:
        """The joints' state; `effort` is a fraction of stall torque."""
        with self._lock:
            self._position[:] = position
            self._velocity[:] = velocity
            self._effort[:] = effort

    def joints_rad(self) -> Floats:
        """The model's present positions ``[D]``."""
        with self._lock:
            return self._position.copy()


class RobotBank:
    """The servos of every arm of a robot, each arm's in a bank of its own, as one joint vector ``[D]``.

    Args:
        joints_rad: the model's own positions ``[D]`` at power-up.

    Attributes:
        arms: the banks, by the arm's name; the only one's is ``""``.
    """

    def __init__(self, joints_rad: Floats, robot: RobotDescription) -> None:
        sizes = [len(arm.joints) for arm in robot.singles.values()]
        ends = np.cumsum([0, *sizes]).tolist()
        self._places = [slice(*pair) for pair in pairwise(ends)]
        self.arms = {
            name: ArmBank(joints_rad[place], Encoders(arm, number))
            for number, ((name, arm), place) in enumerate(
                zip(robot.singles.items(), self._places, strict=True)
            )
        }

    @property
    def changes(self) -> int:
        """How often what is asked of any of the motors was written."""
        return sum(bank.changes for bank in self.arms.values())

    def drive(self) -> Drive:
        """What is asked of all the motors now."""
        drives = [bank.drive() for bank in self.arms.values()]
        if len(drives) == 1:
            return drives[0]
        return Drive(
            *(np.concatenate(each) for each in zip(*(_columns(drive) for drive in drives), strict=True))
        )

    def publish(self, position: Floats, velocity: Floats, effort: Floats) -> None:
        """All joints' state."""
        for bank, place in zip(self.arms.values(), self._places, strict=True):
            bank.publish(position[place], velocity[place], effort[place])


def _columns(drive: Drive) -> tuple[Floats, ...]:
    return drive.goal_rad, drive.torque, drive.gain, drive.limit
