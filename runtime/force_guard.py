"""Force limit: under force nothing closes further; above the limit the arm gives way, and only lifts."""

from __future__ import annotations

import math

import numpy as np

from runtime.clearance import BodyModel
from runtime.limits import SafetyOptions
from runtime.messages import Floats

_LIFT_M = 2e-5
"""A move that raises the grasp point by less in one step is not one that lifts."""


def largest_force(force_n: Floats | float | None) -> float:
    """The greatest magnitude among the channels; infinite if one is not a number; 0 without a sensor."""
    if force_n is None:
        return 0.0
    magnitude = np.abs(np.asarray(force_n, dtype=np.float64))
    if magnitude.size == 0:
        return 0.0
    largest = float(magnitude.max())
    return largest if math.isfinite(largest) else math.inf


class ForceGuard:
    """Eases targets while a force is felt, and says when it has lasted too long.

    Attributes:
        lasted_s: how long the force has been above the limit.
    """

    def __init__(self, options: SafetyOptions, model: BodyModel) -> None:
        self._options = options
        self._model = model
        self._grippers = list(model.grippers)
        self._fingers = model.fingers
        self._arms = [list(joints) for joints in model.arms]
        self.lasted_s = 0.0

    def lasting(self, force: float, dt_s: float) -> str | None:
        """It is `force` for `dt_s`; returns why to stop, if it has been too high for too long."""
        options = self._options
        self.lasted_s = self.lasted_s + dt_s if force > options.max_force_n else 0.0
        if self.lasted_s <= options.force_stop_s:
            return None
        return f"force above {options.max_force_n:g} N for {options.force_stop_s:g} s"

    def ease(
        self, target: Floats, start: Floats, present: Floats, force: float, dt_s: float
    ) -> tuple[Floats, str | None]:
        """Under force: close no further; above the limit: open towards the measured position, only lift.

        Which arm the force is felt by is not known: each of several arms does so.
        """
        options = self._options
        reason = self.lasting(force, dt_s)
        if force <= options.max_force_n:
            if force >= options.soft_force_fraction * options.max_force_n:
                eased = self._with_grippers(target, start, 0.0, present)
                return self._fingers.no_further_closed(eased, start), None
            return target, None
        held, relaxed = target.copy(), self._relaxed(start, present, dt_s)
        lifts = self._model.grasp_heights(target) > self._model.grasp_heights(start) + _LIFT_M
        for joints, is_lifting in zip(self._arms, lifts, strict=True):
            if not is_lifting:
                held[joints] = relaxed[joints]
        held = self._fingers.no_further_closed(held, target)  # a hand may open,
        held = self._fingers.no_further_closed(held, start)  # and not close, however the arm lifts
        held[self._grippers] = target[self._grippers]
        return self._with_grippers(held, start, options.force_ease_gripper_s * dt_s, present), reason

    def _relaxed(self, start: Floats, present: Floats, dt_s: float) -> Floats:
        """`start`, drawn towards the measured position where it pushes beyond it."""
        options = self._options
        offset, step = options.stall_offset_rad, options.force_ease_rad_s * dt_s
        # Less than the offset is what holds an arm up against its own weight.
        aim = np.minimum(np.maximum(start, present - offset), present + offset)
        return np.asarray(start + np.minimum(np.maximum(aim - start, -step), step))

    def _with_grippers(self, target: Floats, start: Floats, opening: float, present: Floats) -> Floats:
        if not self._grippers:
            return target
        g = self._grippers
        eased = np.minimum(start[g] + opening, np.maximum(present[g], start[g]))
        out = target.copy()
        out[g] = np.maximum(target[g], eased)
        return out
