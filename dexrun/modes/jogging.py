"""Keys that move the point of a leader without an arm, where there is one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
from loguru import logger

from dexrun.robot import Robot
from runtime.interfaces import JoggedLeader
from runtime.messages import Floats

_LINEAR_M_S, _ANGULAR_RAD_S, _GRIPPER_S = 0.08, 0.8, 0.8
_FACTORS = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0)
_KEYS = "k j forward, back; h l left, right; u n up, down; z x roll; y b pitch; , . turn; o c open, close"

_WAYS: Mapping[str, tuple[int, float]] = {
    "forward": (0, 1),
    "back": (0, -1),
    "left": (1, 1),
    "right": (1, -1),
    "up": (2, 1),
    "down": (2, -1),
    "roll-": (3, -1),
    "roll+": (3, 1),
    "pitch-": (4, -1),
    "pitch+": (4, 1),
    "yaw+": (5, 1),
    "yaw-": (5, -1),
}
"""Of a twist, which of its six a command is about, and which way."""


class JogKeys:
    """What keys ask of the leaders that are jogged: a little of the way, again and again while a key repeats.

    Args:
        heard: whether what is pressed counts now; otherwise it says what to do first.
    """

    def __init__(self, robot: Robot, heard: Callable[[], bool] = lambda: True) -> None:
        self._clock = robot.clock
        self._heard = heard
        self._leaders = {
            name.partition(".")[2]: leader
            for name, leader in robot.leaders.items()
            if isinstance(leader, JoggedLeader)
        }
        self._at = 0
        self._speed = _FACTORS.index(1.0)

    def __bool__(self) -> bool:
        return bool(self._leaders)

    @property
    def help(self) -> str:
        """The keys, for a person; empty where nothing is jogged."""
        if not self._leaders:
            return ""
        other = f"; a the other arm (now {list(self._leaders)[self._at]})" if len(self._leaders) > 1 else ""
        return f"hold to move the gripper: {_KEYS}; - + slower, faster{other}"

    def commands(self) -> dict[str, Callable[[], None]]:
        """By the command of `dexrun.episodes.keys.KeyParser`."""
        if not self._leaders:
            return {}
        moves: dict[str, Callable[[], None]] = {f"jog.{way}": partial(self._move, way) for way in _WAYS}
        return {
            **moves,
            "jog.open": partial(self._grip, 1.0),
            "jog.close": partial(self._grip, -1.0),
            "jog.faster": partial(self._pace, 1),
            "jog.slower": partial(self._pace, -1),
            "jog.other": self._other,
        }

    def _move(self, way: str) -> None:
        axis, sign = _WAYS[way]
        twist = np.zeros(6)
        twist[axis] = sign * _FACTORS[self._speed] * (_LINEAR_M_S if axis < 3 else _ANGULAR_RAD_S)
        self._post(twist, 0.0)

    def _grip(self, sign: float) -> None:
        self._post(np.zeros(6), sign * _GRIPPER_S)

    def _post(self, twist: Floats, grip: float) -> None:
        if self._heard():
            leader = list(self._leaders.values())[self._at]
            leader.jog.post(self._clock.now_ns(), twist=twist, grip=grip)

    def _pace(self, step: int) -> None:
        self._speed = min(len(_FACTORS) - 1, max(0, self._speed + step))
        logger.info("keys move the gripper at {:g} m/s", _LINEAR_M_S * _FACTORS[self._speed])

    def _other(self) -> None:
        self._at = (self._at + 1) % len(self._leaders)
        logger.info("keys move {}", list(self._leaders)[self._at] or "the arm")
