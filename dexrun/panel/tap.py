"""Copies what is newest into the rings that a run shares, on a thread of its own: the loop waits for nothing.

Pictures are copied, and the status is said ten times a second, only while somebody looks. All of it happens
right after a tick: what this thread does in Python would otherwise keep the next one waiting, by milliseconds
where the machine is busy and takes the processor away in the middle of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from loguru import logger

from runtime.clock import NS_PER_S, Clock, ClockThread
from runtime.latest import Latest
from runtime.messages import Floats
from runtime.realtime import ahead_of_ordinary
from runtime.ring import Ring, Sample

if TYPE_CHECKING:
    from dexrun.panel.link import PublishedRun
    from dexrun.robot import Robot
    from runtime.messages import TrackedMask

LOOKED_AT_NS, STATUS_NS, UNSEEN_NS = 3 * NS_PER_S, NS_PER_S // 10, NS_PER_S
"""So long somebody counts as looking; how often the status is said then, and how often otherwise."""
_MASK_NS = NS_PER_S // 2
_NO_TICK_NS = NS_PER_S // 10
"""So long a tick is waited for: there is none before the loop runs."""
_POINTS = 20
"""Of the planned path; each takes the arm's forward kinematics."""
_HEALTH = ("temperature_c", "voltage_v", "current_a")


@dataclass(frozen=True, slots=True)
class RunMoment:
    """What the loop says of itself; never changed afterwards.

    Attributes:
        rows: ``[T, D]`` left in the horizon.
    """

    stamp_ns: int
    status: Mapping[str, Any]
    rows: Floats | None = None


class Attention:
    """Whether somebody has looked lately; for one thread."""

    def __init__(self, looks: Callable[[], int], clock: Clock) -> None:
        self._looks = looks
        self._clock = clock
        self._seen, self._until_ns = looks(), -1

    def now(self) -> bool:
        """See the class."""
        if (looks := self._looks()) != self._seen:
            self._seen, self._until_ns = looks, self._clock.now_ns() + LOOKED_AT_NS
        return self._clock.now_ns() <= self._until_ns


class _NoPictureError(Exception):
    """There is none to copy."""


