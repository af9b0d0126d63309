"""Several objects followed by as many trackers, where no tracker follows them together."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from runtime.interfaces import PerceptionError, Prompt, Tracker
from runtime.messages import Frame, Mask, TrackedMask


class SeparateTrackers:
    """Implements `MultiTracker`: a tracker of its own for each object.

    Args:
        build: one more tracker.
    """

    def __init__(self, build: Callable[[], Tracker]) -> None:
        self._build = build
        self._trackers: dict[str, Tracker] = {}
        self._newest: dict[str, TrackedMask] = {}

    def begin(self) -> None:
        """See `MultiTracker.begin`."""
        self._trackers, self._newest = {}, {}

    def update(
        self,
        frame: Frame,
        prompts: Mapping[str, Prompt | Mask] = {},
    ) -> Mapping[str, TrackedMask]:
        """See `MultiTracker.update`."""
        if not self._trackers and not prompts:
            raise PerceptionError("there is nothing to follow yet: give a prompt first")
        for name, what in prompts.items():
            if isinstance(what, Prompt):
                raise PerceptionError("this tracker takes masks: let a segmenter make one of box or clicks")
            tracker = self._trackers.get(name) or self._build()
            self._newest[name] = tracker.init(frame, what)
            self._trackers[name] = tracker
        for name, tracker in self._trackers.items():
            if name not in prompts and self._newest[name].stamp_ns != frame.stamp_ns:
                self._newest[name] = tracker.update(frame)
        return dict(self._newest)
