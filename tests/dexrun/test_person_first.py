"""A person's pause, hold and stop come before whatever else goes on: the way home, a leader that is brought,
the end of the run.
"""

from __future__ import annotations

import errno
import os
import signal
from pathlib import Path

import numpy as np
import pytest

from dexrun.exit_codes import NOT_DONE, STOPPED
from dexrun.modes import rollout
from dexrun.modes.hand_over import DrivingPhase
from dexrun.modes.homing import way_home
from dexrun.modes.rollout import RolloutMode
from dexrun.robot import Robot
from runtime.clock import NS_PER_S
from runtime.messages import Floats
from tests.dexrun.small_run import Small, perform

RATE = 30
BRAKE = 0.9 * 20 / RATE
"""Of which a joint's speed becomes less in a tick, rad/s."""


def mode_of(small: Small) -> RolloutMode:
    assert isinstance(small.mode, RolloutMode)
    return small.mode


async def driven(small: Small) -> None:
    """Until the policy has the arm at a good speed."""
    await small.until(
        lambda: small.mode is not None and mode_of(small).hand_over.phase is DrivingPhase.POLICY
    )

    def fast() -> bool:
        two = small.clipped()[-2:]
        return len(two) == 2 and float(np.abs(np.diff(two, axis=0)).max()) * RATE > 1.5

    await small.until(fast)


def test_who_pauses_while_the_way_home_is_planned_has_the_arm_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planning: list[str] = []

    async def slowly(robot: Robot) -> Floats:
        rows = await way_home(robot)
        planning.append("planned")
        await robot.clock.sleep_until_ns(robot.clock.now_ns() + NS_PER_S)
        return rows

    monkeypatch.setattr(rollout, "way_home", slowly)
    stood: list[Floats] = []

    async def script(small: Small) -> None:
        await small.until(lambda: planning == ["planned"])
        assert await small.says("pause") == ""
        for _ in range(3 * RATE):
            await small.pass_ticks(1)
            assert small.up.control.target is not None
            stood.append(small.up.control.target)
        assert mode_of(small).hand_over.phase is DrivingPhase.PAUSED
        assert planning == ["planned"]
        assert await small.says("give") == ""
        await small.until(lambda: mode_of(small).hand_over.phase is DrivingPhase.POLICY)
        assert await small.says("quit") == ""
        await small.pass_ticks(100)

    small = perform(tmp_path, script, rollout__home="true")
    assert np.ptp(stood, axis=0).max() < 1e-9
    assert planning == ["planned"] * 2  # anew, from where the arm is
    assert small.code == NOT_DONE  # of 99 episodes


def test_a_hold_holds_a_leader_that_is_brought(tmp_path: Path) -> None:
    seen: list[float] = []

    async def script(small: Small) -> None:
        await driven(small)
        assert await small.says("take") == ""
        await small.until(lambda: small.leader.held)
        await small.pass_ticks(3)
        assert await small.says("hold") == ""
        await small.pass_ticks(3)
        assert await small.says("home") == "the arm is held: asked to hold by the panel"
        first = len(small.leader.way)
        await small.pass_ticks(2 * RATE)
        seen.append(float(np.ptp(small.leader.way[first:], axis=0).max()))
        assert small.leader.held
        assert await small.says("resume") == ""
        await small.until(lambda: mode_of(small).hand_over.phase is DrivingPhase.OFFERED)
        seen.append(float(np.ptp(small.leader.way[first:], axis=0).max()))
        assert await small.says("quit") == ""
        await small.pass_ticks(100)

    perform(tmp_path, script, rollout__take_over="true")
    assert seen[0] == 0.0
    assert seen[1] > 0.05


@pytest.mark.parametrize("first", ["stop", "quit"])
def test_a_stop_that_comes_with_the_runs_end_is_a_stop(tmp_path: Path, first: str) -> None:
    async def script(small: Small) -> None:
        await driven(small)
        for name in (first, "stop", "quit"):
            small.asks(name)
        await small.pass_ticks(100)

    small = perform(tmp_path, script)
    assert (small.code, small.summary["stop_reason"]) == (STOPPED, "stopped by laptop")


@pytest.mark.parametrize("how", ["stop", "quit", "pause", "SIGINT", "SIGTERM"])
def test_a_fast_arm_is_at_rest_when_the_run_ends(tmp_path: Path, how: str) -> None:
    """It is braked as gently as always, and does not come back."""

    async def script(small: Small) -> None:
        await driven(small)
        if how == "pause":
            small.asks("pause")
        if how.startswith("SIG"):
            os.kill(os.getpid(), signal.Signals[how])
        else:
            small.asks("stop" if how == "stop" else "quit")
        if how == "stop":
            await small.pass_ticks(10)
            small.asks("quit")
        await small.pass_ticks(100)

    small = perform(tmp_path, script)
    ends = small.clipped()[-30:]
    assert np.abs(ends[-1] - ends[-2]).max() == 0.0
    change = np.diff(ends, n=2, axis=0) * RATE
    assert np.abs(change[-4:, :5]).max() <= BRAKE + 1e-9


def test_an_episode_that_the_disk_did_not_take_is_not_counted_in_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ended well, as far as anybody knew; what is written comes after."""

    def full(descriptor: int, pieces: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    async def script(small: Small) -> None:
        await small.until(lambda: small.mode is not None and mode_of(small).controls()[0].recording)
        await small.pass_ticks(3)
        monkeypatch.setattr(os, "writev", full)
        assert await small.says("end", label="success") == ""
        await small.pass_ticks(100)

    keys = {"recording__rollout": "true", "recording__episodes": "1", "recording__min_free_mib": "0"}
    small = perform(tmp_path, script, **keys)
    recorded = small.summary["recording"]
    assert [(each["state"], each["bytes"]) for each in recorded["episodes"]] == [("left", 0)]
    assert recorded["recorded"] == 0
    assert (small.code, small.summary["outcome"]) == (NOT_DONE, "incomplete")
