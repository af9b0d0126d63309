"""What the application needs of a mode."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from dexrun.outcome import Outcome

if TYPE_CHECKING:
    from dexrun.episodes.actions import ModeRequests
    from dexrun.episodes.episodes import Episodes


@runtime_checkable
class PersonsMode(Protocol):
    """A mode that a person can ask for something while it runs."""

    def controls(self) -> tuple[Episodes | None, ModeRequests | None]:
        """The episodes that a person begins and ends, and what else can be asked for, if any."""


class Mode(Protocol):
    """One way of working: opened with all it needs, then run, and again after each stop that was reset."""

    @property
    def step(self) -> str:
        """What is going on, in words."""

    async def run(self) -> Outcome:
        """Do it."""

    def broken_off(self, why: str) -> None:
        """`run` was cancelled by a person's stop, maybe before it began: account for what was being done.

        The arm stands. If the stop is reset and the person has the run go on, `run` is called again.
        """

    def attempts(self) -> list[dict[str, Any]]:
        """What was tried so far."""

    def statistics(self) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
        """The planner's and the policy's part of the summary."""
