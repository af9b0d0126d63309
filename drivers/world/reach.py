"""Top-down inverse kinematics of the SO-100, for the scripted operator and the judge's own checks."""

from __future__ import annotations

import math

import numpy as np

from runtime.messages import Floats
from runtime.so100 import GRASP_SITE, JOINT_RANGES_RAD, so100_spec

_ITERATIONS = 60
_DAMPING = 1e-3
_ROTATION_WEIGHT_M = 0.08
_NEAR_THE_END_RAD = 0.2


class UnreachableError(Exception):
    """No joint angles bring the gripper there, pointing down."""


class TopDown:
    """Solves for the five joints that put the grasp site at a point, pointing down, at a yaw.

    `yaw_rad` is the direction, in the table plane, from the fixed jaw to the moving one.
    """

    def __init__(self) -> None:
        import mujoco

        self._mujoco = mujoco
        self._model = so100_spec(visual=False, collision=False).compile()
        self._data = mujoco.MjData(self._model)
        self._site = self._model.site(GRASP_SITE).id
        self._jacobian = np.zeros((2, 3, self._model.nv))
        self._low, self._high = np.array(JOINT_RANGES_RAD)[:5].T

    def site_pose(self, joints: Floats) -> tuple[Floats, Floats]:
        """Position ``[3]`` and rotation ``[3, 3]`` of the grasp site at `joints` ``[5]``."""
        self._data.qpos[:5] = joints
        self._mujoco.mj_kinematics(self._model, self._data)
        self._mujoco.mj_comPos(self._model, self._data)
        return self._data.site_xpos[self._site].copy(), self._data.site_xmat[self._site].reshape(3, 3).copy()

    def solve(self, position: Floats, yaw_rad: float, guess: Floats | None = None) -> Floats:
        """Joints ``[5]`` for the grasp site at `position` ``[3]``, near `guess` if one is given.

        Raises:
            UnreachableError: they do not exist within the joints' ranges.
        """
        target = np.asarray(position, float)
        for start in self._first_guesses(target, yaw_rad) if guess is None else (guess,):
            joints = self._approach(target, top_down_rotation(yaw_rad), np.array(start, float))
            if joints is not None:
                return joints
        raise UnreachableError(f"no top-down pose at {np.round(target, 3).tolist()} yaw {yaw_rad:.2f}")

    def _approach(self, target: Floats, rotation: Floats, joints: Floats) -> Floats | None:
        """Joints for the grasp site at a pose, found downhill from `joints`."""
        for _ in range(_ITERATIONS):
            place, frame = self.site_pose(joints)
            error = np.concatenate([target - place, _ROTATION_WEIGHT_M * rotation_error(frame, rotation)])
            if np.linalg.norm(error[:3]) < 1e-5 and np.linalg.norm(error[3:]) < 1e-5:
                return joints
            self._mujoco.mj_jacSite(self._model, self._data, self._jacobian[0], self._jacobian[1], self._site)
            matrix = np.vstack([self._jacobian[0, :, :5], _ROTATION_WEIGHT_M * self._jacobian[1, :, :5]])
            step = matrix.T @ np.linalg.solve(matrix @ matrix.T + _DAMPING**2 * np.eye(6), error)
            joints = np.clip(joints + np.clip(step, -0.3, 0.3), self._low, self._high)
        close = np.linalg.norm(error[:3]) < 1e-3 and np.linalg.norm(error[3:]) < 2e-3
        return joints if close else None

    def _first_guesses(self, target: Floats, yaw_rad: float) -> list[Floats]:
        """Where to begin; close to the end of the wrist's turn from its other end, too.

        The roll in the end is a little off the guess, and may lie beyond that end: that is the same way
        round, a turn earlier.
        """
        pan = math.atan2(target[1], max(0.01, target[0] - 0.0452))
        roll = roll_for(yaw_rad, pan)
        ways = (
            [roll]
            if abs(roll) < math.pi - _NEAR_THE_END_RAD
            else [roll, roll - math.copysign(math.tau, roll)]
        )
        return [np.clip([pan, -1.9, 1.9, 1.5, way], self._low, self._high) for way in ways]


def roll_for(yaw_rad: float, pan_rad: float) -> float:
    """The wrist roll that gives `yaw_rad` at `pan_rad`, wrapped to a turn."""
    return math.remainder(yaw_rad + math.pi / 2 - pan_rad, 2 * math.pi)


def top_down_rotation(yaw_rad: float) -> Floats:
    """The grasp site's rotation when it points down with its jaws along `yaw_rad`."""
    y_axis = np.array([math.cos(yaw_rad), math.sin(yaw_rad), 0.0])
    z_axis = np.array([0.0, 0.0, -1.0])
    return np.stack([np.cross(y_axis, z_axis), y_axis, z_axis], axis=1)


def rotation_error(present: Floats, wanted: Floats) -> Floats:
    """The rotation vector (small-angle, ``[3]``) from `present` to `wanted`, in the base frame."""
    difference = wanted @ present.T
    axis = np.array(
        [
            difference[2, 1] - difference[1, 2],
            difference[0, 2] - difference[2, 0],
            difference[1, 0] - difference[0, 1],
        ]
    )
    sine = np.linalg.norm(axis)
    angle = math.atan2(sine, np.trace(difference) - 1)
    return np.asarray(axis * (angle / sine) if sine > 1e-9 else axis / 2)
