"""What a run leaves behind in numbers, filled in by those who know, as they know it: ``summary.json``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from dexrun.exit_codes import NOT_DONE, STOPPED
from dexrun.outcome import Outcome, stopped
from dexrun.robot import Robot
from drivers.world.client import WorldError
from planner.errors import PlannerError
from runtime.interfaces import PerceptionError, PolicyError
from runtime.messages import DeviceError


@dataclass
class RunRecord:
    """Everything for the summary but what the robot itself counts; it is there however the run ends.

    Attributes:
        outcome: how the run ended, as far as it is known.
        decided: whether `outcome` is the run's own, or a person's signal: nothing later changes it.
        robot: once it is up.
        attempts: ``[{instruction, attempt, grasped, completed}]``.
        planner, policy: the mode's parts, where they took part.
        opening_faults: ``{device: {kind: count}}`` of what could not be opened.
        first_tick_s: from the run's beginning to the first tick.
        realtime: what of ``[realtime]`` was ``applied``, and what ``refused``.
        recording: the episodes.
        operator: the scripted operator's report.
        rollout: what became of each episode of a rollout (`dexrun.modes.tally`).
        asked: what the policy was asked last, where a person may say so while the run is on; else it is
            ``planner.prompt``.
        judge: the score, from the simulation's ground truth; judge_missing: why there is none.
        unwritten: why there is no summary, if so.
    """

    outcome: Outcome = field(default_factory=lambda: stopped("the run was cut short"))
    decided: bool = False
    robot: Robot | None = None
    attempts: list[dict[str, Any]] = field(default_factory=list)
    planner: Mapping[str, Any] | None = None
    policy: Mapping[str, Any] | None = None
    opening_faults: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    first_tick_s: float | None = None
    realtime: Mapping[str, list[str]] | None = None
    recording: Mapping[str, Any] | None = None
    operator: Mapping[str, Any] | None = None
    rollout: Mapping[str, Any] | None = None
    asked: Callable[[], str] | None = None
    judge: Mapping[str, Any] | None = None
    judge_missing: str = ""
    unwritten: str = ""

    def conclude(self, outcome: Outcome) -> None:
        """The run ends so, unless it is ending already."""
        if not self.decided:
            self.outcome, self.decided = outcome, True

    def lack(self, what: str) -> None:
        """What the run was thought to have done is not there: then it has not done all that was asked."""
        if self.outcome.outcome == "completed":
            reason = f"{self.outcome.reason}; {what}"
            self.outcome = Outcome("incomplete", reason, self.outcome.attempts, NOT_DONE)

    def fail(self, error: BaseException, exit_code: int = STOPPED) -> None:
        """The run ends because of `error`; a fault on the way down does not hide what ended it."""
        if not self.decided:
            self.outcome = stopped(_first_line(error), exit_code=exit_code)
        first = _first(error)
        if self.robot is None and isinstance(first, DeviceError):
            self.opening_faults = {first.device: {first.kind: 1}}

    def parts(self) -> dict[str, Any]:
        """What only some runs have, by its name in the summary."""
        parts = {
            "realtime": self.realtime,
            "first_tick_s": self.first_tick_s,
            "operator": self.operator,
            "rollout": self.rollout,
            "recording": self.recording,
            "judge": self.judge,
            "judge_missing": self.judge_missing or None,
        }
        return {name: part for name, part in parts.items() if part is not None}


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _first_line(error: BaseException) -> str:
    first = _first(error)
    expected = isinstance(first, DeviceError | WorldError | PlannerError | PolicyError | PerceptionError)
    text = " ".join(str(first).split())
    return text if expected else f"{type(first).__name__}: {text}".rstrip(": ")
