"""What the arm of grasp mode does without a policy: home, into the tray, back onto the table."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from loguru import logger

from dexrun.modes.moves import carry_out, off_by
from dexrun.modes.turns import ModeTurns
from dexrun.robot import Robot
from planner import plan
from policies.handling import PlaceOptions, plan_home, plan_place
from policies.motion import MotionError, MotionLimits
from runtime.clock import NS_PER_S
from runtime.messages import Floats

if TYPE_CHECKING:
    from runtime.arm_model import ArmModel

_HELD_APART = 0.03
_PUT_BACK_M = 0.03


class GraspMoves:
    """Prepared moves of the arm that works; other arms stay where they are asked to be.

    A person may take over from each. Once control is given back, it is planned anew from where the arm is.

    Args:
        turns: whose turn it is.

    Attributes:
        arm: a model of it, of this mode's own, for the loop's thread. Each move is planned on a copy, by a
            thread that goes on beside the next one's if it is broken off.
        joints: its joints in the robot's vector.
        clear_ns: when it last stood at home, out of the cameras' view.
    """

    def __init__(self, robot: Robot, turns: ModeTurns) -> None:
        options = robot.settings.grasp
        self._options = options
        self._robot = robot
        self._clock = robot.clock
        self._control = robot.control
        self._turns = turns
        self.arm: ArmModel = robot.model.arm(options.arm) if options.arm else robot.model.copy()
        self.joints = list(robot.model.layout.of(options.arm))
        self._fingers = self.arm.fingers
        self._limits = MotionLimits.uniform(
            self.arm,
            options.move_speed_rad_s,
            options.move_acceleration_rad_s2,
            rate_hz=robot.settings.control.rate_hz,
        )
        self._placed = 0
        self.clear_ns = 0

    # --- where the arm is

    def height(self) -> float:
        """Of the grasp point above the table, metres; 0 while it is not known."""
        position = self._control.position
        return 0.0 if position is None else self.arm.grasp_height(position[self.joints])

    def off_home(self) -> str:
        """Which joint of the arm that works is measured off home, if one is."""
        position = self._control.position
        if position is None:
            return "it is not known where the arm is"
        pose = position.copy()
        pose[self.joints] = self._home_pose()
        return off_by(self._robot, pose)

    def holds_something(self) -> bool:
        """Whether the fingers are held apart by something: asked to close further than they are."""
        position, target = self._control.position, self._control.target
        if position is None or target is None:
            return False
        is_at, asked = position[self.joints], target[self.joints]
        apart = self._fingers.openings(is_at) - self._fingers.openings(asked)
        return bool(apart.max(initial=0.0) > _HELD_APART)

    def holds_up(self) -> bool:
        """Whether something is in the gripper, and up."""
        return self.holds_something() and self.height() >= self._options.check_height_m

    def _home_pose(self) -> Floats:
        whole = np.asarray(self._options.home_rad or self._robot.description.home, dtype=np.float64)
        return np.asarray(whole[self.joints])

    # --- the moves

    async def place(self) -> plan.StepResult:
        """Over the next spot of the tray, and let go; done, too, if a person took it out of the gripper."""
        place_m = self._options.place_m or self._robot.description.place_m
        spot = self._options.spot(place_m, self._placed)
        self._placed += 1
        options = PlaceOptions(carry_height_m=self._options.carry_height_m, release_height_m=place_m[2])
        driven = self._turns.driven
        while (outcome := await self._put(lambda arm, start: spot, options)) is None:
            await self._turns.wait()
            if self._turns.driven > driven and not self.holds_something():
                return plan.Done()
        return outcome

    async def home(self) -> plan.StepResult:
        """Out of the cameras' view; what is still held is set down first."""
        outcome: plan.StepResult | None = None
        while outcome is None:
            await self._turns.wait()
            # carried home it would be let go behind the arm, where nobody looks for it
            if self.holds_something() and await self._put_back() is None:
                continue
            outcome = await self._move(self._way_home)
        self.clear_ns = self._clock.now_ns()
        self._robot.realtime.collect()
        await self._clock.sleep_until_ns(self._clock.now_ns() + round(self._options.settle_s * NS_PER_S))
        return outcome

    def _way_home(self, arm: ArmModel, start: Floats) -> Floats:
        return plan_home(arm, start, self._home_pose(), self._limits, self._options.carry_height_m)

    async def _put_back(self) -> plan.StepResult | None:
        """Set down, where it was taken from, what the planner did not see in the gripper."""
        options = PlaceOptions(self._options.carry_height_m, release_height_m=_PUT_BACK_M)

        def here(arm: ArmModel, start: Floats) -> tuple[float, float]:
            x, y = arm.fk(start)[:2, 3].tolist()
            return x, y

        return await self._put(here, options)

    async def _put(
        self, spot: Callable[[ArmModel, Floats], tuple[float, float]], options: PlaceOptions
    ) -> plan.StepResult | None:
        held = self._control.position

        def planned(arm: ArmModel, start: Floats) -> Floats:
            opening = None if held is None else self._fingers.openings(held[self.joints])
            return plan_place(arm, start, spot(arm, start), self._limits, options, opening).rows

        return await self._move(planned)

    async def _move(self, planned: Callable[[ArmModel, Floats], Floats]) -> plan.StepResult | None:
        """Plan a move from where the arm is asked to be, and make it; waits out faults that hold it.

        Returns:
            ``None`` if a person took over before it came to its end.
        """
        await self._turns.wait()
        while self._control.target is None:
            await self._control.ticked()
        start, lost = self._control.target.copy(), self._turns.lost
        try:
            rows = await self._clock.run_blocking(lambda: self._whole(self.arm.copy(), start, planned))
        except MotionError as error:
            if self._turns.lost > lost:
                return None
            logger.warning("{}", error)
            return plan.Failed("motion", str(error))
        if self._turns.lost > lost:
            return None
        why = await carry_out(self._robot, rows)
        if why is None:
            return None
        self._control.rest()
        if why:
            logger.warning("{}", why)
            return plan.Failed("motion", why)
        return plan.Done()

    def _whole(self, arm: ArmModel, start: Floats, planned: Callable[[ArmModel, Floats], Floats]) -> Floats:
        """What is `planned` for `arm`, which works, as rows ``[T, D]`` of the whole robot."""
        arm.stand(start)
        own = planned(arm, start[self.joints])
        rows = np.tile(start, (len(own), 1))
        rows[:, self.joints] = own
        return rows
