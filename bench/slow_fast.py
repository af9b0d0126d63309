"""``python -m bench.slow_fast``: a slow model asked beside a fast policy, and in its way; one JSON line.

On tables of the simulated tabletop an object is named, and once the arm has moved for a second another one
is. An attempt that comes to nothing ends at home, where the arm hides nothing, and is followed by the next.
A vision-language model (the planner's client over HTTP, its embedded stand-in behind it) says where what
is named lies, and takes `latency` seconds for it; `--fast` grasps. Asynchronous, it acts on the newest
of these thoughts; synchronous, each of its answers waits for one. A scene is a success if the ground truth
has the object that was named last in the jaws and off the table within the time.

What a way loses, it loses against the asynchronous one with the least latency, on the same scenes.

Played in one process on a stepped clock. With ``--out`` every scene is written down as it ends, and one that
is there is not played again.
"""

from __future__ import annotations

import argparse
import itertools
import json
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from loguru import logger

from dexrun.config.settings import Settings
from dexrun.evaluation.figures import exact_p, share
from dexrun.gym.asking import InlineAttempt, Pace
from dexrun.gym.attempts import QUIET_S, Worker, lifted
from dexrun.gym.defaults import default_settings, lighter
from dexrun.gym.engine import TableEngine, configured_pictures
from dexrun.policies import build_policy, policy_context
from runtime.interfaces import Policy
from runtime.messages import CameraInfo, PolicyStatus

LATENCIES_S = (0.1, 0.3, 1.0, 3.0)
RETOLD_S, LIMIT_S, SOON_S = 1.0, 20.0, 10.0
MOVED_RAD = 0.02


@dataclass(frozen=True, slots=True)
class Played:
    """One scene.

    Attributes:
        success: what was named last was lifted in time. wrong: something else was held in the end.
        seconds: from the second instruction on.
        starved: ticks without a row, once there had been one. waited: those before the first of an attempt.
        thoughts, age_ms_p50, age_ms_max: of the slow half.
    """

    mode: str
    latency_s: float
    seed: int
    success: bool
    wrong: bool
    seconds: float
    starved: int
    waited: int
    attempts: int
    thoughts: int
    age_ms_p50: int
    age_ms_max: int


class Cameras(Mapping[str, CameraInfo]):
    """The engine's, of the scene that is loaded."""

    def __init__(self, engine: TableEngine) -> None:
        self._engine = engine

    def __getitem__(self, name: str) -> CameraInfo:
        return self._engine.infos[name]

    def __iter__(self) -> Any:
        return iter(self._engine.infos)

    def __len__(self) -> int:
        return len(self._engine.infos)


def configured(mode: str, latency_s: float, fast: str = "geometric") -> Settings:
    """The simulated SO-100 with both halves."""
    slow = {"type": "vlm", "simulated_latency_s": latency_s}
    policy = {"type": "slow_fast", "slow": slow, "fast": {"type": fast}}
    return lighter(default_settings({"policy": {**policy, "synchronous": mode == "synchronous"}}))


class Table:
    """One engine, and one policy on it, scene after scene."""

    def __init__(self, mode: str, latency_s: float, fast: str = "geometric") -> None:
        self.mode, self.latency_s = mode, latency_s
        self.settings = configured(mode, latency_s, fast)
        pictures = {name: each for name, each in configured_pictures(self.settings).items() if name == "head"}
        self.engine = TableEngine(self.settings, pictures)
        self.engine.load(self.settings.world)
        context = policy_context(
            self.engine.model, Cameras(self.engine), self.engine.clock, self.engine.joints
        )
        self.policy: Policy = build_policy(self.settings.policy, context)
        self.policy.warm_up()
        self.pace = Pace.of(self.settings.policy, self.engine.model.names)

    def close(self) -> None:
        """Free graphics, threads, sockets."""
        self.policy.close()
        self.engine.close()

    def play(self, seed: int) -> Played:
        """One scene."""
        self.engine.load(self.settings.world.model_copy(update={"seed": seed}))
        return Scene(self, seed).play()


