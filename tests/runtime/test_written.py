"""What the servos have of what was posted."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from runtime.arms import JoinedRings
from runtime.inputs import LeaderSource
from runtime.limits import SafetyOptions
from runtime.messages import Floats
from runtime.ring import Ring
from runtime.safety import SafetyStage
from runtime.written import WrittenGoals
from tests.runtime.control_rig import MS, STATES, D, Rig
from tests.safety.arms import crane

NAN = float("nan")
TICK = 33 * MS


def sent_ring(joints: int = 2) -> Ring:
    return Ring({"position": ((joints,), "<f8")}, 8)


def held(goals: WrittenGoals, now_ns: int, posted_ns: int, target: Sequence[float]) -> list[float] | None:
    found = goals.behind(now_ns, posted_ns, np.array(target))
    return None if found is None else found.tolist()


def test_a_joint_that_was_left_out_has_the_goal_of_before() -> None:
    sent = sent_ring()
    goals = WrittenGoals(sent, 30)
    goals.restart(0, np.zeros(2))
    sent.push(4 * MS, position=[0.05, 0.0505])
    assert held(goals, TICK, 0, [0.05, 0.05]) is None  # rounded to the servo's steps
    for tick, target in ((1, 0.1), (2, 0.15)):
        sent.push(tick * TICK + 4 * MS, position=[NAN, target])
        assert held(goals, (tick + 1) * TICK, tick * TICK, [target, target]) == pytest.approx(
            [0.05, NAN], nan_ok=True
        )
    sent.push(3 * TICK + 4 * MS, position=[0.2, 0.2])
    assert held(goals, 4 * TICK, 3 * TICK, [0.2, 0.2]) is None


def test_a_bus_thread_that_is_late_is_waited_for_and_then_noticed() -> None:
    sent = sent_ring()
    goals = WrittenGoals(sent, 30)
    sent.push(4 * MS, position=[0.1, 0.1])
    assert held(goals, 4 * MS + 50 * MS, TICK, [0.2, 0.2]) is None
    assert held(goals, 5 * MS + 50 * MS, TICK, [0.2, 0.105]) == pytest.approx([0.1, NAN], nan_ok=True)


def test_a_slow_loop_leaves_the_bus_thread_a_tick_and_a_half() -> None:
    sent = sent_ring()
    goals = WrittenGoals(sent, 10)
    sent.push(0, position=[0.1, 0.1])
    assert held(goals, 150 * MS, 100 * MS, [0.2, 0.2]) is None
    assert held(goals, 151 * MS, 100 * MS, [0.2, 0.2]) == [0.1, 0.1]


def test_a_loop_that_was_late_itself_finds_its_goal_written() -> None:
    sent = sent_ring()
    goals = WrittenGoals(sent, 30)
    sent.push(4 * MS, position=[0.1, 0.1])
    assert held(goals, 10 * TICK, 0, [0.1, 0.1]) is None


def test_goals_of_before_a_gap_say_nothing() -> None:
    sent = sent_ring()
    goals = WrittenGoals(sent, 30)
    goals.restart(0, np.zeros(2))
    assert held(goals, 9 * TICK, 0, [0.5, 0.5]) is None  # nothing was ever said
    sent.push(4 * MS, position=[0.1, 0.1])
    goals.restart(20 * TICK, np.array([0.4, 0.4]))
    assert held(goals, 21 * TICK, 20 * TICK, [0.45, 0.45]) is None
    # Nothing was written since either: the servos hold where the arm was found.
    assert held(goals, 22 * TICK, 21 * TICK, [0.5, 0.5]) == [0.4, 0.4]


def test_each_of_two_arms_is_looked_at_by_itself() -> None:
    left, right = sent_ring(1), sent_ring(2)
    goals = WrittenGoals(JoinedRings({"left": left, "right": right}, ("position",)), 30)
    left.push(4 * MS, position=[0.1])
    assert held(goals, 5 * MS, 0, [0.3, 0.3, 0.3]) == pytest.approx([0.1, NAN, NAN], nan_ok=True)
    right.push(3 * TICK, position=[0.2, 0.3])
    got = held(goals, 3 * TICK, 2 * TICK, [0.3, 0.3, 0.3])
    assert got == pytest.approx([0.1, 0.2, NAN], nan_ok=True)


def test_the_safety_stage_begins_at_the_goal_that_a_servo_has() -> None:
    sent = sent_ring(D)
    rig = Rig(sent=sent)

    async def main() -> None:
        await rig.ticks(1)
        sent.push(rig.clock.now_ns() + 1, position=[-0.25, NAN, 0.0])
        await rig.ticks(2)

    rig.run(main)
    records = rig.history()
    assert np.isnan(records[0]["held"]).all()
    assert records[1]["held"] == pytest.approx([-0.25, NAN, NAN], nan_ok=True)
    assert [call["previous"].tolist() for call in rig.guard.calls[:2]] == [[0.0] * 3, [-0.25, 0.0, 0.0]]


def test_after_goals_that_were_not_written_the_next_one_is_a_step_from_the_servos_own() -> None:
    """At full speed three goals of one joint are left out; then its own goes on slowly, the others' fast."""
    options, dt = SafetyOptions(), 1 / 30
    stage = SafetyStage(options, crane())
    target, far = np.array([0.0, -0.5, 0.0]), np.array([1.5, 0.95, 0.0])
    goals: list[Floats] = []
    for tick in range(12):
        start = target.copy()
        if 8 <= tick < 11:
            start[0] = goals[6][0]
        target = stage.apply(far, start, start, None, None, dt).target
        goals.append(target)
    from_rest = options.max_acceleration_rad_s2 * dt * dt
    assert [row[0] - goals[6][0] for row in goals[8:]] == pytest.approx([from_rest] * 3 + [3 * from_rest])
    full = options.max_velocity_rad_s * dt
    assert np.diff([row[1] for row in goals[6:]]) == pytest.approx(full)
    assert goals[6][0] - goals[5][0] == pytest.approx(full)


