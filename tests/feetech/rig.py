"""An emulated arm on a stepped clock, and the driver under test on top of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from drivers.feetech import registers as reg
from drivers.feetech.calibration import JointCalibration, JointMap
from drivers.feetech.driver import FeetechArm
from drivers.feetech.emulator import FeetechEmulator
from drivers.feetech.options import FeetechOptions
from drivers.feetech.servo import SimpleServoBank
from runtime.beat import Beat
from runtime.latest import Latest
from runtime.stepped import SteppedClock

NAMES = ("shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper")
RANGES = dict.fromkeys(NAMES[:4], (-1.5, 1.5)) | {"wrist_roll": (-3.1, 3.1)}
MS = 1_000_000

CALIBRATION = {
    "shoulder_pan": JointCalibration(id=1, homing_offset=100, range_min=1000, range_max=3000),
    "shoulder_lift": JointCalibration(id=2, homing_offset=-200, range_min=900, range_max=3100),
    "elbow_flex": JointCalibration(id=3, drive_mode=1, homing_offset=0, range_min=1000, range_max=3000),
    "wrist_flex": JointCalibration(id=4, homing_offset=7, range_min=1000, range_max=3000),
    "wrist_roll": JointCalibration(id=5, homing_offset=0, range_min=0, range_max=4095),
    "gripper": JointCalibration(id=6, homing_offset=50, range_min=2000, range_max=3500),
}


def shipped(**changes: int) -> dict[int, dict[reg.Register, int]]:
    """EEPROM contents that agree with `CALIBRATION`."""
    return {
        joint.id: {
            reg.HOMING_OFFSET: joint.homing_offset,
            reg.MIN_POSITION_LIMIT: joint.range_min,
            reg.MAX_POSITION_LIMIT: joint.range_max,
        }
        for joint in CALIBRATION.values()
    }


def encoder(name: str, ticks: int) -> int:
    """The encoder's own ticks where the servo's register says `ticks`."""
    return ticks + CALIBRATION[name].homing_offset


@dataclass
class Rig:
    clock: SteppedClock
    bank: SimpleServoBank
    emulator: FeetechEmulator
    arm: FeetechArm

    def run(self, polls: int) -> None:
        for _ in range(polls):
            self.arm.poll()


@contextmanager
def rig(
    folder: Path,
    *,
    start: dict[str, int] | None = None,
    registers: dict[int, dict[reg.Register, int]] | None = None,
    lister: Any = list,
    emulator: dict[str, Any] | None = None,
    beat: Latest[Beat] | None = None,
    **options: Any,
) -> Iterator[Rig]:
    """The whole arm, not opened yet. `start` holds register ticks by joint (2500 where it says nothing).

    `beat` says when a control loop would tick.
    """
    clock = SteppedClock(1_000 * MS)
    places = {j.id: encoder(n, (start or {}).get(n, 2500)) for n, j in CALIBRATION.items()}
    bank = SimpleServoBank(clock, places)
    wire = FeetechEmulator(bank, folder / "arm", registers=registers or shipped(), **(emulator or {}))
    settings = {"port": wire.port, **options}
    joints = JointMap.build(CALIBRATION, RANGES)
    arm = FeetechArm("arm", FeetechOptions.model_validate(settings), joints, clock, lister, beat=beat)
    try:
        yield Rig(clock, bank, wire, arm)
    finally:
        arm.close()
        wire.close()
