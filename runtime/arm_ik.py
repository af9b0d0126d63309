"""Inverse kinematics by differential IK (mink): a quadratic program per step, joint ranges as its limits."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import mink
import numpy as np

from runtime.ik_options import IkOptions
from runtime.messages import Floats

_STEP_S = 1.0
_SMALL_STEP_RAD = 1e-5
_LARGEST_STEP_RAD = 0.5
_OFF_LIMITS_RAD = 0.012
"""Solutions keep this far from the ends of the ranges: a little more than the safety stage's margin."""
_DAMPING = 1.0
"""Levenberg-Marquardt, by the error: without it a stretched arm steps back and forth for ever."""


class IkSolver:
    """Holds mink's tasks for one arm of a model; not for use by two threads at once."""

    def __init__(self, model: Any, site: int, qpos: Any, moving: Collection[int]) -> None:
        """Move `site` by the degrees of freedom at `moving` only; `qpos` are the arm's positions' indices."""
        self._configuration = mink.Configuration(model)
        self._site = site
        self._qpos = qpos
        limit = mink.ConfigurationLimit(model, gain=0.9, min_distance_from_limits=_OFF_LIMITS_RAD)
        # What is not moved stays where it is, at the very end of its range, too: another arm, a shut gripper.
        moved = [int(model.jnt_qposadr[model.dof_jntid[dof]]) for dof in moving]
        elsewhere = np.setdiff1d(np.arange(model.nq), moved)
        limit.lower[elsewhere], limit.upper[elsewhere] = -np.inf, np.inf
        self._limits = [limit]
        frozen = [dof for dof in range(model.nv) if dof not in moving]
        self._constraints = [mink.DofFreezingTask(model, dof_indices=frozen)] if frozen else []
        self._posture = mink.PostureTask(model, cost=1.0)
        self._frame = mink.FrameTask(site, "site", 1.0, 1.0, lm_damping=_DAMPING)

    def solve(self, target: Floats, seed: Floats, options: IkOptions) -> Floats:
        """The arm's native positions that bring the site closest to `target`, from all of the model's."""
        full = seed.copy()
        self._configuration.update(full)
        self._frame.set_target(mink.SE3.from_matrix(target))
        self._frame.set_position_cost(options.position_cost)
        # The costs are along the site's own axes: x and y tilt the approach direction, z is the yaw.
        self._frame.set_orientation_cost([options.approach_cost, options.approach_cost, options.yaw_cost])
        self._posture.set_target(full)
        self._posture.set_cost(options.posture_cost)
        for _ in range(options.iterations):
            if self._step(options):
                break
        return np.asarray(self._configuration.q[self._qpos])

    def _step(self, options: IkOptions) -> bool:
        try:
            velocity = mink.solve_ik(
                self._configuration,
                [self._frame, self._posture],
                _STEP_S,
                "daqp",
                damping=1e-6,
                limits=self._limits,
                constraints=self._constraints or None,
            )
        except mink.NoSolutionFound:
            return True
        largest = float(np.abs(velocity).max())
        shrink = min(1.0, _LARGEST_STEP_RAD / max(largest, 1e-12))
        self._configuration.integrate_inplace(velocity * shrink, _STEP_S)
        error = np.linalg.norm(self._frame.compute_error(self._configuration)[:3])
        return bool(largest < _SMALL_STEP_RAD or (largest < 1e-3 and error < options.tolerance_m))