def naming_ring(joints: int = 2) -> Ring:
    return Ring({"position": ((joints,), "<f8"), "target_ns": ((joints,), "<i8")}, 8)


def test_a_bus_that_is_always_a_target_behind_has_not_left_anything_out() -> None:
    """At 200 Hz: each goal is on the bus when the next target is posted already."""
    sent = naming_ring()
    goals = WrittenGoals(sent, 200)
    for tick in range(1, 20):
        posted_ns = tick * 5 * MS
        target = [0.1 * tick, 0.1 * tick]
        assert held(goals, posted_ns + 5 * MS, posted_ns, target) is None
        if tick % 2:  # every other one is replaced before it can be written
            sent.push(posted_ns + 6 * MS, position=target, target_ns=[posted_ns] * 2)


def test_of_a_bus_that_is_behind_a_joint_that_was_left_out_is_still_noticed_once() -> None:
    sent = naming_ring()
    goals = WrittenGoals(sent, 200)
    for tick, target in ((1, 0.1), (2, 0.2)):
        assert held(goals, (tick + 1) * 5 * MS, tick * 5 * MS, [target, target]) is None
    sent.push(11 * MS, position=[0.0, 0.1], target_ns=[5 * MS] * 2)
    assert held(goals, 20 * MS, 15 * MS, [0.3, 0.3]) == pytest.approx([0.0, NAN], nan_ok=True)
    assert held(goals, 25 * MS, 20 * MS, [0.1, 0.4]) is None
    # Of a target that is not remembered any more nothing is known.
    sent.push(26 * MS, position=[0.0, 0.1], target_ns=[1 * MS] * 2)
    assert held(goals, 30 * MS, 25 * MS, [0.2, 0.5]) is None


def test_a_bus_that_has_stopped_writing_is_noticed_though_it_was_behind() -> None:
    sent = naming_ring()
    goals = WrittenGoals(sent, 200)
    sent.push(6 * MS, position=[0.1, 0.1], target_ns=[5 * MS] * 2)
    assert held(goals, 56 * MS, 50 * MS, [0.9, 0.9]) is None
    assert held(goals, 61 * MS, 55 * MS, [1.0, 1.0]) == pytest.approx([0.1, 0.1])


def test_two_arms_that_name_their_targets_are_each_looked_at_by_itself() -> None:
    left, right = naming_ring(1), naming_ring(2)
    goals = WrittenGoals(JoinedRings({"left": left, "right": right}, ("position", "target_ns")), 200)
    assert held(goals, 10 * MS, 5 * MS, [0.1, 0.2, 0.3]) is None
    left.push(11 * MS, position=[0.0], target_ns=[5 * MS])
    right.push(12 * MS, position=[0.2, 0.3], target_ns=[5 * MS] * 2)
    assert held(goals, 15 * MS, 10 * MS, [0.2, 0.3, 0.4]) == pytest.approx([0.0, NAN, NAN], nan_ok=True)


def test_a_loop_that_is_faster_than_its_bus_goes_on_from_what_it_posted() -> None:
    """Every other target is written, when the next one is posted already: the leader is followed."""
    sent, leader = naming_ring(D), Ring(STATES, 16)
    rig = Rig(sent=sent)

    async def main() -> None:
        rig.loop.follow(LeaderSource(leader, 1.0))
        posted: list[tuple[int, Floats]] = []
        for tick in range(30):
            leader.push(rig.clock.now_ns(), position=np.full(D, 0.05 * tick), velocity=0, load=0)
            await rig.ticks(1)
            record = rig.history()[-1]
            posted.append((record.stamp_ns, record["clipped"].copy()))
            if tick % 2:
                stamp_ns, target = posted[-2]
                sent.push(rig.clock.now_ns() + 1, position=target, target_ns=[stamp_ns] * D)

    rig.run(main)
    assert all(np.isnan(record["held"]).all() for record in rig.history())
    assert rig.history()[-1]["clipped"] == pytest.approx(0.05 * 29)