class Tap:
    """The thread.

    Args:
        run: takes everything.
        told: what the loop says, as often as it likes.
        rate_hz: pictures at most so often.
    """

    def __init__(self, robot: Robot, run: PublishedRun, told: Latest[RunMoment], rate_hz: float) -> None:
        self._clock = robot.clock
        self._run = run
        self._told = told
        self._realtime = None if robot.clock.stepped else robot.settings.realtime
        self._shown = robot.shown
        self._period_ns = round(NS_PER_S / rate_hz)
        self._records = robot.records.reader()
        self._record = robot.records.blank()
        self._cameras: dict[str, Ring] = {name: robot.cameras[name].frames for name in run.cameras}
        self._copied = dict.fromkeys(self._cameras, -1)
        self._path = PlannedPath(robot)
        self._health = _healths(robot)
        self._attention = Attention(run.looks, robot.clock)
        self._pictures = Attention(run.looks_at_pictures, robot.clock)
        self._next_status_ns = 0
        self._wake = robot.clock.signal()
        self._stopping = self._complained = False
        self._thread: ClockThread | None = None

    def start(self) -> None:
        """Start copying."""
        self._thread = self._clock.spawn("tap", self._main)

    def nudge(self) -> None:
        """A tick is over, and the loop rests."""
        self._wake.set()

    async def stop(self) -> None:
        """Stop, after what is newest was copied once more."""
        self._stopping = True
        self._wake.set()
        if self._thread is not None:
            await self._thread.join()

    def _main(self) -> None:
        if self._realtime is not None:
            ahead_of_ordinary(self._realtime)
        going_on, due_ns = True, 0
        while going_on:
            self._wake.wait(_NO_TICK_NS)
            going_on, now_ns = not self._stopping, self._clock.now_ns()
            if going_on and now_ns < due_ns:
                continue
            due_ns = now_ns + self._period_ns * 3 // 4  # ticks and pictures are as many a second as a rule
            try:
                self.copy()
            except Exception as error:  # whatever it is, the run is not to end by being looked at
                if not self._complained:
                    self._complained = True
                    logger.opt(exception=error).warning("what the panel shows is not whole: {}", error)

    def copy(self) -> None:
        """Once, everything that is new."""
        while self._records.next(self._record) is not None:
            self._run.ticks.push(self._record.stamp_ns, **self._record.fields)
        for name in self._cameras if self._pictures.now() else ():
            self._picture(name)
        now_ns = self._clock.now_ns()
        if now_ns >= self._next_status_ns or self._stopping:
            self._next_status_ns = now_ns + (STATUS_NS if self._attention.now() else UNSEEN_NS)
            self._status()

    # --- pictures

    def _picture(self, name: str) -> None:
        """The newest frame, straight from the camera's ring into the shared one."""
        source, shared = self._cameras[name], self._run.cameras[name]
        if source.published - 1 <= self._copied[name]:
            return
        write = shared.write(0)
        try:
            with write as slot:
                into = Sample(-1, 0, {field: slot[field] for field in source.layout if field in slot})
                if source.newest(into) is None:
                    raise _NoPictureError
                write.stamp_ns, self._copied[name] = into.stamp_ns, into.index
                slot["masked"][...] = self._mask(name, into.stamp_ns, slot["mask"])
        except _NoPictureError:
            return

    def _mask(self, name: str, stamp_ns: int, into: Any) -> bool:
        """Whether there is a mask that is hardly older than the picture; it is in `into` then."""
        tracked = self._tracked(name, stamp_ns)
        if tracked is None or tracked.mask.shape != into.shape:
            return False
        np.not_equal(tracked.mask, 0, out=into, casting="unsafe")
        return True

    def _tracked(self, name: str, stamp_ns: int) -> TrackedMask | None:
        tracked: TrackedMask | None = self._shown.tracked(name)
        old = tracked is None or stamp_ns - tracked.stamp_ns > _MASK_NS
        return None if tracked is None or old or not tracked.mask.any() else tracked

    # --- the status

    def _status(self) -> None:
        told = self._told.newest()
        if told is None:
            return
        status = {
            **told.status,
            "questions": self._shown.questions(),
            "box": self._box(),
            "path": self._path.points(told.rows),
            "servos": self._servos(),
        }
        try:
            self._run.say(told.stamp_ns, finite(status))
        except ValueError:  # too long: what grows is left out
            self._run.say(told.stamp_ns, finite({**status, "questions": [], "attempts": [], "plan": []}))

    def _box(self) -> dict[str, list[int]]:
        """By camera, around what is tracked there."""
        tracked = {
            name: self._tracked(name, ring.newest_stamp_ns() or 0) for name, ring in self._cameras.items()
        }
        return {name: box_of(each.mask) for name, each in tracked.items() if each is not None}

    def _servos(self) -> dict[str, dict[str, float]]:
        """By joint, what its servo reports of itself."""
        servos: dict[str, dict[str, float]] = {}
        for names, ring in self._health:
            sample = ring.newest()
            for field in () if sample is None else [field for field in _HEALTH if field in ring.layout]:
                for name, value in zip(names, sample[field].tolist(), strict=True):  # type: ignore[index]
                    servos.setdefault(name, {})[field] = round(value, 2)
        return servos


class PlannedPath:
    """Where the horizon leads the working arm's grasp point; on its own copy of the model."""

    def __init__(self, robot: Robot) -> None:
        names = list(robot.settings.followers())
        name = robot.settings.working_arm or names[0]
        self._model = robot.model.arm(name) if name else robot.model.copy()
        self._joints = list(robot.model.layout.of(name))

    def points(self, rows: Floats | None) -> list[list[float]]:
        """At most 20 points ``[x, y, z]`` of the way of ``rows[T, D]``, metres in the base frame."""
        if rows is None or not len(rows):
            return []
        chosen = np.unique(np.linspace(0, len(rows) - 1, min(_POINTS, len(rows))).round().astype(int))
        way = [self._model.fk(row[self._joints])[:3, 3] for row in rows[chosen] if np.isfinite(row).all()]
        return [point.round(4).tolist() for point in way]


def _healths(robot: Robot) -> list[tuple[Sequence[str], Ring]]:
    layout = robot.model.layout
    return [
        ([layout.names[joint] for joint in layout.of(key.partition(".")[2])], arm.health)
        for key, arm in robot.arms.items()
    ]


def box_of(mask: Any) -> list[int]:
    """``[x0, y0, x1, y1]`` around what is set in ``mask[H, W]``, which is not empty; the ends exclusive."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return [int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1]


def finite(value: Any) -> Any:
    """`value` as JSON can say it: what is no number is ``None``, and a tuple a list."""
    if isinstance(value, Mapping):
        return {str(key): finite(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(each) for each in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value
