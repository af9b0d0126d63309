"""Whether the table is empty."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from planner.questions.question import Canvas, Question
from planner.questions.verdict import Verdict, parse_verdict


@dataclass(frozen=True)
class CheckPrompt(Question[Verdict]):
    """Whether the table is empty; otherwise the verdict's `reason` names what is left."""

    task = "check_user_prompt_complete"
    reply = Verdict

    def in_words(self) -> str:
        return "planner: is the table empty?"

    def text(self, pictures: int) -> str:
        return """Look over the table. Is it empty?

Only solid things of noticeable height count. Paper, cloth and mats, printed patterns and textures, shadows
and spots of light do not count, and neither do the arm, the tray, and what lies in the tray.

Answer True if nothing is left on the table. Otherwise answer False, a colon, and the names of what is left:
True
or
False: <name>, <name>, ..."""

    @classmethod
    def parse(cls, said: str, canvases: Sequence[Canvas] = ()) -> Verdict:
        """``True`` or ``False: names of what is left``."""
        return parse_verdict(said, yes=True)
