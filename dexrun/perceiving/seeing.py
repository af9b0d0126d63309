"""What is in a picture: boxes by phrase, masks by box, points in space by mask and depth."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dexrun.config.settings import Settings
from dexrun.perceiving.errors import InputError
from dexrun.perceiving.view import PerceivedView
from runtime.interfaces import Detection, Detector, PerceptionError, Prompt, Segmentation, Segmenter
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
        except PerceptionError as error:
            raise InputError(f"detector {self.name}: {error}") from None
        read = self._read if self._planner.base_url is None else self._asked
        return [found for phrase in phrases for found in read(image, phrase)]

    @staticmethod
    def _built(settings: Settings) -> Detector | None:
        try:
            return settings.perception.detector.build()
        except PerceptionError as error:
            raise InputError(str(error)) from None

    @staticmethod
    def _read(image: ColorImage, phrase: str) -> list[Detection]:
        from planner.perception.naming import named_by

        boxes = [tuple(map(float, each.box)) for each in named_by(image, phrase)]
        return [Detection((x1, y1, x2, y2), math.nan, phrase) for x1, y1, x2, y2 in boxes]

    def _asked(self, image: ColorImage, phrase: str) -> list[Detection]:
        from planner.client import Planner
        from planner.errors import PlannerError
        from planner.questions.mark import Mark
        from planner.questions.question import View
        from runtime.clock import RealClock

        clock = RealClock()
        found: list[Detection] = []

        async def ask() -> None:
            async with Planner(self._planner, clock) as planner:
                answer = await planner.ask(Mark(phrase), {View.HEAD: image})
                found.append(Detection(answer.bbox_2d, math.nan, phrase))

        try:
            clock.run(ask)
        except PlannerError as error:
            if error.kind != "no_object":
                raise InputError(f"planner: {error}") from None
        return found


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


def box_around(mask: Mask) -> tuple[float, float, float, float]:
    """Of a mask that is not empty."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)
