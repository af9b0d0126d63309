"""What is asked for is caught up with once, and not swung about, however short a period is."""

from __future__ import annotations

import math

import numpy as np
import pytest

from runtime.limits import SafetyOptions
from runtime.messages import Floats
from runtime.safety import SafetyStage
from runtime.snapshots import from_json, to_json
from tests.safety.arms import crane

STEP = math.tau / 4096
SPEED = 0.77
LEG_S = 1.5


def leader(at_s: float) -> Floats:
    """A joint to and fro, as an encoder has it; the others at rest."""
    way = at_s % (2 * LEG_S)
    place = SPEED * (way if way < LEG_S else 2 * LEG_S - way) - SPEED * LEG_S / 2
    return np.array([round(place / STEP) * STEP, -0.5, 0.0])


def follow(stage: SafetyStage, rate_hz: float, seconds: float = 6.0) -> tuple[Floats, Floats]:
    """What was asked of the joint, and what was sent, tick by tick."""
    target, asked, sent = leader(0.0), [], []
    for tick in range(round(seconds * rate_hz)):
        row = leader(tick / rate_hz)
        target = stage.apply(row, target, target, None, None, 1 / rate_hz).target
        asked.append(row[0])
        sent.append(target[0])
    return np.array(asked), np.array(sent)


def steady(rate_hz: float) -> np.ndarray:
    """Which ticks are longer than it takes to brake, turn and catch up after a turn."""
    times = np.arange(round(6.0 * rate_hz)) / rate_hz
    return (times > 1.0) & (times % LEG_S > 0.3)


@pytest.mark.parametrize("rate_hz", [30.0, 60.0, 100.0, 200.0, 400.0])
def test_a_leader_is_caught_up_with_once(rate_hz: float) -> None:
    options = SafetyOptions()
    asked, sent = follow(SafetyStage(options, crane()), rate_hz)
    assert np.abs(asked - sent)[steady(rate_hz)].max() <= 2 * STEP
    change = np.diff(sent, 2) * rate_hz * rate_hz
    assert np.abs(change).max() <= options.max_acceleration_rad_s2 * (1 + 1e-9)


def test_straight_at_it_a_joint_swings_about_its_leader() -> None:
    """What a stage did that was recorded before: it is verified as it was."""
    new, old = SafetyStage(SafetyOptions(), crane()), SafetyStage(SafetyOptions(), crane())
    state = new.snapshot()
    del state["pursuit"]
    old.restore(from_json(to_json(state)))
    asked, sent = follow(old, 200.0)
    assert np.abs(asked - sent)[steady(200.0)].max() > 10 * STEP
    assert "pursuit" in old.snapshot()
    again = SafetyStage(SafetyOptions(), crane())
    again.restore(from_json(to_json(old.snapshot())))
    assert again.snapshot()["pursuit"]["_pursues"] is False


def test_a_stage_goes_on_from_a_snapshot_to_the_last_bit() -> None:
    rate_hz, stage = 200.0, SafetyStage(SafetyOptions(), crane())
    other, target = SafetyStage(SafetyOptions(), crane()), leader(0.0)
    for tick in range(400):
        stage.rehearse(target, target, np.zeros(3), 1 / rate_hz)
        other.restore(from_json(to_json(stage.snapshot())))
        row = leader(1.2 + tick / rate_hz)
        theirs = other.apply(row, target, target, None, None, 1 / rate_hz).target
        target = stage.apply(row, target, target, None, None, 1 / rate_hz).target
        assert theirs.tolist() == target.tolist()


def test_what_a_joint_can_follow_is_followed_to_the_last_bit() -> None:
    stage, target, rate_hz = SafetyStage(SafetyOptions(), crane()), np.array([0.0, -0.5, 0.0]), 30.0
    for tick in range(60):
        row = np.array([0.4 * math.sin(tick / rate_hz) ** 2, -0.5, 0.0])
        target = stage.apply(row, target, target, None, None, 1 / rate_hz).target
        assert target.tolist() == row.tolist()


def test_after_a_gap_nothing_is_remembered_of_how_fast_it_was() -> None:
    for forget in ("reset", "interrupted"):
        stage = SafetyStage(SafetyOptions(), crane())
        follow(stage, 200.0, 1.0)
        getattr(stage, forget)()
        assert stage.snapshot()["pursuit"]["_place"] is None
        assert not stage.snapshot()["pursuit"]["_speed"].any()
