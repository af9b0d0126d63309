"""The joint-space part of the safety stage: pure functions on vectors ``[D]``.

Each takes a target and returns the one it allows. They are meant to run in the order in which they
stand here; what a later one asks for wins over an earlier one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from runtime.limits import JointOverride, SafetyOptions
from runtime.messages import Floats

EPSILON = 1e-9
"""A change below this is rounding, and is not counted as a clip."""


@dataclass(frozen=True, slots=True)
class JointLimits:
    """Limits of all joints, each ``[D]``: radians (gripper: fractions of its travel) and seconds."""

    lower: Floats
    upper: Floats
    relative: Floats
    velocity: Floats
    acceleration: Floats

    @classmethod
    def build(
        cls, options: SafetyOptions, names: Sequence[str], ranges: Floats, grippers: Sequence[int]
    ) -> JointLimits:
        """Combine the model's `ranges` ``[D, 2]`` with the options; `grippers` are indices.

        Raises:
            ValueError: an override names a joint that is not there, leaves an empty range, or is looser than
                what holds without it. The message begins with its key.
        """
        unknown = sorted(set(options.joints) - set(names))
        if unknown:
            raise ValueError(
                f"safety.joints: no joint is called {unknown[0]!r}; there are {', '.join(names)}"
            )
        rows = [_limits_of(options, name, ranges[i], i in grippers) for i, name in enumerate(names)]
        columns = np.array(rows, dtype=np.float64).T.copy()
        return cls(*columns)

    def reaching(self, start: Floats) -> JointLimits:
        """With the range widened to `start` ``[D]``: an arm that rests outside may stay, or come back.

        Drawing such a start into the range instead would send the joint there in one step, unasked.
        """
        lower, upper = np.minimum(self.lower, start), np.maximum(self.upper, start)
        if (lower == self.lower).all() and (upper == self.upper).all():
            return self
        return replace(self, lower=lower, upper=upper)


_TIGHTENED = (
    ("max_relative_target_rad", "max_relative_target_gripper"),
    ("max_velocity_rad_s", "max_velocity_gripper_s"),
    ("max_acceleration_rad_s2", "max_acceleration_gripper_s2"),
)
"""A joint's own limits, which are also what they are called for all joints, and for all grippers."""


def _limits_of(
    options: SafetyOptions, name: str, model_range: Floats, is_gripper: bool
) -> tuple[float, float, float, float, float]:
    override = options.joints.get(name, JointOverride())
    margin = 0.0 if is_gripper else options.range_margin_rad
    low, high = map(float, model_range)
    lower, upper = low + margin, high - margin
    for key in ("lower_rad", "upper_rad"):
        own = getattr(override, key)
        if own is not None and not low <= own <= high:
            raise ValueError(
                f"safety.joints.{name}.{key} = {own:g} is outside of what the joint can do, "
                f"{low:g} to {high:g}"
            )
    if override.lower_rad is not None:
        lower = max(lower, override.lower_rad)
    if override.upper_rad is not None:
        upper = min(upper, override.upper_rad)
    if lower >= upper:
        raise ValueError(f"safety.joints.{name} leaves the empty range {lower:g} to {upper:g}")
    relative, velocity, acceleration = (
        _tighter(
            options, f"safety.joints.{name}.{key}", getattr(override, key), gripper if is_gripper else key
        )
        for key, gripper in _TIGHTENED
    )
    return lower, upper, relative, velocity, acceleration


def _tighter(options: SafetyOptions, key: str, own: float | None, common_key: str) -> float:
    common = float(getattr(options, common_key))
    if own is not None and own > common:
        raise ValueError(
            f"{key} = {own:g} is more than safety.{common_key} ({common:g}); a joint's own limit is tighter"
        )
    return common if own is None else own


def differs(a: Floats, b: Floats) -> bool:
    """Whether a check changed anything worth counting."""
    if a is b or a.tobytes() == b.tobytes():  # almost always, and several times as fast
        return False
    return bool((np.abs(a - b) > EPSILON).any())


def replace_not_finite(target: Floats, fallback: Floats) -> tuple[Floats, bool]:
    """`target` with every NaN or infinity taken from `fallback`, and whether there was one."""
    finite = np.isfinite(target)
    if finite.all():
        return target, False
    return np.where(finite, target, fallback), True


def clip_range(target: Floats, limits: JointLimits) -> Floats:
    """Into the joints' ranges."""
    return np.minimum(np.maximum(target, limits.lower), limits.upper)


def clip_relative(target: Floats, present: Floats, limits: JointLimits) -> Floats:
    """Within ``limits.relative`` of the measured position, so that no servo is asked to push harder."""
    return np.minimum(np.maximum(target, present - limits.relative), present + limits.relative)


def clip_velocity(target: Floats, previous: Floats, limits: JointLimits, dt_s: float) -> Floats:
    """Within ``limits.velocity * dt_s`` of the previous target."""
    step = limits.velocity * dt_s
    return np.minimum(np.maximum(target, previous - step), previous + step)


def braking_speed(distance: Floats, acceleration: Floats, dt_s: float) -> Floats:
    """The highest speed for the coming step after which a stop within `distance` is still possible.

    Solves ``v * dt + v**2 / (2 a) = distance``: the step itself, then braking. A joint at that speed that
    brakes by ``a * dt`` every step satisfies the same equation again, so the end is never run over.
    """
    step = acceleration * dt_s
    room = np.maximum(distance, 0.0)
    speed: NDArray[np.float64] = np.sqrt(step * step + 2.0 * acceleration * room) - step
    return speed


def clip_acceleration(
    target: Floats, previous: Floats, present: Floats, velocity: Floats, limits: JointLimits, dt_s: float
) -> Floats:
    """Change of speed within ``limits.acceleration * dt_s``.

    Brakes in time for the end of the range, and for the end of the step from the measured position.
    `velocity` ``[D]`` is the speed of the target in the step before.
    """
    step = limits.acceleration * dt_s
    wanted = (target - previous) / dt_s
    upper = np.minimum(limits.upper, present + limits.relative)
    lower = np.maximum(limits.lower, present - limits.relative)
    up = braking_speed(upper - previous, limits.acceleration, dt_s)
    down = braking_speed(previous - lower, limits.acceleration, dt_s)
    # Where the previous target is beyond such an end already, the way back is free.
    up = np.where(previous < lower, np.inf, up)
    down = np.where(previous > upper, np.inf, down)
    wanted = np.minimum(np.maximum(wanted, -down), up)
    wanted = np.minimum(np.maximum(wanted, velocity - step), velocity + step)
    return previous + wanted * dt_s
