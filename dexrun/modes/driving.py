"""A person says when an episode begins and ends in teleoperation, with keys, buttons or set times."""

from __future__ import annotations

import anyio

from dexrun.episodes.episodes import Episodes, said
from dexrun.exit_codes import NOT_DONE
from dexrun.outcome import Outcome
from runtime.clock import NS_PER_S, Clock

_LOOK_NS = NS_PER_S // 10


class ByHand:
    """A person at the leader, with keys, buttons, or set times; until all wanted episodes are recorded."""

    def __init__(self, clock: Clock, episodes: Episodes) -> None:
        self._clock = clock
        self._episodes = episodes

    @property
    def step(self) -> str:
        """In words."""
        return f"following the leader; episode {self._episodes.status()}"

    async def run(self) -> Outcome:
        """Until done or asked to quit."""
        episodes, options = self._episodes, self._episodes.options
        phase, began_ns = self._phase(), self._clock.now_ns()
        while not episodes.done:
            with anyio.move_on_after(_LOOK_NS / NS_PER_S):
                await episodes.changed()
            episodes.notice()
            if phase != self._phase():
                phase, began_ns = self._phase(), self._clock.now_ns()
            limit_s = options.episode_s if episodes.recording else options.reset_s
            if limit_s and self._clock.now_ns() - began_ns >= limit_s * NS_PER_S:
                self._turn()
                began_ns = self._clock.now_ns()
        return self._outcome()

    def _phase(self) -> tuple[bool, int, int]:
        return self._episodes.recording, self._episodes.recorded, self._episodes.discarded

    def _turn(self) -> None:
        """The set time of an episode, or of the reset, is over."""
        with said():
            if self._episodes.recording:
                self._episodes.stop(reason="episode_s is over")
            elif self._episodes.finished:
                self._episodes.settle()
            else:
                self._episodes.start()

    def _outcome(self) -> Outcome:
        episodes = self._episodes
        if episodes.recording:
            episodes.stop(reason="asked to quit")
        episodes.settle()
        text, wanted = f"{episodes.recorded} episodes are recorded", episodes.options.episodes
        if episodes.recorded < wanted:
            return Outcome("incomplete", f"{text} of {wanted}: asked to quit", exit_code=NOT_DONE)
        return Outcome("completed", text)
