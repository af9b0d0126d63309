"""Demonstrations on one scene after the other: an attempt at every object, by the geometric policy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from dexrun.collecting.attempt_file import AttemptFile
from dexrun.collecting.correction import Correction, CorrectionOptions
from dexrun.collecting.disturbance import NoiseOptions, Unsteady, Wander
from dexrun.config.settings import Settings
from dexrun.episodes.recording import described
from dexrun.gym.asking import Pace
from dexrun.gym.attempts import AttemptResult, Worker, lifted
from dexrun.gym.engine import TableEngine, configured_pictures
from dexrun.gym.eyes import Shot
from dexrun.gym.sight import Sight, box_of
from dexrun.policies import build_policy, policy_context
from drivers.world.config import WorldConfig
from drivers.world.grasping import tray_slot
from drivers.world.judge import in_tray
from drivers.world.layout import TRAY_FLOOR_M, draw_objects
from policies.geometric.config import GeometricConfig
from policies.geometric.correcting import CorrectingPolicy
from runtime.interfaces import PerceptionError
from runtime.messages import Floats
from runtime.options import Options

EXPERT = "expert"
"""The demonstrator's own camera: the one over the table, as large as configured."""
_SETTLE_TICKS = 6
_TAIL_S = 0.4
"""So long the demonstrator holds the object up at the end: that it is done shows in that it stays."""
_TRIES = 30
_LEAST_CLEAR_M, _LEAST_HEIGHT_M = 0.015, 0.08


class CollectOptions(Options):
    """What is collected, and how.

    Attributes:
        rate_hz: of the pictures that are recorded; ticks are recorded at ``control.rate_hz``.
        width, height: of them. oversample: drawn so many times larger, and averaged.
        depth: whether the depth of the camera over the table is recorded.
        noise: how much of everything in `disturbances`; 0 for perfect demonstrations.
        correction: a learned policy begins the attempts, and is corrected.
        looks: what share of the scenes looks otherwise, by chance (``[world.look]``).
    """

    rate_hz: float = Field(default=10.0, gt=0, le=100)
    width: int = Field(default=128, ge=16, le=640)
    height: int = Field(default=96, ge=16, le=480)
    oversample: int = Field(default=2, ge=1, le=8)
    depth: bool = True
    noise: float = Field(default=1.0, ge=0, le=4)
    disturbances: NoiseOptions = NoiseOptions()
    correction: CorrectionOptions | None = None
    looks: float = Field(default=0.0, ge=0, le=1)
    action: Literal["requested"] = "requested"


@dataclass(frozen=True, slots=True)
class Collected:
    """One demonstration: the file's number, and how it went."""

    index: int
    seed: int
    label: str
    rows: int
    seconds: float


