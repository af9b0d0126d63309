"""The `[perception]` table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from runtime.options import Options
from runtime.parts import SegmenterTable, TrackerTable

if TYPE_CHECKING:
    from planner.perception.color_segmenter import ColorSegmenter
    from planner.perception.color_tracker import ColorTracker


class ColorSegmenterConfig(SegmenterTable):
    """Tells an object from what surrounds its box by colour, and by GrabCut where colour does not decide.

    Attributes:
        ring: width of the surroundings looked at, as a fraction of the box's longer side.
        min_fill: least fraction of the box that the object must fill.
        grabcut_iterations: of the fallback; 0 for no fallback.
    """

    type: Literal["color"] = "color"
    ring: float = Field(default=0.35, gt=0, le=2)
    min_fill: float = Field(default=0.12, gt=0, lt=1)
    grabcut_iterations: int = Field(default=4, ge=0, le=20)

    def build(self) -> ColorSegmenter:
        from planner.perception.color_segmenter import ColorSegmenter

        return ColorSegmenter(self)


class ColorTrackerConfig(TrackerTable):
    """Follows an object by its colours, near where it was, and everywhere once it was lost.

    Attributes:
        reach: how far from its last box it is looked for, as a fraction of the box's longer side.
        min_visible: fraction of its size below which it counts as not seen.
        lost_frames: how many frames it may be unseen before the whole picture is searched.
    """

    type: Literal["color"] = "color"
    reach: float = Field(default=0.9, gt=0, le=5)
    min_visible: float = Field(default=0.08, gt=0, lt=1)
    lost_frames: int = Field(default=5, ge=0)

    def build(self) -> ColorTracker:
        from planner.perception.color_tracker import ColorTracker

        return ColorTracker(self)


class PerceptionConfig(Options):
    """Which parts turn boxes into masks and follow them; each is chosen by its `type`."""

    segmenter: SegmenterTable = ColorSegmenterConfig()
    tracker: TrackerTable = ColorTrackerConfig()
