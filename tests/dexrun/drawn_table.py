"""Cubes on a table without physics, for grasp mode in `tests.dexrun.small_run`: a camera that draws them, an
arm whose gripper closes on them, and a policy that goes for what is masked.

All threads of a stepped clock take turns: what one of them reads here of another is never half written.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from policies import handling, motion
from policies.motion import MotionLimits
from runtime.arm_model import ArmModel
from runtime.clock import NS_PER_S, Clock
from runtime.interfaces import ArmDriver, CameraDriver, PolicySpec
from runtime.messages import ColorImage, Floats, Observation, PolicyAnswer, PolicyStatus
from runtime.ring import Ring
from tests.dexrun.small_run import Arm, Builder, Camera, D, Script, Small, perform
from tests.dexrun.tables import ARMS, HEAD

WIDTH, HEIGHT = 160, 120
PIXELS_PER_M = 300.0
"""Of a picture from straight above, in which the arm is at the bottom."""
SIZE_M = 0.04
HELD, NEAR_M, LOW_M = 0.25, 0.025, 0.045
"""Where the gripper stops at a cube, if the grasp point is so near to it, and so low."""
TABLE, TRAY = 150, 40
COLORS = {"red": (200, 30, 30), "green": (30, 170, 40)}
READY = np.array([0.0, -1.9, 1.9, 1.5, 0.0, 0.6])
UP_M, DOWN_M = 0.1, 0.025
YAWS = tuple(float(yaw) for yaw in np.linspace(-np.pi, np.pi, 17)[:-1])


def pixel(place: tuple[float, float]) -> tuple[int, int]:
    """Column and row of a place ``x, y`` in the base frame, metres."""
    return round(WIDTH / 2 - place[1] * PIXELS_PER_M), round(HEIGHT - place[0] * PIXELS_PER_M)


def place_of(column: float, row: float) -> tuple[float, float]:
    """The other way."""
    return (HEIGHT - row) / PIXELS_PER_M, (WIDTH / 2 - column) / PIXELS_PER_M


@dataclass
class DrawnTable:
    """Where each cube is, by its colour: ``x, y``; the one in the gripper is nowhere."""

    cubes: dict[str, tuple[float, float]] = field(
        default_factory=lambda: {"red": (0.2, -0.05), "green": (0.24, 0.06)}
    )
    tray: tuple[float, float] = (0.11, 0.188)
    half_m: tuple[float, float] = (0.055, 0.065)
    held: str = ""

    def picture(self) -> ColorImage:
        """RGB ``[HEIGHT, WIDTH, 3]``."""
        image = np.full((HEIGHT, WIDTH, 3), TABLE, np.uint8)
        self._fill(image, self.tray, self.half_m, (TRAY, TRAY, TRAY))
        for color, place in self.cubes.items():
            if color != self.held:
                self._fill(image, place, (SIZE_M / 2, SIZE_M / 2), COLORS[color])
        return image

    def _fill(
        self, image: ColorImage, place: tuple[float, float], half_m: tuple[float, float], color: Any
    ) -> None:
        u, v = pixel(place)
        down, across = (round(half * PIXELS_PER_M) for half in half_m)
        image[max(0, v - down) : v + down, max(0, u - across) : u + across] = color

    def in_tray(self, color: str) -> bool:
        """Whether it was let go there."""
        off = np.abs(np.subtract(self.cubes[color], self.tray))
        return color != self.held and bool((off <= self.half_m).all())

    def closes(self, tip_m: Floats) -> None:
        """The gripper has come as near as a cube is wide, with the grasp point at ``[3]``."""
        for color, place in self.cubes.items():
            if tip_m[2] < LOW_M and np.hypot(*np.subtract(place, tip_m[:2])) < NEAR_M:
                self.held = color

    def opens(self, tip_m: Floats) -> None:
        """What is held falls down."""
        if self.held:
            self.cubes[self.held] = (float(tip_m[0]), float(tip_m[1]))
            self.held = ""


class GrippingArm(Arm):
    """Its gripper does not close any further once there is something in it."""

    def __init__(self, name: str, clock: Clock, start: Floats, table: DrawnTable, model: ArmModel) -> None:
        super().__init__(name, clock, start)
        self._table, self._model = table, model

    def _stopped(self, position: Floats) -> Floats:
        table = self._table
        if table.held and self.goal[-1] > HELD + 0.02:
            table.opens(self._tip())
        elif not table.held and position[-1] <= HELD < self.position[-1]:
            table.closes(self._tip())
        if table.held:
            position[-1] = max(HELD, position[-1])
        return position

    def _tip(self) -> Floats:
        return np.asarray(self._model.fk(self.position)[:3, 3])


class Overhead(Camera):
    """Looks at the table from above; the arm is in nobody's way."""

    def __init__(self, name: str, clock: Clock, table: DrawnTable) -> None:
        super().__init__(name, clock)
        self._table = table
        self.frames = Ring({"color": ((HEIGHT, WIDTH, 3), "|u1")}, 8)

    def _deliver(self, now_ns: int) -> None:
        self.frames.push(now_ns, color=self._table.picture())


