"""Table ``[perception]``, and its built-in parts: their tables, and how they are built."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from planner.perception.options import ColorSegmenterOptions, ColorTrackerOptions, PlannerDetectorOptions
from runtime.options import Options
from runtime.parts import DetectorTable, SegmenterTable, TrackerTable

if TYPE_CHECKING:
    from planner.perception.color_segmenter import ColorSegmenter
    from planner.perception.color_tracker import ColorTracker


class PlannerDetectorConfig(PlannerDetectorOptions):
    """The vision-language model that plans marks the object, too: no model of its own."""

    is_default: ClassVar[bool] = True

    def build(self) -> None:
        """Nothing: who plans is asked for the box."""


class ColorSegmenterConfig(ColorSegmenterOptions):
    """Tells an object from what surrounds it by colour, and by GrabCut where colour does not decide."""

    is_default: ClassVar[bool] = True

    def build(self) -> ColorSegmenter:
        from planner.perception.color_segmenter import ColorSegmenter

        return ColorSegmenter(self)


class ColorTrackerConfig(ColorTrackerOptions):
    """Follows an object by its colours, near where it was, and everywhere once it was lost."""

    is_default: ClassVar[bool] = True

    def build(self) -> ColorTracker:
        from planner.perception.color_tracker import ColorTracker

        return ColorTracker(self)


class PerceptionConfig(Options):
    """Which parts turn words into boxes, boxes into masks, and follow them; each is chosen by its `type`."""

    detector: DetectorTable = PlannerDetectorConfig()
    segmenter: SegmenterTable = ColorSegmenterConfig()
    tracker: TrackerTable = ColorTrackerConfig()

    def check(self) -> None:
        """Whether all that the parts need is there: packages, then weights. Nothing is imported or loaded.

        Raises:
            PerceptionError: it is not; one line.
        """
        parts = (self.detector, self.segmenter, self.tracker)
        for part in parts:
            part.check_packages()
        for part in parts:
            part.check_files()
