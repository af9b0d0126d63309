"""How a run ended."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from dexrun.exit_codes import OK, STOPPED


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a mode returns.

    Attributes:
        outcome: ``completed`` did what was asked; ``incomplete`` did not; ``stopped`` was ended by a
            fault, a safety latch or a person.
        reason: in one line, for ``stop_reason``.
        attempts: ``[{instruction, grasped, completed}]``.
        exit_code: of `dexrun.exit_codes`.
    """

    outcome: Literal["completed", "incomplete", "stopped"]
    reason: str = ""
    attempts: list[dict[str, Any]] = field(default_factory=list)
    exit_code: int = OK


def stopped(reason: str, attempts: list[dict[str, Any]] | None = None, exit_code: int = STOPPED) -> Outcome:
    """Ended before its time, by default by a fault."""
    return Outcome("stopped", reason, attempts or [], exit_code)
