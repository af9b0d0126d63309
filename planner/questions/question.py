"""What every question to the model has: a task, pictures, a text, a reply, and words for people."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import ClassVar, Generic, TypeVar

from planner.box_text import Corners
from planner.box_units import BoxUnits
from planner.questions.reply import Reply
from planner.reply_text import ReplyError
from runtime.messages import ColorImage

R = TypeVar("R", bound=Reply, covariant=True)


class View(StrEnum):
    """A camera by what it looks at."""

    HEAD = "head"
    WRIST = "wrist"


@dataclass(frozen=True, slots=True)
class Canvas:
    """A picture as it was sent, and the frame that it was made from.

    Attributes:
        width, height: of the picture in pixels.
        frame_width, frame_height: of the frame in pixels.
        units: what the model counts in.
    """

    width: int
    height: int
    frame_width: int
    frame_height: int
    units: BoxUnits = field(default_factory=lambda: BoxUnits("pixels"), compare=False)

    def to_frame(self, box: Corners) -> Corners:
        """Corners ``x1, y1, x2, y2`` from the model's units to pixels of the frame, cut off at its edges.

        Raises:
            ReplyError: it is empty, or farther outside of the picture than a little.
        """
        box = self.units.in_order(box)
        x1, y1, x2, y2 = box
        told = ", ".join(f"{each:g}" for each in box)
        if not (x1 < x2 and y1 < y2):
            raise ReplyError(f"bbox_2d [{told}] is empty: x1 < x2 and y1 < y2 must hold")
        width, height = self.units.extent(box, self.width, self.height)
        x1, x2 = (min(max(x / width, 0.0), 1.0) * self.frame_width for x in (x1, x2))
        y1, y2 = (min(max(y / height, 0.0), 1.0) * self.frame_height for y in (y1, y2))
        if not (x1 < x2 and y1 < y2):
            raise ReplyError(f"bbox_2d [{told}] is not inside the picture")
        return x1, y1, x2, y2


class Question(ABC, Generic[R]):
    """One thing to ask the model. Subclasses are frozen dataclasses; their fields are what is asked about.

    Attributes:
        task: its name in the exchange log, in recordings and in errors.
        reply: the type of its reply.
        views: whose pictures it is asked about, in the order in which they are shown.
        optional_views: whose pictures are shown after those, where there are any.
        locates: whether its reply holds a box, so that what the model counts in must be known.
    """

    task: ClassVar[str]
    reply: type[R]
    views: ClassVar[tuple[View, ...]] = (View.HEAD,)
    optional_views: ClassVar[tuple[View, ...]] = ()
    locates: ClassVar[bool] = False

    @abstractmethod
    def text(self, pictures: int) -> str:
        """What the model is told, shown with so many pictures."""

    @classmethod
    @abstractmethod
    def parse(cls, said: str, canvases: Sequence[Canvas] = ()) -> R | None:
        """Read the model's reply; ``None`` if it says that what was asked for is not in the picture.

        Runs on the control loop: it must take less than 1 ms, whatever was said.

        Args:
            said: the reply as it came.
            canvases: one for each picture that was sent.

        Raises:
            ReplyError: it is no reply to this; the message is one line and is sent back to the model.
        """

    @abstractmethod
    def in_words(self) -> str:
        """What is being asked, for people, in a few words."""

    def ask_again(self, reason: str) -> str:
        """What to say to the model after a reply that could not be used, for one more try."""
        return (
            f"Your reply could not be used: {reason}. "
            "Please answer the same question again, in exactly the format asked for."
        )

    def not_there(self) -> str:
        """What to report when the model says that what was asked for is not in the picture."""
        return "the model does not see what was asked for"

    def shown(self, pictures: Mapping[View, ColorImage]) -> list[ColorImage]:
        """Those of `pictures` that this question is asked about, in order.

        Raises:
            ValueError: one that it needs is not among them.
        """
        if lacking := [view for view in self.views if view not in pictures]:
            raise ValueError(f"{self.task} needs a picture of {' and '.join(lacking)}")
        views = (*self.views, *(view for view in self.optional_views if view in pictures))
        return [pictures[view] for view in views]
