"""A policy whose every tick is clipped is said to have wrong units, once, and stops the run if asked to."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import anyio
import numpy as np
import pytest
from loguru import logger

from dexrun.modes.clip_watch import ClipWatch
from drivers.arms import describe
from policies.remote.config import GrootOptions
from runtime.messages import Clip
from runtime.ring import Ring
from runtime.tick import TickFlag, tick_layout
from runtime.worker import PolicyAttempt


class _Control:
    """Ticks as told: each with its clips."""

    speed = 1.0

    def __init__(self, records: Ring, clips: list[Clip], requested: np.ndarray) -> None:
        self.source: object = object.__new__(PolicyAttempt)
        self.stopped: list[str] = []
        self._records, self._clips, self._requested = records, clips, requested

    async def ticked(self) -> None:
        if not self._clips:
            await anyio.sleep_forever()
        with self._records.write(1) as slot:
            slot["requested"][:] = self._requested
            slot["clips"][...], slot["flags"][...] = int(self._clips.pop(0)), int(TickFlag.POSTED)

    def stop(self, reason: str) -> None:
        self.stopped.append(reason)


def said(clips: list[Clip], requested: float = 0.3, **policy: Any) -> tuple[list[str], list[str]]:
    records = Ring(tick_layout(6), 8)
    control = _Control(records, clips, np.full(6, requested))
    settings = SimpleNamespace(control=SimpleNamespace(rate_hz=30.0), policy=GrootOptions(**policy))
    robot: Any = SimpleNamespace(
        settings=settings, control=control, records=records, joints=describe().layout
    )
    lines: list[str] = []

    async def watched() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(ClipWatch(robot).run)
            await anyio.wait_all_tasks_blocked()
            group.cancel_scope.cancel()

    handler = logger.add(lambda message: lines.append(message.record["message"]), level="WARNING")
    try:
        anyio.run(watched)
    finally:
        logger.remove(handler)
    return lines, control.stopped


@pytest.mark.parametrize("reason", [Clip.RANGE, Clip.VELOCITY, Clip.RELATIVE | Clip.ACCELERATION])
def test_it_is_said_once(reason: Clip) -> None:
    lines, stopped = said([reason] * 94)
    assert lines == [
        "45 of 45 ticks of the policy were clipped by range or speed: its units may be wrong; "
        "policy.units is lerobot_degrees"
    ]
    assert not stopped


def test_what_is_asked_for_is_read_both_ways_and_the_run_stops() -> None:
    lines, stopped = said([Clip.RANGE] * 60, 40.0, units="rad", stop_on_implausible=True)
    assert stopped == lines
    assert "policy.units is rad (gripper is 40, which as rad is impossible" in lines[0]
    assert "as lerobot_degrees it would be possible" in lines[0]


def test_a_policy_that_is_clipped_now_and_then_is_left_alone() -> None:
    now_and_then = [Clip.VELOCITY if tick % 4 else Clip.NONE for tick in range(200)]
    assert said(now_and_then) == ([], [])
    assert said([Clip.ACCELERATION] * 200) == ([], [])


def test_what_a_person_slows_down_is_no_wrong_unit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_Control, "speed", 0.3)
    assert said([Clip.VELOCITY] * 200) == ([], [])
