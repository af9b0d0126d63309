"""What a model counts boxes in: pixels of the picture sent, of a resized one, thousandths, or fractions.

No reply says it, servers resize as they like, and a box in thousandths fits into a picture of 640 by 480
often enough to be taken for one in pixels. So the model is shown a drawn picture of which the answer is
known, once in a run, and its answer is compared with every way of counting. A box in a notation that is of
one unit only (`NotedCorners`) is in that unit, whatever others are in. Where the drawn picture tells nothing,
a box beyond the picture's edges and within a thousand is in thousandths, and tells nothing of the next. What
may be in pixels and in thousandths is refused: nothing is guessed, and nothing learned but what is certain.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from loguru import logger

from planner.box_text import Corners, NamedCorners, NotedCorners
from planner.reply_text import ReplyError
from runtime.messages import ColorImage

BoxUnitsName = Literal["auto", "pixels", "per_mille", "fractions"]

SHOWN = "the red cube"
"""What the drawn picture has on it."""
_OVER = 0.05
"""By how much of the picture a box may reach beyond its edges; it is cut off there."""
_AGREES = 0.5
"""Intersection over union with the known box, from which on a way of counting is recognised."""
_NEARLY = 0.25
"""The same where no scale explains the box better: of a model that counts so, and is a little off."""
_RATIOS_AGREE = 0.1
_SIZES_AGREE = 0.04
"""By how much of it a box may be larger or smaller than the known one at its scale, or else by rounding."""
_ROUNDED = 1.5
_APART = 0.1
"""By how much more than any other way of counting the best one must overlap: at 1000 by 1000 none does."""
_MILLE = 1000.0
HINT = "planner.box_units says what the model counts in"


class BoxUnits:
    """What boxes are counted in, as configured, or as it turns out in the course of a run."""

    def __init__(self, configured: BoxUnitsName) -> None:
        self._configured = configured
        self._tries = 2 if configured == "auto" else 0
        self._unit: str = "" if configured == "auto" else configured
        self._scale = (1.0, 1.0)
        self._resized = (0, 0)  # the picture of which the scale is known: others are resized otherwise
        self._sure = configured != "auto"
        self._top_first = False

    def to_be_shown(self) -> bool:
        """Whether the drawn picture is worth an exchange; counts as a try."""
        if self._sure or self._tries == 0:
            return False
        self._tries -= 1
        return True

    def in_order(self, box: Corners) -> Corners:
        """`box` with the left first, as the model was asked for it; one that says its order has it."""
        if isinstance(box, NotedCorners | NamedCorners) or not self._top_first:
            return box
        return box[1], box[0], box[3], box[2]

    def extent(self, box: Corners, width: int, height: int) -> tuple[float, float]:
        """The size of a picture of `width` by `height` pixels in the units of `box`.

        Raises:
            ReplyError: the box is in no units that are possible, or may be in several.
        """
        unit = self._unit_of(box, width, height)
        extent = self._extent(unit, width, height)
        if extent != (1.0, 1.0) and _inside(box, 1.0, 1.0):
            raise ReplyError(f"bbox_2d {_said(box)} is smaller than a pixel", hint=HINT)
        if not _inside(box, *extent):
            told = f"bbox_2d {_said(box)} is not inside the picture of {extent[0]:g} by {extent[1]:g}"
            raise ReplyError(told, hint=HINT)
        return extent

    def _unit_of(self, box: Corners, width: int, height: int) -> str:
        if isinstance(box, NotedCorners) and (self._configured == "auto" or box.unit == "percent"):
            return box.unit  # a percent sign is no matter of what a model usually counts in
        if not self._sure and _inside(box, 1.0, 1.0) and self._unit != "fractions":
            self._unit = "fractions"  # an object of one pixel is none
            logger.info("the model's box {} is in fractions; so are the next ones ({})", _said(box), HINT)
        return self._unit or _either(box, width, height)

    def _extent(self, unit: str, width: int, height: int) -> tuple[float, float]:
        if unit == "per_mille":
            return _MILLE, _MILLE
        if unit == "percent":
            return 100.0, 100.0
        if unit == "fractions":
            return 1.0, 1.0
        if unit == "resized" and (width, height) != self._resized:
            known = "{} by {}".format(*self._resized)
            told = (
                f"what size a picture of {width} by {height} is resized to is not known, only one of {known}"
            )
            raise ReplyError(told, hint=HINT)
        return width * self._scale[0], height * self._scale[1]

    def learn(self, box: Corners | None, width: int, height: int) -> None:
        """Compare the model's answer to the drawn picture with what is on it."""
        if box is None or isinstance(box, NotedCorners):  # which says it every time
            return
        if self._counted(box, width, height):
            return
        if self._counted((box[1], box[0], box[3], box[2]), width, height, turned=True):
            self._top_first = True
            logger.info("the model puts the top before the left in a box, whatever it is asked for")
        else:
            logger.warning("what the model counts boxes in could not be found out; {}", HINT)

    def _counted(self, box: Corners, width: int, height: int, *, turned: bool = False) -> bool:
        """Whether `box` is the known one in some way of counting, which is noted, or said to be one of two.

        One that was `turned` has to be it in a common way, and well.
        """
        known = shown_box(width, height)
        ways = {
            "pixels": (1.0, 1.0),
            "per_mille": (_MILLE / width, _MILLE / height),
            "fractions": (1 / width, 1 / height),
        }
        overlaps = {unit: _overlap(known, _scaled(box, *scale)) for unit, scale in ways.items()}
        best, second = sorted(overlaps, key=lambda unit: overlaps[unit], reverse=True)[:2]
        scale = None if turned else _resized(known, box)
        if overlaps[best] >= (_AGREES if turned or scale is not None else _NEARLY):
            if overlaps[best] - overlaps[second] < _APART:
                told = "a picture of {} by {} does not tell whether the model counts boxes in {} or {}; {}"
                logger.warning(told, width, height, best, second, HINT)
                return True
            self._unit, self._sure = best, True
            logger.info("the model counts boxes in {}", best)
        elif scale is not None:
            self._unit, self._scale, self._resized, self._sure = "resized", scale, (width, height), True
            logger.info(
                "boxes are in pixels of {:.0f} by {:.0f}, to which the picture of {} by {} was resized",
                *(width * scale[0], height * scale[1], width, height),
            )
        return self._sure


