"""A leader is brought somewhere by its own servos, held there, and let go."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from drivers.feetech import registers as reg
from runtime.interfaces import GuidedLeader
from tests.feetech.rig import CALIBRATION, Rig, rig

MIDDLES = {"shoulder_pan": 2000, "shoulder_lift": 2000, "elbow_flex": 2000, "wrist_flex": 2000}
WAY = np.array([0.2, -0.1, 0.1, 0.0, 0.3, 0.0])
LIMP = np.full(6, np.nan)


def register(r: Rig, which: reg.Register) -> list[int]:
    return [r.emulator.servos[joint.id].get(which) for joint in CALIBRATION.values()]


def lead(r: Rig, position: np.ndarray, times: int = 1) -> None:
    for _ in range(times):
        r.arm.guide.post(r.clock.now_ns(), position=position)
        r.run(2)  # the word, and a reading


def test_it_is_brought_held_and_let_go(tmp_path: Path) -> None:
    with rig(tmp_path, role="leader", start=MIDDLES, health_period_s=0.02) as r:
        assert isinstance(r.arm, GuidedLeader)
        r.arm.open()
        r.run(1)
        limits = register(r, reg.TORQUE_LIMIT)
        state = r.arm.states.newest()
        assert state is not None
        here = state["position"]
        lead(r, here)
        assert register(r, reg.TORQUE_ENABLE) == [1] * 6
        assert register(r, reg.TORQUE_LIMIT) == [round(0.6 * limit) for limit in limits]
        for share in np.linspace(0.0, 1.0, 60):
            lead(r, here + share * WAY)
        lead(r, here + WAY, 30)
        state = r.arm.states.newest()
        assert state is not None
        assert state["position"] - here == pytest.approx(WAY, abs=5e-3)
        lead(r, LIMP)
        assert register(r, reg.TORQUE_ENABLE) == [0] * 6
        assert register(r, reg.TORQUE_LIMIT) == limits
        r.run(10)  # the health polls find no servo that has lost anything
        assert r.arm.statistics() == {}


def test_nobody_who_guides_any_more_lets_it_go(tmp_path: Path) -> None:
    with rig(tmp_path, role="leader", start=MIDDLES) as r:
        r.arm.open()
        r.run(1)
        state = r.arm.states.newest()
        assert state is not None
        lead(r, state["position"])
        assert register(r, reg.TORQUE_ENABLE) == [1] * 6
        r.run(120)
        assert register(r, reg.TORQUE_ENABLE) == [0] * 6


def test_a_leader_that_is_closed_is_limp(tmp_path: Path) -> None:
    with rig(tmp_path, role="leader", start=MIDDLES) as r:
        r.arm.open()
        r.run(1)
        state = r.arm.states.newest()
        assert state is not None
        lead(r, state["position"])
        r.arm.close()
        assert register(r, reg.TORQUE_ENABLE) == [0] * 6
