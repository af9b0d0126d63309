"""A person beside a mode in which something else drives: what may be asked for, the leader arm, the script.

`dexrun.modes.hand_over` is who drives; this is how a person says so, by keys and by HTTP.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import anyio

from dexrun.episodes.episodes import EpisodeError
from dexrun.modes.hand_over import DrivingPhase, HandOver
from dexrun.modes.jogging import JogKeys
from dexrun.modes.leader import Leader
from dexrun.robot import Robot
from dexrun.simulation.operator import ScriptedHand


class TakeOver:
    """Keys, requests and ticks of a `HandOver` (`dexrun.episodes.controls.ModeControls`, less `help`).

    Args:
        on: whether there is something for the mode to go on with when control comes back.
        doing: what the mode does while it drives, in words.
        changed: told every new phase.
        handed: whether a scripted person who drives gives back, by what the script does.

    Attributes:
        jog: the keys of a leader without an arm; they count while the person drives.
    """

    def __init__(
        self,
        robot: Robot,
        on: Callable[[], bool],
        doing: Callable[[], str],
        changed: Callable[[DrivingPhase], None],
        handed: Callable[[str], bool] = lambda phase: False,
    ) -> None:
        leader = Leader(robot) if robot.leader is not None else None
        scripted = leader is not None and robot.world is not None and robot.settings.teleop.scripted
        options = robot.settings.take_over
        self.hand_over = HandOver(robot, options, leader, changed, scripted=scripted)
        self.jog = JogKeys(robot, lambda: self.person_drives)
        self._robot = robot
        self._on, self._does, self._handed = on, doing, handed

    # --- what is so

    @property
    def person_drives(self) -> bool:
        """Whether the arm follows the leader."""
        return self.hand_over.phase is DrivingPhase.PERSON

    @property
    def help(self) -> str:
        """The keys, for a person."""
        take = "; TAB or t take over with the leader, and give back" if self._robot.leader is not None else ""
        return f"p pause the policy, and go on{take}"

    def doing(self) -> str:
        """What goes on, for a person."""
        hand = self.hand_over
        if hand.phase in (DrivingPhase.NOBODY, DrivingPhase.POLICY):
            return self._does() or hand.phase.value
        return hand.describe()

    # --- what may be asked for

    def commands(self) -> Mapping[str, Callable[[], None]]:
        """By key."""
        return {"pause": self._pause_or_go_on, "take": self._take_or_give}

    def requests(self) -> Mapping[str, Callable[[], None]]:
        """By path of the HTTP API."""
        return {
            "/pause": self.hand_over.pause,
            "/resume": self.resume,
            "/take": self.hand_over.take,
            "/give": self.give,
        }

    def state(self) -> Mapping[str, Any]:
        """For the HTTP API."""
        driving = self.hand_over.phase.name.lower()
        return {
            "driving": driving,
            "doing": self.doing(),
            "reasoning": self._robot.control.attempt.reasoning,
        }

    def resume(self) -> None:
        """What was paused goes on.

        Raises:
            EpisodeError: nothing is paused.
        """
        if self.hand_over.phase is not DrivingPhase.PAUSED:
            raise EpisodeError(f"nothing is paused: {self.hand_over.phase.value}")
        self.give()

    def give(self) -> None:
        """Control goes back to the mode, if it has something to go on with."""
        if self._on():
            self.hand_over.policy()
        else:
            self.hand_over.rest()

    def _pause_or_go_on(self) -> None:
        if self.hand_over.phase is DrivingPhase.PAUSED:
            self.resume()
        else:
            self.hand_over.pause()

    def _take_or_give(self) -> None:
        if self.person_drives:
            self.give()
        else:
            self.hand_over.take()

    # --- beside the mode

    async def run(self, each: Callable[[], None]) -> None:
        """For ever, once a tick: pass control on; then `each`. A scripted person takes what is offered."""
        async with anyio.create_task_group() as tasks:
            world = self._robot.world
            if self.hand_over.scripted and world is not None:
                clock = self._robot.clock
                script = ScriptedHand(world, clock, lambda: self.person_drives, self.give, self._handed)
                tasks.start_soon(script.run, name="operator")
            while True:
                await self._robot.control.ticked()
                self.hand_over.tick()
                each()
