"""The object over time: taken in anew while it can be seen, kept as it was while the arm hides it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from policies.geometric.estimate import ObjectEstimate
from policies.geometric.options import GeometricOptions
from policies.geometric.view import estimate_object, hidden_share, masked_frame, obstacles_around
from policies.nudged.arm import ArmInSight
from policies.nudged.camera import standing
from policies.nudged.view import DepthView
from runtime.arm_model import ArmModel
from runtime.interfaces import PolicyError
from runtime.messages import CameraInfo, Floats, Observation

_OCCLUDED_SHARE = 0.7
_JUMP_M = 0.06
_ASIDE_RAD = 0.1


class ObjectMemory:
    """Remembers one object.

    Attributes:
        estimate: the object as last seen whole; ``None`` until then.
        obstacles: ``[N, 3]`` what stood around it when it was seen first.
    """

    def __init__(
        self, config: GeometricOptions, arm: ArmModel, camera: CameraInfo | Callable[[], CameraInfo]
    ) -> None:
        self._config = config
        self._others = list(arm.layout.others)
        self._look = np.array(config.look_rad or arm.home[self._others])
        self._camera = camera
        self._arm = ArmInSight(arm) if config.nudged else None
        self.reset()

    def reset(self) -> None:
        """Forget the object."""
        self.estimate: ObjectEstimate | None = None
        self.obstacles: Floats = np.zeros((0, 3))
        self._standing: CameraInfo | None = None

    def look(self, observation: Observation) -> bool:
        """Take in what is seen; whether the object turned out to be new or elsewhere.

        Still without an estimate afterwards, the arm hides the object and should move aside.

        Raises:
            PolicyError: there is no estimate yet, and none can be made of this.
            NotReadyError: there is none yet, and where the camera stands is being measured.
        """
        known = self.estimate
        try:
            if known is None and self._arm is not None:
                self._standing = self._found(observation, self._arm)
            hidden = hidden_share(observation, self._info(), self._config) > self._config.max_hidden_share
            if hidden and (known is not None or self._can_move_aside(observation)):
                return False
            fresh = estimate_object(observation, self._info(), self._config)
        except PolicyError:
            if known is None:
                raise
            return False
        if known is not None and not self._news(fresh, known):
            return False
        if known is None:
            self.obstacles = obstacles_around(observation, self._info(), self._config, fresh.center)
        self.estimate = fresh
        return True

    def _found(self, observation: Observation, arm: ArmInSight) -> CameraInfo:
        _, depth, mask = masked_frame(observation, self._config)
        view = DepthView(depth, mask, self._calibrated())
        return standing(view, self._config.table_height_m, arm, observation.arm)

    def _info(self) -> CameraInfo:
        return self._calibrated() if self._standing is None else self._standing

    def _calibrated(self) -> CameraInfo:
        return self._camera() if callable(self._camera) else self._camera

    def _can_move_aside(self, observation: Observation) -> bool:
        """Whether the arm is somewhere else than where it hides nothing."""
        return bool(np.abs(observation.arm.position[self._others] - self._look).max() > _ASIDE_RAD)

    def _news(self, fresh: ObjectEstimate, known: ObjectEstimate) -> bool:
        """Whether `fresh` shows the whole object, at another place than `known`."""
        partly = (
            fresh.points < _OCCLUDED_SHARE * known.points
            or fresh.long_m * fresh.short_m < _OCCLUDED_SHARE * known.long_m * known.short_m
        )
        if partly or fresh.shift_from(known) > _JUMP_M:
            return False
        return (
            fresh.shift_from(known) >= self._config.replan_shift_m
            or fresh.turn_from(known) >= self._config.replan_turn_rad
        )
