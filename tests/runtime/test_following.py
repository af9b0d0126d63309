"""What is followed, without a loop: rows in order, what is said of an attempt, what cannot be taken."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from runtime.control_options import LoopOptions
from runtime.engagement import Engagement
from runtime.following import FollowedSource
from runtime.inputs import LeaderSource
from runtime.messages import Floats
from runtime.ring import Ring
from runtime.statistics import RunStatistics
from runtime.tick import TickFlag
from tests.runtime.control_rig import STATES, Chunks, D, Motion

HERE = np.zeros(D)
MET = Engagement(1e9, 0.0, 100, D, range(D))
"""Of joints that are where they are asked to be."""


def ramp(step: int) -> list[float]:
    return [float(step + k) for k in range(4)]


class Loop:
    """As much of one as asks, splices and takes."""

    def __init__(self) -> None:
        self.noted: list[str] = []
        self.statistics = RunStatistics()
        self.following = FollowedSource(
            D, LoopOptions(rate_hz=100, blend="latest"), (D - 1,), self.statistics, self._note
        )
        self.tick = 0

    def _note(self, kind: str, **values: Any) -> None:
        del values
        self.noted.append(kind)

    def row(
        self, engagement: Engagement | None = None, previous: Floats = HERE, *, pressing: bool = False
    ) -> float | None:
        """Of the first joint."""
        self.following.drain(self.tick)
        row, self.flag = self.following.row(0, self.tick, previous, engagement or MET)
        self.following.ask(self.tick, pressing=pressing)
        self.tick += 1
        return None if row is None else float(row[0])


def test_rows_come_in_order_and_the_next_chunk_is_asked_for_in_time() -> None:
    loop = Loop()
    assert loop.following.begin(Chunks(ramp)) == 1
    assert [loop.row(), loop.flag] == [None, TickFlag.WAITING]
    assert [loop.row() for _ in range(6)] == [0, 1, 2, 3, 4, 5]
    assert loop.noted[:2] == ["request", "chunk"]
    loop.following.leave()
    assert (loop.row(), loop.following.source) == (None, None)
    assert loop.following.begin(Chunks(ramp)) == 3  # leaving is an epoch, too


@pytest.mark.parametrize(("delay", "then"), [(0, [5, 9]), (6, [7, 14])])
def test_an_arm_that_gives_way_has_its_policy_asked_at_once_and_once(delay: int, then: list[int]) -> None:
    loop, asked = Loop(), list[int]()
    source = Chunks(lambda step: [float(step)] * 40, delay)
    loop.following.begin(source)
    for tick in range(20):
        loop.row(pressing=5 <= tick < 8 or tick == 9)
        asked.append(len(source.requests))
    # What presses while an answer is on its way is newer than what that answer was asked for.
    assert [tick for tick in range(20) if asked[tick] > asked[max(0, tick - 1)]] == then


def test_a_motion_is_exhausted_after_its_last_row_and_that_stays() -> None:
    loop = Loop()
    loop.following.begin(Motion([0.1, 0.2]))
    assert [loop.row() for _ in range(5)] == [None, 0.1, 0.2, 0.2, 0.2]
    assert (loop.following.exhausted, loop.following.refused) == (True, "")


def test_a_piece_of_a_motion_that_cannot_be_taken_is_refused() -> None:
    loop = Loop()
    loop.following.begin(Motion([0.1, np.nan]))
    loop.row()
    loop.row()
    assert (loop.following.exhausted, loop.following.refused) == (False, "not_finite")
    loop.following.begin(Motion([0.1]))
    assert loop.following.refused == ""


def test_a_row_stays_while_the_arm_is_brought_to_it() -> None:
    loop = Loop()
    loop.following.begin(Motion([1.0, 2.0]))
    engagement = Engagement(0.5, 0.0, 100, D, range(D))
    engagement.begin()
    loop.row(engagement)
    at = HERE.copy()
    for _ in range(10):
        assert loop.row(engagement, at) == 1.0
        at = at + 0.05
    assert loop.row(engagement, np.ones(D)) == 2.0


@pytest.mark.parametrize("stamp_ns", [0, -(10**9)])
def test_a_leader_is_taken_as_it_is_or_starves(stamp_ns: int) -> None:
    states, loop = Ring(STATES, 4), Loop()
    states.push(stamp_ns, position=0.3, velocity=0, load=0)
    source = LeaderSource(states, 0.1)
    loop.following.begin(source)
    assert loop.row() == (0.3 if stamp_ns == 0 else None)
    starved = TickFlag.NONE if stamp_ns == 0 else TickFlag.STARVED
    assert loop.flag == TickFlag.LEADER | starved
    assert (loop.following.leader, loop.following.chunks) == (source, None)


def test_it_goes_on_from_a_snapshot() -> None:
    first, second = Loop(), Loop()
    first.following.begin(Chunks(ramp))
    for _ in range(4):
        first.row()
    state = first.following.snapshot()
    assert (state["source"], state["finite"], state["status"]) == ("chunks", False, "running")
    second.following.restore(state, None)
    assert second.following.snapshot()["_chunk_rows"] == 4
    assert second.row() == first.row()
