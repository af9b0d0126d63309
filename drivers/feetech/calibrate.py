"""Making a calibration: the middle by one reading, the ranges by moving every joint through its own.

Who asks the person to move the arm, and when, is not decided here.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from drivers.feetech import registers as reg
from drivers.feetech.bus import FeetechBus
from drivers.feetech.calibration import HOMING_LIMIT, Calibration, CalibrationError, JointCalibration
from drivers.feetech.eeprom import plan, written
from drivers.feetech.plausible import check_plausible
from runtime.messages import DeviceError, FaultKind

MIDDLE = reg.TICKS_PER_TURN // 2 - 1
"""Where LeRobot puts the middle of a joint, in ticks."""
SILENT_SAMPLES = 40
"""So many readings in a row may miss a servo before it counts as gone."""
AT_ITS_END = 0.25
"""A closed gripper is within this part of its range from one end."""


@dataclass(slots=True)
class JointRange:
    """How far a joint has been moved, in ticks after the homing offset."""

    low: int
    now: int
    high: int


class Calibrator:
    """One arm's calibration, step by step: `release`, `set_middle`, `sample` over and over, `note_closed`,
    `finish`, `written`.

    Nothing but torque is changed before `written`: the middle is worked out from the encoders' own readings,
    so that whoever breaks off leaves the servos' offsets and limits as they were.

    Args:
        bus: an open bus with all servos of `joints` on it.
        joints: servo id by joint name.
        full_turn: joints without stops, whose range is the whole turn.
        reversed_joints: joints that turn against the model (drive mode 1).
        ranges: by joint, its range in the model, radians; what is not there is not compared.
        grippers: joints that open and close; drive mode 1 if they close with rising ticks.

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
        ranges: Mapping[str, Sequence[float]] | None = None,
        grippers: Collection[str] = ("gripper",),
    ) -> None:
        self._bus = bus
        self._joints = dict(joints)
        self._full_turn = frozenset(full_turn)
        self._reversed = set(reversed_joints)
        self._model = dict(ranges or {})
        self.grippers = frozenset(grippers)
        self._released = self._written = False
        self._held: dict[str, int] = {}
        """The offsets in the servos, which their readings have in them."""
        self._offsets: dict[str, int] = {}
        self._missed: dict[str, int] = {}
        self.ranges: dict[str, JointRange] = {}

    def release(self) -> None:
        """Cut the torque of all joints. Somebody must hold the arm, which drops otherwise."""
        self._held = {name: self._bus.read(i, reg.HOMING_OFFSET) for name, i in self._joints.items()}
        self._released = True
        for servo_id in self._joints.values():
            self._bus.write(servo_id, reg.TORQUE_ENABLE, 0)

    def set_middle(self) -> None:
        """Take where every joint is now as its middle, with the joints at about half of their ranges.

        Raises:
            CalibrationError: torque was not cut yet, so that nobody can have moved the joints there.
        """
        if not self._released:
            raise CalibrationError("calibrating: release comes before set_middle")
        for name, servo_id in self._joints.items():
            encoder = self._bus.read(servo_id, reg.PRESENT_POSITION) + self._held[name]
            # The register has a sign and eleven bits: the one reading that is off by one is left so.
            offset = encoder % reg.TICKS_PER_TURN - MIDDLE
            self._offsets[name] = max(-HOMING_LIMIT, min(HOMING_LIMIT, offset))
        self.ranges = {}

    def sample(self) -> Mapping[str, JointRange]:
        """Read all joints once more; returns how far each has been moved since `set_middle`."""
        ids = list(self._joints.values())
        answers = self._bus.sync_read(ids, reg.PRESENT_POSITION.address, reg.PRESENT_POSITION.size)
        for name, servo_id in self._joints.items():
            self._missed[name] = 0 if servo_id in answers else self._missed.get(name, 0) + 1
            if servo_id in answers:
                self._follow(name, reg.PRESENT_POSITION.decode(answers[servo_id]))
            elif self._missed[name] >= SILENT_SAMPLES:
                detail = f"no answer from servo {servo_id} ({name})"
                raise DeviceError(self._bus.device, FaultKind.NO_REPLY, self._bus.where, detail)
        return self.ranges

    def _follow(self, name: str, reading: int) -> None:
        raw = (reading + self._held[name] - self._offsets[name]) % reg.TICKS_PER_TURN
        known = self.ranges.setdefault(name, JointRange(raw, raw, raw))
        # Continuous over the encoder's end, so that crossing it shows as a range beyond 0 to 4095.
        now = raw + round((known.now - raw) / reg.TICKS_PER_TURN) * reg.TICKS_PER_TURN
        known.now, known.low, known.high = now, min(known.low, now), max(known.high, now)

    def left(self) -> str:
        """What was not undone, in words, to be put behind a reason to stop."""
        held = "" if self._written else "; the servos' offsets and limits are as they were"
        return held + ("; torque is off" if self._released else "")

    def to_be_closed(self) -> list[str]:
        """The grippers of which it is not said which way they close."""
        return [name for name in self._joints if name in self.grippers and name not in self._reversed]

    def note_closed(self) -> list[str]:
        """The grippers are closed now: note which way they went; returns those at neither end."""
        between = []
        for name in self.to_be_closed():
            self.sample()
            moved = self.ranges[name]
            part = (moved.now - moved.low) / max(1, moved.high - moved.low)
            if part > 1 - AT_ITS_END:
                self._reversed.add(name)
            elif part >= AT_ITS_END:
                between.append(name)
        return between

    def finish(self) -> Calibration:
        """The calibration of all joints; nothing is written.

        Raises:
            CalibrationError: a joint was not moved, went over its encoder's end, or has a range that a joint
                of this model cannot have.
        """
        calibration = {name: self._joint(name) for name in self._joints}
        swept = {name: joint for name, joint in calibration.items() if name not in self._full_turn}
        check_plausible(swept, self._model, self.grippers, "calibrating")
        return calibration

    @contextmanager
    def written(self, calibration: Calibration) -> Iterator[None]:
        """Write `calibration` into the servos: all of it, or, if that or the body fails, what they held.

        Raises:
            DeviceError: a servo does not answer or take it; the detail says what the servos hold now.
        """
        writes = []
        for joint in calibration.values():
            for register, value in (
                (reg.HOMING_OFFSET, joint.homing_offset),
                (reg.MIN_POSITION_LIMIT, joint.range_min),
                (reg.MAX_POSITION_LIMIT, joint.range_max),
            ):
                writes += plan(self._bus, joint.id, register, value)
        self._written = True
        try:
            with written(self._bus, writes):
                yield
        except DeviceError:
            raise
        except BaseException:
            self._written = False
            raise

    def _joint(self, name: str) -> JointCalibration:
        if name not in self._offsets:
            raise CalibrationError(f"calibrating {name}: set_middle comes first")
        low, high = 0, reg.TICKS_PER_TURN - 1
        if name not in self._full_turn:
            moved = self.ranges.get(name, JointRange(0, 0, 0))
            if moved.low < low or moved.high > high:
                raise CalibrationError(
                    f"calibrating {name}: it went over its encoder's end ({moved.low} to {moved.high}); "
                    "start again with the joint nearer to the middle of its range"
                )
            if moved.low == moved.high:
                raise CalibrationError(f"calibrating {name}: it was not moved; move it from stop to stop")
            low, high = moved.low, moved.high
        return JointCalibration(
            id=self._joints[name],
            drive_mode=int(name in self._reversed),
            homing_offset=self._offsets[name],
            range_min=low,
            range_max=high,
        )
