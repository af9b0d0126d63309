"""Table ``[perception]``, and its built-in parts: their tables, and how they are built."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

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
    """Which parts turn words into boxes, boxes into masks, and follow them; each is chosen by its `type`.

    Attributes:
        timeout_s: so long a model may take for one box, mask or frame; then it counts as failed, and the arm
            holds.
        fallback: what takes over where a model hangs, raises or gives nothing: ``color``, with the planner's
            box, from where the object was last seen; ``none``: the attempt has failed.
        lost_frames: after so many frames without the tracked object the detector is asked for it again,
            unless it is in the gripper; 0: never.
        search_s: and not more often than this.
    """

    detector: DetectorTable = PlannerDetectorConfig()
    segmenter: SegmenterTable = ColorSegmenterConfig()
    tracker: TrackerTable = ColorTrackerConfig()
    timeout_s: float = Field(default=30.0, gt=0, le=600)
    fallback: Literal["none", "color"] = "none"
    lost_frames: int = Field(default=60, ge=0)
    search_s: float = Field(default=2.0, ge=0, le=600)

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
