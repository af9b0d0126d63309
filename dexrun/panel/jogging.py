"""What a page asks of a leader without an arm: a velocity, or the pose of a phone or a VR controller."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from dexrun.episodes.episodes import EpisodeError
from runtime.interfaces import JoggedLeader
from runtime.messages import Floats

if TYPE_CHECKING:
    from dexrun.robot import Robot

JOGS: Mapping[str, tuple[str, ...]] = {
    "jog": ("twist", "grip", "arm"),
    "hand": ("position", "quaternion", "grip", "clutch", "arm"),
}
"""Commands, and what comes with them."""
OFTEN: Mapping[str, tuple[str, ...]] = {**JOGS, "speed": ("value",)}
"""The same of those that are asked for again and again while a hand moves: not each is said."""


class PanelJog:
    """Passes on what a page asks for, while the person drives. Up to 60 times a second, on the loop."""

    def __init__(self, robot: Robot) -> None:
        self._leaders = {
            name.partition(".")[2]: leader
            for name, leader in robot.leaders.items()
            if isinstance(leader, JoggedLeader)
        }
        self._teleop = robot.settings.mode == "teleop"

    @property
    def arms(self) -> list[str]:
        """The arms that can be moved so, the first of them where a page names none."""
        return list(self._leaders)

    def possible(self, driving: str) -> bool:
        """Whether there is such a leader, and it is followed."""
        return bool(self._leaders) and (self._teleop or driving == "person")

    def ask(self, name: str, args: Mapping[str, Any], stamp_ns: int, driving: str) -> None:
        """Carry out the command `name`, of `stamp_ns`: after a fraction of a second it counts no more.

        Raises:
            EpisodeError: there is no such leader, it is not followed, or the numbers are none.
        """
        if not self._leaders:
            raise EpisodeError(
                f"{name}: the leader of this run is an arm; [leader] driver = 'jog' is moved so"
            )
        if not self.possible(driving):
            raise EpisodeError(f"{name}: take over first")
        arm = args.get("arm", next(iter(self._leaders)))
        leader = self._leaders.get(arm) if isinstance(arm, str) else None
        if leader is None:
            raise EpisodeError(f"{name}: arm is one of {', '.join(self._leaders)}")
        if name == "jog":
            leader.jog.post(stamp_ns, twist=_numbers(args, "twist", 6), grip=_number(args, "grip", 0.0))
            return
        quaternion = _numbers(args, "quaternion", 4)
        if not 0.5 < np.linalg.norm(quaternion) < 2.0:
            raise EpisodeError("quaternion: x, y, z, w of length 1 are wanted")
        leader.hand.post(
            stamp_ns,
            position=_numbers(args, "position", 3),
            quaternion=quaternion,
            grip=_number(args, "grip", math.nan),
            clutch=float(args.get("clutch") is True),
        )


def _numbers(args: Mapping[str, Any], key: str, count: int) -> Floats:
    given = args.get(key)
    if not isinstance(given, list) or len(given) != count or not all(map(_finite, given)):
        raise EpisodeError(f"{key}: {count} numbers are wanted")
    return np.array(given, dtype=np.float64)


def _number(args: Mapping[str, Any], key: str, otherwise: float) -> float:
    given = args.get(key)
    if given is None:
        return otherwise
    if not _finite(given):
        raise EpisodeError(f"{key}: a number is wanted")
    return float(given)


def _finite(value: Any) -> bool:
    return not isinstance(value, bool) and isinstance(value, int | float) and abs(value) < 1e6
