"""An arm whose registers are set and read directly: what `drivers.feetech` does, without packets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from drivers.feetech.calibration import Calibration, JointCalibration, JointMap
from drivers.feetech.options import FeetechOptions
from drivers.feetech.registers import LOAD_FRACTION
from drivers.world.servos import ArmBank
from runtime.joints import JointLayout
from runtime.messages import Floats
from runtime.ring import Mailbox, Ring

_MOST = 999
"""Of a torque limit in 0.1 %: the driver stays one below what a restart brings back."""


class RegisterArm:
    """Implements `runtime.ports.ArmPort` on the registers of one arm's simulated servos.

    Positions and goals are rounded to the servos' ticks, by the calibration of this very arm, as the bus
    rounds them.

    Attributes:
        states, targets, sent: as a driver's (`runtime.interfaces.ArmDriver`).
        calibration: as a driver says it.
    """

    def __init__(self, bank: ArmBank, config: FeetechOptions, joints: JointLayout) -> None:
        entries: Calibration = {
            name: JointCalibration.model_validate(entry)
            for name, entry in bank.encoders.calibration().items()
        }
        ranges = dict(zip(joints.names, joints.ranges.tolist(), strict=True))
        self._map = JointMap.build(
            entries, ranges, zero_rad=bank.encoders.middles(), grippers=joints.gripper_names
        )
        self._bank = bank
        self._config = config
        self._limits = dict.fromkeys(
            joints.gripper_names, config.joint_torque_limit_fraction["gripper"]
        ) | dict(config.joint_torque_limit_fraction)
        self._offsets = np.array([entry.homing_offset for entry in entries.values()])
        self._signs = self._map.signs()
        size = (len(joints.names),)
        self.states = Ring(dict.fromkeys(("position", "velocity", "load"), (size, "<f8")), 512)
        self.targets = Mailbox({"position": (size, "<f8")})
        self._target = Ring({"position": (size, "<f8")}, 2).blank()
        self.sent = Ring({"goal": (size, "<i8"), "position": (size, "<f8")}, 64)

    @property
    def calibration(self) -> Mapping[str, Any]:
        """By joint, as LeRobot's files have it."""
        return self._map.described()

    def power_on(self) -> None:
        """Gains and limits as configured, torque on, aiming where the joints are."""
        config, bank = self._config, self._bank
        for name, servo_id in zip(self._map.names, bank.ids, strict=True):
            limit = self._limits.get(name, config.torque_limit_fraction)
            bank.set_gains(servo_id, config.p_gain, config.i_gain, config.d_gain)
            bank.set_torque_limit(servo_id, min(round(limit / LOAD_FRACTION), _MOST))
            bank.set_goal(servo_id, bank.reading(servo_id).position)
            bank.set_torque(servo_id, True)

    def read(self, stamp_ns: int) -> None:
        """Publish the joints' state as the servos report it."""
        joints, (ticks, speeds, loads) = self._map, self._bank.readings()
        self.states.push(
            stamp_ns,
            position=joints.to_units(ticks - self._offsets),
            velocity=joints.rates(speeds),
            load=self._signs * loads * LOAD_FRACTION,
        )

    def write(self, now_ns: int) -> None:
        """Give the servos the newest target as their goal, if there is a new one."""
        sample = self.targets.take(self._target)
        if sample is not None and np.isfinite(sample["position"]).all():
            self.aim(sample["position"], now_ns)

    def aim(self, target: Floats, now_ns: int) -> None:
        """Write `target` ``[D]`` into the goal registers."""
        goals = self._map.to_ticks(target)
        self._bank.set_goals(goals + self._offsets)
        self.sent.push(now_ns, goal=goals, position=self._map.to_units(goals))
