"""Whether the gripper holds the object."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from planner.prompts import quote
from planner.questions.question import Canvas, Question, View
from planner.questions.verdict import Verdict, parse_conclusion


@dataclass(frozen=True)
class CheckGrasp(Question[Verdict]):
    """Whether the gripper holds an object, by the head and, where there is one, the wrist camera."""

    instruction: str = ""

    task = "check_grasp_success"
    reply = Verdict
    optional_views = (View.WRIST,)

    def in_words(self) -> str:
        return f"planner: is {self.instruction} in the gripper?"

    def text(self, pictures: int) -> str:
        views = (
            "The first picture is the camera over the table, the second the camera at the wrist, "
            "which sees the jaws."
            if pictures > 1
            else "The picture is the camera over the table."
        )
        meant = f" It was meant to grasp {quote(self.instruction)}." if self.instruction else ""
        return f"""{views}{meant}

Has the robot's gripper grasped an object? Look at where the object is in relation to the two jaws: is it
between them, and has it left the table with them?

Explain in a sentence or two what you see. Then end with a last line that holds one word:
True if an object is grasped, False if not."""

    @classmethod
    def parse(cls, said: str, canvases: Sequence[Canvas] = ()) -> Verdict:
        """Reasons, then True or False at the end."""
        return parse_conclusion(said, yes=True)
