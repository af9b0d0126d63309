"""One thread that finds an object, cuts it out once, and tracks it through every new frame.

Tasks come in, and what it sees goes out, through latest-wins mailboxes. Both carry the number of the task:
what comes of a task that was given up has no effect.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from loguru import logger

from planner.perception.one_thing import looked_for, the_thing
from runtime.clock import NS_PER_S, Clock, ClockThread
from runtime.interfaces import (
    Box,
    CameraDriver,
    Detection,
    Detector,
    PerceptionError,
    Prompt,
    Segmenter,
    Tracker,
)
from runtime.latest import Latest
from runtime.messages import CameraInfo, Frame, Mask, Tip, TrackedMask
from runtime.observer import frame_of
from runtime.ring import Sample
from runtime.tip import begun_anew, located

_POLL_NS = NS_PER_S // 200


@dataclass(frozen=True, slots=True)
class PerceptionParts:
    """What sees.

    Attributes:
        name: for people. detector: phrases to boxes; ``None``: boxes come from elsewhere.
    """

    name: str
    segmenter: Segmenter
    tracker: Tracker
    detector: Detector | None = None


@dataclass(frozen=True, slots=True)
class Redetection:
    """When the detector is asked again for an object that is tracked and not seen.

    Attributes:
        frames: after so many without it; 0: never. every_s: not more often than this.
    """

    frames: int = 0
    every_s: float = 2.0


@dataclass(frozen=True, slots=True)
class SightTask:
    """What to do, with the latest-wins rule: a newer task ends an older one.

    Attributes:
        number: of the task. attempt: every mask carries it.
        frame: to look at; ``None``: go on with what is tracked.
        phrase: what is looked for. box: where it is; ``None``: the detector is asked, and nothing is tracked.
        mask: what it looks like in `frame`, if that is known already. tip: where it was until then.
    """

    number: int
    attempt: int = 0
    frame: Frame | None = None
    phrase: str = ""
    box: Box | None = None
    mask: Mask | None = None
    tip: Tip | None = None


@dataclass(frozen=True, slots=True)
class ObjectSight:
    """What is known of the object of `attempt`; a `failure` is the last that is said of a task."""

    number: int
    attempt: int
    mask: TrackedMask | None = None
    failure: str = ""
    crashed: bool = False


@dataclass(frozen=True, slots=True)
class Detected:
    """What a task without a box found."""

    number: int
    found: Detection | None = None
    failure: str = ""


@dataclass(frozen=True, slots=True)
class LastSeen:
    """The newest frame in which the object of `attempt` was seen, its mask there, and where it was."""

    attempt: int
    frame: Frame
    mask: Mask
    tip: Tip | None = None


class SightThread:
    """One set of parts on one thread.

    Args:
        keep: told every new mask, on this thread.
        remembers: whether `last_seen` is kept up.
        info: of the camera, as it was opened: masks then say where the object is. What was seen first and
            last is of one attempt, whatever the parts begin anew meanwhile.

    Attributes:
        sights, detected, last_seen: what came of tasks, the newest of each.
        held: whether the object is in the gripper, as far as is known; posted by the loop.
    """

    def __init__(
        self,
        camera: CameraDriver,
        parts: PerceptionParts,
        clock: Clock,
        keep: Callable[[TrackedMask], None],
        redetection: Redetection,
        *,
        remembers: bool = False,
        info: CameraInfo | None = None,
    ) -> None:
        self.name = parts.name
        self.detects = parts.detector is not None
        self._camera = camera
        self._parts = parts
        self._clock = clock
        self._keep = keep
        self._redetection = redetection
        self._remembers = remembers
        self._info = info
        self._wake = clock.signal()
        self._thread: ClockThread | None = None
        self._tasks: Latest[SightTask | None] = Latest()
        self._void: Latest[int] = Latest()
        self._end: Latest[bool] = Latest()
        self.sights: Latest[ObjectSight] = Latest()
        self.detected: Latest[Detected] = Latest()
        self.last_seen: Latest[LastSeen] = Latest()
        self.held: Latest[bool] = Latest()
        self._busy_ns: Latest[int] = Latest()
        # of the thread alone
        self._task: SightTask | None = None
        self._unseen = 0
        self._asked_ns: int | None = None
        self._told_loss = False
        self._tip_of: int | None = None
        self._tip: Tip | None = None

    def start(self) -> None:
        """Start the thread."""
        self._thread = self._clock.spawn("perception", self._main)

    def end(self) -> None:
        """Let the thread end."""
        self._end.post(item=True)
        self._wake.set()

    async def join(self) -> None:
        """Until it has ended."""
        if self._thread is not None:
            await self._thread.join()

    def post(self, task: SightTask | None) -> None:
        """Do this from now on; ``None``: nothing."""
        self._tasks.post(task)
        self._wake.set()

    def give_up(self, number: int) -> None:
        """What comes of the tasks up to this one has no effect any more."""
        self._void.post(number)

    def busy_s(self) -> float:
        """For how long it has been in one call of its parts; 0 while it is in none."""
        since = self._busy_ns.newest()
        return 0.0 if not since else (self._clock.now_ns() - since) / NS_PER_S

    # --- on the thread

    def _main(self) -> None:
        sample: Sample | None = None
        seen = -1
        while not self._end:
            self._wake.wait(None if self._task is None else _POLL_NS)
            if self._tasks:
                self._take(self._tasks.take())
                continue
            ring = self._camera.frames
            if self._task is not None and ring.published - 1 > seen:
                sample = ring.newest(None if self._remembers else sample)
                if sample is not None:
                    seen = sample.index
                    self._step(self._follow, self._task, frame_of(self._camera.name, sample, ring))

    def _take(self, task: SightTask | None) -> None:
        tracked, self._task = self._task, task
        if task is None:
            return
        if task.frame is None:
            self._go_on(task, tracked)
        elif task.box is None and task.mask is None:
            self._task = None
            self._step(self._detect, task, task.frame)
        else:
            self._unseen, self._told_loss = 0, False
            self._step(self._begin, task, task.frame)

    def _step(self, work: Callable[[SightTask, Frame], None], task: SightTask, frame: Frame) -> None:
        """`work`, with whatever it raises said as the task's failure."""
        self._busy_ns.post(self._clock.now_ns())
        try:
            work(task, frame)
        except PerceptionError as error:
            self._lost(task, str(error))
        except Exception as error:  # a backend's defect must show as a failed attempt, not end the thread
            logger.opt(exception=error).debug("perception: a defect of {}", self.name)
            why = " ".join(str(error).split())
            self._lost(task, f"{type(error).__name__}: {why}", crashed=True)
        finally:
            self._busy_ns.post(0)

    def _go_on(self, task: SightTask, tracked: SightTask | None) -> None:
        sight = self.sights.newest()
        if tracked is None or sight is None or sight.mask is None:
            self._lost(task, "it is not tracked any more")
            return
        self._task = replace(task, phrase=tracked.phrase)
        self._tip_of, self._tip = task.attempt, begun_anew(sight.mask.tip)
        self._found(self._task, replace(sight.mask, tip=self._tip), keep=False)

    def _detect(self, task: SightTask, frame: Frame) -> None:
        detector = self._parts.detector
        assert detector is not None  # noqa: S101 - who asks for a phrase has seen to it
        found = looked_for(detector, frame.color, the_thing(task.phrase))
        if not self._given_up(task):
            self.detected.post(Detected(task.number, found))

    def _begin(self, task: SightTask, frame: Frame) -> None:
        mask = task.mask
        if mask is None:
            mask = self._parts.segmenter.segment(frame.color, Prompt(box=task.box)).mask
        self._see(task, frame, self._parts.tracker.init(frame, mask))

    def _follow(self, task: SightTask, frame: Frame) -> None:
        seen = self._parts.tracker.update(frame)
        self._unseen = 0 if seen.confidence > 0 else self._unseen + 1
        if self._unseen == 0:
            self._told_loss = False
        elif (again := self._looked_for(task, frame)) is not None:
            seen = again
        self._see(task, frame, seen)

    def _looked_for(self, task: SightTask, frame: Frame) -> TrackedMask | None:
        """What is tracked from now on, where the detector finds again what the tracker has lost."""
        detector, rule = self._parts.detector, self._redetection
        if detector is None or not task.phrase or not 0 < rule.frames <= self._unseen:
            return None
        if self.held.newest():  # it is in the hand that hides it: what is found elsewhere is another one
            return None
        now_ns = self._clock.now_ns()
        if self._asked_ns is not None and now_ns - self._asked_ns < rule.every_s * NS_PER_S:
            return None
        self._asked_ns = now_ns
        if not self._told_loss:
            self._told_loss = True
            logger.info("perception: {} is not seen: {} looks for it", task.phrase, self.name)
        try:
            found = looked_for(detector, frame.color, the_thing(task.phrase))
            if found is None:
                return None
            cut = self._parts.segmenter.segment(frame.color, Prompt(box=found.box))
        except PerceptionError as error:
            logger.debug("perception: not found again: {}", error)
            return None
        self._unseen = 0
        return self._parts.tracker.init(frame, cut.mask)

    def _see(self, task: SightTask, frame: Frame, mask: TrackedMask) -> None:
        if self._given_up(task):
            return
        if task.attempt != self._tip_of:
            self._tip_of, self._tip = task.attempt, task.tip
        if self._info is not None:
            self._tip = located(frame, mask.mask, self._info, self._tip)
        if self._remembers and mask.confidence > 0:
            self.last_seen.post(LastSeen(task.attempt, frame, mask.mask, self._tip))
        self._found(task, replace(mask, tip=self._tip))

    def _found(self, task: SightTask, mask: TrackedMask, *, keep: bool = True) -> None:
        mask = replace(mask, attempt=task.attempt)
        self.sights.post(ObjectSight(task.number, task.attempt, mask))
        if keep:
            self._keep(mask)

    def _lost(self, task: SightTask, why: str, *, crashed: bool = False) -> None:
        self._task = None
        if self._given_up(task):
            return
        why = why or "no mask"
        if task.frame is not None and task.box is None and task.mask is None:
            self.detected.post(Detected(task.number, failure=why))
        else:
            self.sights.post(ObjectSight(task.number, task.attempt, None, why, crashed))

    def _given_up(self, task: SightTask) -> bool:
        void = self._void.newest()
        if void is None or task.number > void:
            return False
        self._task = None
        return True
