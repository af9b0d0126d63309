"""Teleoperation: the follower does what the leader does, as far as the safety stage lets it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import anyio
import numpy as np
from loguru import logger

from dexrun.assembly import Robot
from dexrun.motion_source import MotionSource
from dexrun.outcome import Outcome
from dexrun.run_folder import RunFolder
from policies.motion import MotionLimits, plan_joint_move
from runtime.clock import NS_PER_S
from runtime.control import LeaderSource
from runtime.messages import DeviceError, Floats

if TYPE_CHECKING:
    from drivers.feetech.driver import FeetechArm
    from drivers.world.operator import OperatorReport

_LOOK_NS = NS_PER_S // 10


class TeleopMode:
    """Brings the follower to the leader's pose, then follows it.

    Attributes:
        step: what is going on, in words.
        operator: what the scripted person does, where there is one.
    """

    def __init__(self, robot: Robot, leader: FeetechArm) -> None:
        self._robot = robot
        self._leader = leader
        self._options = robot.settings.teleop
        self._clock = robot.clock
        self._limits = MotionLimits.uniform(
            robot.model, self._options.engage_speed_rad_s, rate_hz=robot.settings.control.rate_hz
        )
        self.operator: OperatorReport | None = None
        self.step = "engaging"

    def attempts(self) -> list[dict[str, Any]]:
        """Teleoperation attempts nothing by itself."""
        return []

    def statistics(self) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
        """Neither planner nor policy takes part."""
        return None, None

    async def run(self) -> Outcome:
        """Follow the leader until the time is up, the scripted operator is done, or for ever."""
        await self._engage()
        leader = LeaderSource(
            self._leader.states, self._robot.settings.control.state_max_age_s, self._to_follower
        )
        self._robot.control.follow(leader)
        self.step = "following the leader"
        logger.info("{}", self.step)
        limit_s = self._options.duration_s or float("inf")
        with anyio.move_on_after(limit_s):
            await self._watch()
            self._robot.control.idle()
            return Outcome("completed", "the operator is done")
        self._robot.control.idle()
        return Outcome("completed", f"{self._options.duration_s:g} s are over")

    def _to_follower(self, position: Floats) -> Floats:
        gain = self._options.gain
        if gain == 1.0:
            return position.copy()
        center = np.zeros_like(position)
        center[: len(self._options.center)] = self._options.center
        scaled = center + gain * (position - center)
        scaled[-1] = position[-1]
        return np.asarray(scaled)

    async def _engage(self) -> None:
        """Move slowly to where the leader is, so that nothing jumps when it is followed."""
        control = self._robot.control
        while control.target is None:
            await control.ticked()
        sample = self._leader.states.newest()
        if sample is None:
            raise DeviceError("leader", "no_state", "bus", "the leader has not reported its joints")
        rows = plan_joint_move(control.target.copy(), self._to_follower(sample["position"]), self._limits)
        control.follow(MotionSource(rows))
        while not control.exhausted:
            await control.ticked()

    async def _watch(self) -> None:
        """Returns once the scripted operator is done; never where a person is at the leader."""
        world = self._robot.world
        if world is None or not self._options.scripted:
            await anyio.sleep_forever()
            return
        report = await self._clock.run_blocking(lambda: world.operator("start"))
        while not report.done:
            await self._clock.sleep_until_ns(self._clock.now_ns() + _LOOK_NS)
            report = await self._clock.run_blocking(world.operator)
            self.operator = report
            self.step = f"operator: {report.phase} {report.object}".rstrip()
        logger.info("operator: {} episodes, {} succeeded", report.episode, report.succeeded)


@contextlib.asynccontextmanager
async def open_teleop(robot: Robot, folder: RunFolder, extra: dict[str, Any]) -> AsyncIterator[TeleopMode]:
    """The mode, ready to run; `extra` gets what the summary should say about it."""
    del folder
    assert robot.leader is not None  # noqa: S101 - the configuration was checked
    mode = TeleopMode(robot, robot.leader)
    try:
        yield mode
    finally:
        if mode.operator is not None:
            extra["operator"] = mode.operator.as_json()
