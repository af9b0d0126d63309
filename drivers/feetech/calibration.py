"""Calibration files in LeRobot's JSON layout, and the map between servo ticks and joint angles."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, TypeAdapter, ValidationError, model_validator

from drivers.feetech.registers import TICKS_PER_TURN
from runtime.input_file import parse_json, read_small
from runtime.messages import Floats
from runtime.options import Options
from runtime.units import MIDDLE

Ticks = NDArray[np.int64]

RAD_PER_TICK = 2 * math.pi / TICKS_PER_TURN
HOMING_LIMIT = 2047
"""The homing-offset register has eleven bits and a sign."""


class CalibrationError(ValueError):
    """A calibration file cannot be used. The message is one line: file, joint, key, what is accepted."""


class JointCalibration(Options):
    """One joint, as LeRobot writes it.

    Attributes:
        id: of the servo.
        drive_mode: 1 if the joint turns against the model.
        homing_offset: in the servo's register, in ticks; present position = encoder - offset.
        range_min, range_max: the joint's ends, in ticks after the offset.
    """

    id: Annotated[int, Field(ge=0, le=253, strict=True)]
    drive_mode: Annotated[int, Field(ge=0, le=1, strict=True)] = 0
    homing_offset: Annotated[int, Field(ge=-HOMING_LIMIT, le=HOMING_LIMIT, strict=True)]
    range_min: Annotated[int, Field(ge=0, le=TICKS_PER_TURN - 1, strict=True)]
    range_max: Annotated[int, Field(ge=0, le=TICKS_PER_TURN - 1, strict=True)]

    @model_validator(mode="after")
    def _has_a_range(self) -> JointCalibration:
        if self.range_min >= self.range_max:
            raise ValueError(f"range_min ({self.range_min}) must be below range_max ({self.range_max})")
        return self


Calibration = dict[str, JointCalibration]
"""By joint name."""

_FILE = TypeAdapter(Calibration)


def load_calibration(path: str | Path, names: Sequence[str]) -> Calibration:
    """Read and check the calibration of the joints `names`, in that order.

    Raises:
        CalibrationError: one line on what is wrong.
    """
    try:
        data = parse_json(read_small(Path(path)))
        if isinstance(data, dict) and "motor_names" in data:
            raise CalibrationError(
                f"calibration {path}: is of an earlier LeRobot (lists, by motor_names), which counted from "
                "elsewhere; calibrate again (dexrun calibrate)"
            )
        calibration = _FILE.validate_python(data)
    except CalibrationError:
        raise
    except OSError as error:
        raise CalibrationError(f"calibration {path}: {error.strerror or error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = "".join(f"{part}: " for part in [".".join(str(part) for part in first["loc"])] if part)
        given = "" if isinstance(first["input"], dict | list) else f" (got {first['input']!r:.40})"
        raise CalibrationError(f"calibration {path}: {where}{first['msg']}{given}") from error
    except ValueError as error:
        raise CalibrationError(f"calibration {path}: not JSON: {error}") from error
    if missing := [n for n in names if n not in calibration]:
        there = ", ".join(calibration) or "none"
        raise CalibrationError(f"calibration {path}: no entry for {', '.join(missing)}; it has {there}")
    ids = [calibration[n].id for n in names]
    if twice := sorted({i for i in ids if ids.count(i) > 1}):
        raise CalibrationError(f"calibration {path}: id {twice[0]} is given to more than one joint")
    return {n: calibration[n] for n in names}


def save_calibration(path: str | Path, calibration: Mapping[str, JointCalibration]) -> None:
    """Write `calibration` as LeRobot does; the file is whole or not there."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(target.name + ".partial")
    data = {name: joint.model_dump() for name, joint in calibration.items()}
    partial.write_text(json.dumps(data, indent=4) + "\n", encoding="utf-8")
    partial.replace(target)


