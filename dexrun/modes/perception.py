"""Keeps the instruction's object in sight: segments it once, then tracks it through every new frame.

One thread. What it knows crosses to others as one reference to a `TrackedMask` that nobody changes
afterwards; assigning and loading a reference is atomic under the GIL.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from loguru import logger

from runtime.clock import NS_PER_S, Clock, ClockThread
from runtime.interfaces import CameraDriver, PerceptionError, Segmenter, Tracker
from runtime.messages import Frame, TrackedMask
from runtime.observer import frame_of
from runtime.ring import Sample

if TYPE_CHECKING:
    from planner.questions.mark import BoundingBox

_POLL_NS = NS_PER_S // 200
_ANSWER_NS = NS_PER_S // 100
_GIVE_UP_S = 5.0


class NotSegmentedError(Exception):
    """There is no object in the box."""


@dataclass(frozen=True, slots=True)
class _Request:
    frame: Frame
    box: BoundingBox


class Perception:
    """Tracks one object in one camera.

    Args:
        camera: whose frames are followed.
        segmenter: frame and box to mask.
        tracker: mask and next frame to mask.

    Attributes:
        keep: told every new mask, on the perception's thread.
    """

    def __init__(self, camera: CameraDriver, segmenter: Segmenter, tracker: Tracker, clock: Clock) -> None:
        self._camera = camera
        self._segmenter = segmenter
        self._tracker = tracker
        self._clock = clock
        self._wake = clock.signal()
        self._thread: ClockThread | None = None
        self._stopping = False
        self._request: _Request | None = None
        self._newest: TrackedMask | None = None
        self._failure = ""
        self._active = False
        self.updates = 0
        self.keep: Callable[[TrackedMask], None] = lambda mask: None

    def start(self) -> None:
        """Start the thread."""
        self._thread = self._clock.spawn("perception", self._main)

    async def stop(self) -> None:
        """End the thread."""
        self._stopping = True
        self._wake.set()
        if self._thread is not None:
            await self._thread.join()

    async def track(self, frame: Frame, box: BoundingBox) -> TrackedMask:
        """Segment what is in `box` of `frame` and track it from now on; returns the first mask.

        Raises:
            NotSegmentedError: nothing in the box stands out, or the thread does not answer.
        """
        self._newest, self._failure = None, ""
        self._request = _Request(frame, box)
        self._wake.set()
        deadline = self._clock.now_ns() + round(_GIVE_UP_S * NS_PER_S)
        while self._clock.now_ns() < deadline:
            if self._failure:
                raise NotSegmentedError(self._failure)
            if (mask := self._newest) is not None:
                return mask
            await self._clock.sleep_until_ns(self._clock.now_ns() + _ANSWER_NS)
        raise NotSegmentedError(f"no mask within {_GIVE_UP_S:g} s")

    def forget(self) -> None:
        """Track nothing until `track` is called again."""
        self._active = False
        self._newest = None

    def newest(self, camera: str) -> TrackedMask | None:
        """The newest mask in `camera`, if it is the one that is tracked."""
        mask = self._newest
        return mask if mask is not None and mask.camera == camera else None

    # --- on the thread

    def _main(self) -> None:
        sample: Sample | None = None
        seen = -1
        while not self._stopping:
            self._wake.wait(_POLL_NS if self._active else None)
            request, self._request = self._request, None
            if request is not None:
                self._begin(request)
                continue
            ring = self._camera.frames
            if self._active and ring.published - 1 > seen:
                sample = ring.newest(sample)
                if sample is not None:
                    seen = sample.index
                    self._follow(frame_of(self._camera.name, sample, ring))

    def _begin(self, request: _Request) -> None:
        try:
            mask = self._segmenter.segment(request.frame.color, request.box.bbox_2d)
            self._newest = self._tracker.init(request.frame, mask)
            self.keep(self._newest)
            self._active = True
        except PerceptionError as error:
            self._failure = str(error)
        except Exception as error:  # a backend's defect must show as a failed attempt, not end the thread
            logger.opt(exception=error).warning("perception: {}", error)
            self._failure = f"{type(error).__name__}: {error}"

    def _follow(self, frame: Frame) -> None:
        try:
            tracked = self._tracker.update(frame)
        except Exception as error:  # as above
            logger.opt(exception=error).warning("perception: {}", error)
            self.forget()
            return
        if self._active:
            self._newest = tracked
            self.keep(tracked)
            self.updates += 1
