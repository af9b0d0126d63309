"""A follower's goals on an emulated bus: who gets one, from where it goes on, and what is said of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from drivers.feetech import registers as reg
from drivers.feetech.bus import FeetechBus
from drivers.feetech.goals import GoalWriter
from runtime.ring import Sample
from tests.feetech.rig import MS, Rig, rig

MIDDLES = {"shoulder_pan": 2000, "shoulder_lift": 2000, "elbow_flex": 2000, "wrist_flex": 2000}
AWAY = np.array([0.1, 0, 0, 0, 0, 0])


class Writing:
    """The writer of an arm that was opened and read once."""

    def __init__(self, r: Rig, bus: FeetechBus, writer: GoalWriter) -> None:
        self.rig, self.bus, self.writer = r, bus, writer
        self._sent = r.arm.sent.reader("oldest")

    def write(self, position: np.ndarray, later_ms: int = 0) -> Sample | None:
        """Post it, wait, write; what was said of it."""
        self.rig.arm.targets.post(self.rig.clock.now_ns(), position=position)
        self.rig.clock.wait_until_ns(self.rig.clock.now_ns() + later_ms * MS)
        self.writer.write(self.bus, -1)
        return self._sent.next()

    def said(self, write: Callable[[], object]) -> int:
        """How many packets `write` puts on the wire."""
        before = self.rig.emulator.instructions
        write()
        return self.rig.emulator.instructions - before


@contextmanager
def writing(folder: Path, **options: float) -> Iterator[Writing]:
    with rig(folder, start=MIDDLES, **options) as r:
        r.arm.open()
        r.run(1)
        bus = r.arm._bus
        assert bus is not None
        yield Writing(r, bus, r.arm._writer)


def test_a_target_becomes_goals_and_it_is_said_of_which_it_was_made(tmp_path: Path) -> None:
    with writing(tmp_path) as w:
        posted_ns = w.rig.clock.now_ns()
        sent = w.write(AWAY)
        assert sent is not None
        assert sent["position"] == pytest.approx(AWAY, abs=1e-3)
        assert sent["target_ns"].tolist() == [posted_ns] * 6
        assert sent["goal"][0] == w.rig.emulator.servos[1].get(reg.GOAL_POSITION)
        assert w.writer.statistics() == {}
        assert w.said(lambda: w.writer.write(w.bus, -1)) == 0  # once


def test_a_silent_servo_gets_none_and_the_others_do(tmp_path: Path) -> None:
    with writing(tmp_path) as w:
        before = w.rig.emulator.servos[2].get(reg.GOAL_POSITION)
        w.rig.emulator.faults.silent.add(2)
        sent = w.write(AWAY + 0.1)
        w.rig.emulator.faults.silent.clear()
        assert sent is not None
        assert np.isnan(sent["position"]).tolist() == [False, True, False, False, False, False]
        assert w.rig.emulator.servos[2].get(reg.GOAL_POSITION) == before


def test_servos_are_asked_before_each_goal_or_trusted_for_one(tmp_path: Path) -> None:
    with writing(tmp_path) as w:
        assert not w.writer.trusts
        assert w.said(lambda: w.write(AWAY)) == 3  # the question, the goals, and whether they have gone by
    with writing(tmp_path, trust_torque_s=0.01) as w:
        assert w.writer.trusts
        start, size = reg.DRIVE_BLOCK
        answers = w.bus.sync_read(range(1, 7), start, size)
        w.writer.saw(w.bus, answers, start, w.rig.clock.now_ns())
        assert w.said(lambda: w.write(AWAY)) == 2
        assert w.said(lambda: w.write(AWAY)) == 3
        w.writer.saw(w.bus, answers, start, w.rig.clock.now_ns())
        assert w.said(lambda: w.write(AWAY, later_ms=11)) == 3


def test_a_servo_that_did_not_get_its_goal_goes_on_from_the_one_it_has(tmp_path: Path) -> None:
    with writing(tmp_path) as w:
        w.write(AWAY)
        pan = w.rig.emulator.servos[1]
        has = pan.get(reg.GOAL_POSITION)
        w.write(2 * AWAY)
        pan.write(reg.GOAL_POSITION.address, reg.GOAL_POSITION.encode(has))
        sent = w.write(3 * AWAY)
        assert sent is not None
        assert (sent["goal"][0], sent["position"][0]) == (has, pytest.approx(0.1, abs=1e-3))
        assert w.writer.statistics() == {"shoulder_pan.lost_goal": 1}


def test_what_cannot_be_or_is_not_wanted_any_more_is_not_written(tmp_path: Path) -> None:
    with writing(tmp_path) as w:
        assert w.write(AWAY * np.nan) is None
        assert w.write(AWAY, later_ms=101) is None
        assert w.writer.statistics() == {"bad_target": 1, "old_target": 1}
        w.rig.arm.targets.post(w.rig.clock.now_ns(), position=AWAY)
        w.writer.forget()
        assert w.said(lambda: w.writer.write(w.bus, -1)) == 0