@dataclass
class Picker:
    """A policy that goes to what is masked, closes, and comes up; once for each attempt.

    Attributes:
        model: its own, once it is there.
        ails: what is wrong with its next answers: ``raises``, ``fails``, ``nan``, ``late``.
        answers: of each answer the instruction, and whether that was the end.
    """

    clock: Clock | None = None
    model: ArmModel | None = None
    spec: PolicySpec = field(
        default_factory=lambda: PolicySpec("picker", 20, cameras=("head",), masks=("head",), tells_end=True)
    )
    ails: list[str] = field(default_factory=list)
    answers: list[tuple[str, PolicyStatus]] = field(default_factory=list)
    _way: Floats | None = None
    _first: int = 0

    def warm_up(self) -> None: ...

    def reset(self) -> None:
        self._way = None

    def infer(self, observation: Observation) -> PolicyAnswer:
        here = observation.arm.position
        if observation.trial:
            return PolicyAnswer(np.tile(here, (20, 1)))
        answer = self._answer(observation, here)
        self.answers.append((observation.instruction, answer.status))
        return answer

    def _answer(self, observation: Observation, here: Floats) -> PolicyAnswer:
        match self.ails.pop(0) if self.ails else "":
            case "raises":
                raise RuntimeError("the network is gone")
            case "fails":
                return PolicyAnswer(np.zeros((0, D)), PolicyStatus.FAILED, "it gives up")
            case "nan":
                return PolicyAnswer(np.full((20, D), np.nan))
            case "late":
                assert self.clock is not None
                self.clock.wait_until_ns(self.clock.now_ns() + 2 * NS_PER_S)
        if self._way is None:
            rows, columns = np.nonzero(observation.masks["head"].mask)
            if not len(rows):
                return PolicyAnswer(np.zeros((0, D)), PolicyStatus.FAILED, "nothing is to be seen")
            self._first = observation.step
            assert self.model is not None
            self._way = self.way(self.model, here, place_of(columns.mean() + 0.5, rows.mean() + 0.5))
        done = observation.step - self._first
        if done >= len(self._way):
            return PolicyAnswer(np.zeros((0, D)), PolicyStatus.DONE)
        rows_left = self._way[done : done + 20]
        last = np.repeat(rows_left[-1:], 20 - len(rows_left), axis=0)
        return PolicyAnswer(np.concatenate([rows_left, last]))

    @staticmethod
    def way(arm: ArmModel, start: Floats, place: tuple[float, float]) -> Floats:
        """Rows ``[T, D]`` to what lies at `place`, and up with it.

        Raises:
            MotionError: there is none.
        """
        limits = MotionLimits.uniform(arm, 1.8, 8.0, gripper_velocity_s=2.0)
        parts = [handling.rise(arm, start, UP_M, limits)]
        above = motion.reach_down(arm, (*place, UP_M), READY, YAWS)
        if above is None:
            raise motion.MotionError(f"{place} is out of reach")
        goal = above.q.copy()
        goal[-1] = READY[-1]
        parts.append(motion.plan_joint_move(parts[-1][-1], goal, limits))
        for height_m in (DOWN_M, UP_M):
            pose = arm.fk(parts[-1][-1])
            pose[2, 3] = height_m
            parts.append(motion.plan_cartesian_move(arm, parts[-1][-1], pose, limits))
            if height_m == DOWN_M:
                closed = parts[-1][-1].copy()
                closed[-1] = 0.0
                parts.append(motion.plan_joint_move(parts[-1][-1], closed, limits))
        return np.concatenate(parts)

    def statistics(self) -> Mapping[str, int]:
        return {}

    def close(self) -> None: ...


class TableBuilder(Builder):
    """A follower at home over `table`, looked at by the camera ``head``; `picker` is the policy."""

    def __init__(self, table: DrawnTable, picker: Picker, *given: Any) -> None:
        super().__init__(*given)
        _, clock, model, _ = given
        self._table, self._model = table, model
        self._start = np.array(model.home[:D])
        picker.clock, picker.model = clock, model.copy()

    def arms(self) -> dict[str, ArmDriver]:
        own = self._model.copy()
        (key,) = self.settings.arm_tables()
        return {key: GrippingArm(key, self._clock, self._start, self._table, own)}

    def cameras(self) -> dict[str, CameraDriver]:
        return {name: Overhead(name, self._clock, self._table) for name in self.settings.cameras}


QUICK = {
    "mode": "grasp",
    "policy__cameras": '["head"]',
    "policy__simulated_latency_s": "0.1",
    "grasp__wrist": "",
    "grasp__settle_s": "0.1",
    "grasp__time_limit_s": "40",
    "grasp__attempt_timeout_s": "8",
    "planner__simulated_latency_s": "0.2",
    "planner__timeout_s": "1",
    "planner__deadline_s": "3",
    "planner__retries": "1",
    "planner__scene_reader__slow_s": "1.5",
}


def perform_grasp(
    folder: Path,
    script: Script,
    table: DrawnTable | None = None,
    picker: Picker | None = None,
    **keys: str,
) -> Small:
    """One run of grasp mode, with `script` beside it."""
    table, picker = table or DrawnTable(), picker or Picker()
    builder = partial(TableBuilder, table, picker)
    return perform(folder, script, picker, ARMS + HEAD, builder, **{**QUICK, **keys})
