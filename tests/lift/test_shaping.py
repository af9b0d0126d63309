"""What the network asks for as the control loop plays it: the safety stage has nothing to cut."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from drivers.arms.choice import describe
from policies.lift.config import LiftConfig
from policies.lift.shaping import RowShaping
from runtime.blends import blend_from
from runtime.horizon import Horizon
from runtime.joints import JointLayout
from runtime.limits import SafetyOptions
from runtime.messages import ActionChunk, ArmState, Clip, Floats, Observation
from runtime.safety import SafetyStage

MODEL = describe().model()
RATE_HZ, ROWS, LATE = 30.0, 20, 4
"""Ticks a second; rows of a chunk; ticks after which it is there."""
OVER = np.array([-0.31, -2.16, 2.33, 1.41, -1.37, 0.39])
"""Over the table, with open jaws."""
IN = np.array([-0.31, -2.03, 2.60, 1.10, -1.38, 0.2])
"""With the fingers some millimetres in it, and the jaws closed further."""
ASIDE = OVER + np.array([0.9, 0.1, 0.0, 0.0, 0.8, 0.0])
"""Where another hypothesis would go."""


def observed(position: Floats, committed: Floats, frozen: int, step: int = 0) -> Observation:
    arm = ArmState(0, position, np.zeros(6), np.zeros(6))
    return Observation(
        step=step,
        epoch=0,
        stamp_ns=0,
        arm=arm,
        frames={},
        masks={},
        force_n=None,
        instruction="",
        committed=committed,
        frozen_steps=frozen,
    )


def towards(position: Floats, goal: Floats) -> Floats:
    """What a network says that wants to be at `goal` within four rows, whatever it said before."""
    share = np.minimum(np.arange(1, ROWS + 1) / 4, 1.0)[:, None]
    return np.asarray(position + share * (goal - position))


def played(layout: JointLayout, goals: list[Floats]) -> tuple[Counter[Clip], Floats]:
    """One chunk after the other, each asked for half-way, on an arm that is where it is asked to be."""
    stage = SafetyStage(SafetyOptions(), MODEL.copy())
    options = LiftConfig(checkpoint="")
    shaping = RowShaping(options, layout, MODEL.copy)
    horizon = Horizon(6, blend_from(options), rate_hz=RATE_HZ, grippers=(5,))
    clips, at = Counter[Clip](), OVER
    late: ActionChunk | None = None
    for goal in goals:
        for tick in range(ROWS):  # ten rows, or half of the chunk
            if tick == 0:
                frozen = min(horizon.reached_in(LATE), len(horizon))
                seen = observed(at, horizon.pending(), frozen, horizon.step)
                rows = shaping.rows(towards(at, goal), seen)
                late = ActionChunk(rows, horizon.step, horizon.epoch, rate_hz=15.0)
            if late is not None and tick >= (LATE if len(horizon) else 0):
                assert horizon.splice(late).verdict == "spliced"
                late = None
            asked = horizon.take()
            assert asked is not None
            result = stage.apply(asked, at, at, None, None, 1.0 / RATE_HZ)
            clips.update(clip for clip in Clip if clip and clip in result.clips)
            at = result.target
    return clips, at


@pytest.mark.parametrize("goals", [[IN] * 3, [OVER, ASIDE, OVER], [ASIDE, IN, IN]])
def test_nothing_of_it_is_cut(goals: list[Floats]) -> None:
    """Not by the table, on which the fingers would be stopped with open jaws; nor as too hard a change."""
    stage = SafetyStage(SafetyOptions(), MODEL.copy())
    unaware, _ = played(MODEL.layout, goals)
    assert sum(unaware.values()) > 10
    clips, at = played(MODEL.layout.within(stage.permitted), goals)
    assert not clips
    if goals[-1] is IN:
        assert at[5] == pytest.approx(IN[5], abs=0.01)
        assert MODEL.clearances(at)[1] == pytest.approx(0.006, abs=3e-4)


def test_where_nothing_is_said_to_be_permitted_rows_are_smoothed_alone() -> None:
    shaping = RowShaping(LiftConfig(checkpoint=""), MODEL.layout, MODEL.copy)
    rows = shaping.rows(towards(OVER, IN), observed(OVER, np.zeros((0, 6)), 0))
    assert rows[-1] == pytest.approx(IN)


def test_what_is_executed_before_a_chunk_arrives_stays_as_it_is() -> None:
    stage = SafetyStage(SafetyOptions(), MODEL.copy())
    shaping = RowShaping(LiftConfig(checkpoint=""), MODEL.layout.within(stage.permitted), MODEL.copy)
    committed = towards(OVER, ASIDE)[:8]
    rows = shaping.rows(towards(OVER, OVER), observed(OVER, committed, 3))
    np.testing.assert_array_equal(rows[:4], committed[:4])
    assert np.abs(rows[4] - committed[4]).max() < np.abs(rows[7] - committed[7]).max()
