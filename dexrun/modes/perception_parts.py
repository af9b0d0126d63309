"""The models that ``[perception]`` names, ready to be asked."""

from __future__ import annotations

from collections.abc import Callable

from dexrun.modes.sight_thread import PerceptionParts
from planner.perception.config import ColorSegmenterConfig, ColorTrackerConfig, PerceptionConfig
from runtime.messages import CameraInfo
from runtime.tip import LocatingTracker


def built(
    options: PerceptionConfig, info: Callable[[], CameraInfo]
) -> tuple[PerceptionParts, PerceptionParts | None]:
    """The configured parts, and what takes over where they fail, if anything. May load weights.

    Args:
        options: the table.
        info: of the camera, once it is open: masks say where in space their object is.

    Raises:
        runtime.interfaces.PerceptionError: one cannot be made; one line.
    """
    detector = options.detector.build()
    named = [*([options.detector.type] if detector is not None else [])]
    named += [options.segmenter.type, options.tracker.type]
    name = ", ".join(dict.fromkeys(named))
    tracker = LocatingTracker(options.tracker.build(), info)
    parts = PerceptionParts(name, options.segmenter.build(), tracker, detector)
    if options.fallback == "none":
        return parts, None
    colors = LocatingTracker(ColorTrackerConfig().build(), info)
    return parts, PerceptionParts("color", ColorSegmenterConfig().build(), colors)
