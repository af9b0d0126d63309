"""Grasp mode on a table without physics: what persons, limits and failures make of arm and attempts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dexrun.exit_codes import NOT_DONE
from runtime.following import pilot_of
from runtime.pilot import Pilot
from tests.dexrun.drawn_table import perform_grasp
from tests.dexrun.small_run import Moment, Small

RATE = 30
FAST = 1.0
BRAKE = 0.9 * 20 / RATE
"""Of which a joint's speed becomes less in a tick, rad/s."""


async def fast(small: Small, pilot: Pilot = Pilot.POLICY) -> None:
    """Until the arm is at a good speed."""

    def moves() -> bool:
        two = small.clipped()[-2:]
        driven = len(two) == 2 and pilot_of(small.up.control.source) is pilot
        return driven and float(np.abs(np.diff(two, axis=0)).max()) * RATE > FAST

    await small.until(moves)


def braked(moments: list[Moment]) -> int:
    """Ticks until an arm that was fast stands; nothing is followed meanwhile, and it never comes back."""
    speed = np.diff([each.target for each in moments], axis=0) * RATE
    for at, now in enumerate(speed[1:], start=1):
        assert moments[at + 1].pilot is Pilot.NOBODY, at
        assert (now * np.sign(speed[0]) >= -1e-9).all(), (at, now)
        if not now.any():
            return at
    raise AssertionError("it never stands")


@pytest.mark.parametrize("ends", ["told something else", "attempt", "run"])
def test_an_arm_whose_attempt_ends_on_the_way_is_braked_and_does_not_come_back(
    tmp_path: Path, ends: str
) -> None:
    async def script(small: Small) -> None:
        await fast(small)
        if ends == "told something else":
            assert await small.says("tell", text="put the green cube in the tray") == ""
        await small.until(lambda: small.up.control.source is None)
        await small.pass_ticks(30)
        small.asks("quit")
        await small.pass_ticks(100)

    limits = {"attempt": {"grasp__attempt_timeout_s": "0.9"}, "run": {"grasp__time_limit_s": "1.9"}}
    small = perform_grasp(tmp_path, script, **limits.get(ends, {}))
    assert small.code == NOT_DONE
    pilots = [each.pilot for each in small.moments]
    first = pilots.index(Pilot.POLICY)
    ended = first + next(at for at, pilot in enumerate(pilots[first:]) if pilot is not Pilot.POLICY)
    assert braked(small.moments[ended - 2 :]) <= 10
