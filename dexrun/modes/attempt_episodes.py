"""Episodes of grasp mode where a person may correct: every attempt is one, from grasping to the verdict."""

from __future__ import annotations

from dexrun.episodes.episodes import Episodes, said
from planner import plan
from planner.questions.check_grasp import CheckGrasp
from planner.questions.check_instruction import CheckInstruction

_PART_OF_IT = (CheckGrasp, plan.Place, plan.Home, CheckInstruction)
"""Steps that follow an attempt's grasping and belong to it."""


class AttemptEpisodes:
    """Begins an episode with every attempt, and labels it by what became of it."""

    def __init__(self, episodes: Episodes) -> None:
        self._episodes = episodes
        self._attempt: plan.Attempt | None = None

    @property
    def blocked(self) -> str:
        """Why nothing can be recorded, or ``""``."""
        return self._episodes.recorder.trouble

    def before(self, steps: plan.GraspPlan) -> None:
        """The plan's step is about to be done.

        Raises:
            EpisodeError: the attempt that begins cannot be recorded.
        """
        if isinstance(steps.step, plan.Grasp):
            self._episodes.start(steps.step.instruction)
            self._attempt = steps.attempts[-1]

    def after(self, steps: plan.GraspPlan) -> None:
        """The plan knows what came of its step, and names the next one."""
        attempt = self._attempt
        if attempt is None or isinstance(steps.step, _PART_OF_IT):
            return
        self._attempt = None
        self._episodes.notice()
        if self._episodes.recording:
            why = "done" if attempt.completed else "not done" if attempt.grasped else "not grasped"
            with said():
                self._episodes.stop("success" if attempt.completed else "failure", why)

    def broken_off(self, why: str) -> None:
        """The plan ends in the middle."""
        self._attempt = None
        self._episodes.notice()
        if self._episodes.recording:
            with said():
                self._episodes.stop("failure", why)

    def event(self, phase: str) -> None:
        """Who drives from now on."""
        if self._episodes.recording:
            self._episodes.recorder.event("driving", phase=phase)
