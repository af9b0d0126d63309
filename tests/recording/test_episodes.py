"""Episodes as a person drives them, on a stepped clock."""

from __future__ import annotations

import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, cast

import anyio
import pytest

from dexrun.config.recording_options import RecordingOptions
from dexrun.episodes.episodes import EpisodeError, Episodes
from dexrun.episodes.keys import press
from dexrun.modes.driving import ByHand
from dexrun.outcome import Outcome
from dexrun.simulation.operator import Scripted
from drivers.world.operator import OperatorReport
from runtime.clock import NS_PER_S
from runtime.recording.reader import Recording
from tests.recording.rig import Rig

Script = Callable[[Rig, Episodes], Awaitable[None]]


def drive(
    folder: Path, script: Script, first: int = 0, **keys: object
) -> tuple[Outcome | None, Episodes, list[int]]:
    """Run `script` beside a person's mode; returns the mode's outcome, if it ended."""
    options = RecordingOptions.model_validate({"min_free_mib": 0, "warn_free_mib": 0, **keys})
    rig = Rig(folder)
    tared: list[int] = []
    episodes = Episodes(rig.recorder, options, first, lambda take: tared.append(take.index), rig.clock.now_ns)
    outcomes: list[Outcome] = []

    async def mode() -> None:
        outcomes.append(await ByHand(rig.clock, episodes).run())

    async def main(rig: Rig) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(mode)
            await script(rig, episodes)
            tasks.cancel_scope.cancel()

    rig.run(main)
    return (outcomes[0] if outcomes else None), episodes, tared


def test_keys_drive_a_session(tmp_path: Path) -> None:
    async def script(rig: Rig, episodes: Episodes) -> None:
        for command, frames in (("toggle", 5), ("success", 3), ("toggle", 5), ("toggle", 3), ("failure", 3)):
            press(episodes, command)
            await rig.play(frames)
        for command in ("toggle", "discard", "toggle", "toggle", "discard", "toggle", "success"):
            press(episodes, command)
            await rig.play(4)
        await rig.rest(500)

    outcome, episodes, tared = drive(tmp_path, script, episodes=3, task="stack")
    assert outcome is not None
    assert (outcome.outcome, outcome.reason, outcome.exit_code) == ("completed", "3 episodes are recorded", 0)
    assert tared == [0, 1, 2, 2, 2]
    assert episodes.discarded == 2
    with Recording(tmp_path) as recording:
        assert [(e.index, e.label, e.task) for e in recording.episodes] == [
            (0, "success", "stack"),
            (1, "failure", "stack"),
            (2, "success", "stack"),
        ]
        assert [e.topics["/cameras/head/color"] for e in recording.episodes] == [5, 5, 4]


