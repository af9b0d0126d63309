"""What can be set about a Feetech arm."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from runtime.joints import JointLayout
from runtime.parts import DeviceTable

Fraction = Annotated[float, Field(gt=0, le=1)]
Byte = Annotated[int, Field(ge=0, le=254)]

_TORQUE_LIMITS = {"gripper": 0.5}


class FeetechOptions(DeviceTable):
    """An arm of STS3215 servos on one serial bus, such as an SO-100 or SO-101, follower or leader.

    Attributes:
        model: what the arm is: ``so100`` (if nothing is said), ``so101``, or an MJCF (``.xml``) or URDF
            (``.urdf``) file; a leader without one is the follower's.
        body: for a file, what it does not say.
        port: path of the serial port (``/dev/serial/by-id/...`` survives replugging by itself).
        serial_number: USB serial number of the adapter; looked up among the ports that are there, and
            preferred to `port`. Without it, the number is learnt from `port` at the first opening.
        baudrate: of the line, in bit/s.
        role: a ``follower`` obeys targets; a ``leader`` is moved by hand: it is never written a goal. At
            opening its torque is switched off, and `write_calibration` writes to it as to a follower.
        calibration: LeRobot calibration file (JSON by joint) of this very arm; required but for the
            simulated ones, which bring their own.
        write_calibration: write homing offsets and limits that differ from the file into the servos (only
            while torque is off); otherwise a difference is an error, because positions would be wrong.
        zero_rad: by joint, the model angle at the middle of its calibrated range, where that is not the
            middle of the model's range.
        state_rate_hz: how often position, velocity and load of all servos are read.
        health_period_s: how often voltage, temperature, current, alarms and whether torque is on are read
            along.
        packet_timeout_s: silence after which an answer is given up.
        lockstep_timeout_s: on a stepped clock, how long in wall time a simulated bus may take to answer. It
            says itself when it has nothing to say: only one that hangs costs this.
        num_retry: further attempts for servos that did not answer.
        trust_torque_s: a goal is written without asking its servos whether their torque is on, if they said
            so before the tick and no longer ago than this; 0.01 makes a follower some 1 ms quicker. A goal
            switches torque on: a servo that lost power or protected itself in between is driven from where it
            fell, with the gains that a restart brings back. 0 asks right before each goal.
        target_max_age_s: a target that has waited longer than this to be written is not obeyed any more.
        give_up_s: without one whole state for this long, the device has failed.
        p_gain, i_gain, d_gain: of the servos' position loops. 16, 0, 32 is LeRobot's choice for SO-100; the
            servos' own 32, 0, 32 shakes.
        acceleration_100ticks_s2: of the servos' own ramp; 254 for the fastest, 0 for no ramp.
        torque_limit_fraction: of stall torque, for every joint that is not in `joint_torque_limit_fraction`.
        joint_torque_limit_fraction: by joint; half for the gripper keeps it from burning out on an object,
            and stays unless the gripper is given another.
        torque_off_on_close: let go at the end, but not because of a fault. Off by default: an arm drops.
    """

    driver: Literal["feetech"] = "feetech"
    port: str = ""
    serial_number: str = ""
    baudrate: Literal[1_000_000, 500_000, 250_000, 128_000, 115_200, 76_800, 57_600, 38_400] = 1_000_000
    role: Literal["follower", "leader"] = "follower"
    calibration: Path | None = None
    write_calibration: bool = False
    zero_rad: dict[str, float] = Field(default_factory=dict)
    state_rate_hz: float = Field(default=100.0, gt=0, le=400)
    health_period_s: float = Field(default=1.0, gt=0)
    packet_timeout_s: float = Field(default=0.02, ge=0.001, le=1)
    lockstep_timeout_s: float = Field(default=10.0, ge=0.001, le=60)
    num_retry: int = Field(default=2, ge=0, le=10)
    trust_torque_s: float = Field(default=0.0, ge=0, le=0.02)
    target_max_age_s: float = Field(default=0.1, gt=0)
    give_up_s: float = Field(default=0.25, gt=0)
    p_gain: Byte = 16
    i_gain: Byte = 0
    d_gain: Byte = 32
    acceleration_100ticks_s2: Byte = 254
    torque_limit_fraction: Fraction = 1.0
    joint_torque_limit_fraction: dict[str, Fraction] = Field(default_factory=lambda: dict(_TORQUE_LIMITS))
    torque_off_on_close: bool = False

    @field_validator("calibration")
    @classmethod
    def _is_there(cls, file: Path | None) -> Path | None:
        if file is not None and not file.is_file():
            raise ValueError("is no file" if file.exists() else "no such file")
        return file

    @field_validator("joint_torque_limit_fraction")
    @classmethod
    def _keeps_the_gripper(cls, given: dict[str, float]) -> dict[str, float]:
        return {**_TORQUE_LIMITS, **given}

    @model_validator(mode="after")
    def _has_an_address(self) -> FeetechOptions:
        if not self.port and not self.serial_number:
            raise ValueError("give port (a path) or serial_number (of the USB adapter)")
        return self

    def own_files(self) -> Mapping[str, Path]:
        return {} if self.calibration is None else {"calibration": self.calibration}

    def addresses(self) -> Mapping[str, str]:
        given = {"serial_number": self.serial_number, "port": self.port}
        return {key: value for key, value in given.items() if value}

    def by_joint(self) -> Mapping[str, Iterable[str]]:
        return {
            "zero_rad": self.zero_rad,
            "joint_torque_limit_fraction": self.joint_torque_limit_fraction,
        }

    def check_real(self) -> None:
        if self.calibration is None:
            raise ValueError(
                f"calibration is not given: the arm at {self.address!r} needs the file that dexrun calibrate "
                "or LeRobot made of it"
            )

    def check_joints(self, joints: JointLayout) -> None:
        from drivers.feetech.plausible import load_plausible

        if self.calibration is not None:
            load_plausible(self.calibration, joints)
