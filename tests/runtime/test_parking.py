"""Parking: what lasts too long brings the arm away before the stop is latched."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.messages import Clip, Decision
from runtime.parking import Parking
from runtime.tick import TickFlag
from tests.runtime.control_rig import Chunks, D, Motion, Outcome, Rig

PARKED = {"stop_after_hold_s": 0.1, "park_rad": (0.05,) * (D - 1), "park_speed_rad_s": 1.0}
FAULT = (Decision.HOLD, "wrist: timeout")


async def broken(rig: Rig) -> None:
    """A source is followed, and a fault comes that stays."""
    rig.loop.follow(Chunks(lambda step: [0.0] * 4))
    await rig.ticks(3)
    rig.fault = FAULT
    while rig.loop.state != "parking":
        assert rig.loop.state in ("running", "holding")
        await rig.ticks(1)


def test_a_fault_that_lasts_parks_the_arm_and_then_latches_a_stop() -> None:
    rig = Rig(PARKED)

    async def main() -> None:
        await broken(rig)
        assert rig.loop.reason == "wrist: timeout (held for 0.1 s)"
        rig.fault = None  # too late: what was begun is ended
        await rig.ticks(4)
        assert rig.loop.state == "parking"
        await rig.ticks(3)
        assert (rig.loop.state, rig.loop.reason) == ("stopped", "wrist: timeout (held for 0.1 s); parked")
        await rig.ticks(3)
        assert rig.loop.target is not None
        np.testing.assert_allclose(rig.loop.target, [0.05] * (D - 1) + [0.0])  # the gripper stays

    rig.run(main)
    parking = [
        (round(float(s["requested"][0]), 9), TickFlag(int(s["flags"])))
        for s in rig.history()
        if TickFlag.PARKING & int(s["flags"])
    ]
    assert [row for row, _ in parking] == [0.01, 0.02, 0.03, 0.04, 0.05, 0.05]
    assert {flags for _, flags in parking} == {TickFlag.PARKING | TickFlag.HOLDING | TickFlag.POSTED}


def test_a_source_that_gives_nothing_for_too_long_parks_the_arm() -> None:
    rig = Rig({**PARKED, "stop_after_starved_s": 0.05})

    async def main() -> None:
        rig.loop.follow(Chunks(lambda step: [0.0], delay=10_000))
        await rig.ticks(20)
        assert (rig.loop.state, rig.loop.reason) == ("stopped", "no action for 0.05 s; parked")

    rig.run(main)


@pytest.mark.parametrize("what", ["stop", "fault", "safety"])
def test_a_stop_while_it_parks_stops_it_where_it_is(what: str) -> None:
    rig = Rig(PARKED)

    async def main() -> None:
        await broken(rig)
        await rig.ticks(1)
        if what == "stop":
            rig.loop.stop("asked")
        elif what == "fault":
            rig.fault = (Decision.STOP, "asked")
        else:
            rig.guard.rule = lambda requested: Outcome(requested.copy(), Clip.FORCE, "asked")
        await rig.ticks(3)
        assert (rig.loop.state, rig.loop.reason) == ("stopped", "asked")
        held = rig.loop.target
        assert held is not None
        assert 0 < held[0] < 0.05
        await rig.ticks(3)
        np.testing.assert_array_equal(rig.loop.target, held)

    rig.run(main)


def test_who_has_asked_for_a_hold_has_the_arm_stand_where_it_is_however_long_a_fault_lasts() -> None:
    """A person holds the arm to reach under it: a camera that fails meanwhile does not set it moving."""
    rig = Rig(PARKED)

    async def main() -> None:
        rig.loop.follow(Chunks(lambda step: [0.0] * 4))
        await rig.ticks(3)
        rig.loop.hold("asked to hold")
        await rig.ticks(1)
        rig.fault = FAULT
        await rig.ticks(15)
        reason = "wrist: timeout (held for 0.1 s); not parked: asked to hold"
        assert (rig.loop.state, rig.loop.reason) == ("stopped", reason)

    rig.run(main)
    assert not any(TickFlag.PARKING & flags for flags in rig.flags())
    assert set(rig.requested()) == {0.0}


def test_a_hold_on_the_way_ends_it_there() -> None:
    rig = Rig(PARKED)

    async def main() -> None:
        await broken(rig)
        await rig.ticks(1)
        rig.loop.hold("asked to hold")
        await rig.ticks(1)
        reason = "wrist: timeout (held for 0.1 s); not parked: asked to hold"
        assert (rig.loop.state, rig.loop.reason) == ("stopped", reason)
        held = rig.loop.target
        assert held is not None
        assert 0 < held[0] < 0.05
        await rig.ticks(5)
        np.testing.assert_array_equal(rig.loop.target, held)

    rig.run(main)


def test_an_arm_that_is_not_there_is_not_parked() -> None:
    rig = Rig(PARKED)

    async def main() -> None:
        rig.loop.follow(Motion([0.0] * 50))
        await rig.ticks(3)
        rig.alive = False
        await rig.ticks(20)
        reason = "arm: no state for 0.025 s (held for 0.1 s); not parked: it is not known where the arm is"
        assert (rig.loop.state, rig.loop.reason) == ("stopped", reason)

    rig.run(main)


def test_what_the_safety_stage_does_not_allow_ends_in_time() -> None:
    rig = Rig(PARKED)
    rig.guard.rule = lambda requested: Outcome(np.minimum(requested, 0.02), Clip.COLLISION)

    async def main() -> None:
        await broken(rig)
        await rig.ticks(215)  # 2 s more than one and a half times the way
        assert rig.loop.reason == "wrist: timeout (held for 0.1 s); could not be parked"

    rig.run(main)


def test_after_the_latch_is_reset_it_can_park_again() -> None:
    rig = Rig(PARKED)

    async def main() -> None:
        for _ in range(2):
            await broken(rig)
            await rig.ticks(10)
            assert rig.loop.state == "stopped"
            rig.fault = None
            rig.loop.reset_latch()
            await rig.ticks(2)
            assert rig.loop.state == "idle"

    rig.run(main)


def test_it_goes_on_from_a_snapshot() -> None:
    first, second = Rig(PARKED), Rig(PARKED)

    async def until_parking() -> None:
        await broken(first)
        await first.ticks(1)

    first.run(until_parking)
    second.loop.restore(first.loop.snapshot(), None)
    assert (second.loop.state, second.loop.reason) == ("parking", "wrist: timeout (held for 0.1 s)")
    assert second.loop.snapshot()["parking"] == first.loop.snapshot()["parking"] > 0


@given(
    pose=st.lists(st.floats(-3, 3), min_size=1, max_size=6),
    start=st.lists(st.floats(-3, 3), min_size=6, max_size=6),
    speed=st.floats(0.05, 5),
    joints=st.permutations(range(6)),
)
@settings(deadline=None)
def test_every_step_is_at_the_speed_asked_for_and_it_arrives(
    pose: list[float], start: list[float], speed: float, joints: list[int]
) -> None:
    parking, target = Parking(pose, speed, 30.0, joints[: len(pose)]), np.array(start)
    parking.begin(target)
    while (row := parking.next(target)) is not None:
        assert np.abs(row - target).max() <= speed / 30 * (1 + 1e-9)
        left = joints[len(pose) :]
        np.testing.assert_array_equal(row[left], np.array(start)[left])
        target = row
    assert parking.arrived(target)
