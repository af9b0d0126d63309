"""Keeps the instruction's object in sight: segments it once, then tracks it through every new frame.

One thread. Tasks come in and what it sees goes out through latest-wins mailboxes, both with the number of the
attempt that they belong to.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from loguru import logger

from runtime.clock import NS_PER_S, Clock, ClockThread
from runtime.interfaces import CameraDriver, PerceptionError, Prompt, Segmenter, Tracker
from runtime.latest import Latest
from runtime.messages import Frame, TrackedMask
from runtime.observer import frame_of
from runtime.ring import Sample

if TYPE_CHECKING:
    from planner.questions.mark import BoundingBox

_POLL_NS = NS_PER_S // 200
_ANSWER_NS = NS_PER_S // 100
_GIVE_UP_S = 5.0


def _nobody(mask: TrackedMask) -> None:
    """Nobody keeps it."""
    del mask


class NotSegmentedError(Exception):
    """There is no object in the box."""


@dataclass(frozen=True, slots=True)
class _Task:
    """What to track, for which attempt; without a frame, what is tracked already."""

    attempt: int
    frame: Frame | None = None
    box: BoundingBox | None = None


@dataclass(frozen=True, slots=True)
class _Sight:
    """What is known of the object of `attempt`."""

    attempt: int
    mask: TrackedMask | None = None
    failure: str = ""


class Perception:
    """Tracks one object in one camera, for one attempt after the other.

    Args:
        camera: whose frames are followed.
        segmenter: frame and box to mask.
        tracker: mask and next frame to mask.
        keep: told every new mask, on the perception's thread.
    """

    def __init__(
        self,
        camera: CameraDriver,
        segmenter: Segmenter,
        tracker: Tracker,
        clock: Clock,
        keep: Callable[[TrackedMask], None] = _nobody,
    ) -> None:
        self._camera = camera
        self._segmenter = segmenter
        self._tracker = tracker
        self._clock = clock
        self._wake = clock.signal()
        self._thread: ClockThread | None = None
        self._tasks: Latest[_Task | None] = Latest()
        self._sights: Latest[_Sight] = Latest()
        self._end: Latest[bool] = Latest()
        self._keep = keep

    def start(self) -> None:
        """Start the thread."""
        self._thread = self._clock.spawn("perception", self._main)

    async def stop(self) -> None:
        """End the thread."""
        self._end.post(item=True)
        self._wake.set()
        if self._thread is not None:
            await self._thread.join()

    async def track(self, frame: Frame, box: BoundingBox, attempt: int) -> TrackedMask:
        """Segment what is in `box` of `frame` and track it from now on; returns the first mask.

        Every mask carries `attempt`.

        Raises:
            NotSegmentedError: nothing in the box stands out, or the thread does not answer.
        """
        return await self._answer(_Task(attempt, frame, box))

    async def keep_on(self, attempt: int) -> TrackedMask:
        """Go on tracking what is tracked, for another attempt at it.

        Raises:
            NotSegmentedError: nothing is tracked any more, or the thread does not answer.
        """
        return await self._answer(_Task(attempt))

    async def _answer(self, task: _Task) -> TrackedMask:
        attempt = task.attempt
        self._tasks.post(task)
        self._wake.set()
        deadline = self._clock.now_ns() + round(_GIVE_UP_S * NS_PER_S)
        while self._clock.now_ns() < deadline:
            sight = self._sights.newest()
            if sight is not None and sight.attempt == attempt:
                if sight.mask is None:
                    raise NotSegmentedError(sight.failure)
                return sight.mask
            await self._clock.sleep_until_ns(self._clock.now_ns() + _ANSWER_NS)
        raise NotSegmentedError(f"no mask within {_GIVE_UP_S:g} s")

    def forget(self) -> None:
        """Track nothing until `track` is called again."""
        self._tasks.post(None)
        self._wake.set()

    def newest(self, camera: str) -> TrackedMask | None:
        """The newest mask in `camera`, whichever attempt it was for. From any thread."""
        sight = self._sights.newest()
        mask = None if sight is None else sight.mask
        return mask if mask is not None and mask.camera == camera else None

    def failure(self, attempt: int) -> str:
        """Why the object of `attempt` is not tracked any more, or ``""``."""
        sight = self._sights.newest()
        return sight.failure if sight is not None and sight.attempt == attempt else ""

    # --- on the thread

    def _main(self) -> None:
        sample: Sample | None = None
        seen = -1
        attempt: int | None = None
        while not self._end:
            self._wake.wait(None if attempt is None else _POLL_NS)
            if self._tasks:
                task = self._tasks.take()
                attempt = task.attempt if task is not None and self._begin(task, attempt) else None
                continue
            ring = self._camera.frames
            if attempt is not None and ring.published - 1 > seen:
                sample = ring.newest(sample)
                if sample is not None:
                    seen = sample.index
                    if not self._follow(frame_of(self._camera.name, sample, ring), attempt):
                        attempt = None

    def _begin(self, task: _Task, tracked: int | None) -> bool:
        if task.frame is None or task.box is None:
            sight = self._sights.newest()
            if tracked is None or sight is None or sight.mask is None:
                return self._lost(task.attempt, "it is not tracked any more")
            self._sights.post(_Sight(task.attempt, replace(sight.mask, attempt=task.attempt)))
            return True
        try:
            found = self._segmenter.segment(task.frame.color, Prompt(box=task.box.bbox_2d))
            self._found(self._tracker.init(task.frame, found.mask), task.attempt)
        except PerceptionError as error:
            return self._lost(task.attempt, str(error))
        except Exception as error:  # a backend's defect must show as a failed attempt, not end the thread
            logger.opt(exception=error).warning("perception: {}", error)
            return self._lost(task.attempt, f"{type(error).__name__}: {error}")
        return True

    def _follow(self, frame: Frame, attempt: int) -> bool:
        try:
            self._found(self._tracker.update(frame), attempt)
        except Exception as error:  # as above
            logger.opt(exception=error).warning("perception: {}", error)
            return self._lost(attempt, f"{type(error).__name__}: {error}")
        return True

    def _found(self, mask: TrackedMask, attempt: int) -> None:
        mask = replace(mask, attempt=attempt)
        self._sights.post(_Sight(attempt, mask))
        self._keep(mask)

    def _lost(self, attempt: int, why: str) -> bool:
        self._sights.post(_Sight(attempt, None, why or "no mask"))
        return False
