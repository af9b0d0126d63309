"""Where an object is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from planner.box_text import box_of
from planner.prompts import quote
from planner.questions.question import Canvas, Question
from planner.questions.reply import Reply
from planner.reply_text import plain


class BoundingBox(Reply):
    """Corners ``x1, y1, x2, y2`` in pixels of the frame that was asked about: ``0 <= x1 < x2 <= width``."""

    bbox_2d: tuple[float, float, float, float]
    label: str = ""
    description: str = ""


@dataclass(frozen=True)
class Mark(Question[BoundingBox]):
    """Where the object of `instruction` is."""

    instruction: str

    task = "mark_bounding_box"
    locates = True
    reply = BoundingBox

    def in_words(self) -> str:
        return f"planner: where is {self.instruction}?"

    def text(self, pictures: int) -> str:
        return f"""Find the one object on the table that best fits this description: {quote(self.instruction)}

Reply with a single JSON object, not a list, for exactly one object:
```json
{{
  "bbox_2d": [x1, y1, x2, y2],
  "label": "<its name in at most four words>",
  "description": "<its position, colour, shape and surroundings in detail>"
}}
```
The box is in this picture's coordinates, from the top left corner (x1, y1) to the bottom right corner
(x2, y2), close around the object and inside the picture. If no object fits, "bbox_2d" is null and
"description" says why."""

    @classmethod
    def parse(cls, said: str, canvases: Sequence[Canvas] = ()) -> BoundingBox | None:
        """A box in the first picture, as JSON or in one of the models' own ways; the rest may be missing."""
        corners, rest = box_of(plain(said))
        if corners is None:
            return None
        texts = {key: each for key in ("label", "description") if isinstance(each := rest.get(key), str)}
        return BoundingBox(bbox_2d=canvases[0].to_frame(corners), **texts)

    def not_there(self) -> str:
        return f"nothing in the picture fits {self.instruction!r}"
