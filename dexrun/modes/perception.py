"""Keeps the instruction's object in sight: finds it, segments it once, tracks it through every new frame.

The models run on a thread (`dexrun.modes.sight_thread`). Whatever one of them does, the loop goes on: a
model that hangs has a time-out, one that raises or gives nothing is said in one line, and other parts take
over from where the object was last seen, if there are any.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from loguru import logger

from dexrun.modes.sight_thread import ObjectSight, PerceptionParts, Redetection, SightTask, SightThread
from runtime.clock import NS_PER_S, Clock
from runtime.interfaces import CameraDriver, Detection
from runtime.latest import Latest
from runtime.messages import CameraInfo, Frame, TrackedMask

if TYPE_CHECKING:
    from planner.questions.mark import BoundingBox

T = TypeVar("T")

_ANSWER_NS = NS_PER_S // 100


def _nobody(mask: TrackedMask) -> None:
    """Nobody keeps it."""
    del mask


def _uncounted(kind: str) -> None:
    """Nobody counts."""
    del kind


class NotSegmentedError(Exception):
    """There is no object in the box."""


class DetectorFailedError(Exception):
    """The detector cannot answer. One line."""


class Perception:
    """Tracks one object in one camera, for one attempt after the other.

    Args:
        camera: whose frames are followed.
        parts: the models.
        fallback: what takes over where they fail.
        timeout_s: so long one call of a model may take.
        keep: told every new mask, on a thread of the perception.
        count: told of every failure of the models, by kind: ``timeout``, ``error``, ``nothing``.
        info: of the camera, as it was opened; masks then say where the object is.
    """

    def __init__(
        self,
        camera: CameraDriver,
        parts: PerceptionParts,
        clock: Clock,
        keep: Callable[[TrackedMask], None] = _nobody,
        *,
        fallback: PerceptionParts | None = None,
        timeout_s: float = 5.0,
        redetection: Redetection = Redetection(),  # noqa: B008 - frozen
        count: Callable[[str], Any] = _uncounted,
        info: CameraInfo | None = None,
    ) -> None:
        self._clock = clock
        self._timeout_s = timeout_s
        self._count = count
        self._number = 0
        spare = fallback is not None
        self._models = SightThread(camera, parts, clock, keep, redetection, remembers=spare, info=info)
        self._spare = (
            None if fallback is None else SightThread(camera, fallback, clock, keep, Redetection(), info=info)
        )
        self._active: Latest[SightThread] = Latest()
        self._active.post(self._models)
        self._said = ("", -1)

    def start(self) -> None:
        """Start the threads."""
        for thread in self._threads():
            thread.start()

    async def stop(self) -> None:
        """End the threads; one that hangs is left behind."""
        for thread in self._threads():
            thread.end()
        for thread in self._threads():
            if self._hangs(thread):
                logger.warning("perception: {} still has not answered: it is left behind", thread.name)
            else:
                await thread.join()

    def _threads(self) -> list[SightThread]:
        return [self._models] if self._spare is None else [self._models, self._spare]

    # --- the detector

    @property
    def detects(self) -> bool:
        """Whether boxes come from a detector, not from the planner."""
        return self._models.detects

    @property
    def falls_back(self) -> bool:
        """Whether something takes over where a model fails."""
        return self._spare is not None

    async def detect(self, frame: Frame, phrase: str) -> Detection | None:
        """The box of what `phrase` names in `frame`; ``None`` if the detector does not see it.

        Raises:
            DetectorFailedError: it does not answer in time, or cannot; it sees several that fit as well.
        """
        task = self._task(frame=frame, phrase=phrase)
        thread = self._models
        if self._hangs(thread):
            raise DetectorFailedError(f"{thread.name} still has not answered")
        thread.post(task)
        answer = await self._until(
            lambda: new if (new := thread.detected.newest()) and new.number == task.number else None
        )
        if answer is None:
            thread.give_up(task.number)
            self._count("timeout")
            raise DetectorFailedError(f"{thread.name}: no box within {self._timeout_s:g} s")
        if answer.failure:
            self._count("error")
            raise DetectorFailedError(f"{thread.name}: {answer.failure}")
        if answer.found is None:
            self._count("nothing")
        return answer.found

    # --- tracking

    async def track(self, frame: Frame, box: BoundingBox, attempt: int, phrase: str = "") -> TrackedMask:
        """Segment what is in `box` of `frame` and track it from now on; returns the first mask.

        Every mask carries `attempt`. Where the object is lost, `phrase` is looked for by the detector.

        Raises:
            NotSegmentedError: nothing in the box stands out, or no thread answers.
        """
        self._active.post(self._models)
        self.holds(held=False)
        task = self._task(attempt=attempt, frame=frame, box=box.bbox_2d, phrase=phrase)
        try:
            return await self._answer(self._models, task)
        except NotSegmentedError as error:
            if self._spare is None:
                raise
            self._takes_over(str(error))
        return await self._answer(self._spare, replace(task, number=self._next()))

    async def keep_on(self, attempt: int) -> TrackedMask:
        """Go on tracking what is tracked, for another attempt at it.

        Raises:
            NotSegmentedError: nothing is tracked any more, or the thread does not answer.
        """
        return await self._answer(self._now(), self._task(attempt=attempt))

    def holds(self, held: bool) -> None:
        """Whether the object is in the gripper: what hides it is known then, and it is not looked for."""
        self._models.held.post(held)

    def forget(self) -> None:
        """Track nothing until `track` is called again."""
        for thread in self._threads():
            thread.give_up(self._number)
            thread.post(None)

    async def _answer(self, thread: SightThread, task: SightTask) -> TrackedMask:
        if self._hangs(thread):
            raise NotSegmentedError(f"{thread.name} still has not answered")
        thread.post(task)
        sight = await self._until(
            lambda: new if (new := thread.sights.newest()) and new.number == task.number else None
        )
        if sight is None:
            thread.give_up(task.number)
            self._count("timeout")
            raise NotSegmentedError(f"no mask within {self._timeout_s:g} s")
        if sight.mask is None:
            self._count("error" if sight.crashed else "nothing")
            raise NotSegmentedError(sight.failure)
        return sight.mask

    async def _until(self, answer: Callable[[], T | None]) -> T | None:
        """What `answer` gives as soon as it gives something; ``None`` if that takes too long."""
        deadline_ns = self._clock.now_ns() + round(self._timeout_s * NS_PER_S)
        while (given := answer()) is None and self._clock.now_ns() < deadline_ns:
            await self._clock.sleep_until_ns(self._clock.now_ns() + _ANSWER_NS)
        return given

    # --- what is seen

    def newest(self, camera: str) -> TrackedMask | None:
        """The newest mask in `camera`, whichever attempt it was for. From any thread."""
        sight = self._now().sights.newest()
        mask = None if sight is None else sight.mask
        return mask if mask is not None and mask.camera == camera else None

    def failure(self, attempt: int) -> str:
        """Why the object of `attempt` is not tracked any more, or ``""``. On the loop, as often as it likes.

        Where the models fail while they track, what is to take over does so from here.
        """
        thread = self._now()
        sight = thread.sights.newest()
        if sight is None or sight.attempt != attempt:
            return ""
        why = sight.failure
        if not why and self._hangs(thread):
            why = f"{thread.name}: no mask within {self._timeout_s:g} s"
        if not why or thread is self._spare:
            return why
        self._count_once(sight)
        return "" if self._handed_over(attempt, why) else why

    def _handed_over(self, attempt: int, why: str) -> bool:
        """Whether the spare parts go on from where the object was last seen."""
        seen = self._models.last_seen.newest()
        if self._spare is None or seen is None or seen.attempt != attempt or self._hangs(self._spare):
            return False
        self._takes_over(why)
        self._models.give_up(self._number)
        self._spare.post(self._task(attempt=attempt, frame=seen.frame, mask=seen.mask, tip=seen.tip))
        return True

    def _takes_over(self, why: str) -> None:
        assert self._spare is not None  # noqa: S101 - callers see to it
        logger.warning("perception: {}; {} takes over", why, self._spare.name)
        self._active.post(self._spare)

    def _count_once(self, sight: ObjectSight) -> None:
        said = (sight.failure, sight.number)
        if said != self._said:
            self._said = said
            self._count("error" if sight.failure else "timeout")

    def _now(self) -> SightThread:
        active = self._active.newest()
        return self._models if active is None else active

    def _hangs(self, thread: SightThread) -> bool:
        return thread.busy_s() > self._timeout_s

    def _task(self, **what: Any) -> SightTask:
        return SightTask(self._next(), **what)

    def _next(self) -> int:
        self._number += 1
        return self._number
