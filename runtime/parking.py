"""Where the arm is put before a stop is latched that nobody asked for at once."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from runtime.messages import Floats

_THERE_RAD = 1e-3
_SLACK, _SLACK_S = 1.5, 2.0
"""How much longer than at full speed it may take: the safety stage accelerates gently, and may refuse."""


class Parking:
    """A straight line in joint space from where the arm is to `pose_rad`, through the safety stage.

    `pose_rad` is for the joints at `joints`. The others stay as they are: a gripper keeps what it holds.
    The one number that it remembers is `left`, the ticks it may still take.
    """

    def __init__(
        self, pose_rad: Sequence[float], speed_rad_s: float, rate_hz: float, joints: Sequence[int]
    ) -> None:
        self._pose = np.array(pose_rad, dtype=np.float64)
        self._joints = list(joints)
        self._step, self._rate_hz = speed_rad_s / rate_hz, rate_hz
        self.left = 0

    def begin(self, target: Floats, speed: float = 1.0) -> None:
        """Set out from `target`, at a share `speed` of the velocity limits."""
        ticks = self._far(target) / self._step
        self.left = math.ceil((_SLACK * ticks + _SLACK_S * self._rate_hz) / speed)

    def next(self, target: Floats) -> Floats | None:
        """The row after `target`; ``None`` once the arm is there, or will not get there."""
        far = self._far(target)
        if far < _THERE_RAD or self.left <= 0:
            return None
        self.left -= 1
        row = target.copy()
        row[self._joints] += (self._pose - row[self._joints]) * min(1.0, self._step / far)
        return row

    def arrived(self, target: Floats) -> bool:
        """Whether `target` is the pose."""
        return self._far(target) < _THERE_RAD

    def _far(self, target: Floats) -> float:
        return float(np.abs(self._pose - target[self._joints]).max())