class Collector:
    """Demonstrates on the scenes that it is given. One process has one.

    Args:
        settings: a whole configuration, as for `dexrun.gym.engine.TableEngine`.
    """

    def __init__(self, settings: Settings, options: CollectOptions) -> None:
        self._options = options
        self._noise = options.disturbances.scaled(options.noise)
        self._names = tuple(configured_pictures(settings))
        self._head = settings.grasp.head
        self._engine = TableEngine(settings, pictures_of(settings, options))
        self._unsteady = Unsteady(self._engine.safety)
        self._engine.safety = self._unsteady
        self._settings = as_recorded(settings, options)
        arm = self._engine.model.copy()
        table = expert_options(settings)
        expert = CorrectingPolicy(table, arm, lambda: self._engine.infos[EXPERT])
        self._engine.splicing = table
        self._worker = Worker(self._engine, expert, Pace(latency_s=0.0))
        self._every = max(1, round(settings.control.rate_hz / options.rate_hz))
        self._correction: Correction | None = None
        self._expert = expert
        self._sight = Sight(settings.perception, lambda: self._engine.infos[self._head])
        self._number = 0

    def scene(self, seed: int, first: int, folder: Path) -> list[Collected]:
        """An attempt at each of the objects of scene `seed`, as episodes from number `first` on.

        Raises:
            OSError: one cannot be written.
        """
        world = scene_of(self._settings.world, seed, self._options)
        self._engine.load(world)
        if self._options.correction is not None and self._correction is None:
            self._correction = self._corrected(self._options.correction)
        rng = np.random.default_rng([seed, 11])
        records = described(
            self._settings.model_copy(update={"world": world}),
            self._engine.robot,
            self._engine.model.layout,
            {"arm": dict(self._engine.arm.calibration)},
        )
        records["clock"] = {"wall_ns": "0", "monotonic_ns": "0", "offset_ns": "0", "stepped": "true"}
        there = [i for i, present in enumerate(self._engine.table.present) if present]
        found = []
        for place, index in enumerate(rng.permutation(there).tolist()):
            got = self._demonstrate(index, first + place, seed, folder, records, rng)
            found += [got] if got is not None else []
            self._clear(index, rng)
        return found

    # --- one attempt

    def _demonstrate(
        self,
        index: int,
        number: int,
        seed: int,
        folder: Path,
        records: Mapping[str, Mapping[str, str]],
        rng: np.random.Generator,
    ) -> Collected | None:
        engine = self._engine
        self._unsteady.offset = None
        engine.stand(self._start(rng))
        for _ in range(_SETTLE_TICKS):
            engine.tick()
        if not self._sees(index):
            return None
        name = engine.table.objects[index].name
        file = self._file()
        push = _Push(self._noise, index, rng)
        wander = Wander(
            self._noise,
            engine.settings.control.rate_hz,
            engine.model.joints,
            engine.robot.carrying,
            (seed, number),
        )

        def each() -> bool:
            file.take()
            self._unsteady.offset = wander.next(self._worker.height_m) if self._options.noise else None
            push.at(engine, self._expert.phase, file.rows)
            return True

        if self._correction is not None:
            result = self._correction.attempt(index, f"the {name}", file, rng)
        else:
            result = self._worker.attempt(index, f"the {name}", each)
        self._unsteady.offset = None
        for _ in range(round(_TAIL_S * engine.settings.control.rate_hz) if result.done else 0):
            engine.tick()
            file.take()
        if file.rows < 2:
            return None
        return self._kept(file, result, index, number, seed, folder, records)

    def _kept(
        self,
        file: AttemptFile,
        result: AttemptResult,
        index: int,
        number: int,
        seed: int,
        folder: Path,
        records: Mapping[str, Mapping[str, str]],
    ) -> Collected:
        engine = self._engine
        won = result.done and lifted(engine, index)
        label = "success" if won else "failure"
        spec = engine.table.objects[index]
        about: dict[str, Any] = {"scene": seed, "object": asdict(spec), "noise": self._options.noise}
        if self._correction is not None:
            about["taken_over"] = self._correction.why
        reason = result.why or "lifted"
        file.write(folder, number, f"pick up the {spec.name}", label, reason, records, about)
        return Collected(number, seed, label, file.rows, file.rows / engine.settings.control.rate_hz)

    def _file(self) -> AttemptFile:
        options, engine = self._options, self._engine
        infos = {name: engine.small_info(name, options.oversample) for name in self._names}
        sights = {self._head: self._sight}
        return AttemptFile(engine, infos, options.oversample, self._every, sights, engine.settings.recording)

    def _corrected(self, options: CorrectionOptions) -> Correction:
        """With the checkpoint's policy, once the cameras are known."""
        engine, table = self._engine, self._settings.policy
        context = policy_context(engine.model, engine.infos, engine.clock, engine.joints)
        learner = build_policy(table, context)
        learner.warm_up()
        engine.splicing = table
        pace = Pace.of(table, tuple(engine.model.names))
        return Correction(engine, options, learner, pace, self._expert, self._every)

    def _sees(self, index: int) -> bool:
        """Begin with the mask that is recorded; whether there is one."""
        engine = self._engine
        assert engine.eyes is not None  # noqa: S101 - a scene is loaded
        box = box_of(engine.table, index, engine.eyes.true_infos[self._head])
        self._number += 1
        if box is None:
            return False
        try:
            self._sight.begin(engine.eyes.frame(self._head), box, self._number)
        except PerceptionError:
            return False
        return True

    def _start(self, rng: np.random.Generator) -> Floats:
        """Where the attempt begins: at home, or somewhere around it."""
        engine, noise = self._engine, self._noise
        home = engine.home
        if rng.random() >= noise.start_share:
            return home
        carrying = list(engine.robot.carrying)
        low, high = engine.permitted.ranges.T
        for _ in range(_TRIES):
            q = home.copy()
            q[carrying] += rng.uniform(-noise.start_rad, noise.start_rad, len(carrying))
            q[list(engine.model.grippers)] = rng.uniform(0.0, 0.9)
            q = np.clip(q, low, high)
            free = engine.model.clearance(q) > _LEAST_CLEAR_M
            if free and engine.model.grasp_height(q) > _LEAST_HEIGHT_M:
                return q
        return home

    def _clear(self, index: int, rng: np.random.Generator) -> None:
        """The object is in the tray for the attempts to come, if it was taken; else where it was."""
        table = self._engine.table
        spec, taken = table.objects[index], lifted(self._engine, index)
        yaw = float(rng.uniform(-np.pi, np.pi))
        if taken:
            inside = [table.object_pose(i)[0] for i in range(len(table.objects))]
            slot = tray_slot([at for at in inside if in_tray(at)])
            height = TRAY_FLOOR_M + spec.size_m[2] / 2 + 0.001
            table.move_object(index, (float(slot[0]), float(slot[1]), height), yaw)
        elif index in table.held_objects():
            table.move_object(index, (spec.x_m, spec.y_m, spec.size_m[2] / 2), spec.yaw_rad)


