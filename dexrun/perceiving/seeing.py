"""What is in a picture: boxes by phrase, masks by box, points in space by mask and depth."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from dexrun.config.settings import Settings
from dexrun.perceiving.errors import InputError
from dexrun.perceiving.view import PerceivedView
from runtime.interfaces import Box, Detection, Detector, PerceptionError, Prompt, Segmentation, Segmenter
from runtime.mask_shape import around
from runtime.messages import ColorImage, Mask
from runtime.object_point import ObjectPoint, inner_mask, object_point


@dataclass(frozen=True)
class SeenObject:
    """One thing.

    Attributes:
        detection: `score` is NaN where who found it gives none. segmentation: its mask; ``None``: `why`.
        point: by the mask, or by the box's inner half where there is no mask; ``None`` without depth.
    """

    detection: Detection
    segmentation: Segmentation | None
    why: str
    point: ObjectPoint | None

    @property
    def mask(self) -> Mask | None:
        """``[H, W]``."""
        return None if self.segmentation is None else self.segmentation.mask


class Finder:
    """The configured detector; who plans, or the scene reader's own eyes, where none is configured.

    Raises:
        InputError: the detector cannot be built.
    """

    def __init__(self, settings: Settings) -> None:
        self._planner = settings.planner
        self._detector = self._built(settings)
        self.name = settings.perception.detector.type
        if self._detector is None and self._planner.base_url is None:
            self.name = "none is configured: the scene reader's own eyes, which know the simulated table"
        elif self._detector is None:
            self.name = (
                f"{self._planner.model or 'the model'} at {self._planner.base_url} (it marks one thing)"
            )

    def find(self, image: ColorImage, phrases: Sequence[str]) -> list[Detection]:
        """Whatever `phrases` name, best first.

        Raises:
            InputError: it cannot answer.
        """
        try:
            if self._detector is not None:
                return list(self._detector.detect(image, phrases))
            return [found for phrase in phrases for found in self._named(image, phrase)]
        except PerceptionError as error:
            who = "planner" if self._detector is None else f"detector {self.name}"
            raise InputError(f"{who}: {error}") from None

    @staticmethod
    def _built(settings: Settings) -> Detector | None:
        try:
            return settings.perception.detector.build()
        except PerceptionError as error:
            raise InputError(str(error)) from None

    def _named(self, image: ColorImage, phrase: str) -> list[Detection]:
        from planner.perception.naming import ShownMoment, asked, named_by

        if self._planner.base_url is not None:
            one = asked([ShownMoment(image)], phrase, self._planner)
            return [] if one is None else [Detection(one.box, math.nan, phrase)]
        boxes = [tuple(map(float, each.box)) for each in named_by(image, phrase)]
        return [Detection((x1, y1, x2, y2), math.nan, phrase) for x1, y1, x2, y2 in boxes]


def segmenter_of(settings: Settings) -> Segmenter:
    """The configured segmenter.

    Raises:
        InputError: it cannot be built.
    """
    try:
        return settings.perception.segmenter.build()
    except PerceptionError as error:
        raise InputError(str(error)) from None


def looked_at(view: PerceivedView, segmenter: Segmenter, detection: Detection, prompt: Prompt) -> SeenObject:
    """`detection` with its mask and its point in space."""
    try:
        segmentation, why = segmenter.segment(view.color, prompt), ""
    except PerceptionError as error:
        segmentation, why = None, str(error)
    mask = inner_mask(detection.box, *view.color.shape[:2]) if segmentation is None else segmentation.mask
    point = None
    if view.measurable and view.depth is not None:
        point = object_point(view.depth, mask, view.info)
    return SeenObject(detection, segmentation, why, point)


def box_around(mask: Mask) -> Box:
    """Of a mask that is not empty."""
    rows, columns = around(mask, 0)
    return float(columns.start), float(rows.start), float(columns.stop), float(rows.stop)