class Scene:
    """One table, on which one object is named and then another."""

    def __init__(self, table: Table, seed: int) -> None:
        self._table, self._seed = table, seed
        self._engine = table.engine
        there = [i for i, _ in enumerate(self._engine.table.objects) if self._engine.table.present[i]]
        drawn = np.random.default_rng([seed, 77]).permutation(there).tolist()
        self._first, self._second = drawn[0], drawn[1]
        self._worker = Worker(table.engine, table.policy, table.pace)
        self._attempts = self._quiet = 0
        self._source: InlineAttempt | None = None
        self._starved = self._waited = 0
        self._before = dict(table.policy.statistics())

    def play(self) -> Played:
        """Until what was named last is up, or the time is over."""
        rate_hz = self._table.settings.control.rate_hz
        start, moved_ticks = self._engine.control.position, 0
        assert start is not None  # noqa: S101 - the table was set
        self._follow(self._first)
        while moved_ticks < RETOLD_S * rate_hz and self._goes_on(0.0):
            self._tick(self._first)
            position = self._engine.control.position
            moved = position is not None and np.abs(position - start).max() > MOVED_RAD
            moved_ticks += bool(moved)
        told_s = self._engine.now_s
        self._follow(self._second)
        while not (up := self._up(self._second)) and self._goes_on(told_s):
            self._tick(self._second)
        return self._played(up, self._engine.now_s - told_s)

    def _goes_on(self, since_s: float) -> bool:
        """There is time left, and no stop is latched."""
        return self._engine.now_s - since_s < LIMIT_S and self._engine.control.state != "stopped"

    def _follow(self, index: int) -> None:
        """Told: the attempt so far is over, as in rollout mode."""
        self._attempts += 1
        engine, table = self._engine, self._table
        engine.control.rest()
        name = f"the {engine.table.objects[index].color} object"  # no two on a table have one colour
        self._quiet = 0
        self._source = InlineAttempt(engine, table.policy, table.pace, name, self._attempts, {})
        engine.control.follow(self._source)

    def _tick(self, index: int) -> None:
        control, statistics = self._engine.control, self._engine.statistics
        before = statistics.starved
        self._engine.tick()
        self._starved += statistics.starved - before
        dry = len(control.horizon) == 0
        self._waited += dry and statistics.starved == before
        self._quiet = self._quiet + 1 if dry else 0
        if self._over() and not self._up(index):
            self._worker.home()
            self._follow(index)

    def _over(self) -> bool:
        """Whether the attempt has come to its end: the policy says so, or fails for too long."""
        patience = QUIET_S * self._table.settings.control.rate_hz
        failing = self._source is not None and bool(self._source.failures)
        ended = self._engine.control.attempt.status is not PolicyStatus.RUNNING
        return ended or (failing and self._quiet > patience)

    def _up(self, index: int) -> bool:
        return lifted(self._engine, index)

    def _played(self, up: bool, seconds: float) -> Played:
        told = self._table.policy.statistics()
        others = set(range(len(self._engine.table.objects))) - {self._second}
        return Played(
            self._table.mode,
            self._table.latency_s,
            self._seed,
            up,
            not up and any(self._up(index) for index in others),
            round(seconds, 2),
            self._starved,
            self._waited,
            self._attempts,
            told["slow/thoughts"] - self._before.get("slow/thoughts", 0),
            told["slow/age_ms_p50"],
            told["slow/age_ms_max"],
        )


def known(path: Path | None) -> dict[tuple[str, float, int], Played]:
    """What was played before."""
    if path is None or not path.exists():
        return {}
    played = [Played(**json.loads(line)) for line in path.read_text().splitlines() if line.endswith("}")]
    return {(each.mode, each.latency_s, each.seed): each for each in played}


def summed(played: Sequence[Played]) -> dict[str, Any]:
    """Of one way."""
    won = [each for each in played if each.success]
    return {
        **share(len(won), len(played)),
        f"within_{SOON_S:g}_s": sum(each.seconds <= SOON_S for each in won),
        "wrong_object": sum(each.wrong for each in played),
        "seconds_p50": round(float(np.median([each.seconds for each in won])), 2) if won else None,
        "starved_ticks_a_scene": round(float(np.mean([each.starved for each in played])), 1),
        "waiting_ticks_a_scene": round(float(np.mean([each.waited for each in played])), 1),
        "thoughts_a_scene": round(float(np.mean([each.thoughts for each in played])), 1),
        "age_s": {
            "p50": float(np.median([each.age_ms_p50 for each in played])) / 1000,
            "max": max(each.age_ms_max for each in played) / 1000,
        },
    }


def lost(played: Sequence[Played], reference: Sequence[Played]) -> dict[str, Any]:
    """Points of success lost against `reference`, on the same scenes; p of McNemar's exact test."""
    best = {each.seed: each.success for each in reference}
    both = [(best[each.seed], each.success) for each in played if each.seed in best]
    down = sum(was and not now for was, now in both)
    up = sum(now and not was for was, now in both)
    points = round(100 * (down - up) / len(both), 1) if both else None
    return {"points": points, "down": down, "up": up, "p": exact_p(up, down)}


def main() -> None:
    """Measure, and print the line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scenes", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1000, help="of the first scene")
    parser.add_argument("--latencies", default=",".join(map(str, LATENCIES_S)), help="seconds, with commas")
    parser.add_argument("--modes", default="asynchronous,synchronous")
    parser.add_argument("--fast", default="geometric", help="the policy that acts, on a mask")
    parser.add_argument("--out", type=Path, help="a file of lines: what is in it is not played again")
    options = parser.parse_args()
    logger.remove()
    logging.disable(logging.INFO)
    latencies = [float(each) for each in options.latencies.split(",")]
    ways = list(itertools.product(options.modes.split(","), latencies))
    reference = ("asynchronous", min(latencies))
    seeds = range(options.seed, options.seed + options.scenes)
    found = known(options.out)
    for mode, latency_s in ways:
        missing = [seed for seed in seeds if (mode, latency_s, seed) not in found]
        if not missing:
            continue
        table = Table(mode, latency_s, options.fast)
        for seed in missing:
            found[mode, latency_s, seed] = played = table.play(seed)
            if options.out is not None:
                with options.out.open("a") as file:
                    file.write(json.dumps(asdict(played)) + "\n")
        table.close()
    of: dict[tuple[str, float], list[Played]] = {way: [found[(*way, seed)] for seed in seeds] for way in ways}
    line = {
        f"{mode} {latency_s:g} s": {
            **summed(of[mode, latency_s]),
            "lost": lost(of[mode, latency_s], of.get(reference, [])),
        }
        for mode, latency_s in ways
    }
    print(json.dumps({"bench": "slow_fast", "scenes": options.scenes, "threads": os.cpu_count(), **line}))


if __name__ == "__main__":
    main()
