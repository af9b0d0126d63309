"""How control passes between a policy and a person: the follower never jumps, and a leader is let go of."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from dexrun.config.mode_options import RolloutOptions, TeleopOptions
from dexrun.episodes.episodes import EpisodeError
from dexrun.modes.hand_over import DrivingPhase, HandOver
from dexrun.modes.leader import Leader
from runtime.faults import FaultOptions, FaultPolicy
from runtime.inputs import LeaderSource
from runtime.messages import Decision, DeviceError, FaultKind, Floats
from runtime.ring import Mailbox, Ring
from runtime.stepped import SteppedClock

NAMES = ("pan", "lift", "gripper")
D = len(NAMES)
WHERE = np.array([0.3, -0.2, 0.5])
"""Where the follower is asked to be."""
STATE = dict.fromkeys(("position", "velocity", "load"), ((D,), "<f8"))


class Control:
    """What the hand-over uses of the control loop."""

    def __init__(self) -> None:
        self.target = WHERE.copy()
        self.source: Any = "the policy's"
        self.rests = 0
        self.faults = FaultPolicy(FaultOptions(rules={"*.restarted": Decision.STOP}), SteppedClock())

    def follow(self, source: Any) -> None:
        self.source = source

    resting = True
    state = "idle"

    def rest(self) -> None:
        self.source, self.rests = None, self.rests + 1


class Person:
    """A leader arm with motors, or, `still`, without."""

    def __init__(self, position: Floats) -> None:
        self.states = Ring(STATE, 8)
        self.stamp_ns = 0
        self.calibration: dict[str, Any] = {}
        self.name = "leader"
        self.move(position)

    def move(self, position: Floats) -> None:
        self.states.push(self.stamp_ns, position=position, velocity=0, load=0)

    def open(self) -> None: ...
    def poll(self) -> bool: ...  # type: ignore[empty-body]
    def close(self) -> None: ...
    def statistics(self) -> dict[str, int]:
        return {}


class Motorised(Person):
    def __init__(self, position: Floats, stuck: bool = False) -> None:
        super().__init__(position)
        self.guide = Mailbox({"position": ((D,), "<f8")})
        self._stuck = stuck
        self.held = False

    def obey(self) -> None:
        sample = self.guide.take()
        if sample is None:
            return
        self.held = bool(np.isfinite(sample["position"]).all())
        if self.held and not self._stuck:
            self.move(sample["position"].copy())


def stage(person: Person | None, *, scripted: bool = False, gain: float = 1.0, **options: Any) -> Any:
    """A hand-over, its control loop and the phases it went through."""
    control, phases = Control(), list[DrivingPhase]()
    layout = SimpleNamespace(of=lambda arm: (0, 1, 2))
    settings = SimpleNamespace(
        mode="rollout",
        teleop=TeleopOptions(gain=gain),
        control=SimpleNamespace(rate_hz=30.0, state_max_age_s=0.1),
        engage_speed_rad_s=0.8,
    )
    model = SimpleNamespace(names=NAMES, joints=D, grippers=(2,), layout=layout)
    clock = SteppedClock()
    robot: Any = SimpleNamespace(
        settings=settings,
        control=control,
        model=model,
        clock=clock,
        faults=control.faults,
        leader=person,
        leaders={} if person is None else {"leader": person},
    )
    leader = None if person is None else Leader(robot)
    made = HandOver(robot, RolloutOptions(**options), leader, phases.append, scripted=scripted)
    return made, control, phases


def test_a_leader_with_motors_is_brought_offered_and_taken() -> None:
    person = Motorised(np.zeros(D))
    hand, control, phases = stage(person)
    hand.policy()
    hand.take()
    assert (hand.phase, control.source, control.rests) == (DrivingPhase.BRINGING, None, 1)
    steps = [np.zeros(D)]
    while hand.phase is DrivingPhase.BRINGING:
        hand.tick()
        person.obey()
        sample = person.states.newest()
        assert sample is not None
        steps.append(sample["position"].copy())
    assert float(np.abs(np.diff(steps, axis=0))[:, :2].max()) * 30 <= 0.8 + 1e-6  # at the engaging speed
    np.testing.assert_allclose(steps[-1], WHERE, atol=1e-3)
    assert hand.phase is DrivingPhase.OFFERED
    for _ in range(20):  # held there until somebody has it in hand
        hand.tick()
        person.obey()
    assert person.held
    assert hand.phase is DrivingPhase.OFFERED
    hand.take()
    person.obey()
    assert not person.held
    assert isinstance(control.source, LeaderSource)
    assert hand.takeovers == 1
    hand.policy()
    assert control.source is None  # for the mode to follow the policy anew
    expected = ("POLICY", "PAUSED", "BRINGING", "OFFERED", "PERSON", "POLICY")
    assert [phase.name for phase in phases] == list(expected)


def test_a_hold_holds_the_leader_that_is_brought_too() -> None:
    person = Motorised(np.zeros(D))
    hand, control, _ = stage(person)
    hand.take()

    def moved(ticks: int) -> list[float]:
        places = []
        for _ in range(ticks):
            hand.tick()
            person.obey()
            sample = person.states.newest()
            assert sample is not None
            places.append(float(sample["position"][0]))
        return places

    assert len(set(moved(5))) > 2
    control.state = "holding"
    assert len(set(moved(60))) == 1
    assert person.held  # let go, it would fall
    assert hand.phase is DrivingPhase.BRINGING
    control.state = "idle"
    moved(60)
    assert hand.phase is DrivingPhase.OFFERED


def test_a_script_holds_a_leader_as_soon_as_it_is_offered() -> None:
    person = Motorised(WHERE - 0.05)
    hand, control, _ = stage(person, scripted=True)
    hand.take()
    for _ in range(60):
        hand.tick()
        person.obey()
    assert isinstance(control.source, LeaderSource)


@pytest.mark.parametrize("brought", [True, False])
def test_a_leader_without_motors_or_stuck_is_moved_there_by_hand(brought: bool) -> None:
    person = Motorised(np.zeros(D), stuck=True) if brought else Person(np.zeros(D))
    hand, control, _ = stage(person)
    hand.policy()
    hand.take()
    for _ in range(200):
        hand.tick()
        if isinstance(person, Motorised):
            person.obey()
    assert hand.phase is DrivingPhase.AWAITED
    assert not getattr(person, "held", False)
    assert hand.describe() == "move the leader to where the arm is: pan -0.30, lift +0.20, gripper -0.50"
    person.move(WHERE + np.array([0.05, 0.0, 0.1]))
    for _ in range(4):
        hand.tick()
    assert control.source is None  # a leader that only passes by does not take over
    person.move(WHERE + np.array([0.2, 0.0, 0.0]))
    hand.tick()
    person.move(WHERE + np.array([0.05, 0.0, 0.1]))
    for _ in range(5):
        hand.tick()
    assert isinstance(control.source, LeaderSource)


def test_a_scaled_leader_is_brought_to_where_its_follower_stays() -> None:
    person = Motorised(np.zeros(D))
    hand, control, _ = stage(person, scripted=True, gain=2.0)
    hand.take()
    for _ in range(60):
        hand.tick()
        person.obey()
    sample = person.states.newest()
    assert sample is not None
    np.testing.assert_allclose(sample["position"], [0.15, -0.1, 0.5], atol=1e-3)
    assert isinstance(control.source, LeaderSource)


@pytest.mark.parametrize("stop", ["pause", "rest"])
@pytest.mark.parametrize("ticks", [1, 60])
def test_a_stop_wins_and_lets_the_leader_go(stop: str, ticks: int) -> None:
    person = Motorised(np.zeros(D))
    hand, control, _ = stage(person)
    hand.take()
    for _ in range(ticks):
        hand.tick()
        person.obey()
    assert person.held
    getattr(hand, stop)()
    person.obey()
    for _ in range(10):
        hand.tick()
    assert not person.held
    assert person.guide.take() is None
    assert control.source is None


def test_without_a_leader_nothing_is_taken_and_the_policy_goes_on() -> None:
    hand, control, _ = stage(None)
    with pytest.raises(EpisodeError, match=r"rollout\.take_over = true opens the leader arm"):
        hand.take()
    assert (control.source, control.rests) == ("the policy's", 0)


def test_a_leader_that_is_unplugged_holds_the_arm_only_while_it_is_used() -> None:
    hand, control, _ = stage(Person(WHERE), bring_leader=False)
    faults = control.faults
    faults.device(DeviceError("leader", FaultKind.GONE, "/dev/x", "unplugged"))
    hand.policy()
    assert faults.active() is None
    hand.take()
    assert (hand.phase, faults.active()[0]) == (DrivingPhase.AWAITED, Decision.HOLD)
    hand.policy()
    assert faults.active() is None
    faults.device(DeviceError("leader", FaultKind.RESTARTED, "/dev/x", "limp"))
    assert faults.active()[0] is Decision.STOP  # as a rule asks
    faults.recovered("leader")
    faults.device(DeviceError("head", FaultKind.GONE, "/dev/y", "unplugged"))
    assert faults.active()[0] is Decision.HOLD


def test_where_a_leader_was_before_it_fell_silent_is_nothing_to_take_over_from() -> None:
    person = Person(WHERE)
    person.stamp_ns = -200_000_000
    person.move(WHERE)
    hand, control, _ = stage(person)
    hand.policy()
    with pytest.raises(EpisodeError, match="the leader or the arm does not report its joints"):
        hand.take()
    assert (hand.phase, control.source) == (DrivingPhase.PAUSED, None)
