"""One object through one stretch of pictures: segmented in the first, followed through the others."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from runtime.interfaces import Prompt, Segmenter, Tracker
from runtime.messages import ColorImage, Frame, TrackedMask

_STEP_NS = 1


class Follower:
    """Made anew for each stretch; its pictures may be played backwards, which trackers do not get to know.

    Args:
        camera: whose pictures they are. prompt: the object in the first of them.
    """

    def __init__(self, segmenter: Segmenter, tracker: Tracker, camera: str, prompt: Prompt) -> None:
        self._segmenter = segmenter
        self._tracker = tracker
        self._camera = camera
        self._prompt = prompt
        self._seen = 0

    def follow(self, image: ColorImage) -> TrackedMask:
        """The object in the next picture; confidence 0 and an empty mask where it is not seen.

        Raises:
            PerceptionError: there is none in the first picture, or a picture is of another size.
        """
        frame = Frame(self._camera, self._seen * _STEP_NS, np.ascontiguousarray(image))
        self._seen += 1
        if frame.stamp_ns:
            return self._tracker.update(frame)
        found = self._segmenter.segment(frame.color, self._prompt)
        first = self._tracker.init(frame, found.mask)
        return replace(first, confidence=first.confidence * min(1.0, max(0.0, found.score)))
