"""From configuration to backend."""

from __future__ import annotations

from planner.perception.config import PerceptionConfig
from planner.perception.interfaces import Segmenter, Tracker


def build_segmenter(config: PerceptionConfig) -> Segmenter:
    """The configured segmenter."""
    from planner.perception.color_segmenter import ColorSegmenter

    return ColorSegmenter(config.segmenter)


def build_tracker(config: PerceptionConfig) -> Tracker:
    """The configured tracker, one per object followed."""
    from planner.perception.color_tracker import ColorTracker

    return ColorTracker(config.tracker)
