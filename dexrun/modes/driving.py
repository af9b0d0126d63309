"""A person says when an episode begins and ends: with keys, buttons or set times."""

from __future__ import annotations

from collections.abc import Callable

import anyio
from loguru import logger

from dexrun.episodes.episodes import Episodes, said
from dexrun.exit_codes import NOT_DONE
from dexrun.outcome import Outcome
from runtime.clock import NS_PER_S, Clock

_LOOK_NS = NS_PER_S // 10
_LOST = 3
"""After so many episodes in a row of which nothing could be written no more begin by themselves."""


def _led() -> str:
    return "following the leader"


class ByHand:
    """A person with keys, buttons, or set times; until all wanted episodes are recorded.

    Args:
        doing: says what the arm does.
        at_once: the first episode begins as soon as it can.
        alone: nobody is there to press a key: what would wait for one does not.
    """

    def __init__(
        self,
        clock: Clock,
        episodes: Episodes,
        doing: Callable[[], str] = _led,
        *,
        at_once: bool = False,
        alone: bool = False,
    ) -> None:
        self._clock = clock
        self._episodes = episodes
        self._doing = doing
        self._at_once = at_once
        self._alone = alone

    @property
    def step(self) -> str:
        """In words."""
        return f"{self._doing()}; episode {self._episodes.status()}"

    async def run(self) -> Outcome:
        """Until done or asked to quit."""
        episodes = self._episodes
        phase, began_ns = self._phase(), self._clock.now_ns()
        self._say_what_is_waited_for()
        while not episodes.done:
            with anyio.move_on_after(_LOOK_NS / NS_PER_S):
                await episodes.changed()
            episodes.notice()
            if phase != self._phase():
                phase, began_ns = self._phase(), self._clock.now_ns()
                self._say_what_is_waited_for()
            limit_s = self._limit_s()
            if limit_s is not None and self._clock.now_ns() - began_ns >= limit_s * NS_PER_S:
                self._turn()
                began_ns = self._clock.now_ns()
            if (why := self._in_vain()) and (self._alone or episodes.options.reset_s):
                return self._outcome(why, gave_up=True)
        return self._outcome()

    def _in_vain(self) -> str:
        """Why the arm would move for nothing if episodes went on by themselves; empty if it would not."""
        episodes = self._episodes
        if episodes.lost >= _LOST:
            return f"nothing of {episodes.lost} episodes in a row could be written"
        return episodes.recorder.trouble if self._alone else ""

    def _limit_s(self) -> float | None:
        """How long what goes on now may take; ``None``: until somebody ends it."""
        episodes, options = self._episodes, self._episodes.options
        if episodes.recording:
            return options.episode_s or None
        if episodes.gate():
            return None
        if self._at_once:
            return 0.0
        return 0.0 if self._alone and not options.reset_s else options.reset_s or None

    def _say_what_is_waited_for(self) -> None:
        """Nothing goes on by itself where no time is set, and whoever sits there would wait for it."""
        episodes, options = self._episodes, self._episodes.options
        if self._alone or self._at_once or episodes.recording or options.reset_s:
            return
        if episodes.finished:
            logger.info(
                "all {} episodes are {}: ENTER ends the run (s, f label the last one first, d "
                "discards it); with recording.reset_s it ends by itself",
                options.episodes,
                episodes.made,
            )
        elif not episodes.quitting:
            logger.info(
                "episode {} begins with SPACE or over HTTP; with recording.reset_s it begins by itself",
                episodes.status().episode + (episodes.recorder.last is not None),
            )

    def _phase(self) -> tuple[bool, int, int]:
        return self._episodes.recording, self._episodes.recorded, self._episodes.discarded

    def _turn(self) -> None:
        """The set time of an episode, or of the reset, is over."""
        self._at_once = False
        with said():
            if self._episodes.recording:
                self._episodes.stop(reason="episode_s is over")
            elif self._episodes.finished:
                self._episodes.settle()
            else:
                self._episodes.start()

    def _outcome(self, why: str = "asked to quit", *, gave_up: bool = False) -> Outcome:
        episodes = self._episodes
        if episodes.recording:
            episodes.stop(reason=why)
        episodes.settle()
        text, wanted = f"{episodes.recorded} episodes are {episodes.made}", episodes.options.episodes
        if episodes.recorded < wanted or gave_up:
            of = f" of {wanted}" if wanted else ""
            return Outcome("incomplete", f"{text}{of}: {why}", exit_code=NOT_DONE)
        return Outcome("completed", text)
