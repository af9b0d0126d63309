"""The point that is moved: the follower's grasp frame, and the joints that bring it there.

Rotations are about the axes that the point's own heading has: forward is from the first joint's axis to the
point, left and up go with it. An arm of fewer than six joints turns with its heading, as it must, and takes
another orientation where a place can be reached with that alone; an arm that can have any pose keeps its own,
and its axes are the base frame's.
"""

from __future__ import annotations

import math

import numpy as np

from drivers.jog.options import JogOptions
from runtime.arm_model import ArmModel, IkResult
from runtime.ik_options import IkOptions
from runtime.messages import Floats
from runtime.rotations import rotation_matrix, rotation_vector

_IK = IkOptions(iterations=6)
_EXACT_M, _MISSED = 6e-5, 0.3
"""A step is made if the point gets there: as near as the solver goes, or to this share of the step."""
_NEAR_RAD = 0.1
"""So far from the orientation that was asked for a pose may be, an arm of few joints being what it is."""
_SAME_M, _SAME_RAD = 1e-4, 1e-3
_SQUEEZE = 0.35
"""How far beyond where it is a gripper is asked to be: what the safety stage lets it squeeze."""
_UPRIGHT = 0.999
_ALL_DIRECTIONS = 6


class JoggedPoint:
    """Joint positions that follow a point in space, a little further at each call.

    Args:
        model: of the arm, this object's own.

    Attributes:
        q: the joints ``[D]``. point: where the grasp point is asked to be, ``[3]`` in the base frame.
    """

    def __init__(self, model: ArmModel, config: JogOptions) -> None:
        self._model = model
        self._config = config
        self._fingers = model.fingers
        self._moving = np.setdiff1d(np.arange(model.joints), model.fingers.joints)
        first = int(model.model.joint(model.parts.names[int(self._moving[0])]).id)
        self._middle = model.data.xanchor[first][:2].copy()
        upright = abs(float(model.data.xaxis[first][2])) > _UPRIGHT
        self._few = self._moving.size < _ALL_DIRECTIONS
        self._turns = self._few and upright
        self.q = model.middle()
        self.anchor(self.q)
        self.advance(np.array([0.0, 0.0, 1e-3]), np.zeros(3), self.q)  # the solver is imported and made now

    def anchor(self, q: Floats) -> None:
        """Begin anew at the joints `q` ``[D]``, cut down to their ranges."""
        ranges = self._model.layout.ranges
        self.q = np.clip(q, ranges[:, 0], ranges[:, 1])
        pose = self._model.fk(self.q)
        self.point = pose[:3, 3].copy()
        self._level = self._heading(self.point).T @ pose[:3, :3]

    @property
    def orientation(self) -> Floats:
        """3x3 in the base frame, as it is asked for."""
        return np.asarray(self._heading(self.point) @ self._level)

    def strays(self, follower: Floats) -> bool:
        """Whether the joints are farther from the `follower`'s ``[D]`` than the leash is long."""
        away, metres = self._ahead(self.q, follower)
        return away > self._config.leash_rad or metres > self._config.leash_m

    @property
    def opening(self) -> float:
        """Of the gripper, 0 closed to 1 open; 0 where there is none."""
        openings = self._fingers.openings(self.q)
        return float(openings.mean()) if openings.size else 0.0

    def grip(self, opening: float, follower: Floats) -> None:
        """Ask for a gripper that is open so far, but no farther from the `follower`'s than it may squeeze."""
        there = self._fingers.openings(follower)
        asked = np.clip(np.clip(opening, there - _SQUEEZE, there + _SQUEEZE), 0.0, 1.0)
        self.q = self._fingers.opened_to(self.q, asked)

    def to_heading(self, turn: Floats) -> Floats:
        """A rotation vector of the base frame, in the heading's axes."""
        return np.asarray(self._heading(self.point).T @ turn)

    def advance(self, move: Floats, turn: Floats, follower: Floats) -> bool:
        """Move the point by `move` ``[3]`` (metres, base frame) and turn it by `turn` ``[3]`` (radians, about
        its heading's axes), as far as the arm can and the leash to the `follower`'s joints ``[D]`` lets it.

        Returns:
            Whether anything was done.
        """
        none = np.zeros(3)
        tries = [(move, turn), (move / 4, turn / 4)]
        if move.any() and turn.any():
            tries += [(move, none), (none, turn)]
        if any(self._go(*each, follower) for each in tries):
            return True
        # What could not quite be had is given up for good: to get it back would take a leap, or a detour.
        pose = self._model.fk(self.q)
        level = self._heading(pose[:3, 3]).T @ pose[:3, :3]
        turned = _size(rotation_vector(level.T @ self._level))
        if turned < _SAME_RAD and _size(pose[:3, 3] - self.point) < _SAME_M:
            return False
        self.point, self._level = pose[:3, 3].copy(), level
        return any(self._go(*each, follower) for each in tries)

    def _go(self, move: Floats, turn: Floats, follower: Floats) -> bool:
        point, level = self.point + move, rotation_matrix(turn) @ self._level
        target = np.eye(4)
        target[:3, :3], target[:3, 3] = self._heading(point) @ level, point
        found = self._model.ik(target, self.q, _IK)
        if not self._may(found, target, move, turn, follower):
            return False
        self.q[self._moving] = found.q[self._moving]
        self.point = point
        reached = self._heading(point).T @ self._model.fk(self.q)[:3, :3]
        gives_way = self._few and _size(rotation_vector(level.T @ reached)) > _NEAR_RAD
        self._level = reached if gives_way else level
        return True

    def _may(self, found: IkResult, target: Floats, move: Floats, turn: Floats, follower: Floats) -> bool:
        """Whether the arm gets there, without a leap, and not too far ahead of the follower."""
        config = self._config
        leap = float(np.abs(found.q - self.q)[self._moving].max())
        if leap > config.joint_rad_s / config.rate_hz:
            return False
        before = self._off(self.orientation, self.point, self.q)
        after = self._off(target[:3, :3], target[:3, 3], found.q)
        gained = after[1] - before[1]
        if after[0] > max(_EXACT_M, _MISSED * _size(move), before[0]) or gained > 0.5 * _size(turn) > 0:
            return False  # out of reach; or a turn that this arm cannot make
        if after[1] > _NEAR_RAD and gained > 0 and not self._few:
            return False
        away, metres = self._ahead(found.q, follower)
        was, were = self._ahead(self.q, follower)
        return away <= max(config.leash_rad, was) and metres <= max(config.leash_m, were)

    def _off(self, orientation: Floats, point: Floats, q: Floats) -> tuple[float, float]:
        """Metres and radians between what is asked for and what the joints `q` give."""
        pose = self._model.fk(q)
        return _size(pose[:3, 3] - point), _size(rotation_vector(orientation.T @ pose[:3, :3]))

    def _ahead(self, q: Floats, follower: Floats) -> tuple[float, float]:
        """How far the joints `q` are ahead of the follower's: radians, and metres of the point."""
        away = float(np.abs(q - follower)[self._moving].max())
        return away, _size(self._model.fk(q)[:3, 3] - self._model.fk(follower)[:3, 3])

    def _heading(self, point: Floats) -> Floats:
        if not self._turns:
            return np.eye(3)
        x, y = point[:2] - self._middle
        return rotation_matrix(np.array([0.0, 0.0, math.atan2(y, x)]))


def _size(vector: Floats) -> float:
    return float(np.linalg.norm(vector))
