"""A grasp as rows of joint targets, each with the phase that it belongs to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from policies import motion
from policies.geometric.grasp import GraspCandidate
from policies.geometric.options import GeometricOptions
from policies.handling import free_way, plan_home, rise
from policies.motion import MotionError, MotionLimits
from runtime.arm_model import ArmModel
from runtime.interfaces import PolicyError
from runtime.messages import Floats

Phase = Literal["approach", "descend", "close", "lift", "done", "failed"]

_CLOSING_CHECK_ROWS = 3
_TRIES = 4
"""Grasps tried at most; each costs some 20 ms."""


@dataclass(frozen=True, slots=True)
class GraspMotion:
    """``rows[N, D]`` to execute one after the other, and ``phases[N]``."""

    rows: Floats
    phases: tuple[Phase, ...]

    def nearest(
        self, q: Floats, first: int, last: int, joints: Sequence[int], slack_rad: float = 0.0
    ) -> tuple[int, float]:
        """The row in ``first..last`` closest to `q` in its entries at `joints`, and how close that is.

        With `slack_rad`, the last row that is at most so much less close: an arm at rest is never quite
        where it was asked to be.
        """
        first = min(max(first, 0), len(self.rows) - 1)
        window = self.rows[first : max(last + 1, first + 1)]
        distance = np.abs(window[:, joints] - q[joints]).max(axis=1)
        best = float(distance.min())
        row = int(np.flatnonzero(distance <= best + slack_rad)[-1 if slack_rad else 0])
        return first + row, best


class GraspMotionPlanner:
    """Makes the parts of a grasp for one arm."""

    def __init__(self, config: GeometricOptions, arm: ArmModel) -> None:
        self._config = config
        self._arm = arm
        self._gripper = arm.grippers[0]
        speeds = {
            "gripper_velocity_s": config.gripper_velocity_s,
            "gripper_acceleration_s2": 12.0 * config.gripper_velocity_s,
            "rate_hz": config.rate_hz,
        }
        v, a, scale = config.velocity_rad_s, config.acceleration_rad_s2, config.careful_scale
        self.free = MotionLimits.uniform(arm, v, a, **speeds)
        self.careful = MotionLimits.uniform(arm, v * scale, a * scale, **speeds)

    def first_possible(
        self, start: Floats, velocity: Floats, prefix: Floats, grasps: Sequence[GraspCandidate]
    ) -> tuple[GraspMotion, GraspCandidate]:
        """The plan of the first of `grasps` (best first, not empty) to which there is a free way.

        Raises:
            PolicyError: there is none; says what is in the way of the best.
        """
        first: PolicyError | None = None
        for grasp in grasps[:_TRIES]:
            try:
                return self.grasp(start, velocity, prefix, grasp), grasp
            except PolicyError as error:
                first = first or error
        raise first or PolicyError("there is nothing to grasp")

    def grasp(self, start: Floats, velocity: Floats, prefix: Floats, grasp: GraspCandidate) -> GraspMotion:
        """From `start`, over the object, down, and closing as far as the object should allow.

        Raises:
            PolicyError: there is no free way.
        """
        parts: list[tuple[Floats, Phase]] = [(prefix, "approach")]
        parts += self.approach(start, velocity, grasp)
        above = parts[-1][0][-1]
        try:
            down = motion.plan_cartesian_move(self._arm, above, grasp.pose, self.careful)
        except MotionError as error:
            raise PolicyError(f"the way down to the object: {error}") from None
        settle = max(1, round(self._config.settle_s * self._config.rate_hz))
        parts += [(down, "descend"), (np.repeat(down[-1:], settle, axis=0), "descend")]
        parts += self.closing(down[-1], max(0.0, grasp.contact - self._config.squeeze))
        return joined(parts)

    def aside(self, start: Floats, velocity: Floats, prefix: Floats) -> GraspMotion:
        """Out of the camera's view: to where the arm hides nothing.

        Raises:
            PolicyError: there is no free way.
        """
        goal = start.copy()
        others = list(self._arm.layout.others)
        goal[others] = self._config.look_rad or self._arm.home[others]
        try:
            rows = plan_home(self._arm, start, goal, self.free, self._config.lift_height_m, velocity)
        except MotionError as error:
            raise PolicyError(f"out of the camera's view: {error}") from None
        return joined([(prefix, "approach"), (rows, "approach")])

    def approach(self, start: Floats, velocity: Floats, grasp: GraspCandidate) -> list[tuple[Floats, Phase]]:
        """From `start` to above the object, up first where the direct way is not free.

        Raises:
            PolicyError: there is no free way.
        """
        goal = grasp.q_above
        direct = motion.plan_joint_move(start, goal, self.free, velocity)
        height = float(grasp.above[2, 3])
        if free_way(self._arm, direct, min(self._arm.grasp_height(start), height)):
            return [(direct, "approach")]
        lift = self.rising(start, height)
        onward = motion.plan_joint_move(lift[-1], goal, self.free)
        if not free_way(self._arm, onward, min(self._arm.grasp_height(lift[-1]), height)):
            raise PolicyError("no free way to above the object")
        return [(lift, "approach"), (onward, "approach")]

    def rising(self, start: Floats, height_m: float) -> Floats:
        """Rows straight up from `start` to `height_m`, as far as the arm reaches."""
        return rise(self._arm, start, height_m, self.careful)

    def closing(self, start: Floats, opening: float) -> list[tuple[Floats, Phase]]:
        """Jaws to `opening`, the arm at rest; the last rows wait for the jaws to follow."""
        goal = start.copy()
        goal[self._gripper] = opening
        rows = motion.plan_joint_move(start, goal, self.careful)
        wait = np.repeat(rows[-1:], _CLOSING_CHECK_ROWS, axis=0)
        return [(rows, "close"), (wait, "close")]

    def lift(self, start: Floats, held: float, height_m: float) -> GraspMotion:
        """Straight up with the jaws' target at `held`."""
        holding = start.copy()
        holding[self._gripper] = held
        grip = motion.plan_joint_move(start, holding, self.careful)
        return joined([(grip, "lift"), (self.rising(holding, height_m), "lift")])

    def retreat(self, start: Floats, opening: float, height_m: float) -> GraspMotion:
        """Open the jaws where they are, then straight up."""
        opened = start.copy()
        opened[self._gripper] = opening
        parts = [(motion.plan_joint_move(start, opened, self.careful), "failed")]
        parts.append((self.rising(opened, height_m), "failed"))
        return joined(parts)  # type: ignore[arg-type]


def joined(parts: Sequence[tuple[Floats, Phase]]) -> GraspMotion:
    """One plan of several parts; empty parts are left out."""
    used = [(rows, phase) for rows, phase in parts if len(rows)]
    phases: list[Phase] = [phase for rows, phase in used for _ in range(len(rows))]
    return GraspMotion(np.concatenate([rows for rows, _ in used]), tuple(phases))
