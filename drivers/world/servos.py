"""The simulated arms' servos: encoder ticks and registers on one side, joints of a model on the other."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from drivers.feetech.servo import ServoReading
from runtime.messages import Floats
from runtime.so100 import JOINT_NAMES, JOINT_RANGES_RAD

TICKS_PER_TURN = 4096
TICKS_PER_RAD = TICKS_PER_TURN / (2 * math.pi)
HOMING_OFFSETS = (85, -132, 47, -60, 12, 210)
"""How far each encoder's own zero is from the calibrated one: no two arms are mounted alike."""
RAW_MID = 2048
SPEED_LIMIT_RAD_S = 5.2
"""About 50 revolutions a minute, a servo's no-load speed."""
STALL_CURRENT = 415
"""In 6.5 mA: 2.7 A."""
DEFAULT_P = 16
"""The gain at which the joint stiffness of the model holds (what LeRobot writes to the arms)."""


def calibration() -> dict[str, dict[str, int]]:
    """Both simulated arms' calibration, in the layout of LeRobot's calibration files."""
    entries: dict[str, dict[str, int]] = {}
    for index, (name, (low, high)) in enumerate(zip(JOINT_NAMES, JOINT_RANGES_RAD, strict=True)):
        half = (high - low) / 2 * TICKS_PER_RAD
        entries[name] = {
            "id": index + 1,
            "drive_mode": 0,
            "homing_offset": HOMING_OFFSETS[index],
            "range_min": max(0, round(RAW_MID - half)),
            "range_max": min(TICKS_PER_TURN - 1, round(RAW_MID + half)),
        }
    return entries


def encoder_ticks(joint: int, angle_rad: float) -> int:
    """What the encoder of `joint` shows (before the homing offset) at a model angle."""
    low, high = JOINT_RANGES_RAD[joint]
    return round(RAW_MID + (angle_rad - (low + high) / 2) * TICKS_PER_RAD) + HOMING_OFFSETS[joint]


def angle_rad(joint: int, ticks: int) -> float:
    """The model angle at which the encoder of `joint` shows `ticks`."""
    low, high = JOINT_RANGES_RAD[joint]
    return (low + high) / 2 + (ticks - HOMING_OFFSETS[joint] - RAW_MID) / TICKS_PER_RAD


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
        joints_rad: model angles ``[6]`` at power-up (the last is the jaw's).
    """

    def __init__(self, joints_rad: Floats) -> None:
        count = len(JOINT_NAMES)
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
        return range(1, len(JOINT_NAMES) + 1)

    def reading(self, servo_id: int) -> ServoReading:
        joint = servo_id - 1
        with self._lock:
            position, velocity = float(self._position[joint]), float(self._velocity[joint])
            effort = float(self._effort[joint])
        return ServoReading(
            position=encoder_ticks(joint, position),
            velocity=round(velocity * TICKS_PER_RAD),
            load=round(1000 * effort),
            current=round(abs(effort) * STALL_CURRENT),
        )

    def set_goal(self, servo_id: int, ticks: int) -> None:
        with self._lock:
            self._goal[servo_id - 1] = angle_rad(servo_id - 1, ticks)

    def set_torque(self, servo_id: int, enabled: bool) -> None:
        with self._lock:
            self._torque[servo_id - 1] = float(enabled)

    def set_gains(self, servo_id: int, p: int, i: int, d: int) -> None:
        del i, d
        with self._lock:
            self._gain[servo_id - 1] = min(2.0, p / DEFAULT_P)

    def set_torque_limit(self, servo_id: int, limit: int) -> None:
        with self._lock:
            self._limit[servo_id - 1] = min(1.0, limit / 1000)

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
        """Present model angles ``[6]``."""
        with self._lock:
            return self._position.copy()
