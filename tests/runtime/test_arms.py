"""Several arms as one: whole vectors out of their rings, parts of targets into their mailboxes."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from runtime.arms import ArmGroup, JoinedRings, late
from runtime.inputs import LeaderSource
from runtime.ring import Mailbox, Ring
from runtime.written import sent_ring

MS = 1_000_000
STATES = {"position": ((2,), "<f8"), "velocity": ((2,), "<f8"), "load": ((2,), "<f8")}
LONG = {name: ((3,), dtype) for name, (_, dtype) in STATES.items()}


@dataclass
class Arm:
    """What `ArmGroup` needs of a driver."""

    layout: dict
    states: Ring = field(init=False)
    sent: Ring = field(init=False)
    targets: Mailbox = field(init=False)

    def __post_init__(self) -> None:
        self.states = Ring(self.layout, 4)
        self.sent = Ring({"position": self.layout["position"], "goal": ((1,), "<i8")}, 4)
        self.targets = Mailbox({"position": self.layout["position"]})

    def at(self, stamp_ns: int, *position: float) -> None:
        self.states.push(stamp_ns, position=position, velocity=0.0, load=0.5)


def two() -> tuple[Arm, Arm, ArmGroup]:
    left, right = Arm(STATES), Arm(LONG)
    return left, right, ArmGroup({"arms.left": left, "arms.right": right})


def test_the_newest_of_both_is_one_vector_stamped_with_the_older_one() -> None:
    left, right, group = two()
    assert group.states.layout["position"] == ((5,), "<f8")
    assert group.states.newest() is None
    left.at(7 * MS, 1, 2)
    assert group.states.newest() is None
    right.at(5 * MS, 3, 4, 5)
    sample = group.states.newest()
    assert sample is not None
    assert sample.stamp_ns == 5 * MS
    np.testing.assert_array_equal(sample["position"], [1, 2, 3, 4, 5])
    np.testing.assert_array_equal(sample["load"], [0.5] * 5)
    left.at(9 * MS, 6, 7)
    assert group.states.newest(sample) is sample
    np.testing.assert_array_equal(sample["position"], [6, 7, 3, 4, 5])


def test_two_readers_have_arrays_of_their_own() -> None:
    left, right, group = two()
    left.at(MS, 1, 2)
    right.at(MS, 3, 4, 5)
    first = group.states.newest()
    left.at(2 * MS, 8, 9)
    second = group.states.newest()
    assert first is not None
    assert second is not None
    np.testing.assert_array_equal(first["position"], [1, 2, 3, 4, 5])
    np.testing.assert_array_equal(second["position"], [8, 9, 3, 4, 5])


def test_what_one_of_them_lacks_all_lack_and_it_is_named() -> None:
    left, right, group = two()
    into = group.states.blank()
    left.at(100 * MS, 1, 2)
    right.at(20 * MS, 3, 4, 5)
    assert group.states.newest(into, now_ns=110 * MS, max_age_ns=100 * MS) is into
    assert group.states.newest(into, now_ns=130 * MS, max_age_ns=100 * MS) is None
    assert into.index == 0  # held all the same, as a ring does
    assert late(group.states, "arm", 130 * MS, 100 * MS) == "arms.right"
    assert late(left.states, "arm", 300 * MS, 100 * MS) == "arm"
    leaders = LeaderSource(JoinedRings({"leaders.left": left.states}, tuple(STATES)), 0.1)
    assert leaders.missing(110 * MS) is None
    assert leaders.missing(300 * MS) == "leaders.left: no state for 0.1 s"


def test_each_gets_its_part_of_a_target() -> None:
    left, right, group = two()
    group.targets.post(3, position=np.array([1.0, 2, 3, 4, 5]))
    for arm, part in ((left, [1, 2]), (right, [3, 4, 5])):
        sample = arm.targets.take()
        assert sample is not None
        assert sample.stamp_ns == 3
        np.testing.assert_array_equal(sample["position"], part)


def test_what_was_sent_is_one_vector_once_both_have_sent() -> None:
    left, right, group = two()
    sent = sent_ring(group)
    assert sent is group.sent
    left.sent.push(4, position=[1, 2], goal=0)
    assert sent.newest() is None
    right.sent.push(3, position=[3, 4, 5], goal=0)
    sample = sent.newest()
    assert sample is not None
    assert sample.stamp_ns == 3
    np.testing.assert_array_equal(sample["position"], [1, 2, 3, 4, 5])
