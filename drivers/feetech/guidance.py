"""A leader's own motors bring it to where a person is to take it; then they let go."""

from __future__ import annotations

import numpy as np

from drivers.feetech import registers as reg
from drivers.feetech.bus import FeetechBus
from drivers.feetech.calibration import JointMap, TurnCounter
from runtime.clock import NS_PER_S
from runtime.ring import Sample

TORQUE_FRACTION = 0.6
"""Of a servo's torque: enough to carry a leader arm, and a person can still hold it back."""
PATIENCE_S = 1.0
"""Whoever guides says so again within this time; otherwise the arm is let go."""


class Guidance:
    """What the bus thread does with a leader's `guide`.

    Attributes:
        held: whether the servos' torque is on.
    """

    def __init__(self, joints: JointMap, turns: TurnCounter) -> None:
        self.held = False
        self._joints = joints
        self._turns = turns
        self._before: dict[int, int] = {}
        """The torque limits that were set at opening, by servo."""
        self._since_ns = 0

    def follow(self, bus: FeetechBus, wanted: Sample | None, now_ns: int) -> bool:
        """Obey the newest word of whoever guides; whether torque was switched, and its limits with it.

        Raises:
            DeviceError: ``gone``, ``no_reply``.
        """
        if wanted is None:
            return self.held and now_ns - self._since_ns > PATIENCE_S * NS_PER_S and self._let_go(bus)
        if not np.isfinite(wanted["position"]).all():
            return self.held and self._let_go(bus)
        self._since_ns = now_ns
        switched = not self.held and self._take_hold(bus)
        joints = self._joints
        goals, near = self._turns.to_servo(joints.to_ticks(wanted["position"]), joints.low, joints.high)
        rows = {i: g for i, g, ok in zip(joints.ids, goals.tolist(), near, strict=True) if ok}
        bus.sync_write(reg.GOAL_POSITION, rows)
        return switched

    def _take_hold(self, bus: FeetechBus) -> bool:
        """Hold it where it is: a goal that is left in a register would be run to."""
        for servo_id in self._joints.ids:
            limit = self._before[servo_id] = bus.read(servo_id, reg.TORQUE_LIMIT)
            bus.write(servo_id, reg.TORQUE_LIMIT, round(limit * TORQUE_FRACTION))
            bus.write(servo_id, reg.GOAL_POSITION, bus.read(servo_id, reg.PRESENT_POSITION))
            bus.write(servo_id, reg.TORQUE_ENABLE, 1)
        self.held = True
        return True

    def _let_go(self, bus: FeetechBus) -> bool:
        self.release(bus)
        for servo_id, limit in self._before.items():
            bus.write(servo_id, reg.TORQUE_LIMIT, limit)
        return True

    def release(self, bus: FeetechBus) -> None:
        """Torque off, at once."""
        if self.held:
            bus.sync_write(reg.TORQUE_ENABLE, dict.fromkeys(self._joints.ids, 0))
        self.held = False

    def forget(self) -> None:
        """The arm was opened anew: its torque is off, and its limits are set again."""
        self.held = False
        self._before.clear()
