"""Who drives, and how control passes between a policy and a person at the leader arm.

Control passes to a person only where the leader and the follower agree: the leader is brought to where the
follower is, or the person moves it there. Meanwhile the follower stays where it is. Everything here happens
on the loop's thread and takes microseconds.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from loguru import logger

from dexrun.config.mode_options import TakeOverOptions
from dexrun.episodes.episodes import EpisodeError
from dexrun.modes.leader import Leader, leader_source
from dexrun.robot import Robot
from policies.motion import MotionLimits, plan_joint_move
from runtime.messages import Floats

_SETTLE_S = 2.0
"""So long after the last row of its way the leader may take to be there."""
_AGREE_TICKS = 5
"""For so many ticks in a row a leader that a person moves is near before control passes."""


class DrivingPhase(enum.StrEnum):
    """In words for people."""

    NOBODY = "nobody drives"
    POLICY = "the policy drives"
    PAUSED = "paused"
    BRINGING = "the leader comes to where the arm is"
    OFFERED = "take the leader in your hand and press TAB"
    AWAITED = "move the leader to where the arm is"
    PERSON = "the person drives"


_LEADER_BUSY = (DrivingPhase.BRINGING, DrivingPhase.OFFERED, DrivingPhase.AWAITED)
_LEADER_USED = (*_LEADER_BUSY, DrivingPhase.PERSON)


@dataclass(frozen=True, slots=True)
class Nearness:
    """How near leader and follower must be: radians, and of a gripper's travel."""

    radians: float
    gripper: float

    def far(self, off: Floats, grippers: tuple[int, ...]) -> list[int]:
        """The joints that are too far apart; `off` ``[D]`` is leader less follower."""
        limit = np.full(off.size, self.radians)
        limit[list(grippers)] = self.gripper
        return np.flatnonzero(~(np.abs(off) <= limit)).tolist()