def shown_box(width: int, height: int) -> Corners:
    """Where the cube is in the drawn picture, in pixels."""
    side = round(min(width, height) / 12)
    left, top = round(0.68 * width), round(0.28 * height)
    return left, top, left + side, top + side


def shown(width: int, height: int) -> ColorImage:
    """The drawn picture, RGB ``[height, width, 3]``: a grey table with a red cube on it."""
    image = np.full((height, width, 3), (150, 147, 141), np.uint8)
    left, top, right, bottom = map(int, shown_box(width, height))
    image[top:bottom, left:right] = (225, 20, 25)
    return image


def _either(box: Corners, width: int, height: int) -> str:
    """Where nothing is known, ``pixels`` or ``per_mille``, whichever alone `box` can be in.

    Raises:
        ReplyError: it can be in both.
    """
    if (width, height) == (_MILLE, _MILLE) or not _inside(box, _MILLE, _MILLE):
        return "pixels"
    if not _inside(box, width, height):
        logger.warning("the model's box {} is taken for thousandths; {}", _said(box), HINT)
        return "per_mille"
    raise ReplyError(
        f"bbox_2d {_said(box)} may be in pixels of {width} by {height} or in thousandths; "
        "the drawn picture did not tell",
        hint=HINT,
    )


def _said(box: Corners) -> str:
    return f"[{', '.join(f'{each:g}' for each in box)}]"


def _inside(box: Corners, width: float, height: float) -> bool:
    x1, y1, x2, y2 = box
    return (
        min(x1, x2) >= -_OVER * width
        and min(y1, y2) >= -_OVER * height
        and max(x1, x2) <= (1 + _OVER) * width
        and max(y1, y2) <= (1 + _OVER) * height
    )


def _scaled(box: Corners, x: float, y: float) -> Corners:
    """From units that are `x` and `y` to the pixel, to pixels."""
    return box[0] / x, box[1] / y, box[2] / x, box[3] / y


def _overlap(one: Corners, other: Corners) -> float:
    """Intersection over union."""
    wide = min(one[2], other[2]) - max(one[0], other[0])
    high = min(one[3], other[3]) - max(one[1], other[1])
    if wide <= 0 or high <= 0:
        return 0.0
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return wide * high / (sum(areas) - wide * high)


def _resized(known: Corners, said: Corners) -> tuple[float, float] | None:
    """How many of the model's units there are to a pixel, if its box is the known one but for that."""
    ratios = [s / k for s, k in zip(said, known, strict=True)]
    scale = (ratios[0] + ratios[2]) / 2, (ratios[1] + ratios[3]) / 2
    if min(scale) <= 0.05 or max(scale) > 20 or min(said) <= 0:
        return None
    off = max(abs(ratio / scale[i % 2] - 1) for i, ratio in enumerate(ratios))
    for at in (0, 1):  # a box that is in another place and no larger was not scaled, but moved
        size, wanted = said[at + 2] - said[at], (known[at + 2] - known[at]) * scale[at]
        if abs(size - wanted) > max(_ROUNDED, _SIZES_AGREE * wanted):
            return None
    fits = off <= _RATIOS_AGREE and _overlap(known, _scaled(said, *scale)) >= _AGREES
    return scale if fits else None
