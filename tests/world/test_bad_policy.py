"""A bad policy behind the safety stage, on the simulated table's physics: it touches nothing hard.

What is checked is MuJoCo's own contacts and joint speeds.
"""

from __future__ import annotations

from typing import Any

import mujoco
import numpy as np
import pytest

from drivers.arms import describe
from drivers.world.config import WorldConfig
from drivers.world.layout import fixed_boxes
from drivers.world.physics import Tabletop
from drivers.world.servos import Drive
from runtime.limits import SafetyOptions
from runtime.messages import Floats
from runtime.safety import SafetyStage
from runtime.table_model import FixedBox

RATE_HZ, SUBSTEPS = 30, 17
OVER_TABLE = np.array([[-1.2, -1.5, -0.5, -1.5, -1.0, 0.0], [1.2, 0.3, 1.7, 1.7, 1.0, 1.0]])
"""Where most poses lie in the table, or in the tray."""


class Motors:
    """Stand in for the servos' registers: every joint gets its goal at full stiffness."""

    def __init__(self, goal: Floats) -> None:
        self.goal = self.position = goal
        self.speed = self.load = np.zeros_like(goal)

    def drive(self) -> Drive:
        ones = np.ones_like(self.goal)
        return Drive(self.goal.copy(), ones, ones, ones)

    def publish(self, position: Floats, speed: Floats, load: Floats) -> None:
        self.position, self.speed, self.load = position.copy(), speed.copy(), load.copy()


def hardest_contact(table: Tabletop, fixed: set[int]) -> float:
    wrench, hardest = np.zeros(6), 0.0
    for index in range(table.data.ncon):
        contact = table.data.contact[index]
        if (int(contact.geom1) in fixed) != (int(contact.geom2) in fixed):
            mujoco.mj_contactForce(table.model, table.data, index, wrench)
            hardest = max(hardest, float(np.linalg.norm(wrench[:3])))
    return hardest


def play(seed: int, seconds: float, margin_m: float, boxes: tuple[FixedBox, ...]) -> tuple[float, float]:
    """The hardest contact of the arm with table or tray, newtons, and the fastest joint, rad/s."""
    table = Tabletop(WorldConfig(seed=seed), (), describe())
    motors: Any = Motors(table.banks.drive().goal_rad.copy())
    table.banks = motors
    fixed = {g for g in range(table.model.ngeom) if table.model.geom(g).name.startswith(("table", "tray"))}
    model = describe().model(boxes=boxes)
    stage = SafetyStage(SafetyOptions(table_clearance_m=margin_m), model)
    random = np.random.default_rng(seed)
    target = wanted = model.from_native(motors.goal)
    hardest = fastest = 0.0
    for tick in range(round(seconds * RATE_HZ)):
        if tick % int(random.integers(4, 25)) == 0:
            low, high = OVER_TABLE if random.random() < 0.6 else model.ranges.T
            wanted = random.uniform(low, high)
        present = model.from_native(motors.position)
        target = stage.apply(wanted, present, target, 0.0, np.abs(motors.load), 1 / RATE_HZ).target
        motors.goal = model.to_native(target)
        for _ in range(SUBSTEPS):
            table.advance(table.now_ns + table.step_ns)
            hardest = max(hardest, hardest_contact(table, fixed))
        fastest = max(fastest, float(np.abs(motors.speed[:5]).max()))
    return hardest, fastest


@pytest.mark.parametrize("seed", [0, 1])
def test_a_bad_policy_hits_neither_table_nor_tray(seed: int) -> None:
    options = SafetyOptions()
    hardest, fastest = play(seed, 8.0, options.table_clearance_m, fixed_boxes())
    assert hardest < 20.0
    assert fastest < 1.2 * options.max_velocity_rad_s


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2, 30))
def test_many_bad_policies_hit_neither_table_nor_tray(seed: int) -> None:
    options = SafetyOptions()
    hardest, fastest = play(seed, 20.0, options.table_clearance_m, fixed_boxes())
    assert hardest < 20.0
    assert fastest < 1.2 * options.max_velocity_rad_s


def test_without_margin_and_tray_it_does() -> None:
    """What the check is for; it fails if the policy is no bad one any more."""
    assert max(play(seed, 8.0, 0.001, ())[0] for seed in (0, 1)) > 20.0
