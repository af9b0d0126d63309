"""Whether an object has left the table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from planner.prompts import quote
from planner.questions.question import Canvas, Question
from planner.questions.verdict import Verdict, parse_verdict


@dataclass(frozen=True)
class CheckInstruction(Question[Verdict]):
    """Whether the object of `instruction` has left the table."""

    instruction: str

    task = "check_instruction_complete"
    reply = Verdict

    def in_words(self) -> str:
        return f"planner: has {self.instruction} left the table?"

    def text(self, pictures: int) -> str:
        return f"""Is this object still on the table: {quote(self.instruction)}?

Answer True if it is no longer there and False if it is, then a colon and your reason:
True: <reason>
or
False: <reason>"""

    @classmethod
    def parse(cls, said: str, canvases: Sequence[Canvas] = ()) -> Verdict:
        """``True: why`` or ``False: why``."""
        return parse_verdict(said)
