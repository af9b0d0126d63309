"""What is asked for, without a loop: rows that are come to slowly, what is held, brakes, the way to park."""

from __future__ import annotations

import numpy as np
import pytest

from runtime.control_options import LoopOptions
from runtime.following import FollowedSource
from runtime.inputs import LeaderSource, LoopInputs
from runtime.messages import Floats
from runtime.output import LoopOutput
from runtime.ring import Ring
from runtime.setpoint import Setpoint
from runtime.statistics import RunStatistics
from runtime.supervisor import Supervisor
from runtime.tick import TickFlag
from tests.runtime.control_rig import STATES, TICK, Arm, D, Guard, Motion, Outcome

HERE = 0.2
"""Where the arm is, all joints."""


class Braking(Guard):
    """Brakes by a hundredth, then by half of one, then stands."""

    ways = (0.01, 0.005)

    def slowing(self, previous: Floats, dt_s: float) -> Floats:
        del dt_s
        way, *rest = self.ways or (0.0,)
        self.ways = tuple(rest)
        return previous + way


class Ticks:
    """As much of a loop as decides, asks and sends; at 100 Hz."""

    def __init__(self, **options: object) -> None:
        self.options = LoopOptions.model_validate(
            {"rate_hz": 100, "follow_blend_s": 0, "engage_speed_rad_s": 10.0, **options}
        )
        self.guard, arm = Braking(), Arm()
        self.inputs = LoopInputs(arm.states, None, (), 0.025)
        self.following = FollowedSource(
            D, self.options, (D - 1,), RunStatistics(), lambda kind, **values: None
        )
        self.output = LoopOutput(arm, self.guard, 100.0, (D - 1,), None)
        self.output.go_on(0, np.full(D, HERE), None, 0)
        self.supervisor = Supervisor(0.0, 0.0, lambda: None, parks=bool(self.options.park_rad))
        self.setpoint = Setpoint(self.options, (D - 1,), self.supervisor, self.following, self.output)
        self.tick = 0

    def follow(self, leader_at: float) -> None:
        states = Ring(STATES, 4)
        states.push(0, position=leader_at, velocity=0, load=0)
        self.following.begin(LeaderSource(states, 1000.0))

    def next(self, *, fresh: bool = True) -> tuple[float, TickFlag]:
        """The first joint of what is asked for in the next tick, which is sent as it is, and its flags."""
        self.tick += 1
        now_ns, following = self.tick * TICK, self.following.source is not None
        self.setpoint.enter(self.supervisor.decide(self.tick, now_ns, None, following=following))
        self.following.drain(self.tick)
        row, flags = self.setpoint.next(now_ns, self.tick, fresh=fresh)
        self.setpoint.answered(row, self.output.post(now_ns, row, self.inputs, 0.01))
        self.following.ask(self.tick)
        return round(float(row[0]), 9), flags


def test_what_is_followed_is_come_to_slowly_and_then_as_it_is() -> None:
    ticks = Ticks()
    ticks.follow(0.45)
    on_the_way = TickFlag.LEADER | TickFlag.BLENDING
    assert [ticks.next() for _ in range(4)] == [
        *((0.3, on_the_way), (0.4, on_the_way), (0.45, TickFlag.LEADER), (0.45, TickFlag.LEADER))
    ]


def test_where_a_source_gives_nothing_it_is_engaged_anew() -> None:
    ticks = Ticks()
    ticks.following.begin(Motion([0.3]))
    assert ticks.next() == (HERE, TickFlag.WAITING)
    assert ticks.next() == (0.3, TickFlag.NONE)
    ticks.following.leave()
    ticks.follow(0.45)
    ticks.setpoint.engage()
    assert ticks.next() == (0.4, TickFlag.LEADER | TickFlag.BLENDING)


@pytest.mark.parametrize(
    ("order", "flag"),
    [("idle", TickFlag.IDLE), ("hold", TickFlag.HOLDING), ("stop", TickFlag.STOPPED)],
)
def test_what_is_held_is_the_last_target_whatever_came_of_it_since(order: str, flag: TickFlag) -> None:
    ticks = Ticks()
    ticks.follow(0.45)
    ticks.next()
    if order == "idle":
        ticks.following.leave()
        ticks.setpoint.stand()
    else:
        getattr(ticks.supervisor, order)("why")
    assert ticks.next() == (0.3, flag)
    ticks.guard.rule = lambda requested: Outcome(requested + 0.01)
    ticks.next()
    assert ticks.next(fresh=False) == (0.3, flag | TickFlag.STALE_STATE)


@pytest.mark.parametrize("order", ["idle", "stop"])
def test_brakes_hold_where_they_bring_the_arm(order: str) -> None:
    ticks = Ticks()
    if order == "stop":
        ticks.supervisor.stop("why")
    ticks.setpoint.brake()
    assert [ticks.next()[0] for _ in range(2)] == [0.21, 0.215]
    assert ticks.setpoint.braking
    assert [ticks.next()[0] for _ in range(2)] == [0.215, 0.215]
    assert not ticks.setpoint.braking


def test_a_hold_does_not_brake() -> None:
    ticks = Ticks()
    ticks.supervisor.hold("why")
    ticks.setpoint.brake()
    assert ticks.next() == (HERE, TickFlag.HOLDING)
    assert ticks.setpoint.braking


def test_the_way_to_park_is_a_straight_line_and_ends_in_a_stop() -> None:
    ticks = Ticks(park_rad=(0.22, 0.2), park_speed_rad_s=1.0)
    ticks.supervisor.give_up("why")
    parking = TickFlag.HOLDING | TickFlag.PARKING
    assert [ticks.next() for _ in range(4)] == [
        *((0.21, parking), (0.22, parking), (0.22, parking), (0.22, TickFlag.STOPPED))
    ]
    assert ticks.supervisor.reason == "why; parked"


@pytest.mark.parametrize(("at", "then"), [(0.17, 0.17), (np.nan, 0.3)])
def test_where_the_safety_stage_stops_the_arm_it_is_held_unless_nobody_knows(at: float, then: float) -> None:
    ticks = Ticks()
    ticks.follow(0.45)
    ticks.next()
    ticks.guard.rule = lambda requested: Outcome(np.full(D, at), stop_reason="force")
    ticks.next()
    ticks.supervisor.stop("force")
    ticks.guard.rule = lambda requested: Outcome(requested.copy())
    assert ticks.next() == (then, TickFlag.STOPPED)


def test_it_goes_on_from_a_snapshot() -> None:
    first, second = Ticks(), Ticks()
    for ticks in (first, second):
        ticks.follow(0.45)
    first.next()
    second.tick = first.tick
    second.output.restore(first.output.snapshot())
    second.supervisor.restore(first.supervisor.snapshot())
    second.setpoint.restore(first.setpoint.snapshot())
    assert second.next() == first.next() == (0.4, TickFlag.LEADER | TickFlag.BLENDING)