@dataclass(frozen=True)
class JointMap:
    """Ticks (after the homing offset) to the robot's units and back, for `D` joints.

    Angles are in the kinematic model's frame: the middle of the calibrated range is the middle of the
    model's joint range, unless said otherwise. A gripper is 0 closed to 1 open.

    Attributes:
        names, ids: of the joints and their servos.
        low, high: ends of the calibrated ranges in ticks, ``[D]``.
        scale: units per tick, signed, ``[D]``.
        origin: the value at tick `anchor`, ``[D]``.
        grippers: which of `names` are.
    """

    names: tuple[str, ...]
    ids: tuple[int, ...]
    calibration: Mapping[str, JointCalibration]
    low: Ticks
    high: Ticks
    scale: Floats
    origin: Floats
    anchor: Floats
    grippers: tuple[str, ...] = ()

    @classmethod
    def build(
        cls,
        calibration: Mapping[str, JointCalibration],
        ranges_rad: Mapping[str, tuple[float, float]],
        *,
        zero_rad: Mapping[str, float] | None = None,
        grippers: Collection[str] = ("gripper",),
    ) -> JointMap:
        """The map for the joints of `calibration`, in its order.

        `ranges_rad` holds each joint's range in the model; those named by `grippers` need none. `zero_rad`
        gives the model angle at the middle of the calibrated range, where it is not the model's middle.

        Raises:
            CalibrationError: a joint is not in the model, or `zero_rad` names one that is not there.
        """
        zeros = dict(zero_rad or {})
        if unknown := [n for n in zeros if n not in calibration or n in grippers]:
            known = ", ".join(n for n in calibration if n not in grippers)
            raise CalibrationError(f"zero_rad: no joint {unknown[0]!r}; there are {known}")
        if unknown := [n for n in calibration if n not in grippers and n not in ranges_rad]:
            raise CalibrationError(f"joint {unknown[0]!r} is not in the model, which has {list(ranges_rad)}")
        scale, origin, anchor = [], [], []
        for name, joint in calibration.items():
            sign = -1.0 if joint.drive_mode else 1.0
            if name in grippers:
                scale.append(sign / (joint.range_max - joint.range_min))
                origin.append(0.0)
                anchor.append(float(joint.range_max if joint.drive_mode else joint.range_min))
            else:
                scale.append(sign * RAD_PER_TICK)
                origin.append(zeros.get(name, sum(ranges_rad.get(name, (0.0, 0.0))) / 2))
                anchor.append((joint.range_min + joint.range_max) / 2)
        joints = list(calibration.values())
        return cls(
            names=tuple(calibration),
            ids=tuple(j.id for j in joints),
            calibration=dict(calibration),
            low=np.array([j.range_min for j in joints]),
            high=np.array([j.range_max for j in joints]),
            scale=np.array(scale),
            origin=np.array(origin),
            anchor=np.array(anchor),
            grippers=tuple(grippers),
        )

    def to_units(self, ticks: Ticks) -> Floats:
        """Joint positions ``[D]``; ticks outside the calibrated range give values outside the joint's."""
        values: Floats = self.origin + self.scale * (ticks - self.anchor)
        return values

    def to_ticks(self, values: Floats) -> Ticks:
        """Servo goals ``[D]``, clipped to the calibrated range."""
        ticks = np.rint(self.anchor + (values - self.origin) / self.scale)
        return np.minimum(np.maximum(ticks, self.low), self.high).astype(np.int64)

    def rates(self, ticks_per_s: Ticks) -> Floats:
        """Velocities ``[D]``, in rad/s and, for the gripper, openings/s."""
        values: Floats = self.scale * ticks_per_s
        return values

    def described(self) -> dict[str, dict[str, Any]]:
        """By joint, its calibration and, unless it is a gripper, the angle in the middle of its range."""
        middles = dict(zip(self.names, self.origin.tolist(), strict=True))
        return {
            name: {**entry.model_dump(), **({} if name in self.grippers else {MIDDLE: middles[name]})}
            for name, entry in self.calibration.items()
        }

    def signs(self) -> Floats:
        """+1 or -1 by joint: which way the joint goes when ticks go up."""
        values: Floats = np.sign(self.scale)
        return values


class TurnCounter:
    """Follows joints over the encoder's end, where the reading jumps from 4095 to 0 or back.

    A servo that reports a little less than 0 says 4095; taken at its word, the joint would have turned all
    the way round. Positions come out continuous, starting within half a turn of `middle`.
    """

    def __init__(self, middle: Floats) -> None:
        self._last: Floats = np.array(middle, dtype=np.float64)
        self._turns: Ticks = np.zeros(len(middle), dtype=np.int64)

    def update(self, raw: Ticks) -> Ticks:
        """Continuous ticks ``[D]`` for readings ``[D]``."""
        self._turns = np.rint((self._last - raw) / TICKS_PER_TURN).astype(np.int64)
        continuous: Ticks = raw + self._turns * TICKS_PER_TURN
        self._last = continuous.astype(np.float64)
        return continuous

    def to_servo(self, goals: Ticks, low: Ticks, high: Ticks) -> tuple[Ticks, NDArray[np.bool_]]:
        """Continuous goals ``[D]`` as the servos count now, within their limits, and which may be sent.

        A servo that has gone over the encoder's end would obey some goals by turning the long way round;
        those may not be sent.
        """
        shift = self._turns * TICKS_PER_TURN
        clipped: Ticks = np.clip(goals - shift, low, high)
        ends = clipped + shift
        on_the_way = (np.minimum(goals, self._last) <= ends) & (ends <= np.maximum(goals, self._last))
        return clipped, on_the_way

    def from_servo(self, ticks: Ticks) -> Ticks:
        """Continuous ticks ``[D]`` for goals as the servos count now."""
        continuous: Ticks = ticks + self._turns * TICKS_PER_TURN
        return continuous
