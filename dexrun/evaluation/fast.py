"""A scene in one process: the same table, control loop and safety stage, many times faster than the wires."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np

from dexrun.config.settings import Settings
from dexrun.evaluation.results import SceneResult
from dexrun.evaluation.scenes import SceneTask, save_picture
from dexrun.gym.asking import Pace
from dexrun.gym.attempts import Worker
from dexrun.gym.defaults import lighter
from dexrun.gym.engine import TableEngine, configured_pictures
from dexrun.gym.episode import Clearing, EpisodeResult
from runtime.clock import NS_PER_S, RealClock
from runtime.interfaces import Policy, PolicyError
from runtime.messages import Observation, PolicyAnswer


class _Timed:
    """A policy whose answers are timed by a real clock."""

    def __init__(self, policy: Policy) -> None:
        self._policy, self._clock = policy, RealClock()
        self.spec = policy.spec
        self.times: list[float] = []

    def warm_up(self) -> None:
        self._policy.warm_up()
        self.spec = self._policy.spec

    def infer(self, observation: Observation) -> PolicyAnswer:
        _looked(observation)  # pictures are drawn when they are looked at, which is no part of the answer
        began_ns = self._clock.now_ns()
        try:
            return self._policy.infer(observation)
        finally:
            self.times.append((self._clock.now_ns() - began_ns) / NS_PER_S)

    def reset(self) -> None:
        self._policy.reset()

    def statistics(self) -> Mapping[str, int]:
        return self._policy.statistics()

    def close(self) -> None:
        self._policy.close()


def _looked(observation: Observation) -> None:
    for pictures in (observation.frames, observation.masks):
        for name in pictures:
            try:
                pictures[name]
            except PolicyError:  # the policy is told so when it looks itself
                continue


@dataclass(frozen=True, slots=True)
class _Table:
    """An engine with a policy on it."""

    settings: Settings
    engine: TableEngine
    policy: _Timed


@lru_cache(maxsize=2)
def _table(words: tuple[str, ...]) -> _Table:
    from dexrun.config.load import load
    from dexrun.policies import build_policy, policy_context

    settings = lighter(load(list(words)))
    needs = {need.camera for need in settings.policy.needs_cameras()} | {settings.grasp.head}
    pictures = {name: each for name, each in configured_pictures(settings).items() if name in needs}
    engine = TableEngine(settings, pictures)
    engine.load(settings.world)
    context = policy_context(engine.model, _Present(engine), engine.clock, engine.joints)
    policy = _Timed(build_policy(settings.policy, context))
    policy.warm_up()
    return _Table(settings, engine, policy)


class _Present(Mapping[str, Any]):
    """The engine's cameras as they are: of another scene they may be others."""

    def __init__(self, engine: TableEngine) -> None:
        self._engine = engine

    def __getitem__(self, name: str) -> Any:
        return self._engine.infos[name]

    def __iter__(self) -> Any:
        return iter(self._engine.infos)

    def __len__(self) -> int:
        return len(self._engine.infos)


def play_fast(task: SceneTask) -> SceneResult:
    """Play the scene here. What raises is a result with an error."""
    clock = RealClock()
    began_ns = clock.now_ns()
    base = SceneResult(task.candidate.name, task.seed)
    try:
        table = _table((*task.words, *task.candidate.words))
        table.policy.times.clear()
        engine, settings = table.engine, table.settings
        engine.load(settings.world.model_copy(update={"seed": task.seed}))
        worker = Worker(engine, table.policy, Pace.of(settings.policy, engine.model.names), tracked_hz=10)
        found = Clearing(worker).run()
    except Exception as error:  # one scene's trouble is not the others'
        return replace(base, error=f"{type(error).__name__}: {error}")
    result = _result(base, found, table.policy.times)
    if not result.success:
        result = replace(result, picture=_picture(task, table))
    return replace(result, wall_s=round((clock.now_ns() - began_ns) / NS_PER_S, 2))


def _result(base: SceneResult, found: EpisodeResult, times: list[float]) -> SceneResult:
    return replace(
        base,
        objects_total=found.judge.objects_total,
        objects_in_tray=found.judge.objects_in_tray,
        success=found.judge.success,
        outcome="completed" if found.judge.success else "incomplete",
        why=found.reason,
        duration_s=round(found.seconds, 2),
        clips=dict(found.clips),
        starved_ticks=found.starved,
        attempts=tuple(found.attempts),
        inference_s={"p50": float(np.median(times)), "max": max(times)} if times else {},
    )


def _picture(task: SceneTask, table: _Table) -> str:
    import cv2

    eyes = table.engine.eyes
    if eyes is None:
        return ""
    color = eyes.frame(table.settings.grasp.head).color
    done, data = cv2.imencode(".jpg", cv2.cvtColor(color, cv2.COLOR_RGB2BGR))
    return save_picture(task, data.tobytes(), ".jpg") if done else ""
