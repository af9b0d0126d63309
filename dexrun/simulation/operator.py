"""The scripted operator of the simulated tabletop drives the leader and says when an episode begins."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from loguru import logger

from dexrun.episodes.episodes import Episodes, said
from dexrun.exit_codes import NOT_DONE
from dexrun.outcome import Outcome
from dexrun.simulation.objects import put_back
from runtime.clock import NS_PER_S, Clock
from runtime.teardown import boxed

if TYPE_CHECKING:
    from drivers.world.client import WorldClient
    from drivers.world.operator import OperatorReport

_LOOK_NS = NS_PER_S // 10
_STOP_S = 3.0
_ON = ("approach", "grasp", "lift", "carry", "release", "return")


class Scripted:
    """The simulated person at the simulated leader: one episode for each object it picks up.

    With more episodes wanted than there are objects, everything is put back where it was and the script
    begins again.

    Attributes:
        report: the newest.
    """

    def __init__(self, world: WorldClient, clock: Clock, episodes: Episodes | None) -> None:
        self.report: OperatorReport | None = None
        self._world = world
        self._clock = clock
        self._episodes = episodes
        self._episode = 0
        self._succeeded = 0

    @property
    def step(self) -> str:
        """In words."""
        if self.report is None:
            return "operator"
        return f"operator: {self.report.phase} {self.report.object}".rstrip()

    async def run(self) -> Outcome:
        """Until everything wanted is recorded or, without a number, until the table is cleared."""
        while True:
            before = self._recorded()
            await self._clear_table()
            if self._episodes is None or not self._episodes.options.episodes:
                return Outcome("completed", "the operator is done")
            if self._episodes.done:
                return Outcome("completed", f"{self._episodes.recorded} episodes are recorded")
            if (trouble := self._episodes.blocked) or self._recorded() == before:
                why = trouble or "the operator could not pick up any object"
                return Outcome("incomplete", f"{self._recorded()} episodes are recorded: {why}", [], NOT_DONE)
            await self._clock.run_blocking(lambda: put_back(self._world))

    def _recorded(self) -> int:
        return 0 if self._episodes is None else self._episodes.recorded

    async def _clear_table(self) -> None:
        self._episode = self._succeeded = 0
        report = self.report = await self._clock.run_blocking(lambda: self._world.operator("start"))
        try:
            while not report.done:
                await self._clock.sleep_until_ns(self._clock.now_ns() + _LOOK_NS)
                report = self.report = await self._clock.run_blocking(self._world.operator)
                self._follow(report)
                if self._episodes is not None and (self._episodes.done or self._episodes.blocked):
                    break
        finally:
            if not report.done:
                await boxed("the operator", _STOP_S, self._stop)
        logger.info("operator: {} episodes, {} succeeded", report.episode, report.succeeded)

    async def _stop(self) -> None:
        await self._clock.run_blocking(lambda: self._world.operator("stop"))

    def _follow(self, report: OperatorReport) -> None:
        """Begin an episode with a new object, end it when the arm is back at rest."""
        episodes = self._episodes
        if episodes is None:
            return
        episodes.notice()
        if episodes.recording and (report.phase not in _ON or report.episode != self._episode):
            label = "success" if report.succeeded > self._succeeded else "failure"
            episodes.stop(label, f"{report.object}: {report.phase}")
        limit_s = episodes.options.episode_s
        if episodes.recording and limit_s and episodes.status().elapsed_s >= limit_s:
            episodes.stop(reason="episode_s is over")
            episodes.settle()  # nobody is there to label it
        if report.phase in _ON and report.episode != self._episode and not episodes.finished:
            self._episode, self._succeeded = report.episode, report.succeeded
            with said():
                episodes.start(episodes.options.task or f"pick up the {report.object} and put it in the tray")


class ScriptedHand:
    """The simulated person takes a leader that is offered, goes on clearing the table, and gives it back.

    Args:
        drives: whether the person has control. give_back: told once the script is done.
        handed: whether the person gives back in this phase of the script, done or not.
    """

    def __init__(
        self,
        world: WorldClient,
        clock: Clock,
        drives: Callable[[], bool],
        give_back: Callable[[], None],
        handed: Callable[[str], bool] = lambda phase: False,
    ) -> None:
        self._world = world
        self._clock = clock
        self._drives = drives
        self._give_back = give_back
        self._handed = handed

    async def run(self) -> None:
        """For ever."""
        moving = False
        try:
            while True:
                await self._clock.sleep_until_ns(self._clock.now_ns() + _LOOK_NS)
                if moving != self._drives():
                    await self._ask("stop" if moving else "start")
                    moving = not moving
                elif moving:
                    report = await self._ask("")
                    if self._drives() and (report.done or self._handed(report.phase)):
                        self._give_back()
        finally:
            if moving:
                await boxed("the operator", _STOP_S, lambda: self._ask("stop"))

    async def _ask(self, action: str) -> OperatorReport:
        world = self._world
        return await self._clock.run_blocking(lambda: world.operator(action) if action else world.operator())
