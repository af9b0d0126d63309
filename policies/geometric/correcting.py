"""The geometric policy as a person who looks on while another policy drives, and takes over in the middle."""

from __future__ import annotations

import contextlib

import numpy as np

from policies import motion
from policies.geometric.estimate import ObjectEstimate
from policies.geometric.grasp import GraspCandidate
from policies.geometric.plan import GraspMotion, Phase, joined
from policies.geometric.policy import GeometricPolicy
from policies.motion import MotionError
from runtime.interfaces import PolicyError
from runtime.messages import Floats, Observation

_OVER_M, _YAW_RAD = 0.008, 0.15
"""So near to over the object, and so well turned, the gripper may go down from where it is."""
_AT_M = 0.006
"""So near to the grasp the jaws may close."""
_FORCE_SHARE = 0.5
_UP_M = 0.02


class CorrectingPolicy(GeometricPolicy):
    """Sees an attempt from its beginning; `answer` says at any time how it would go on from there.

    Its own plan is made anew with every answer, from the phase that the arm is in: on the way down it goes
    on down, with the object between the jaws it closes them, and holding it it lifts.
    """

    def reset(self) -> None:
        """Forget the object, and how it would be grasped."""
        super().reset()
        self._known: list[GraspCandidate] = []
        self._planned_for: ObjectEstimate | None = None

    def watch(self, observation: Observation) -> None:
        """Take in where the object is, as long as it can be seen."""
        with contextlib.suppress(PolicyError):
            self._watch.look(observation)

    def answer(self, observation: Observation, *, brief: bool = False) -> Floats:
        """Rows ``[T, D]`` with which it would go on from what is observed; `brief`: the first of them.

        Raises:
            PolicyError: it knows no way from there.
        """
        self.watch(observation)
        self._check(observation)
        estimate = self.estimate
        if estimate is None:
            raise PolicyError("the object has not been seen")
        start = self._asked_for(observation)
        yaw = float(np.arctan2(*self._arm.fk(start)[:2, 1][::-1]))
        if self._planned_for is not estimate or not brief:
            self._known = self._grasps.plan(estimate, self._watch.obstacles, start, yaw)
            self._planned_for = estimate
        self._plan, self.grasp, self.phase = self._from_here(observation, start, self._known, brief)
        self.failure, self._at, self._seen_step, self._waiting = "", 0, observation.step, 0
        return self._plan.rows

    def _asked_for(self, observation: Observation) -> Floats:
        """Where the arm is, the jaws a little more closed where they hold something."""
        start = observation.arm.position.copy()
        if self._touch.force(observation) > _FORCE_SHARE * self.config.contact_force_n:
            start[self._gripper] = max(0.0, float(start[self._gripper]) - self.config.squeeze)
        return start

    def _from_here(
        self, observation: Observation, start: Floats, grasps: list[GraspCandidate], brief: bool
    ) -> tuple[GraspMotion, GraspCandidate, Phase]:
        grasp = min(grasps, key=lambda each: self._off(each, start))
        pose, tip = grasp.pose, self._arm.fk(start)
        beside = float(np.linalg.norm(tip[:2, 3] - pose[:2, 3]))
        above = float(tip[2, 3] - pose[2, 3])
        squeezed = self._touch.force(observation) > self.config.contact_force_n
        narrow = float(start[self._gripper]) < grasp.contact + 0.02
        if squeezed and narrow and above > _UP_M:
            plan = self._planner.lift(start, float(start[self._gripper]), self._lift_height())
            return plan, grasp, "lift"
        turned_well = self._turn(grasp, tip) < _YAW_RAD
        if turned_well and beside < _AT_M and above < _AT_M:
            rows = self._planner.closing(start, max(0.0, grasp.contact - self.config.squeeze))
            return joined(rows), grasp, "close"
        wide = float(start[self._gripper]) > grasp.opening - 0.06
        if turned_well and wide and beside < _OVER_M and 0 < above < self.config.approach_height_m:
            with contextlib.suppress(MotionError):
                return self._down(start, grasp), grasp, "descend"
        if brief:
            return (
                joined(self._planner.approach(start, np.zeros_like(start), grasps[0])),
                grasps[0],
                "approach",
            )
        plan, grasp = self._planner.first_possible(start, np.zeros_like(start), start[None][:0], grasps)
        return plan, grasp, "approach"

    def _down(self, start: Floats, grasp: GraspCandidate) -> GraspMotion:
        down = motion.plan_cartesian_move(self._arm, start, grasp.pose, self._planner.careful)
        settle = max(1, round(self.config.settle_s * self.config.rate_hz))
        closing = self._planner.closing(down[-1], max(0.0, grasp.contact - self.config.squeeze))
        return joined([(down, "descend"), (np.repeat(down[-1:], settle, axis=0), "descend"), *closing])

    def _off(self, grasp: GraspCandidate, start: Floats) -> float:
        """How far the arm is from a grasp that it may be making already; else by what the grasp costs."""
        tip = self._arm.fk(start)
        beside = float(np.linalg.norm(tip[:2, 3] - grasp.pose[:2, 3]))
        return grasp.cost if beside > 2 * _OVER_M else beside + self._turn(grasp, tip) - 10.0

    @staticmethod
    def _turn(grasp: GraspCandidate, tip: Floats) -> float:
        mine, wanted = tip[:2, 1], grasp.pose[:2, 1]
        along = float(mine @ wanted) / max(1e-6, float(np.linalg.norm(mine) * np.linalg.norm(wanted)))
        return float(np.arccos(np.clip(along, -1.0, 1.0)))
