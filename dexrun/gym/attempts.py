"""One attempt at one object, and prepared moves, on the engine: what grasp mode does, tick by tick."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np

from dexrun.gym.asking import InlineAttempt, Pace
from dexrun.gym.engine import TableEngine
from dexrun.gym.sight import Sight, box_of
from dexrun.modes.motion_source import MotionSource
from policies.handling import PlaceOptions, plan_home, plan_place
from policies.motion import MotionError, MotionLimits
from runtime.interfaces import PerceptionError, Policy
from runtime.messages import CameraInfo, Floats, PolicyStatus

QUIET_S = 3.0
"""So long without a usable chunk, while the policy reports failures, ends an attempt."""
_SLACK, _SLACK_S = 1.5, 5.0
_HELD_APART = 0.03
_PUT_BACK_M = 0.03


@dataclass(frozen=True, slots=True)
class AttemptResult:
    """How an attempt ended.

    Attributes:
        done: the policy says that it holds the object up. why: what ended it otherwise.
        height_m: of the grasp point then. held: whether, by ground truth, the object is in the jaws and off
            the table.
    """

    done: bool
    why: str
    height_m: float
    held: bool
    ticks: int


class Worker:
    """Drives one policy on one engine.

    Args:
        tracked_hz: how often masks are followed while the policy drives; 0: whenever the policy looks.

    Attributes:
        sights: by camera, what follows the object.
    """

    def __init__(self, engine: TableEngine, policy: Policy, pace: Pace, tracked_hz: float = 0.0) -> None:
        self.engine = engine
        self.policy = policy
        self.pace = pace
        settings = engine.settings
        self.sights = {
            name: Sight(settings.perception, partial(self._camera, name)) for name in policy.spec.masks
        }
        self._every = round(settings.control.rate_hz / tracked_hz) if tracked_hz else 0
        self._number = 0
        self._arm = engine.model.copy()
        grasp = settings.grasp
        self._limits = MotionLimits.uniform(
            self._arm,
            grasp.move_speed_rad_s,
            grasp.move_acceleration_rad_s2,
            rate_hz=settings.control.rate_hz,
        )
        self._placed = 0
        self.failures: Mapping[str, int] = {}

    def _camera(self, name: str) -> CameraInfo:
        return self.engine.infos[name]

    # --- an attempt

    def attempt(self, index: int, instruction: str, each: Callable[[], bool] | None = None) -> AttemptResult:
        """Have the policy grasp object `index` and lift it; `each` tick it is asked whether to go on."""
        if why := self.look_for(index):
            return self._ended(index, 0, why=why)
        return self.go_on(index, instruction, each, reset=True)

    def go_on(
        self, index: int, instruction: str, each: Callable[[], bool] | None = None, *, reset: bool = False
    ) -> AttemptResult:
        """The rest of an attempt that another policy may have begun, once the object is tracked."""
        engine = self.engine
        source = InlineAttempt(
            engine, self.policy, self.pace, instruction, self._number, self.sights, reset=reset
        )
        engine.control.follow(source)
        ticks, quiet, why, done = 0, 0, "", False
        rate_hz = engine.settings.control.rate_hz
        limit, patience = engine.settings.grasp.attempt_timeout_s * rate_hz, QUIET_S * rate_hz
        lowest = float("inf")
        while not (why or done):
            engine.tick()
            ticks += 1
            self._track(ticks)
            height = self.height_m
            lowest = min(lowest, height)
            quiet = quiet + 1 if len(engine.control.horizon) == 0 else 0
            done = self._done(height, lowest)
            why = self._why(source, ticks > limit, quiet > patience)
            if each is not None and not each() and not done:
                why = why or "ended from outside"
        self.failures = source.failures
        engine.control.rest()
        return self._ended(index, ticks, done=done, why=why)

    def look_for(self, index: int) -> str:
        """Have the object's masks tracked from now on; why they cannot be, if so."""
        self._number += 1
        eyes = self.engine.eyes
        assert eyes is not None  # noqa: S101 - a scene is loaded
        for name, sight in self.sights.items():
            box = box_of(self.engine.table, index, eyes.true_infos[name])
            if box is None:
                return "the object is out of sight"
            try:
                sight.begin(eyes.frame(name), box, self._number)
            except PerceptionError as error:
                return str(error)
        return ""

    def _track(self, ticks: int) -> None:
        eyes = self.engine.eyes
        if self._every and ticks % self._every == 0 and eyes is not None:
            for name, sight in self.sights.items():
                sight.look(eyes.frame(name))

    def _done(self, height: float, lowest: float) -> bool:
        if self.engine.control.attempt.status is PolicyStatus.DONE:
            return True
        above = self.engine.settings.grasp.check_height_m
        return not self.policy.spec.tells_end and lowest < 0.5 * above and height > above

    def _why(self, source: InlineAttempt, late: bool, quiet: bool) -> str:
        control = self.engine.control
        if control.attempt.status is PolicyStatus.FAILED:
            return control.attempt.why or "the policy gave up"
        if control.state == "stopped":
            return control.reason
        if quiet and source.failures:
            return source.last_error
        return f"no grasp within {self.engine.settings.grasp.attempt_timeout_s:g} s" if late else ""

    @property
    def height_m(self) -> float:
        """Of the grasp point over the table."""
        position = self.engine.control.position
        return 0.0 if position is None else self._arm.grasp_height(position)

    def _ended(self, index: int, ticks: int, *, done: bool = False, why: str = "") -> AttemptResult:
        return AttemptResult(done, why, self.height_m, lifted(self.engine, index), ticks)

    # --- prepared moves

    def place(self) -> str:
        """Carry what is held over the tray and let go; why not, if it could not."""
        options = self.engine.settings.grasp
        place_m = options.place_m or self.engine.robot.place_m
        spot = options.spot(place_m, self._placed)
        self._placed += 1
        return self._put(spot, PlaceOptions(options.carry_height_m, release_height_m=place_m[2]))

    def home(self) -> str:
        """Bring the arm home, setting down first what the jaws are held apart by."""
        engine = self.engine
        options = engine.settings.grasp
        position, target = engine.control.position, engine.control.target
        fingers = self._arm.fingers
        if position is not None and target is not None:
            apart = fingers.openings(position) - fingers.openings(target)
            if apart.max(initial=0.0) > _HELD_APART:
                x, y = self._arm.fk(target)[:2, 3].tolist()
                self._put((x, y), PlaceOptions(options.carry_height_m, release_height_m=_PUT_BACK_M))
        home, height = engine.home, options.carry_height_m
        why = self._move(lambda start: plan_home(self._arm, start, home, self._limits, height))
        for _ in range(round(options.settle_s * engine.settings.control.rate_hz)):
            engine.tick()
        return why

    def _put(self, spot: tuple[float, float], options: PlaceOptions) -> str:
        position = self.engine.control.position
        held = None if position is None else self._arm.fingers.openings(position)
        return self._move(lambda start: plan_place(self._arm, start, spot, self._limits, options, held).rows)

    def _move(self, planned: Callable[[Floats], Floats]) -> str:
        engine, control = self.engine, self.engine.control
        if control.target is None:
            return "it is not known where the arm is"
        try:
            rows = planned(control.target.copy())
        except MotionError as error:
            return str(error)
        source = MotionSource(rows)
        control.follow(source)
        left = round(_SLACK * len(rows) + _SLACK_S * engine.settings.control.rate_hz)
        why = "the arm did not get there"
        while left > 0 and why:
            engine.tick()
            left -= 1
            if control.refused or control.state == "stopped":
                why = control.refused or control.reason
                break
            if control.exhausted and self._there(rows[-1]):
                why = ""
        control.rest()
        return why

    def _there(self, pose: Floats) -> bool:
        position, carrying = self.engine.control.position, list(self.engine.robot.carrying)
        if position is None:
            return False
        far = np.abs(position - pose)[carrying]
        return bool(far.max(initial=0.0) <= self.engine.settings.control.arrived_rad)


_OFF_TABLE_M = 0.02


def lifted(engine: TableEngine, index: int) -> bool:
    """By ground truth: whether object `index` is in the jaws, and off the table."""
    table = engine.table
    position, _ = table.object_pose(index)
    above = float(position[2]) - min(table.objects[index].size_m) / 2
    return index in table.held_objects() and above > _OFF_TABLE_M
