"""What a prompt points at, seen to be in the picture; the same for every segmenter."""

from __future__ import annotations

import numpy as np

from runtime.interfaces import Box, PerceptionError, Point, Prompt
from runtime.messages import ColorImage

WholeBox = tuple[int, int, int, int]
"""A box of whole pixels."""


def check_prompt(prompt: Prompt, image: ColorImage) -> None:
    """Whether box and points are in the picture.

    Raises:
        PerceptionError: they are not; one line.
    """
    height, width = image.shape[:2]
    if prompt.box is not None:
        whole(prompt.box, width, height)
    for point in prompt.points:
        if not (0 <= point.x < width and 0 <= point.y < height):
            raise PerceptionError(f"{shown_point(point)} is not inside the picture of {width} by {height}")


def whole(box: Box, width: int, height: int) -> WholeBox:
    """The pixels that `box` touches.

    Raises:
        PerceptionError: they are not in a picture of this size, or none at all.
    """
    x1, y1, x2, y2 = box
    if not np.isfinite(box).all():
        raise PerceptionError(f"the box {shown_box(box)} is not inside the picture of {width} by {height}")
    corners = int(np.floor(x1)), int(np.floor(y1)), int(np.ceil(x2)), int(np.ceil(y2))
    if not (0 <= corners[0] < corners[2] <= width and 0 <= corners[1] < corners[3] <= height):
        raise PerceptionError(f"the box {shown_box(box)} is not inside the picture of {width} by {height}")
    return corners


def shown_box(box: Box) -> str:
    """For a message."""
    return "[" + ", ".join(f"{each:g}" for each in box) + "]"


def shown_point(point: Point) -> str:
    """For a message."""
    return f"the point ({point.x:g}, {point.y:g})"
