"""The safety stage: the last thing between any target and the arm, in every mode.

Its checks run in a fixed order: finite numbers, joint range, step from the present position, velocity,
acceleration, collision with the arm itself and with the table, force, stall. A later check wins over an
earlier one. Limits on range and velocity hold for every output (an arm that rests outside its range may stay
or come back, at the permitted speed); the limit on acceleration yields to a collision, force or stall check,
which may stop the target at once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from runtime import envelope
from runtime.clearance import BodyModel, Margins, farthest_clear
from runtime.envelope import JointLimits
from runtime.force_guard import ForceGuard, largest_force
from runtime.joints import Permitted
from runtime.limits import LEAST_SPEED, SafetyOptions
from runtime.messages import Clip, Floats
from runtime.pursuit import Pursuit
from runtime.snapshots import State, recall_known, remember
from runtime.stall import StallGuard

_NOMINAL_STEP_S = 1.0 / 30.0
_SHAPING = (Clip.RANGE, Clip.RELATIVE, Clip.VELOCITY, Clip.ACCELERATION)
_STATE = ("_velocity", "_last", "_from", "_speed", "_fastest")
_BRAKED = 0.9
"""A brake is gentler than the limit by as much as a tick may be short without being measured."""
_TURN_RAD = math.tau
"""No joint rests farther outside its range than this: what is read there is no position."""
UNKNOWN_POSITION = "the arm's position is not known"


@dataclass(frozen=True, slots=True)
class SafetyResult:
    """What may be sent: ``target[D]``, why it differs from what was asked, and why to stop, if so.

    With a `stop_reason` the target is still safe to send: it is where the arm should stand. It is all NaN,
    and nothing may be sent, only where nobody knows where the arm is.
    """

    target: Floats
    clips: Clip
    stop_reason: str | None = None


class SafetyStage:
    """Turns any requested target into one that may be sent. One per joint vector; called from one thread.

    It remembers the speed of the target it gave last, joints that stall, and how long a force has been
    too high; `reset` forgets all of it, `interrupted` the speed alone.

    Attributes:
        limits: of all joints, with the velocity as it is limited now (`limit_speed`).
    """

    def __init__(self, options: SafetyOptions, model: BodyModel) -> None:
        """Take limits from `options` and ranges from `model`, which the stage then has for itself.

        Raises:
            ValueError: the options do not fit the arm.
        """
        self.options = options
        self._model = model
        self.limits = JointLimits.build(options, model.names, model.ranges, model.grippers)
        self._stall = StallGuard(options, model.names, model.grippers, model.fingers.joints.tolist())
        self._force = ForceGuard(options, model)
        self._joints = len(model.names)
        self._margins = Margins(
            options.self_clearance_m, options.table_clearance_m, options.table_lag_m_per_rad
        )
        self._own_limits = self.limits
        self._least, self._most = self.limits.lower - _TURN_RAD, self.limits.upper + _TURN_RAD
        self._speed, self._fastest = 1.0, self.limits.velocity
        self._velocity = np.zeros(self._joints)
        self._pursuit = Pursuit(self._joints)
        self._last: Floats | None = None
        self._from: Floats | None = None

    @property
    def permitted(self) -> Permitted:
        """What is let through as it is, at full speed: for who would rather not be cut."""
        own = self._own_limits
        ranges = np.column_stack([own.lower, own.upper])
        return Permitted(
            ranges, own.velocity, own.acceleration, self._margins.table_m, self.options.max_force_n
        )

    def reset(self) -> None:
        """Forget speed, stalls and forces; the next target starts from rest."""
        self._last = None
        self._velocity = np.zeros(self._joints)
        self._pursuit.forget()
        self._force.lasted_s = 0.0
        self._stall.reset()

    def interrupted(self) -> None:
        """No target was sent for a while: the next starts from rest.

        How long a force or a stall has lasted is kept: a gap in the arm's state is no reason why it should
        have ended, and gaps that come again and again would keep the arm from ever being stopped.
        """
        self._last = None
        self._velocity = np.zeros(self._joints)
        self._pursuit.forget()

    def lasted(self, dt_s: float, passed_s: float) -> None:
        """The last target, credited `dt_s`, came `passed_s` after the one before: that was its speed."""
        self._velocity = self._velocity * (dt_s / min(passed_s, max(dt_s, self.options.max_step_s)))

    def slowing(self, previous: Floats, dt_s: float) -> Floats:
        """The target ``[D]`` after `previous` while all joints are braked, less hard than they may be.

        `previous` itself once they stand still.
        """
        step = _BRAKED * self.limits.acceleration * dt_s
        speed = np.maximum(np.abs(self._velocity) - step, 0.0)
        return np.asarray(previous + np.sign(self._velocity) * speed * dt_s)

    def limit_speed(self, share: float) -> None:
        """Targets move at most at this share of the velocity limits; faster joints are braked to it.

        Raises:
            ValueError: it is not from `runtime.limits.LEAST_SPEED` to 1.
        """
        if not LEAST_SPEED <= share <= 1.0:
            raise ValueError(f"a speed of {share:g}; from {LEAST_SPEED:g} to 1 of the velocity limits")
        self._speed = share

    def _slow_limits(self, dt: float) -> None:
        """The velocity limits come down to what was asked for no faster than a joint may brake."""
        if self._speed == 1.0 and self._fastest is self._own_limits.velocity:
            return
        asked = self._speed * self._own_limits.velocity
        if not np.array_equal(asked, self._fastest):
            braked = self._fastest - _BRAKED * self._own_limits.acceleration * dt
            self._fastest = np.maximum(asked, braked)
            self.limits = replace(self._own_limits, velocity=self._fastest)

    def unsent(self, force_n: Floats | float | None, dt_s: float) -> str | None:
        """No target can be sent for `dt_s`; returns why to stop, if a force has lasted too long."""
        return self._force.lasting(largest_force(force_n), dt_s)

    def snapshot(self) -> State:
        """What is remembered between ticks, for `restore`."""
        return {
            **remember(self, _STATE),
            "_force_s": self._force.lasted_s,
            "stall": self._stall.snapshot(),
            "pursuit": self._pursuit.snapshot(),
        }

    def restore(self, state: State) -> None:
        """Go on from where another stage was at its `snapshot`.

        One of an earlier version did not begin targets at the goals that servos have. Without a
        ``pursuit`` it went straight at its targets: so does this one then.
        """
        self._from = state["_last"]
        recall_known(self, _STATE, state)
        self.limits = replace(self._own_limits, velocity=self._fastest)
        self._force.lasted_s = state["_force_s"]
        self._stall.restore(state["stall"])
        self._pursuit.restore(state.get("pursuit"))

    def apply(
        self,
        requested: Floats,
        present: Floats,
        previous: Floats,
        force_n: Floats | float | None,
        load: Floats | None,
        dt_s: float,
    ) -> SafetyResult:
        """The target to send in place of `requested`. Never raises.

        Args:
            requested: ``[D]`` from the policy or the leader arm; anything at all.
            present: ``[D]`` measured.
            previous: ``[D]`` the target sent before (at first: the measured position).
            force_n: the force sensor's channels, or ``None`` without one.
            load: ``[D]`` fraction of stall torque, or ``None``.
            dt_s: time since `previous` was sent.
        """
        known = [self._last] if self._last is not None else []
        start = self._first_known([previous, *known, present])
        present = self._first_known([present, start])
        if not np.isfinite(start).all():
            return SafetyResult(np.full(self._joints, np.nan), Clip.NOT_FINITE, UNKNOWN_POSITION)
        dt = min(dt_s, self.options.max_step_s) if math.isfinite(dt_s) and dt_s > 0 else _NOMINAL_STEP_S
        self._slow_limits(dt)
        velocity = self._speed_at(start, dt)
        target, clips = self._shape(requested, start, present, velocity, dt)
        target, more, reason = self._protect(target, start, present, force_n, load, dt)
        # A stalled joint's target is drawn back while the joint stands still: that is no speed to keep up.
        self._velocity = np.where(self._stall.mask, 0.0, (target - start) / dt)
        self._last, self._from = target, start
        return SafetyResult(target.copy(), clips | more, reason)

    def _speed_at(self, start: Floats, dt: float) -> Floats:
        """How fast the joints' goals move ``[D]``, which are at `start` now."""
        if self._last is None or self._from is None:
            return np.zeros(self._joints)
        if np.array_equal(self._last, start):
            return self._velocity
        # Of a target that was not reached: as fast as its goal did move, and no faster than it should have.
        fastest = np.abs(self._velocity)
        moved = np.minimum(np.maximum((start - self._from) / dt, -fastest), fastest)
        return np.where(self._last == start, self._velocity, moved)

    def rehearse(self, target: Floats, present: Floats, load: Floats, dt_s: float) -> None:
        """Do the work of `apply` for the last `target` and forget it, so that it is in the caches."""
        state = self.snapshot()
        self.apply(target, present, target, None, load, dt_s)
        self.restore(state)

    def _first_known(self, candidates: Sequence[Floats]) -> Floats:
        """Per joint, the first of the values that a joint can have; NaN where there is none."""
        out = np.full(self._joints, np.nan)
        for candidate in candidates:
            values = _vector(candidate, self._joints)
            possible = (values >= self._least) & (values <= self._most)
            if possible.all():
                return np.where(np.isnan(out), values, out)
            out = np.where(np.isnan(out) & possible, values, out)
        return out

    def _shape(
        self, requested: Floats, start: Floats, present: Floats, velocity: Floats, dt: float
    ) -> tuple[Floats, Clip]:
        limits = self.limits.reaching(start)
        target, broken = envelope.replace_not_finite(_vector(requested, self._joints), start)
        clips = Clip.NOT_FINITE if broken else Clip.NONE
        ranged = envelope.clip_range(target, limits)
        near = envelope.clip_relative(ranged, present, limits)
        slow = envelope.clip_velocity(near, start, limits, dt)
        self._pursuit.see(ranged, limits, dt)
        eased = self._pursuit.eased(near, slow, start, velocity, limits, dt)
        smooth = envelope.clip_acceleration(eased, start, present, velocity, limits, dt)
        stages = (target, ranged, near, slow, smooth)
        for reason, before, after in zip(_SHAPING, stages, stages[1:], strict=False):
            if envelope.differs(before, after):
                clips |= reason
        # Once more for what the steps from `start` undid: the range, to the last bit, and the velocity.
        return envelope.clip_range(envelope.clip_velocity(smooth, start, limits, dt), limits), clips

    def _protect(
        self,
        target: Floats,
        start: Floats,
        present: Floats,
        force_n: Floats | float | None,
        load: Floats | None,
        dt: float,
    ) -> tuple[Floats, Clip, str | None]:
        clips = Clip.NONE
        clear = farthest_clear(self._model, start, target, self._margins, present)
        if envelope.differs(clear, target):
            clips |= Clip.COLLISION
        eased, forced = self._force.ease(clear, start, present, largest_force(force_n), dt)
        if envelope.differs(eased, clear):
            clips |= Clip.FORCE
        loads = np.zeros(self._joints) if load is None else _vector(load, self._joints)
        relaxed, stalled = self._stall.apply(eased, present, loads, dt)
        if envelope.differs(relaxed, eased):
            clips |= Clip.STALL
            relaxed = envelope.clip_velocity(relaxed, start, self.limits, dt)
        if relaxed is not clear:
            relaxed = envelope.clip_range(relaxed, self.limits.reaching(start))
            if clips & (Clip.FORCE | Clip.STALL):
                relaxed = farthest_clear(self._model, start, relaxed, self._margins, present)
        return relaxed, clips, forced or stalled


def _vector(values: object, joints: int) -> Floats:
    """``values`` as float64 ``[D]``; all NaN where it is nothing of the kind."""
    try:
        vector = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        return np.full(joints, np.nan)
    return vector if vector.shape == (joints,) else np.full(joints, np.nan)
