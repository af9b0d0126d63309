"""A leader without an arm on a stepped clock, and a follower that is where it is put."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from drivers.arms.choice import robot_of
from drivers.jog.config import JogConfig
from drivers.jog.driver import JogLeader
from runtime.arm_model import ArmModel
from runtime.body_options import ArmOptions
from runtime.clock import NS_PER_S
from runtime.messages import Floats
from runtime.part_context import ArmContext
from runtime.ring import Ring
from runtime.stepped import SteppedClock

D = 6
READY = np.array(robot_of(ArmOptions(model="so100")).ready)


@functools.cache
def model() -> ArmModel:
    return robot_of(ArmOptions(model="so100")).model()


class HandClock(SteppedClock):
    """A stepped clock that a test moves, so that a driver is polled without a thread."""

    def __init__(self) -> None:
        super().__init__()
        self.at_ns = NS_PER_S

    def now_ns(self) -> int:
        return self.at_ns

    def wait_until_ns(self, deadline_ns: int) -> None:
        self.at_ns = max(self.at_ns, deadline_ns)


class Rig:
    """`lag`: whether the follower stays where it is; otherwise it is where the leader was."""

    def __init__(self, lister: Any = lambda: (), **options: Any) -> None:
        self.clock = HandClock()
        fields = dict.fromkeys(("position", "velocity", "load"), ((D,), "<f8"))
        self.follower = Ring(fields, 8)
        self.config = JogConfig(**options)
        context = ArmContext(
            "leader", self.clock, joints=model().layout, arm_model=model().copy, follower=self.follower
        )
        self.leader = JogLeader(self.config, context, lister)
        self.stays = False

    def at(self, position: Floats) -> None:
        self.follower.push(self.clock.now_ns(), position=position, velocity=0, load=0)

    @property
    def position(self) -> Floats:
        sample = self.leader.states.newest()
        assert sample is not None
        return sample["position"].copy()

    @property
    def place(self) -> Floats:
        return model().fk(self.position)[:3, 3].copy()

    def poll(self, times: int = 1) -> None:
        for _ in range(times):
            self.leader.poll()
            if not self.stays:
                self.at(self.position)

    def jog(self, twist: Sequence[float], grip: float = 0.0) -> None:
        self.leader.jog.post(self.clock.now_ns(), twist=np.array(twist, dtype=float), grip=grip)

    def hand(
        self, position: Sequence[float], quaternion: Sequence[float] = (0, 0, 0, 1), **more: float
    ) -> None:
        values = {"grip": np.nan, "clutch": 1.0, **more}
        self.leader.hand.post(
            self.clock.now_ns(), position=np.array(position), quaternion=np.array(quaternion), **values
        )

    def begin(self) -> Floats:
        self.leader.open()
        self.at(READY)
        self.poll()
        return self.place
