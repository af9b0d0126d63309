"""The policy on the simulated table: rendered RGB-D, a mask found by colour, physics, the safety stage."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from drivers.world.config import ObjectOptions, WorldConfig
from drivers.world.layout import TRAY_CENTER_M, TRAY_INNER_M, draw_objects
from policies.geometric.config import GeometricConfig
from policies.geometric.policy import GeometricPolicy
from policies.handling import plan_home, plan_place
from policies.motion import MotionLimits
from runtime.arm_model import ArmModel
from tests.geometric.table import Episode, Table

SLOTS = [(dx, dy) for dy in (-0.025, 0.025) for dx in (-0.04, 0.0, 0.04)]


@dataclass
class Outcome:
    objects: int = 0
    grasped: int = 0
    placed: int = 0
    ticks: int = 0


def clear_table(arm: ArmModel, seed: int, **trouble: float) -> Outcome:
    config = WorldConfig(seed=seed)
    objects = draw_objects(config)
    table = Table(config, objects, arm.copy())
    limits = MotionLimits.uniform(arm, 1.8, 8.0)
    policy = GeometricPolicy(GeometricConfig(), arm.copy(), table.info)
    home, outcome = table.position(), Outcome()
    try:
        for i, entry in enumerate(objects):
            if np.hypot(entry.x_m, entry.y_m) > 1.0:
                continue
            policy.reset()
            outcome.objects += 1
            Episode(table, policy, entry.color, **trouble).run()
            held = policy.phase == "done" and table.world.object_pose(i)[0][2] > 0.05
            outcome.grasped += held
            if not held:
                table.follow(plan_home(arm, table.previous, home, limits, 0.1))
                continue
            dx, dy = SLOTS[i % len(SLOTS)]
            spot = (TRAY_CENTER_M[0] + dx, TRAY_CENTER_M[1] + dy)
            table.follow(plan_place(arm, table.previous, spot, limits, None, table.position()[5]).rows)
            off = np.abs(table.world.object_pose(i)[0][:2] - TRAY_CENTER_M)
            outcome.placed += bool((off < np.array(TRAY_INNER_M) / 2).all())
        assert table.stopped is None
        assert not set(table.clips) & {"NOT_FINITE", "RELATIVE", "COLLISION", "STALL"}
        outcome.ticks = table.tick
    finally:
        table.close()
    return outcome


@pytest.mark.parametrize("seed", [1, pytest.param(12, marks=pytest.mark.slow)])
def test_a_table_is_cleared(arm: ArmModel, seed: int):
    outcome = clear_table(arm, seed)
    assert outcome.placed == outcome.grasped == outcome.objects


@pytest.mark.slow
def test_a_table_is_cleared_through_slow_inference_and_lost_chunks(arm: ArmModel):
    outcome = clear_table(arm, 5, latency=12, lost=0.3)
    assert outcome.placed == outcome.objects


def test_an_object_that_moves_during_the_approach_is_followed(arm: ArmModel):
    config = WorldConfig(
        placed=(ObjectOptions(color="green", size_m=(0.024, 0.024, 0.03), x_m=0.22, y_m=-0.05),)
    )
    table = Table(config, draw_objects(config)[:1], arm.copy())
    policy = GeometricPolicy(GeometricConfig(), arm.copy(), table.info)
    episode = Episode(table, policy, "green")
    episode.run(30)
    assert policy.phase == "approach"
    table.world.move_object(0, (0.2, -0.02, 0.015), 0.5)
    assert episode.run() == "done"
    assert table.world.object_pose(0)[0][2] > 0.05
    table.close()


def test_two_runs_are_identical(arm: ArmModel):
    config = WorldConfig(seed=3)
    objects = draw_objects(config)[:1]
    runs = []
    for _ in range(2):
        table = Table(config, objects, arm.copy())
        policy = GeometricPolicy(GeometricConfig(), arm.copy(), table.info)
        Episode(table, policy, objects[0].color).run()
        runs.append((table.tick, table.previous))
        table.close()
    assert runs[0][0] == runs[1][0]
    np.testing.assert_array_equal(runs[0][1], runs[1][1])


@pytest.mark.slow
def test_twenty_tables(arm: ArmModel):
    outcomes = [clear_table(arm, seed) for seed in range(20)]
    objects = sum(o.objects for o in outcomes)
    assert sum(o.grasped for o in outcomes) >= 0.97 * objects
    assert sum(o.placed for o in outcomes) >= 0.97 * objects
