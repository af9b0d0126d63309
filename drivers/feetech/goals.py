"""What a follower's servos are asked for: targets become goals of those that obey, from the goal each has."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from drivers.feetech import registers as reg
from drivers.feetech.bus import FeetechBus
from drivers.feetech.calibration import JointMap, TurnCounter
from drivers.feetech.options import FeetechOptions
from drivers.feetech.schedule import KeepingUp, ReadTimes
from drivers.feetech.witness import ServoWatch
from runtime.clock import NS_PER_S, Clock
from runtime.messages import DeviceError, FaultKind
from runtime.ring import Mailbox, Ring

IGNORED_GOALS = 8
"""So many in a row that a servo did not take are no lost packets."""


class GoalWriter:
    """What the bus thread does with a follower's `targets`.

    Args:
        targets: field ``position``, float64 ``[D]``.
        sent: takes what was written, see `drivers.feetech.driver.FeetechArm`.
    """

    def __init__(
        self,
        name: str,
        options: FeetechOptions,
        joints: JointMap,
        turns: TurnCounter,
        watch: ServoWatch,
        times: ReadTimes,
        clock: Clock,
        targets: Mailbox,
        sent: Ring,
    ) -> None:
        self._joints, self._turns, self._watch, self._times = joints, turns, watch, times
        self._clock, self._targets, self._sent = clock, targets, sent
        self._max_age_ns = round(options.target_max_age_s * NS_PER_S)
        self._trust_ns = round(options.trust_torque_s * NS_PER_S) if options.role == "follower" else 0
        self._names = dict(zip(joints.ids, joints.names, strict=True))
        self._ids = np.array(joints.ids)
        self._goals: dict[int, int] = {}
        self._written = dict[int, int]()
        """The goals of the last packet, by servo."""
        self._ignored: Counter[int] = Counter()
        """How many goals in a row a servo did not take."""
        self._checked_ns, self._powered = 0, dict[int, int]()
        """When the servos were read that may get a goal, and which they are: once for each goal."""
        self._kept_up = KeepingUp(name)
        self._counts: Counter[str] = Counter()

    @property
    def trusts(self) -> bool:
        """Whether what a servo said lately of its torque and goal (`saw`) holds for the goal after it."""
        return self._trust_ns > 0

    def forget(self) -> None:
        """The arm was opened anew: what was asked before is not obeyed any more."""
        self._targets.take()
        self._goals.clear()
        self._written = {}
        self._ignored.clear()
        self._powered = {}
        self._kept_up.forget()

    def statistics(self) -> Mapping[str, int]:
        """Targets that came to nothing so far: ``bad_target``, ``old_target``, ``replaced_target``,
        ``<joint>.over_the_end``, ``<joint>.lost_goal``.
        """
        others = {"old_target": self._targets.died, "replaced_target": self._kept_up.replaced}
        return {**self._counts, **{key: count for key, count in others.items() if count}}

    def saw(self, bus: FeetechBus, answers: Mapping[int, bytes], start: int, at_ns: int) -> None:
        """All servos were read from address `start` on at `at_ns`.

        Raises:
            DeviceError: ``torque_lost``, ``restarted``.
        """
        if self._trust_ns:
            self._checked_ns, self._powered = at_ns, self._watch.obeying(bus, answers, start)

    def write(self, bus: FeetechBus, num_retry: int) -> None:
        """Write the newest target, if there is one; the silent are asked `num_retry` times more (-1: usual).

        Raises:
            DeviceError: ``gone``, ``no_reply``, ``torque_lost``, ``restarted``; ``refused``, a servo takes
                none of its goals.
        """
        # One that has waited is of a loop that may hold by now: nobody asks for it any more.
        sample = self._targets.take(now_ns=self._clock.now_ns(), max_age_ns=self._max_age_ns)
        if sample is None:
            return
        self._kept_up.taken(sample.index, self._clock.now_ns())
        wanted = sample["position"]
        if not np.isfinite(wanted).all():
            self._counts["bad_target"] += 1
            return
        joints = self._joints
        powered = self._may_have_goals(bus, num_retry)
        goals, near = self._turns.to_servo(joints.to_ticks(wanted), joints.low, joints.high)
        for name, ok in zip(joints.names, near, strict=True):
            if not ok:
                self._counts[f"{name}.over_the_end"] += 1
        lost = self._lost(powered)
        self._see_that_goals_are_taken(bus, powered)
        obeyed = near & ~lost & np.isin(self._ids, list(powered))
        rows = {i: g for i, g, ok in zip(joints.ids, goals.tolist(), obeyed, strict=True) if ok}
        if self._clock.now_ns() - sample.stamp_ns > self._max_age_ns:
            self._targets.died += 1  # the process stood still in between
            return
        bus.sync_write(reg.GOAL_POSITION, rows, asks=not self._times.after_goal)
        self._times.wrote(self._clock.now_ns())
        self._goals.update(rows)
        self._written = rows
        self._powered = {}
        goals = np.where(lost, [self._goals.get(servo_id, 0) for servo_id in joints.ids], goals)
        position = np.where(obeyed | lost, joints.to_units(self._turns.from_servo(goals)), np.nan)
        stamps = np.full(len(joints.ids), sample.stamp_ns)
        self._sent.push(self._clock.now_ns(), goal=goals, position=position, target_ns=stamps)

    def _may_have_goals(self, bus: FeetechBus, num_retry: int) -> dict[int, int]:
        """The servos whose torque is on, and their goals: as they say now, or said lately, if trusted."""
        if self._powered and self._clock.now_ns() - self._checked_ns <= self._trust_ns:
            return self._powered
        return self._watch.powered(bus, self._joints.ids, num_retry)

    def _see_that_goals_are_taken(self, bus: FeetechBus, held: Mapping[int, int]) -> None:
        """One that answers and takes no goal would be left behind by all other joints, without a word."""
        if names := [self._names[i] for i in held if self._ignored[i] >= IGNORED_GOALS]:
            detail = f"answers, and took none of {IGNORED_GOALS} goals in a row: {', '.join(names)}"
            raise DeviceError(bus.device, FaultKind.REFUSED, bus.where, detail, bus.last_good_ns)

    def _lost(self, held: Mapping[int, int]) -> NDArray[np.bool_]:
        """Which servos have, in `held`, another goal than the last one written, ``[D]``: its packet was lost.

        Nothing answers such a packet. The goal that comes next was worked out for a servo that has the one
        before: it is left out, and `sent` says what the servo has.
        """
        lost = [i for i, goal in self._goals.items() if held.get(i, goal) != goal]
        for servo_id in self._written.keys() & held.keys():
            self._ignored[servo_id] = self._ignored[servo_id] + 1 if servo_id in lost else 0
        for servo_id in lost:
            self._goals[servo_id] = held[servo_id]
            self._counts[f"{self._names[servo_id]}.lost_goal"] += 1
        return np.isin(self._ids, lost)