def test_the_time_of_an_episode_ends_the_scripted_operators_too(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    options = RecordingOptions(min_free_mib=0, warn_free_mib=0, episode_s=1.0)
    episodes = Episodes(rig.recorder, options, now_ns=rig.clock.now_ns)
    operator = Scripted(cast(Any, None), rig.clock, episodes)

    async def main(rig: Rig) -> None:
        for _ in range(60):
            operator._follow(OperatorReport(1, "carry", "red cube"))
            await rig.play(2)
        operator._follow(OperatorReport(2, "approach", "blue cube"))

    rig.run(main)
    with Recording(tmp_path) as recording:
        durations = [episode.metadata.get("stop_reason") for episode in recording.episodes]
    assert durations[0] == "episode_s is over"
    assert len(durations) == 2


def test_set_times_drive_a_session(tmp_path: Path) -> None:
    async def script(rig: Rig, episodes: Episodes) -> None:
        await rig.play(600)

    outcome, _, _ = drive(tmp_path, script, episodes=2, episode_s=1.0, reset_s=0.5)
    assert outcome is not None
    assert outcome.outcome == "completed"
    with Recording(tmp_path) as recording:
        starts = [(episode.start_ns - NS_PER_S) / NS_PER_S for episode in recording.episodes]
        assert starts == pytest.approx([0.5, 2.0], abs=0.25)
        assert [e.duration_s for e in recording.episodes] == pytest.approx([1.0, 1.0], abs=0.11)


def test_the_last_episode_can_still_be_discarded(tmp_path: Path) -> None:
    async def script(rig: Rig, episodes: Episodes) -> None:
        for command in ("toggle", "toggle"):
            press(episodes, command)
            await rig.play(20)
        assert episodes.status().state == "review"
        assert not episodes.done
        press(episodes, "discard")
        await rig.play(5)
        assert episodes.status().state == "ready"
        for command in ("toggle", "toggle", "keep"):
            press(episodes, command)
            await rig.play(20)

    outcome, episodes, _ = drive(tmp_path, script, episodes=1)
    assert outcome is not None
    assert (episodes.recorded, episodes.discarded) == (1, 1)


def test_a_session_is_gone_on_with(tmp_path: Path) -> None:
    async def script(rig: Rig, episodes: Episodes) -> None:
        episodes.start("another task")
        await rig.play(3)
        episodes.stop("failure")
        await rig.rest(500)

    drive(tmp_path, script)
    before = (tmp_path / "episode_000000.mcap").read_bytes()
    drive(tmp_path, script, first=1)
    assert (tmp_path / "episode_000000.mcap").read_bytes() == before
    with Recording(tmp_path) as recording:
        assert [(e.index, e.task) for e in recording.episodes] == [(0, "another task"), (1, "another task")]


def test_quitting_keeps_what_is_on(tmp_path: Path) -> None:
    async def script(rig: Rig, episodes: Episodes) -> None:
        press(episodes, "toggle")
        await rig.play(3)
        press(episodes, "quit")
        await rig.play(20)

    outcome, _, _ = drive(tmp_path, script, episodes=4)
    assert outcome is not None
    assert (outcome.outcome, outcome.exit_code) == ("incomplete", 1)
    with Recording(tmp_path) as recording:
        assert recording.episodes[0].metadata["stop_reason"] == "asked to quit"


def test_what_cannot_be_done_is_refused(tmp_path: Path) -> None:
    async def script(rig: Rig, episodes: Episodes) -> None:
        for ask in (episodes.stop, episodes.discard, lambda: episodes.label("success")):
            with pytest.raises(EpisodeError):
                ask()
        episodes.start()
        with pytest.raises(EpisodeError, match="already"):
            episodes.start()
        with pytest.raises(EpisodeError, match="accepted are"):
            episodes.stop("splendid")
        assert episodes.recording
        episodes.stop("success")
        with pytest.raises(EpisodeError, match="all 1 episodes are recorded"):
            episodes.start()
        for command in ("toggle", "success", "discard", "help"):
            press(episodes, command)  # says so, and does nothing
        await rig.rest(500)

    drive(tmp_path, script, episodes=1)


FULL = "episode_000000.mcap: No space left on device"


def test_an_episode_that_the_disk_ended_counts(tmp_path: Path) -> None:
    async def script(rig: Rig, episodes: Episodes) -> None:
        take = episodes.start()
        await rig.play(60)
        await rig.written()
        take.draft.failed = FULL  # as the disk's thread would
        await rig.play(60)
        assert not episodes.recording
        assert "No space left" in episodes.status().trouble
        assert episodes.recorded == 1
        take.draft.failed = ""

    drive(tmp_path, script)
    with Recording(tmp_path) as recording:
        assert recording.episodes[0].metadata["stop_reason"].endswith("No space left on device")


def test_an_episode_of_which_nothing_was_written_does_not_count(tmp_path: Path) -> None:
    async def script(rig: Rig, episodes: Episodes) -> None:
        episodes.start().draft.failed = FULL
        await rig.play(60)
        assert not episodes.recording
        assert (episodes.recorded, episodes.status().episode) == (0, 0)
        episodes.discard()
        assert (episodes.recorded, episodes.discarded) == (0, 1)
        await rig.written()
        episodes.start()
        await rig.play(60)
        episodes.stop("success")
        assert episodes.recorded == 1

    drive(tmp_path, script, episodes=1)


def test_what_waits_for_the_end_of_an_episode_hears_of_every_one(tmp_path: Path) -> None:
    heard: list[tuple[bool, int]] = []

    async def script(rig: Rig, episodes: Episodes) -> None:
        episodes._on_end = lambda: heard.append((episodes.recording, episodes.recorded))
        for command in ("toggle", "success", "toggle", "discard", "toggle", "toggle", "discard"):
            press(episodes, command)
            await rig.play(2)

    drive(tmp_path, script, episodes=3)
    # Kept, thrown away while it was on, kept; what is thrown away afterwards ended before.
    assert heard == [(False, 1), (False, 1), (False, 2)]


def test_where_nothing_can_be_written_no_episode_begins_by_itself_for_ever(tmp_path: Path) -> None:
    async def script(rig: Rig, episodes: Episodes) -> None:
        shutil.rmtree(rig.recorder.folder)
        press(episodes, "toggle")
        await rig.play(900)

    outcome, episodes, _ = drive(tmp_path / "episodes", script, episode_s=1.0, reset_s=0.5)
    assert outcome is not None
    assert (outcome.exit_code, episodes.lost, episodes.recorded) == (1, 3, 0)
    assert "nothing of 3 episodes in a row could be written" in outcome.reason
