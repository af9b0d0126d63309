"""What the application needs of a mode."""

from __future__ import annotations

from typing import Any, Protocol

from dexrun.outcome import Outcome


class Mode(Protocol):
    """One way of working: opened with all it needs, run once."""

    @property
    def step(self) -> str:
        """What is going on, in words."""

    async def run(self) -> Outcome:
        """Do it."""

    def attempts(self) -> list[dict[str, Any]]:
        """What was tried so far."""

    def statistics(self) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
        """The planner's and the policy's part of the summary."""
