"""What a tick reads: how old it may be, which of it is missing, and a force sensor at its full scale."""

from __future__ import annotations

import numpy as np

from runtime.inputs import LeaderSource, LoopInputs, Watch
from runtime.ring import Ring
from tests.runtime.control_rig import MS, STATES, Arm, D


def push(ring: Ring, at_ms: int, position: float = 0.0) -> None:
    ring.push(at_ms * MS, position=position, velocity=0, load=0)


def test_the_arm_is_fresh_for_as_long_as_it_may_be_old() -> None:
    arm = Arm()
    inputs = LoopInputs(arm.states, None, (), 0.025)
    inputs.read(10 * MS)
    assert (inputs.fresh, inputs.position) == (False, None)
    assert inputs.missing(10 * MS, None) == "arm: no state for 0.025 s"
    push(arm.states, 10, 0.3)
    inputs.read(35 * MS)
    assert inputs.fresh
    assert inputs.missing(35 * MS, None) is None
    position = inputs.position
    push(arm.states, 40, 0.4)
    assert inputs.read(40 * MS) == 30 * MS  # since the one before
    assert (np.asarray(position).tolist(), np.asarray(inputs.position).tolist()) == ([0.3] * D, [0.4] * D)
    inputs.read(66 * MS)
    assert not inputs.fresh
    assert np.asarray(inputs.position).tolist() == [0.4] * D  # the newest that is known


def test_a_leader_and_sensors_are_missed_only_while_something_is_followed() -> None:
    arm, leader, frames = Arm(), Ring(STATES, 4), Ring(STATES, 4)
    inputs = LoopInputs(arm.states, None, (Watch("wrist", frames, 0.1),), 0.025)
    push(arm.states, 200)
    inputs.read(200 * MS)
    source = LeaderSource(leader, 0.05)
    assert inputs.missing(200 * MS, None) is None
    assert inputs.missing(200 * MS, source) == "leader: no state for 0.05 s"
    push(leader, 200)
    assert inputs.missing(200 * MS, source) == "wrist: no data for 0.1 s"
    push(frames, 100)
    assert inputs.missing(200 * MS, source) is None


def test_a_channel_at_its_full_scale_may_hide_any_force() -> None:
    force = Ring({"force": ((2,), "<f8"), "saturated": ((2,), "<i8")}, 4)
    inputs = LoopInputs(Arm().states, force, (), 0.025)
    inputs.read(0)
    assert inputs.force_n is None
    force.push(0, force=[1.0, -2.0], saturated=[0, 1])
    inputs.read(0)
    assert np.asarray(inputs.force_n).tolist() == [1.0, -np.inf]


def test_it_goes_on_from_a_snapshot() -> None:
    arm = Arm()
    first, second = (LoopInputs(arm.states, None, (), 0.025) for _ in range(2))
    push(arm.states, 10, 0.3)
    first.read(10 * MS)
    second.restore(first.snapshot())
    assert second.fresh
    assert np.asarray(second.position).tolist() == [0.3] * D
