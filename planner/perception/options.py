"""The `[perception]` table."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from runtime.parts import DetectorTable, SegmenterTable, TrackerTable


class PlannerDetectorOptions(DetectorTable):
    """The vision-language model that plans marks the object, too: no model of its own."""

    type: Literal["planner"] = "planner"


class ColorSegmenterOptions(SegmenterTable):
    """Tells an object from what surrounds it by colour, and by GrabCut where colour does not decide.

    Attributes:
        ring: width of the surroundings looked at, as a fraction of the box's longer side.
        min_fill: least fraction of the box that the object must fill.
        grabcut_iterations: of the fallback; 0 for no fallback.
    """

    type: Literal["color"] = "color"
    ring: float = Field(default=0.35, gt=0, le=2)
    min_fill: float = Field(default=0.12, gt=0, lt=1)
    grabcut_iterations: int = Field(default=4, ge=0, le=20)


class ColorTrackerOptions(TrackerTable):
    """Follows an object by its colours, near where it was, and everywhere once it was lost.

    Attributes:
        reach: how far from its last box it is looked for, as a fraction of the box's longer side.
        min_visible: fraction of its size below which it counts as not seen, if anything else has its colours.
        lost_frames: how many frames it may be unseen before the whole picture is searched.
    """

    type: Literal["color"] = "color"
    reach: float = Field(default=0.9, gt=0, le=5)
    min_visible: float = Field(default=0.08, gt=0, lt=1)
    lost_frames: int = Field(default=5, ge=0)
