"""What jaws and force sensor tell: whether something is held, or pressed on."""

from __future__ import annotations

import numpy as np

from policies.geometric.options import GeometricOptions
from runtime.messages import Observation

MISS_OPENING = 0.02
"""Jaws that closed this far have nothing between them."""
_STILL_OPEN = 0.08
_PLAUSIBLE_OPENING = 0.12
_SETTLED_S = 0.08


class Touch:
    """Reads one observation; openings are fractions of the jaw's travel."""

    def __init__(self, config: GeometricOptions, gripper: int) -> None:
        """Take the index of the joint that moves the jaw."""
        self._config = config
        self._gripper = gripper

    def holds_object(self, observation: Observation, asked: float, contact: float) -> bool:
        """Whether something stands between the jaws where the object should be.

        Args:
            observation: the arm's state and force.
            asked: the jaw's target.
            contact: the opening at which the object should be met.
        """
        plausible = float(observation.arm.position[self._gripper]) < contact + _PLAUSIBLE_OPENING
        return plausible and self.still(observation) and self.holds(observation, asked)

    def holds(self, observation: Observation, asked: float) -> bool:
        """Whether the jaw is kept from its target, and by a force if there is a sensor."""
        opening = float(observation.arm.position[self._gripper])
        lags = opening - asked > self._config.contact_lag
        force = observation.force_n
        if force is not None and force.size and np.isfinite(force).all():
            return lags and self.force(observation) > self._config.contact_force_n
        return lags and opening > MISS_OPENING

    def presses(self, observation: Observation, contact: float) -> bool:
        """Whether the fingers press on something before they can have closed on the object."""
        wide = float(observation.arm.position[self._gripper]) > contact + _STILL_OPEN
        return wide and self.force(observation) > self._config.touch_force_n

    def still(self, observation: Observation) -> bool:
        """Whether the jaw has come to rest."""
        return abs(float(observation.arm.velocity[self._gripper])) < _SETTLED_S

    @staticmethod
    def force(observation: Observation) -> float:
        """The largest force felt, newtons; 0 without a sensor or a reading."""
        force = observation.force_n
        if force is None or force.size == 0 or not np.isfinite(force).all():
            return 0.0
        return float(np.abs(force).max())
