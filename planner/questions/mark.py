"""Where an object is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from planner.prompts import quote
from planner.questions.question import Canvas, Question
from planner.questions.reply import Reply, validated
from planner.reply_text import ReplyError, only_json, plain


class BoundingBox(Reply):
    """Corners ``x1, y1, x2, y2`` in pixels of the frame that was asked about: ``0 <= x1 < x2 <= width``."""

    bbox_2d: tuple[float, float, float, float]
    label: str
    description: str


@dataclass(frozen=True)
class Mark(Question[BoundingBox]):
    """Where the object of `instruction` is."""

    instruction: str

    task = "mark_bounding_box"
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
        """A JSON object with ``bbox_2d`` in the first picture, ``label`` and ``description``."""
        value = _one_object(plain(said))
        if "bbox_2d" in value and value["bbox_2d"] is None:
            return None
        corners = value.get("bbox_2d")
        if not isinstance(corners, list) or len(corners) != 4:
            raise ReplyError("bbox_2d must be a list of four numbers [x1, y1, x2, y2]")
        result = validated(BoundingBox, {**value, "bbox_2d": tuple(corners)})
        canvas = canvases[0]
        x1, y1, x2, y2 = result.bbox_2d
        if not (x1 < x2 and y1 < y2):
            raise ReplyError(f"bbox_2d {corners} is empty: x1 < x2 and y1 < y2 must hold")
        if x1 < 0 or y1 < 0 or x2 > canvas.width or y2 > canvas.height:
            raise ReplyError(
                f"bbox_2d {corners} is not inside the picture of {canvas.width:g} by {canvas.height:g}"
            )
        return result.model_copy(update={"bbox_2d": canvas.to_frame(result.bbox_2d)})

    def not_there(self) -> str:
        return f"nothing in the picture fits {self.instruction!r}"


def _one_object(text: str) -> dict[str, Any]:
    """The single object of the reply; a list that holds exactly one is taken for it."""
    try:
        return only_json(text, dict)
    except ReplyError as error:
        try:
            values = only_json(text, list)
        except ReplyError:
            raise error from None
    if len(values) != 1 or not isinstance(values[0], dict):
        raise ReplyError(f"exactly one object was asked for, and the list holds {len(values)}")
    return values[0]
