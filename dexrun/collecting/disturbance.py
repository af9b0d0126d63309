"""What keeps demonstrations from being perfect: noise on what is executed, shoves, crooked starts.

A policy that has only ever seen perfect moves does not know the way back onto them (Laskey et al. 2017,
"DART: Noise Injection for Robust Imitation Learning"). The noise lies on the target that the safety stage
checks; what is recorded as requested is the demonstrator's own target, which leads back.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from runtime.messages import Floats
from runtime.options import Options
from runtime.ports import Safety, SafetyOutcome


class NoiseOptions(Options):
    """How much of everything, at ``--noise 1``; angles in radians, a gripper's in parts of its travel.

    Attributes:
        wander_rad, wander_s: standard deviation and memory of an offset that wanders (Ornstein-Uhlenbeck).
        shoves_per_s, shove_rad, shove_s: how often a few joints are pushed aside, how far, for how long.
        start_share, start_rad: how many attempts begin off home, and how far off each joint at most.
        object_share, object_m: in how many attempts the object is pushed, and how far at most.
        near_share: of all this, what is left with the fingers at the table; all of it `near_m` above.
    """

    wander_rad: float = 0.012
    wander_s: float = 0.5
    shoves_per_s: float = 0.12
    shove_rad: float = 0.12
    shove_s: float = 0.5
    start_share: float = 0.7
    start_rad: float = 0.3
    object_share: float = 0.15
    object_m: float = 0.025
    near_share: float = 0.2
    near_m: float = 0.1

    def scaled(self, factor: float) -> NoiseOptions:
        """`factor` times as much."""
        less = {"wander_rad", "shove_rad", "shoves_per_s", "start_rad", "object_m"}
        shares = {name: getattr(self, name) * min(1.0, factor) for name in ("start_share", "object_share")}
        return self.model_copy(update={**{name: getattr(self, name) * factor for name in less}, **shares})


class Wander:
    """An offset ``[D]`` from tick to tick, for the joints that carry the fingers; grippers have none."""

    def __init__(
        self, options: NoiseOptions, rate_hz: float, joints: int, carrying: Sequence[int], seed: Sequence[int]
    ) -> None:
        self._options = options
        self._dt = 1 / rate_hz
        self._carrying = list(carrying)
        self._joints = joints
        self._rng = np.random.default_rng(list(seed))
        self._offset = np.zeros(len(carrying))
        self._shove = np.zeros(len(carrying))
        self._shove_ticks = self._shove_at = 0

    def next(self, height_m: float) -> Floats:
        """The offset of this tick, with the grasp point `height_m` above the table."""
        options, rng, dt = self._options, self._rng, self._dt
        pull = dt / options.wander_s
        kick = options.wander_rad * np.sqrt(2 * pull)
        self._offset += -pull * self._offset + kick * rng.standard_normal(len(self._offset))
        self._push()
        near = np.clip(height_m / options.near_m, options.near_share, 1.0)
        out = np.zeros(self._joints)
        out[self._carrying] = near * (self._offset + self._pushed())
        return out

    def _push(self) -> None:
        options, rng = self._options, self._rng
        if self._shove_at < self._shove_ticks:
            self._shove_at += 1
        elif rng.random() < options.shoves_per_s * self._dt:
            some = rng.random(len(self._shove)) < 0.5
            self._shove = some * rng.uniform(-options.shove_rad, options.shove_rad, len(self._shove))
            self._shove_ticks, self._shove_at = max(2, round(options.shove_s / self._dt)), 0

    def _pushed(self) -> Floats:
        """There and back again, smoothly."""
        if self._shove_at >= self._shove_ticks:
            return np.zeros_like(self._shove)
        return np.asarray(self._shove * np.sin(np.pi * self._shove_at / self._shove_ticks) ** 2)


class Unsteady:
    """A safety stage in front of which an offset is laid upon what is asked for (`runtime.ports.Safety`).

    Attributes:
        offset: ``[D]`` of the coming targets; ``None`` leaves them as they are.
    """

    def __init__(self, stage: Safety) -> None:
        self._stage = stage
        self.offset: Floats | None = None

    def apply(
        self,
        requested: Floats,
        present: Floats,
        previous: Floats,
        force_n: Floats | None,
        load: Floats | None,
        dt_s: float,
    ) -> SafetyOutcome:
        """As `SafetyStage.apply`."""
        asked = requested if self.offset is None else requested + self.offset
        return self._stage.apply(asked, present, previous, force_n, load, dt_s)

    def rehearse(self, target: Floats, present: Floats, load: Floats, dt_s: float) -> None:
        """Nothing is rehearsed where nothing is timed."""

    def reset(self) -> None:
        """As `SafetyStage.reset`."""
        self._stage.reset()

    def interrupted(self) -> None:
        """As `SafetyStage.interrupted`."""
        self._stage.interrupted()

    def lasted(self, dt_s: float, passed_s: float) -> None:
        """As `SafetyStage.lasted`."""
        self._stage.lasted(dt_s, passed_s)

    def slowing(self, previous: Floats, dt_s: float) -> Floats:
        """As `SafetyStage.slowing`."""
        return self._stage.slowing(previous, dt_s)

    def limit_speed(self, share: float) -> None:
        """As `SafetyStage.limit_speed`."""
        self._stage.limit_speed(share)

    def unsent(self, force_n: Floats | None, dt_s: float) -> str | None:
        """As `SafetyStage.unsent`."""
        return self._stage.unsent(force_n, dt_s)
