"""The models that ``[perception]`` names, ready to be asked."""

from __future__ import annotations

from dexrun.modes.sight_thread import PerceptionParts
from planner.perception.config import ColorSegmenterConfig, ColorTrackerConfig, PerceptionConfig
from planner.perception.one_thing import telling_of_several


def built(options: PerceptionConfig) -> tuple[PerceptionParts, PerceptionParts | None]:
    """The configured parts, and what takes over where they fail, if anything. May load weights.

    Raises:
        runtime.interfaces.PerceptionError: one cannot be made; one line.
    """
    detector = telling_of_several(options.detector).build()
    named = [*([options.detector.type] if detector is not None else [])]
    named += [options.segmenter.type, options.tracker.type]
    name = ", ".join(dict.fromkeys(named))
    parts = PerceptionParts(name, options.segmenter.build(), options.tracker.build(), detector)
    if options.fallback == "none":
        return parts, None
    return parts, PerceptionParts("color", ColorSegmenterConfig().build(), ColorTrackerConfig().build())
