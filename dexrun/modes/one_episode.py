"""A mode that is recorded as one episode."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dexrun.episodes.episodes import EpisodeError, Episodes
from dexrun.episodes.recording import RunRecording
from dexrun.exit_codes import NOT_DONE
from dexrun.modes.mode import Mode, PersonsMode
from dexrun.outcome import Outcome

if TYPE_CHECKING:
    from dexrun.episodes.actions import ModeRequests


class OneEpisode:
    """A mode that is recorded as one episode from its beginning to its end."""

    def __init__(self, mode: Mode, recording: RunRecording, task: str) -> None:
        self._mode = mode
        self._episodes = recording.episodes
        self._task = task

    def controls(self) -> tuple[Episodes | None, ModeRequests | None]:
        """The mode's own, as `dexrun.modes.mode.PersonsMode`; its one episode is nobody's to end."""
        return None, self._mode.controls()[1] if isinstance(self._mode, PersonsMode) else None

    @property
    def step(self) -> str:
        """The mode's own."""
        return self._mode.step

    def broken_off(self, why: str) -> None:
        """The episode ends with what it was of; the next `run` is another one."""
        self._mode.broken_off(why)
        self._episodes.broken_off(why)

    def attempts(self) -> list[dict[str, Any]]:
        """The mode's own."""
        return self._mode.attempts()

    def statistics(self) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
        """The mode's own."""
        return self._mode.statistics()

    async def run(self) -> Outcome:
        """Run the mode, unless it cannot be recorded: then nothing is moved."""
        try:
            self._episodes.start(self._episodes.task or self._task)
        except EpisodeError as error:
            reason = f"not begun, since it cannot be recorded: {error}"
            return Outcome("incomplete", reason, exit_code=NOT_DONE)
        outcome = await self._mode.run()
        if self._episodes.recording:
            label = "success" if outcome.outcome == "completed" else "failure"
            self._episodes.stop(label, outcome.reason)
        return outcome
