"""Teleoperation: the follower does what the leader does, as far as the safety stage lets it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import anyio
from loguru import logger

from dexrun.episodes.controls import remote_controls
from dexrun.modes.driving import ByHand
from dexrun.modes.jogging import JogKeys
from dexrun.modes.leader import leader_source, to_follower
from dexrun.modes.moves import carry_out
from dexrun.outcome import Outcome
from dexrun.robot import Robot
from dexrun.run_record import RunRecord
from dexrun.simulation.operator import Scripted
from policies.motion import MotionLimits, plan_joint_move
from runtime.clock import NS_PER_S
from runtime.messages import DeviceError, FaultKind

if TYPE_CHECKING:
    from dexrun.episodes.episodes import Episodes
    from dexrun.episodes.recording import RunRecording
    from runtime.ports import LeaderPort


class TeleopMode:
    """Brings the follower to the leader's pose, then follows it.

    Attributes:
        script: the scripted person, where there is one.
    """

    def __init__(self, robot: Robot, leader: LeaderPort, recording: RunRecording | None = None) -> None:
        self._robot = robot
        self._leader = leader
        self._options = robot.settings.teleop
        self._clock = robot.clock
        self._limits = MotionLimits.uniform(
            robot.model, robot.settings.engage_speed_rad_s, rate_hz=robot.settings.control.rate_hz
        )
        episodes = None if recording is None else recording.episodes
        self.script: Scripted | None = None
        if robot.world is not None and robot.settings.teleop.scripted:
            self.script = Scripted(robot.world, robot.clock, episodes)
        self._episodes = episodes
        self._hand = ByHand(robot.clock, episodes) if episodes is not None else None
        self._engaged = False
        self._left_s = self._options.duration_s or float("inf")

    @property
    def step(self) -> str:
        """What is going on, in words."""
        if not self._engaged:
            return "engaging"
        driven = self.script or self._hand
        return "following the leader" if driven is None else driven.step

    def controls(self) -> tuple[Episodes | None, None]:
        """As `dexrun.modes.mode.PersonsMode`."""
        return self._episodes, None

    def broken_off(self, why: str) -> None:
        """The next `run` engages anew."""
        self._engaged = False
        if self._episodes is not None:
            self._episodes.broken_off(why)

    def attempts(self) -> list[dict[str, Any]]:
        """Teleoperation attempts nothing by itself."""
        return []

    def statistics(self) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
        """Neither planner nor policy takes part."""
        return None, None

    async def run(self) -> Outcome:
        """Follow the leader until the time is up, the scripted operator is done, or for ever."""
        await self._engage()
        self._robot.control.follow(leader_source(self._robot))
        self._engaged = True
        logger.info("following the leader")
        began_ns = self._clock.now_ns()
        with anyio.move_on_after(self._left_s):
            try:
                outcome = await self._driven()
            finally:
                self._left_s -= (self._clock.now_ns() - began_ns) / NS_PER_S
            self._robot.control.rest()
            return outcome
        self._robot.control.rest()
        return Outcome("completed", f"{self._options.duration_s:g} s are over")

    async def _driven(self) -> Outcome:
        driven = self.script or self._hand
        if driven is None:
            await anyio.sleep_forever()
            raise AssertionError("for ever is over")
        return await driven.run()

    async def _engage(self) -> None:
        """Move slowly to where the leader is, so that nothing jumps when it is followed."""
        control = self._robot.control
        while control.target is None:
            await control.ticked()
        sample = self._leader.states.newest()
        if sample is None:
            raise DeviceError("leader", FaultKind.NO_STATE, "bus", "the leader has not reported its joints")
        leader = to_follower(self._options, sample["position"], self._robot.model.grippers)
        rows = plan_joint_move(control.target.copy(), leader, self._limits)
        if why := await carry_out(self._robot, rows):
            logger.warning("the follower is not brought to the leader's pose yet: {}", why)


@contextlib.asynccontextmanager
async def open_teleop(
    robot: Robot, record: RunRecord, recording: RunRecording | None = None
) -> AsyncIterator[TeleopMode]:
    """The mode, ready to run; `record` gets what the summary should say about it."""
    assert robot.leader is not None  # noqa: S101 - the configuration was checked
    mode = TeleopMode(robot, robot.leader, recording)
    try:
        jog = JogKeys(robot)
        if robot.clock.stepped:
            yield mode
        else:
            episodes, options = None if recording is None else recording.episodes, robot.settings.recording
            if episodes is None:
                options = options.model_copy(update={"api": False})
            async with remote_controls(episodes, options, jog=jog, stopping=robot.stopping):
                yield mode
    finally:
        if mode.script is not None and mode.script.report is not None:
            record.operator = mode.script.report.as_json()
