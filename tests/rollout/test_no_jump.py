"""Control passes to a person and back while everything moves fast: the real loop and safety stage."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from dexrun.config.mode_options import RolloutOptions, TeleopOptions
from dexrun.modes.hand_over import DrivingPhase, HandOver
from dexrun.modes.leader import Leader
from runtime.faults import FaultOptions, FaultPolicy
from runtime.limits import SafetyOptions
from runtime.messages import Clip, Floats
from runtime.pilot import Pilot
from runtime.safety import SafetyStage
from tests.rollout.test_hand_over import Motorised
from tests.runtime.control_rig import Chunks, D, Rig
from tests.safety.arms import crane

RATE = 30
SPEED = 2.2
"""Of the pan joint when the person takes over, rad/s; the limit is 2.5."""
JUMP = Clip.VELOCITY | Clip.ACCELERATION
SAFETY = SafetyOptions()


def fast_from(start: Floats) -> Callable[[int], Floats]:
    """A policy that goes on from where the arm is: the pan joint up to `SPEED`, and back and forth."""

    def rows(step: int) -> Floats:
        t = (step + np.arange(20)) / RATE
        made = np.tile(start, (20, 1))
        made[:, 0] += 0.5 * (1 - np.cos(SPEED / 0.5 * t))
        return made

    return rows


class Stage:
    """A policy, a leader with motors, a hand that moves it, and the hand-over between them."""

    def __init__(self) -> None:
        settings = {"rate_hz": RATE, "follow_blend_s": 0.3, "engage_speed_rad_s": 0.8, "blend": "latest"}
        self.rig = Rig(settings, stage=SafetyStage(SAFETY, crane()))
        model = crane()
        self.person = Motorised(np.array([-0.4, 0.2, 0.0]))
        tables = SimpleNamespace(
            mode="rollout",
            teleop=TeleopOptions(),
            control=SimpleNamespace(rate_hz=RATE, state_max_age_s=0.1),
            engage_speed_rad_s=0.8,
        )
        self.robot: Any = SimpleNamespace(
            settings=tables,
            control=self.rig.loop,
            model=model,
            clock=self.rig.clock,
            faults=FaultPolicy(FaultOptions(), self.rig.clock),
            leader=self.person,
            leaders={"leader": self.person},
        )
        model_layout = SimpleNamespace(of=lambda arm: range(D))
        self.robot.model = SimpleNamespace(names=model.names, joints=D, grippers=(2,), layout=model_layout)
        self.hand = HandOver(self.robot, RolloutOptions(), Leader(self.robot))

    async def ticks(self, count: int, hand: Floats | None = None) -> None:
        """`hand` ``[D]`` moves the leader on, rad/s."""
        for _ in range(count):
            await self.rig.loop.ticked()
            self.hand.tick()
            self.person.obey()
            newest = self.person.states.newest()
            assert newest is not None
            moved = newest["position"] + (0.0 if hand is None else hand / RATE)
            self.person.stamp_ns = self.rig.clock.now_ns()
            self.person.move(moved)

    async def until(self, phase: DrivingPhase) -> None:
        for _ in range(5 * RATE):
            if self.hand.phase is phase:
                return
            await self.ticks(1)
        raise TimeoutError(self.hand.describe())


def played() -> tuple[list[Any], dict[str, int]]:
    """Every tick's record, and the numbers of the ticks at which control passed."""
    stage, at = Stage(), dict[str, int]()
    rig, hand = stage.rig, stage.hand
    now = lambda: len(rig.history())  # noqa: E731 - it is one

    async def policy() -> None:
        while not rig.loop.resting:
            await stage.ticks(1)
        assert rig.loop.target is not None
        rows = fast_from(rig.loop.target.copy())
        first = rig.loop.horizon.step
        rig.loop.follow(Chunks(lambda step: rows(step - first)))

    async def main() -> None:
        await stage.ticks(2)
        hand.policy()
        await policy()
        await stage.ticks(32)
        at["taken"] = now()
        hand.take()
        await stage.until(DrivingPhase.OFFERED)
        at["in hand"] = now()
        hand.take()
        for speed in np.linspace(0, 1.2, 20):  # fast when control goes back
            await stage.ticks(1, speed * np.array([1.0, -0.3, 0.4]))
        at["given back"] = now()
        hand.policy()
        await policy()
        await stage.ticks(40)

    rig.run(main)
    return rig.history(), at


def test_neither_taking_over_nor_giving_back_makes_a_target_jump(
    record_property: pytest.RecordProperty,
) -> None:
    history, at = played()
    targets = np.array([each["clipped"].copy() for each in history])
    speed = np.diff(targets, axis=0) * RATE
    change = np.diff(speed, axis=0) * RATE
    clips = [Clip(int(each["clips"])) for each in history]
    pilots = [Pilot(int(each["pilot"])) for each in history]
    taken, given = at["taken"], at["given back"]
    assert abs(speed[taken - 2, 0]) > 2.0  # it is fast when the person takes over
    assert abs(speed[given - 2, 0]) > 0.9
    assert not any(clip & JUMP for clip in clips[taken:])
    assert np.abs(speed[taken:]).max() <= SAFETY.max_velocity_rad_s
    assert np.abs(change[taken - 2 :, :2]).max() <= SAFETY.max_acceleration_rad_s2 + 1e-6
    for name, tick in at.items():
        record_property(name, float(np.abs(np.diff(targets[tick - 1 : tick + 6], axis=0)).max()))
    # brought to rest, it stays there: nothing springs back
    still = targets[at["in hand"]]
    rested = targets[taken : at["in hand"], 0]
    assert (np.diff(rested) * np.sign(speed[taken - 2, 0]) >= -1e-9).all()
    np.testing.assert_allclose(targets[at["in hand"] - 10 : at["in hand"]], [still] * 10, atol=1e-9)
    assert {Pilot.NOBODY, Pilot.POLICY, Pilot.PERSON} == set(pilots)
    assert pilots[taken] is Pilot.NOBODY
