"""When an episode begins the force sensor's zero is taken anew, but never of a force that acts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dexrun.exit_codes import OK, STOPPED
from runtime.recording.reader import Recording
from tests.dexrun.rig import Stage, perform

OVER = "force above 30 N for 3 s"
BY_HAND = {
    "mode": "teleop",
    "teleop__scripted": "false",
    "recording__reset_s": "1",
    "recording__episode_s": "1",
    "recording__episodes": "1",
}
"""The leader rests; an episode begins a second after it is followed."""


def tares(run: Path) -> list[dict[str, Any]]:
    """What the recording says of every zero that was asked for."""
    found = []
    with Recording(run) as recording:
        for episode in recording.episodes:
            found += [each.values for each in episode.samples("/events") if each["kind"] == "force_tare"]
    return found


def test_a_force_that_begins_with_an_episode_is_not_tared_away(tmp_path: Path) -> None:
    async def script(stage: Stage) -> None:
        await stage.rest(1.0)
        stage.inject("force", "constant", value_n=45.0)

    stage = perform(tmp_path, script, mode="teleop", teleop__duration_s="12")
    assert (stage.code, stage.summary["stop_reason"]) == (STOPPED, OVER)


@pytest.mark.slow
def test_a_force_on_a_resting_arm_is_not_tared_away(tmp_path: Path) -> None:
    async def script(stage: Stage) -> None:
        await stage.until(lambda: stage.step.startswith("following"))
        stage.inject("force", "constant", value_n=45.0)

    keys = {**BY_HAND, "recording__reset_s": "2", "recording__episode_s": "5"}
    stage = perform(tmp_path, script, **keys)
    assert (stage.code, stage.summary["stop_reason"]) == (STOPPED, OVER)
    assert stage.summary["device_faults"]["force"] == {"tare_refused": 1}
    (tare,) = tares(tmp_path / "latest")
    assert tare["refused"].endswith("N off: tare_max_drift_n is 3")


def test_a_force_while_homing_is_not_tared_away(tmp_path: Path) -> None:
    async def script(stage: Stage) -> None:
        await stage.until(lambda: stage.step.startswith("home (start)"))
        stage.inject("force", "constant", value_n=60.0)

    stage = perform(tmp_path, script)
    assert (stage.code, stage.summary["stop_reason"]) == (STOPPED, OVER)
    assert tares(tmp_path / "latest") == []


@pytest.mark.slow
def test_a_small_drift_is_tared_away_where_the_arm_rests(tmp_path: Path) -> None:
    forces: list[float] = []

    async def script(stage: Stage) -> None:
        force = stage.up.force
        assert force is not None
        await stage.until(lambda: stage.step.startswith("following"))
        stage.inject("force", "constant", value_n=2.0)
        await stage.rest(0.5)
        for _ in range(2):
            sample = force.samples.newest()
            assert sample is not None
            forces.append(float(sample["force"][2]))
            await stage.rest(1.0)

    stage = perform(tmp_path, script, **BY_HAND)
    assert stage.code == OK, stage.summary["stop_reason"]
    assert forces == pytest.approx([2.0, 0.0], abs=0.2)
    assert "force" not in stage.summary["device_faults"]
    (tare,) = tares(tmp_path / "latest")
    assert tare["refused"] == ""