class _Push:
    """Perhaps the object is pushed once, while the arm is still far from it."""

    def __init__(self, options: NoiseOptions, index: int, rng: np.random.Generator) -> None:
        self._index = index
        self._at = int(rng.integers(5, 30)) if rng.random() < options.object_share else -1
        self._by = rng.uniform(-options.object_m, options.object_m, 2)
        self._yaw = float(rng.uniform(-0.6, 0.6))

    def at(self, engine: TableEngine, phase: str, tick: int) -> None:
        """Push it, if it is time and the arm is far enough."""
        if tick != self._at or phase != "approach":
            return
        table = engine.table
        position, _ = table.object_pose(self._index)
        place = position[:2] + self._by
        others = [table.object_pose(i)[0] for i in range(len(table.objects)) if i != self._index]
        near = min((float(np.linalg.norm(place - other[:2])) for other in others), default=1.0)
        here = engine.control.position
        if near < 0.06 or here is None:
            return
        tip = engine.model.fk(here)[:3, 3]
        if float(np.linalg.norm(tip[:2] - place)) < 0.06 and tip[2] < 0.12:
            return
        yaw = table.yaw_rad(self._index) + self._yaw
        table.move_object(self._index, (float(place[0]), float(place[1]), float(position[2])), yaw)


def scene_of(world: WorldConfig, seed: int, options: CollectOptions) -> WorldConfig:
    """The scene `seed`; a share of them, by chance, looks otherwise."""
    varied = float(np.random.default_rng([seed, 13]).random()) < options.looks
    look = world.look.model_copy(update={"vary": 1.0}) if varied else world.look
    return world.model_copy(update={"seed": seed, "look": look})


def pictures_of(settings: Settings, options: CollectOptions) -> dict[str, Shot]:
    """The cameras that are recorded, as they are drawn, and the demonstrator's own."""
    width, height = options.width * options.oversample, options.height * options.oversample
    found = {
        name: replace(each, width=width, height=height, depth=each.depth and options.depth)
        for name, each in configured_pictures(settings).items()
    }
    own = settings.world.head
    found[EXPERT] = Shot("head", own.width, own.height, depth=True, measured=True)
    return found


def expert_options(settings: Settings) -> GeometricConfig:
    """The demonstrator's: those of ``[policy]``, if that is the geometric one."""
    given = settings.policy if isinstance(settings.policy, GeometricConfig) else None
    table = GeometricConfig.model_validate({"type": "geometric"}) if given is None else given
    return table.model_copy(update={"camera": EXPERT})


def objects_in(world: WorldConfig) -> int:
    """How many objects take part in a scene."""
    return sum(spec.present for spec in draw_objects(world))


def as_recorded(settings: Settings, options: CollectOptions) -> Settings:
    """What recordings say of themselves: their cameras' size, and which target is the action."""
    size = {"width": options.width, "height": options.height, "fps": max(1, round(options.rate_hz))}
    cameras: dict[str, Any] = {
        name: settings.cameras[name].model_copy(update=size) for name in configured_pictures(settings)
    }
    update: Sequence[tuple[str, Any]] = (
        ("mode", "rollout"),
        ("cameras", cameras),
        ("export", settings.export.model_copy(update={"action": options.action})),
    )
    return settings.model_copy(update=dict(update))