class HandOver:
    """The state machine. `tick` is called once a tick; all else when somebody asks for it.

    Args:
        options: the mode's.
        leader: ``None`` if there is none.
        changed: told every new phase.

    Attributes:
        phase: who drives. In ``POLICY`` it is for the mode to have the policy followed.
        takeovers: how often a person took control. turns: how often the phase has changed.
        scripted: whether the person is a script, which holds a leader as soon as it is offered.
    """

    def __init__(
        self,
        robot: Robot,
        options: TakeOverOptions,
        leader: Leader | None,
        changed: Callable[[DrivingPhase], None] = lambda phase: None,
        *,
        scripted: bool = False,
    ) -> None:
        self.phase = DrivingPhase.NOBODY
        self.takeovers = self.turns = 0
        self.scripted = scripted
        self._robot = robot
        self._control = robot.control
        self._leader = leader
        self._changed = changed
        self._brings = leader is not None and leader.moves and (options.bring_leader or leader.jogged)
        self._near = Nearness(options.match_rad, options.match_gripper)
        rate_hz = robot.settings.control.rate_hz
        speed = robot.settings.engage_speed_rad_s
        self._limits = MotionLimits.uniform(robot.model, speed, rate_hz=rate_hz)
        self._settle = round(_SETTLE_S * rate_hz)
        self._way: list[Floats] = []
        self._row = np.zeros(0)
        self._waited = self._agreed = 0
        self._spare()

    # --- what may be asked for

    def policy(self) -> None:
        """The policy drives from here on."""
        self._stand(DrivingPhase.POLICY)

    def pause(self) -> None:
        """The arm stays where it is until somebody drives again."""
        self._stand(DrivingPhase.PAUSED)

    def rest(self) -> None:
        """Nobody drives."""
        self._stand(DrivingPhase.NOBODY)

    def take(self) -> None:
        """The person wants control; or, once the leader is offered, has it in hand.

        Raises:
            EpisodeError: there is no leader arm, or it says nothing.
        """
        if self._leader is None:
            mode = self._robot.settings.mode
            raise EpisodeError(f"nothing to take over with: {mode}.take_over = true opens the leader arm")
        if self.phase is DrivingPhase.OFFERED:
            self._pass()
        elif self.phase not in _LEADER_USED:
            self._fetch(self._leader)

    def describe(self) -> str:
        """What goes on, for a person; which joints are how far off where the leader must be moved."""
        if self.phase is not DrivingPhase.AWAITED:
            return self.phase.value
        off = self._off()
        if off is None:
            return self.phase.value
        names = self._robot.model.names
        far = ", ".join(f"{names[joint]} {off[joint]:+.2f}" for joint in self._far(off)[:3])
        return f"{self.phase.value}: {far}" if far else self.phase.value

    # --- one tick

    def tick(self) -> None:
        """Go on with bringing the leader, or look whether it is there."""
        if self.phase is DrivingPhase.BRINGING:
            self._bring()
        elif self.phase is DrivingPhase.OFFERED:
            if self.scripted or (self._leader is not None and self._leader.jogged):
                self._pass()
            else:
                self._keep()
        elif self.phase is DrivingPhase.AWAITED:
            self._await()

    def _fetch(self, leader: Leader) -> None:
        """The leader has to come to where the arm is asked to be."""
        self._stand(DrivingPhase.PAUSED)
        if leader.position() is None or self._control.target is None:
            raise EpisodeError("the leader or the arm does not report its joints")
        self._waited = self._agreed = 0
        self._way = []
        self._enter(DrivingPhase.BRINGING if self._brings else DrivingPhase.AWAITED)

    def _set_out(self, leader: Leader) -> bool:
        """Plan the leader's way to where the arm has come to rest; whether there is one by now."""
        position, target = leader.position(), self._control.target
        if self._control.resting and position is not None and target is not None:
            self._way = list(plan_joint_move(position.copy(), leader.wanted(target), self._limits))
            self._row = position.copy()
        return bool(self._way)

    def _bring(self) -> None:
        assert self._leader is not None  # noqa: S101 - it is brought
        if not self._way and not self._set_out(self._leader):
            return
        if self._control.state != "idle":  # a hold is one for every motor here: the leader stays, held
            self._leader.bring(self._row)
            return
        self._row = self._way.pop(0) if len(self._way) > 1 else self._way[0]
        self._leader.bring(self._row)
        if self._row is not self._way[0]:
            return
        off = self._off()
        if off is not None and not self._far(off):
            self._enter(DrivingPhase.OFFERED)
            return
        self._waited += 1
        if self._waited > self._settle:
            logger.warning("the leader does not get to where the arm is; move it there by hand")
            self._leader.let_go()
            self._enter(DrivingPhase.AWAITED)

    def _keep(self) -> None:
        """The motors of the leader hold it, until somebody has it in hand."""
        assert self._leader is not None  # noqa: S101 - it is offered
        self._leader.bring(self._way[0])

    def _await(self) -> None:
        off = self._off()
        agree = off is not None and not self._far(off) and self._control.resting
        self._agreed = self._agreed + 1 if agree else 0
        if self._agreed >= _AGREE_TICKS:
            self._pass()

    def _pass(self) -> None:
        """Leader and follower agree: nothing jumps."""
        assert self._leader is not None  # noqa: S101 - it is here
        self._leader.let_go()
        self.takeovers += 1
        self._control.follow(leader_source(self._robot))
        self._enter(DrivingPhase.PERSON)

    def _off(self) -> Floats | None:
        """``[D]`` how far the leader is ahead of the follower's target."""
        asks = None if self._leader is None else self._leader.asks()
        target = self._control.target
        return None if asks is None or target is None else np.asarray(asks - target)

    def _far(self, off: Floats) -> list[int]:
        return self._near.far(off, self._robot.model.grippers)

    def _stand(self, phase: DrivingPhase) -> None:
        """The arm is brought to rest, whoever drove; a leader that was held is let go."""
        if self._leader is not None and self.phase in _LEADER_BUSY:
            self._leader.let_go()
        if self._control.source is not None:
            self._control.rest()
        self._enter(phase)

    def _enter(self, phase: DrivingPhase) -> None:
        if phase is not self.phase:
            self.phase = phase
            self.turns += 1
            self._spare()
            self._changed(phase)

    def _spare(self) -> None:
        """A leader that is unplugged holds the arm only while it is used."""
        self._robot.faults.spare(() if self.phase in _LEADER_USED else self._robot.leaders)
