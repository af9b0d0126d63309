"""Top-down inverse kinematics of an arm, for the scripted operator and the judge's own checks."""

from __future__ import annotations

import math

import numpy as np

from runtime.body import RobotDescription
from runtime.jaws import measured_jaws
from runtime.messages import Floats

_ITERATIONS = 60
_DAMPING = 1e-3
_ROTATION_WEIGHT_M = 0.08
_NEAR_THE_END_RAD = 0.2
_RANDOM_GUESSES = 24


class UnreachableError(Exception):
    """No joint angles bring the gripper there, pointing down."""


class TopDown:
    """Solves for the joints that put the grasp site at a point, pointing down, at a yaw.

    `yaw_rad` is the direction, in the table plane, from the fixed jaw to the moving one. Joints are ``[N]``,
    those that the grasp site hangs on, without fingers.

    Attributes:
        jaws: how far they are apart at which opening.
        axis_m: ``[2]``, where the first joint's axis meets the table.
    """

    def __init__(self, robot: RobotDescription) -> None:
        import mujoco

        self._mujoco = mujoco
        self._robot = robot
        self._model = robot.build(False).compile()
        self._data = mujoco.MjData(self._model)
        self._site = self._model.site(robot.sites[""]).id
        self._jacobian = np.zeros((2, 3, self._model.nv))
        self._others = [index for index in robot.carrying if self._carries(robot.joints[index])]
        joints = [self._model.joint(robot.joints[index]) for index in self._others]
        self._qpos = [int(joint.qposadr[0]) for joint in joints]
        self._dofs = [int(joint.dofadr[0]) for joint in joints]
        self._low, self._high = robot.layout.ranges[self._others].T
        self.jaws = robot.jaws or measured_jaws(robot.model())
        self._ready = np.array(robot.ready or robot.home)[self._others]
        self._find_axes()

    def _carries(self, joint: str) -> bool:
        """Whether the grasp site hangs on `joint`; a thumb's, for one, carries nothing."""
        body, carrier = int(self._model.site_bodyid[self._site]), int(self._model.joint(joint).bodyid[0])
        while body and body != carrier:
            body = int(self._model.body_parentid[body])
        return body == carrier

    def _find_axes(self) -> None:
        """Where the first joint turns, and which way it and the last one turn the jaws."""
        ready, step = self._ready, 0.05
        place, frame = self.site_pose(ready)
        turned, rolled = ready.copy(), ready.copy()
        turned[0] += step
        rolled[-1] += step
        moved, after_roll = self.site_pose(turned)[0], self.site_pose(rolled)[1]
        chord = (moved - place)[:2]
        yaw = _yaw(frame)
        self._roll_sign = math.copysign(1.0, math.remainder(_yaw(after_roll) - yaw, math.tau))
        lever = place[:2] / 2
        self._pan_sign = math.copysign(1.0, float(lever[0] * chord[1] - lever[1] * chord[0]))
        across = np.array([-chord[1], chord[0]]) / (2 * math.tan(self._pan_sign * step / 2))
        self.axis_m = place[:2] + 0.5 * chord + across
        self._ahead = math.atan2(*(place[:2] - self.axis_m)[::-1])
        self._yaw_ahead = yaw

    def whole(self, joints: Floats, opening: float) -> Floats:
        """The model's own positions ``[D]`` of all joints, fingers opened to `opening`."""
        q = self._robot.fingers.opened_to(np.array(self._robot.home), opening)
        q[self._others] = joints
        return self._robot.to_native(q)

    def site_pose(self, joints: Floats) -> tuple[Floats, Floats]:
        """Position ``[3]`` and rotation ``[3, 3]`` of the grasp site at `joints` ``[N]``."""
        self._data.qpos[self._qpos] = joints
        self._mujoco.mj_kinematics(self._model, self._data)
        self._mujoco.mj_comPos(self._model, self._data)
        return self._data.site_xpos[self._site].copy(), self._data.site_xmat[self._site].reshape(3, 3).copy()

    def solve(self, position: Floats, yaw_rad: float, guess: Floats | None = None) -> Floats:
        """Joints ``[N]`` for the grasp site at `position` ``[3]``, near `guess` if one is given.

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
            matrix = np.vstack(
                [self._jacobian[0][:, self._dofs], _ROTATION_WEIGHT_M * self._jacobian[1][:, self._dofs]]
            )
            step = matrix.T @ np.linalg.solve(matrix @ matrix.T + _DAMPING**2 * np.eye(6), error)
            joints = np.clip(joints + np.clip(step, -0.3, 0.3), self._low, self._high)
        close = np.linalg.norm(error[:3]) < 1e-3 and np.linalg.norm(error[3:]) < 2e-3
        return joints if close else None

    def _first_guesses(self, target: Floats, yaw_rad: float) -> list[Floats]:
        """Where to begin; close to the end of the wrist's turn from its other end, too.

        The roll in the end is a little off the guess, and may lie beyond that end: that is the same way
        round, a turn earlier.
        """
        azimuth = math.atan2(target[1] - self.axis_m[1], max(0.01, target[0] - self.axis_m[0]))
        turn = azimuth - self._ahead
        roll = self._roll_sign * math.remainder(yaw_rad - self._yaw_ahead - turn, math.tau)
        guess = self._ready.copy()
        guess[0] += self._pan_sign * turn
        rolls = (
            [roll]
            if abs(roll) < math.pi - _NEAR_THE_END_RAD
            else [roll, roll - math.copysign(math.tau, roll)]
        )
        guesses = [np.clip([*guess[:-1], guess[-1] + way], self._low, self._high) for way in rolls]
        if self._robot.ready:
            return guesses
        generator = np.random.default_rng(0)
        return [*guesses, *generator.uniform(self._low, self._high, (_RANDOM_GUESSES, len(self._low)))]


def _yaw(frame: Floats) -> float:
    return math.atan2(frame[1, 1], frame[0, 1])


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
