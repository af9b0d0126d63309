"""What the control loop sends: each target made safe, from the goal that each servo has."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from runtime.clock import NS_PER_S
from runtime.inputs import LoopInputs
from runtime.messages import Floats
from runtime.ports import ArmPort, Safety, SafetyOutcome
from runtime.snapshots import State, recall_known, remember
from runtime.written import Goals, NoGoals, WrittenGoals, sent_ring

_STATE = ("target", "speed", "_posted_ns", "_before_ns")
_ON_TIME = 0.1
"""A tick that is off by no more than this share of a period is on time."""
NEAR_RAD = 0.05
"""A joint that is this near to where it was, or was asked to be, has not been moved (gripper: a fraction)."""
BRIEF_NS = NS_PER_S // 4
"""After a gap as short as this in an arm's state, its servos are still on the way that they were sent on:
nobody has opened the arm anew (`runtime.device.DeviceOptions.reopen_first_s`)."""


def gone_on_from(
    position: Floats, target: Floats, before: Floats, gap_ns: int, holders: Sequence[int]
) -> Floats:
    """The target ``[D]`` to go on from after a gap in the arm's state: where the arm is found.

    After a brief one that is its last `target`, which it has not reached yet. After a longer one, a joint
    that is found near it keeps it: taking what it sags by for where it is to be would let it sag further each
    time. One of `holders` that has not moved since `before` the gap keeps it, too: it pushes against what it
    holds.
    """
    if gap_ns <= BRIEF_NS:
        return target
    keeps = np.abs(position - target) <= NEAR_RAD
    stood = np.abs(position - before) <= NEAR_RAD
    keeps[list(holders)] |= stood[list(holders)]
    return np.where(keeps, target, position)


class LoopOutput:
    """The arm's targets, one after the other, each through the safety stage.

    Of the loop's task alone. `holders` are the joints that may hold something, and push against it while they
    stand still. `goals`, by default what `arm` says, tells which targets reached the servos.

    Attributes:
        target: ``[D]`` the last target that was posted, or where it is known that a joint's servo did not get
            it, the goal that it has; ``None`` before the first.
        held: ``[D]`` those goals, as far as joints went on from them in this tick (else NaN), or ``None``.
        speed: the share of the velocity limits at which the arm may move.
        resumes: whether it goes on after a gap from where it was; loops did not before they engaged.
    """

    def __init__(
        self, arm: ArmPort, safety: Safety, rate_hz: float, holders: Sequence[int], goals: Goals | None
    ) -> None:
        self.target: Floats | None = None
        self.held: Floats | None = None
        self.speed = 1.0
        self.resumes = True
        self._timed = True
        self._arm, self._safety = arm, safety
        self._rate_hz, self._period_s = rate_hz, 1.0 / rate_hz
        self._holders = list(holders)
        sent = sent_ring(arm)
        told = NoGoals() if sent is None else WrittenGoals(sent, rate_hz)
        self._goals: Goals = told if goals is None else goals
        self._posted_ns = self._before_ns = -1
        self._nowhere = np.full(arm.states.layout["position"][0][0], np.nan)

    @property
    def previous(self) -> Floats:
        """``[D]`` the target that the next one starts from; all NaN before the first."""
        return self.target if self.target is not None else self._nowhere

    def begin_tick(self, now_ns: int, skipped: int) -> float:
        """Returns the seconds since the tick before this one and the `skipped` ones.

        What is within the precision of the ticks is a whole number of periods.
        """
        before_ns, self._before_ns = self._before_ns, now_ns if self._timed else -1
        rate_hz, periods = self._rate_hz, skipped + 1
        if before_ns < 0 or now_ns <= before_ns:
            return periods / rate_hz
        passed_s = (now_ns - before_ns) / NS_PER_S
        return periods / rate_hz if abs(passed_s * rate_hz - periods) <= _ON_TIME else passed_s

    def go_on(self, now_ns: int, position: Floats, before: Floats | None, gap_ns: int) -> None:
        """The arm is at `position` ``[D]`` after a gap of `gap_ns` in its state, and was at `before`."""
        target = self.target
        if self.resumes and target is not None and before is not None:
            self.target = gone_on_from(position, target, before, gap_ns, self._holders)
            self._safety.interrupted()
        else:
            self.target = position
            self._safety.reset()
        if self.target is not target:
            self._goals.restart(now_ns, self.target)

    def look_at_goals(self, now_ns: int, *, fresh: bool) -> None:
        """A joint whose servo did not get its last target goes on from the goal that it has.

        Nothing is known of goals without a `fresh` state of the arm.
        """
        target, self.held = self.target, None
        if target is None or not fresh:
            return
        held = self.held = self._goals.behind(now_ns, self._posted_ns, target)
        if held is not None:
            self.target = np.where(np.isnan(held), target, held)

    def post(self, now_ns: int, requested: Floats, inputs: LoopInputs, passed_s: float) -> SafetyOutcome:
        """Make `requested` ``[D]`` safe and post it, `passed_s` after the tick before.

        An arm whose target came late has stopped meanwhile: no more than a period is made up for.
        """
        dt_s = min(passed_s, self._period_s) if self._timed else passed_s
        position, load = inputs.state["position"], inputs.state["load"]
        result = self._safety.apply(requested, position, self.previous, inputs.force_n, load, dt_s)
        if dt_s < passed_s:
            self._safety.lasted(dt_s, passed_s)
        if np.isfinite(result.target).all():  # else nobody knows where the arm is: say nothing to it
            self.target, self._posted_ns = result.target, now_ns
            self._arm.targets.post(now_ns, position=result.target)
        return result

    def unsent(self, inputs: LoopInputs) -> str | None:
        """Nothing can be sent in this tick; returns why to stop, if a force has lasted too long meanwhile."""
        return self._safety.unsent(inputs.force_n, self._period_s) if self.resumes else None

    def slowing(self) -> Floats:
        """``[D]`` the next target of an arm that is braked; `previous` once it stands still."""
        return self._safety.slowing(self.previous, self._period_s)

    def rehearse(self, inputs: LoopInputs) -> None:
        """Go through the safety stage's work without a trace, so that it is in the processor's caches."""
        if self.target is not None:
            state = inputs.state
            self._safety.rehearse(self.target, state["position"], state["load"], self._period_s)

    def limit_speed(self, share: float) -> None:
        """As `runtime.control.ControlLoop.limit_speed`."""
        self._safety.limit_speed(share)
        self.speed = share

    def reset(self) -> None:
        """Forget speed and whatever lasts; the next target starts from rest."""
        self._safety.reset()

    def snapshot(self) -> State:
        """What is remembered between ticks, the safety stage's own memory apart; a part of the loop's own."""
        return remember(self, _STATE)

    def restore(self, state: State) -> None:
        """Go on from where another one was at its `snapshot`.

        It need not have measured the time between targets, nor had its speed limited.
        """
        self.resumes, self._timed = "engagement" in state, "_before_ns" in state
        recall_known(self, _STATE, state)
