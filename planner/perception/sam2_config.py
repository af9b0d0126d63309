"""The parts of SAM 2's kind: how they are built."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loguru import logger

from planner.perception.sam2_options import Sam2SegmenterOptions, Sam2TrackerOptions

if TYPE_CHECKING:
    from planner.perception.sam2_segmenter import Sam2Segmenter
    from planner.perception.sam2_tracker import Sam2MultiTracker, Sam2Tracker


class Sam2SegmenterConfig(Sam2SegmenterOptions):
    """SAM 2, SAM 2.1, EdgeTAM or the tracker of SAM 3, from a box or clicks to a mask."""

    def build(self) -> Sam2Segmenter:
        from planner.perception.sam2_network import load_network
        from planner.perception.sam2_segmenter import Sam2Segmenter

        network = load_network("segmenter", self.folder(), self)
        _warn("perception.segmenter", self.device)
        return Sam2Segmenter(network, multimask=self.multimask)


class Sam2TrackerConfig(Sam2TrackerOptions):
    """SAM 2, SAM 2.1, EdgeTAM or the tracker of SAM 3, from frame to frame, with bounded memory."""

    def build(self) -> Sam2Tracker:
        from planner.perception.sam2_tracker import Sam2Tracker

        return Sam2Tracker(self.build_multi())

    def build_multi(self) -> Sam2MultiTracker:
        from planner.perception.sam2_network import load_network
        from planner.perception.sam2_tracker import Sam2MultiTracker

        network = load_network("tracker", self.folder(), self)
        _warn("perception.tracker", self.device)
        return Sam2MultiTracker(network, self.remembered_prompts)


def _warn(table: str, device: str) -> None:
    if device == "cpu":
        logger.warning(
            "{}: SAM 2 on a CPU takes 5 to 11 seconds of processor time a picture; it is meant for a GPU "
            "(device = 'cuda')",
            table,
        )
