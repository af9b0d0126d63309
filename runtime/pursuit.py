"""How fast what is asked for moves: what catches up with it is to be as fast when it is there."""

from __future__ import annotations

import math

import numpy as np

from runtime.envelope import EPSILON, JointLimits, braking_speed
from runtime.messages import Floats
from runtime.snapshots import State, recall_known, remember

_STATE = ("_place", "_speed", "_pursues")
_ENCODER_RAD = math.tau / 4096
"""Positions come in steps: divided by a short period, one looks like a change of speed beyond any limit."""


class Pursuit:
    """An alpha-beta filter of the targets that are asked for, of all joints.

    Its gain is 1, so that the speed is that of the last two targets, unless the period is so short that one
    step of an encoder would look like more than the permitted acceleration.
    """

    def __init__(self, joints: int) -> None:
        self._place: Floats | None = None
        self._speed = np.zeros(joints)
        self._pursues = True

    def forget(self) -> None:
        """The next target is where it all begins."""
        self._place, self._speed = None, np.zeros_like(self._speed)

    def see(self, asked: Floats, limits: JointLimits, dt_s: float) -> None:
        """`asked` ``[D]`` is wanted now, `dt_s` after what was wanted before."""
        if self._place is None:
            self._place = asked
            return
        gain = np.minimum(1.0, limits.acceleration * dt_s * dt_s / _ENCODER_RAD)
        foreseen = self._place + self._speed * dt_s
        off = asked - foreseen
        speed = self._speed + gain * gain / (2.0 - gain) * off / dt_s
        self._place = foreseen + gain * off
        self._speed = np.minimum(np.maximum(speed, -limits.velocity), limits.velocity)

    def eased(
        self, asked: Floats, slow: Floats, start: Floats, velocity: Floats, limits: JointLimits, dt_s: float
    ) -> Floats:
        """`slow`; where that is too great a change of speed, what reaches `asked` as fast as `asked` moves.

        Straight at it with the greatest acceleration, a joint would be there at another speed, pass it, and
        swing about it: the shorter the period, the longer.

        Args:
            asked: ``[D]`` what is wanted.
            slow: ``[D]`` that, within the permitted speed.
            start: ``[D]`` where the joints' goals are.
            velocity: ``[D]`` how fast those move.
            limits: what a joint may do.
            dt_s: since the goals were sent.
        """
        if not self._pursues:
            return slow
        change = np.abs((slow - start) / dt_s - velocity)
        too_hard = change > limits.acceleration * dt_s + EPSILON
        if not too_hard.any():
            return slow
        away = asked - start - self._speed * dt_s
        speed = self._speed + np.sign(away) * braking_speed(np.abs(away), limits.acceleration, dt_s)
        speed = np.minimum(np.maximum(speed, -limits.velocity), limits.velocity)
        return np.where(too_hard, start + speed * dt_s, slow)

    def snapshot(self) -> State:
        """What is remembered between ticks, for `restore`."""
        return remember(self, _STATE)

    def restore(self, state: State | None) -> None:
        """Go on from where another one was at its `snapshot`; without one, from a stage that had none."""
        if state is None:
            self._pursues = False
        else:
            recall_known(self, _STATE, state)
