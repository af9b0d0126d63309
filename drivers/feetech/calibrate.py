"""Making a calibration: the middle by one reading, the ranges by moving every joint through its own.

Who asks the person to move the arm, and when, is not decided here.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from drivers.feetech import registers as reg
from drivers.feetech.bus import FeetechBus
from drivers.feetech.calibration import HOMING_LIMIT, Calibration, CalibrationError, JointCalibration
from drivers.feetech.setup import write_eeprom
from runtime.messages import DeviceError, FaultKind

MIDDLE = reg.TICKS_PER_TURN // 2 - 1
"""Where LeRobot puts the middle of a joint, in ticks."""
LEAST_RANGE_TICKS = 100
"""A joint that moved less than this (9 degrees) was forgotten."""


@dataclass(slots=True)
class JointRange:
    """How far a joint has been moved, in ticks after the homing offset."""

    low: int
    now: int
    high: int


class Calibrator:
    """One arm's calibration, step by step: `release`, `set_middle`, `sample` over and over, `finish`.

    Nothing is written before `release`, which cuts torque: from then on the arm is held by hand.

    Args:
        bus: an open bus with all servos of `joints` on it.
        joints: servo id by joint name.
        full_turn: joints without stops, whose range is the whole turn.
        reversed_joints: joints that turn against the model (drive mode 1).

    Raises:
        DeviceError: any method: a servo does not answer.
    """

    def __init__(
        self,
        bus: FeetechBus,
        joints: Mapping[str, int],
        *,
        full_turn: Collection[str] = ("wrist_roll",),
        reversed_joints: Collection[str] = (),
    ) -> None:
        self._bus = bus
        self._joints = dict(joints)
        self._full_turn = frozenset(full_turn)
        self._reversed = frozenset(reversed_joints)
        self._released = False
        self._offsets: dict[str, int] = {}
        self.ranges: dict[str, JointRange] = {}

    def release(self) -> None:
        """Cut the torque of all joints. Somebody must hold the arm, which drops otherwise."""
        for servo_id in self._joints.values():
            self._bus.write(servo_id, reg.TORQUE_ENABLE, 0)
        self._released = True

    def set_middle(self) -> None:
        """Take where every joint is now as its middle, with the joints at about half of their ranges.

        Raises:
            CalibrationError: torque was not cut yet, so that nobody can have moved the joints there.
        """
        if not self._released:
            raise CalibrationError("calibrating: release comes before set_middle")
        for name, servo_id in self._joints.items():
            held = self._bus.read(servo_id, reg.HOMING_OFFSET)
            encoder = (self._bus.read(servo_id, reg.PRESENT_POSITION) + held) % reg.TICKS_PER_TURN
            # The register has a sign and eleven bits: the one reading that is off by one is left so.
            offset = max(-HOMING_LIMIT, min(HOMING_LIMIT, encoder - MIDDLE))
            write_eeprom(self._bus, servo_id, reg.MIN_POSITION_LIMIT, 0)
            write_eeprom(self._bus, servo_id, reg.MAX_POSITION_LIMIT, reg.TICKS_PER_TURN - 1)
            write_eeprom(self._bus, servo_id, reg.HOMING_OFFSET, offset)
            self._offsets[name] = offset
        self.ranges = {}

    def sample(self) -> Mapping[str, JointRange]:
        """Read all joints once more; returns how far each has been moved since `set_middle`."""
        ids = list(self._joints.values())
        block = reg.PRESENT_POSITION.address, reg.PRESENT_POSITION.size
        answers = self._bus.sync_read(ids, *block)
        for name, servo_id in self._joints.items():
            if servo_id not in answers:
                detail = f"no answer from servo {servo_id} ({name})"
                raise DeviceError(self._bus.device, FaultKind.NO_REPLY, self._bus.where, detail)
            self._follow(name, reg.PRESENT_POSITION.decode(answers[servo_id]))
        return self.ranges

    def _follow(self, name: str, raw: int) -> None:
        known = self.ranges.setdefault(name, JointRange(raw, raw, raw))
        # Continuous over the encoder's end, so that crossing it shows as a range beyond 0 to 4095.
        now = raw + round((known.now - raw) / reg.TICKS_PER_TURN) * reg.TICKS_PER_TURN
        known.now, known.low, known.high = now, min(known.low, now), max(known.high, now)

    def finish(self) -> Calibration:
        """The calibration of all joints, written into the servos as well.

        Raises:
            CalibrationError: a joint was not moved, or went over its encoder's end; nothing is written.
        """
        calibration = {name: self._joint(name) for name in self._joints}
        for joint in calibration.values():
            write_eeprom(self._bus, joint.id, reg.MIN_POSITION_LIMIT, joint.range_min)
            write_eeprom(self._bus, joint.id, reg.MAX_POSITION_LIMIT, joint.range_max)
        return calibration

    def _joint(self, name: str) -> JointCalibration:
        if name not in self._offsets:
            raise CalibrationError(f"calibrating {name}: set_middle comes first")
        low, high = 0, reg.TICKS_PER_TURN - 1
        if name not in self._full_turn:
            moved = self.ranges.get(name, JointRange(0, 0, 0))
            if moved.high - moved.low < LEAST_RANGE_TICKS:
                ticks = moved.high - moved.low
                raise CalibrationError(f"calibrating {name}: moved by {ticks} ticks; move it stop to stop")
            if moved.low < low or moved.high > high:
                raise CalibrationError(
                    f"calibrating {name}: it went over its encoder's end ({moved.low} to {moved.high}); "
                    "start again with the joint nearer to the middle of its range"
                )
            low, high = moved.low, moved.high
        return JointCalibration(
            id=self._joints[name],
            drive_mode=int(name in self._reversed),
            homing_offset=self._offsets[name],
            range_min=low,
            range_max=high,
        )
