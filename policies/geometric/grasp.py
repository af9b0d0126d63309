"""From an object's estimate to a grasp that the arm can reach and the neighbours leave room for."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from policies import motion
from policies.geometric.estimate import ObjectEstimate
from policies.geometric.options import GeometricOptions
from runtime.arm_model import ArmModel, IkResult
from runtime.interfaces import PolicyError
from runtime.jaws import JawError, measured_jaws
from runtime.messages import Floats

_ROUND_YAWS = 12
_FINGER_THICKNESS_M = 0.014
_FINGER_HALF_WIDTH_M = 0.010
_OBSTACLE_COST = 0.05
_WIDE_COST_PER_M = 30.0
_TILT_COST = 3.0
_TURN_COST = 0.15
_LOWER_STEP_M = 0.002
_RAISE_TRIES = 8
_CLOSING_STEPS = 5
_POSITION_TOLERANCE_M = 0.003


@dataclass(frozen=True, slots=True)
class GraspCandidate:
    """Where to grasp and how, as poses 4x4 and joint vectors ``[D]``.

    Attributes:
        pose: of the grasp frame when the jaws close.
        above: of the grasp frame before the descent.
        q_pose, q_above: the joints there, jaw open.
        opening: of the jaw on the way down.
        contact: of the jaw when it touches the object.
        width_m: of the object between the jaws.
        cost: lower is better; for comparing.
    """

    pose: Floats
    above: Floats
    q_pose: Floats
    q_above: Floats
    opening: float
    contact: float
    width_m: float
    cost: float


class GraspPlanner:
    """Finds top-down grasps for one arm."""

    def __init__(self, config: GeometricOptions, arm: ArmModel) -> None:
        self._config = config
        self._arm = arm
        if len(arm.grippers) != 1:
            raise PolicyError(f"geometric grasps: one gripper is needed; the arm has {len(arm.grippers)}")
        try:
            self.jaws = measured_jaws(arm)
        except JawError as error:
            raise PolicyError(f"geometric grasps: {error}") from None
        self._gripper = arm.grippers[0]
        self._others = list(arm.layout.others)

    def plan(
        self, estimate: ObjectEstimate, obstacles: Floats, seed: Floats, near_yaw: float | None = None
    ) -> list[GraspCandidate]:
        """Grasps of `estimate`, the best first; at least one.

        Args:
            estimate: the object.
            obstacles: ``[N, 3]`` points that the fingers should keep away from.
            seed: joints ``[D]`` to start from; near solutions are preferred.
            near_yaw: the jaw direction chosen before, to stay with it where nothing speaks against it.

        Raises:
            PolicyError: no grasp is within reach, or the object is too wide.
        """
        found: list[GraspCandidate] = []
        candidates = self._candidates(estimate)
        if not candidates:
            width = estimate.short_m * 1e3
            limit = self._config.max_width_m * 1e3
            raise PolicyError(f"the object is {width:.0f} mm wide; the jaws take up to {limit:.0f} mm")
        for yaw, width in candidates:
            grasp = self._grasp(estimate, yaw, width, obstacles, seed)
            if grasp is not None:
                turn = 0.0 if near_yaw is None else abs(math.remainder(yaw - near_yaw, 2 * math.pi))
                found.append(replace(grasp, cost=grasp.cost + _TURN_COST * turn))
        if not found:
            x, y = estimate.center
            raise PolicyError(f"no grasp within reach of the object at ({x:.3f}, {y:.3f}) m")
        return sorted(found, key=lambda g: g.cost)

    def _candidates(self, estimate: ObjectEstimate) -> list[tuple[float, float]]:
        """Directions in which the jaw may open, with the object's width in each."""
        widest = min(self._config.max_width_m, self.jaws.widest_m - self._config.finger_gap_m)
        if estimate.round:
            width = max(estimate.short_m, estimate.long_m)
            turns = np.arange(_ROUND_YAWS) * 2 * math.pi / _ROUND_YAWS
            return [(float(turn), width) for turn in turns] if width <= widest else []
        sides = [(estimate.yaw_rad + math.pi / 2, estimate.short_m), (estimate.yaw_rad, estimate.long_m)]
        return [(yaw + half, width) for yaw, width in sides if width <= widest for half in (0.0, math.pi)]

    def _grasp(
        self, estimate: ObjectEstimate, yaw: float, width: float, obstacles: Floats, seed: Floats
    ) -> GraspCandidate | None:
        config = self._config
        opens = np.array([math.cos(yaw), math.sin(yaw)])
        # The fixed finger goes down `finger_gap_m` beside the object; the moving one closes.
        shift = self.jaws.fixed_face_m - 0.5 * width - config.finger_gap_m
        place = estimate.center + shift * opens
        gap = width + config.finger_gap_m + config.opening_margin_m
        opening, contact = self.jaws.opening_for(gap), self.jaws.opening_for(width)
        start = seed.copy()
        start[self._gripper] = opening
        low = self._lowest(place, yaw, estimate.height_m, start, contact)
        if low is None:
            return None
        height, at = low
        above = self._reach(place, height + config.approach_height_m, yaw, at.q)
        if above is None:
            return None
        pose = motion.pointing_down((*place, height), yaw)
        blocked = self._blocked(obstacles, pose, opening)
        travel = float(np.abs(above.q - seed)[self._others].max())
        cost = (
            _OBSTACLE_COST * blocked
            + _TILT_COST * at.tilt_rad
            + _WIDE_COST_PER_M * max(0.0, width - estimate.short_m)
            + _TURN_COST * travel
        )
        higher = motion.pointing_down((*place, height + config.approach_height_m), yaw)
        return GraspCandidate(pose, higher, at.q, above.q, opening, contact, width, cost)

    def _lowest(
        self, place: Floats, yaw: float, height_m: float, seed: Floats, closed: float
    ) -> tuple[float, IkResult] | None:
        """The lowest good height of the grasp point: not under its middle, off the table until closed."""
        config = self._config
        table = config.table_height_m
        height = table + max(0.5 * height_m, 0.012)
        # Fingers that turn about a pivot go down as they close.
        closing = np.linspace(seed[self._gripper], max(0.0, closed - config.squeeze), _CLOSING_STEPS)
        for _ in range(_RAISE_TRIES):
            result = self._reach(place, height, yaw, seed)
            if result is None:
                return None
            lowest = min(self._over_table(result.q, opening) for opening in closing)
            if lowest >= config.table_margin_m:
                return height, result
            height += max(_LOWER_STEP_M, config.table_margin_m - lowest)
        return None

    def _over_table(self, q: Floats, opening: float) -> float:
        out = q.copy()
        out[self._gripper] = opening
        return self._arm.clearances(out)[1]

    def _reach(self, place: Floats, height: float, yaw: float, seed: Floats) -> IkResult | None:
        position = (float(place[0]), float(place[1]), height)
        aimed = motion.aimed_seed(self._arm, seed, position)
        result = self._arm.ik(motion.pointing_down(position, yaw), aimed)
        good = (
            result.position_error_m <= _POSITION_TOLERANCE_M
            and result.tilt_rad <= self._config.max_tilt_rad
            and result.yaw_error_rad <= self._config.max_yaw_error_rad
        )
        return result if good and self._arm.clearances(result.q)[0] > 0.005 else None

    def _blocked(self, obstacles: Floats, pose: Floats, opening: float) -> int:
        """How many obstacle points lie where the fingers go down."""
        if len(obstacles) == 0:
            return 0
        local = (obstacles - pose[:3, 3]) @ pose[:3, :3]
        across, along = np.abs(local[:, 0]), local[:, 1]
        fixed, moving = -self.jaws.fixed_face_m, self.jaws.moving_face_m(opening)
        in_finger = ((along < fixed) & (along > fixed - _FINGER_THICKNESS_M)) | (
            (along > moving) & (along < moving + _FINGER_THICKNESS_M)
        )
        return int((in_finger & (across < _FINGER_HALF_WIDTH_M)).sum())
