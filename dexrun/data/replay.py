"""``dexrun replay``: a recorded episode's targets sent to the arm again, or verified target by target."""

from __future__ import annotations

import argparse
import contextlib
import json
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from loguru import logger

from dexrun.config.sources import ConfigError
from dexrun.data.recorded import differences, local_settings, recorded_settings
from dexrun.exit_codes import BAD_CONFIGURATION, NOT_DONE, OK
from dexrun.printing import complain, say
from drivers.arms.choice import recorded, robot_of_all
from runtime.arm_model import ModelError
from runtime.messages import Floats
from runtime.recording.bounds import reading
from runtime.recording.reader import Episode, Recording, RecordingError
from runtime.table_model import MeshesMissingError

if TYPE_CHECKING:
    from dexrun.config.settings import Settings
    from dexrun.modes.mode import Mode
    from dexrun.outcome import Outcome
    from dexrun.robot import Robot


_DESCRIPTION = (
    "Send a recorded episode's targets through the safety stage to the arm (or the simulated one) of the"
    " local configuration: config.toml or --config FILE, and further options such as --arm.port. Or verify"
    " with --verify that control, blending and safety make the same targets of the same inputs, under the"
    " recorded numbers, which options such as --safety.max_velocity_rad_s change."
)

_EXAMPLE = "example: dexrun replay runs/latest --config config.toml --episode 2"


def main(arguments: list[str]) -> int:
    """Run the command; returns its exit code."""
    parser = argparse.ArgumentParser(prog="dexrun replay", description=_DESCRIPTION, epilog=_EXAMPLE)
    parser.add_argument("run", type=Path, help="a run's folder, or one episode's file")
    parser.add_argument(
        "--episode", type=int, help="number of the episode (default: the first; all for --verify)"
    )
    parser.add_argument(
        "--targets", choices=("clipped", "requested"), default="clipped", help="which ones to send"
    )
    parser.add_argument("--verify", action="store_true", help="compare, move nothing")
    options, overrides = parser.parse_known_args(arguments)
    try:
        with Recording(options.run) as recording:
            episodes = _chosen(recording, options.episode)
            if options.verify:
                code = _verify(episodes, overrides)
                return _told(recording) or code if options.episode is None else code
            if options.episode is None:
                _begins_with(recording, episodes[0])
            with reading(episodes[0].path):
                settings = local_settings(episodes[0], overrides)
                _same_robot(episodes[0], settings)
            return _send(episodes[0], settings, options.targets)
    except (RecordingError, ConfigError) as error:
        complain("".join(f"dexrun replay: {line}\n" for line in str(error).splitlines()))
        return BAD_CONFIGURATION


def _same_robot(episode: Episode, settings: Settings) -> None:
    """Angles of one model mean nothing to another.

    Raises:
        RecordingError: the episode is another robot's.
    """
    try:
        recorded_with, here = recorded(episode.robot), robot_of_all(settings.followers())
    except (ModelError, MeshesMissingError) as error:
        raise RecordingError(f"{episode.path}: {error}") from None
    if (recorded_with.name, recorded_with.joints) != (here.name, here.joints):
        raise RecordingError(
            f"{episode.path}: recorded with the arm {recorded_with.name!r}; arm.model is {here.name!r}"
        )
    if recorded_with.fingerprint != here.fingerprint:
        raise RecordingError(
            f"{episode.path}: recorded when {here.name!r} had other joint directions (docs/arms.md); "
            "it can be verified and exported, and is not sent"
        )
    for name, base in recorded_with.bases.items():
        if not np.allclose(base, here.bases[name], atol=1e-6):
            raise RecordingError(
                f"{episode.path}: arms.{name}.base is not where the arm stood when it was recorded"
            )


def _chosen(recording: Recording, number: int | None) -> list[Episode]:
    if number is None:
        return recording.episodes
    chosen = [episode for episode in recording.episodes if episode.index == number]
    if not chosen:
        known = ", ".join(str(episode.index) for episode in recording.episodes)
        raise RecordingError(f"{recording.path}: no episode {number}; there are {known}")
    return chosen


def _begins_with(recording: Recording, first: Episode) -> None:
    """See that it is the first which is the first that can be read.

    Raises:
        RecordingError: it is not: another one is nothing that anybody asked for.
    """
    for file, why in recording.unreadable.items():
        if file.name < first.path.name:
            raise RecordingError(f"{why}; --episode {first.index} sends the next one")


def _told(recording: Recording) -> int:
    """Say what could not be verified."""
    for why in recording.unreadable.values():
        complain(f"dexrun replay: not verified: {why}\n")
    return NOT_DONE if recording.unreadable else OK


def _verify(episodes: Sequence[Episode], overrides: Sequence[str]) -> int:
    from dexrun.data.verify import verify

    code = OK
    for episode in episodes:
        try:
            verdict = verify(episode, recorded_settings(episode, overrides))
        except (RecordingError, ConfigError) as error:
            if len(episodes) == 1 or (overrides and isinstance(error, ConfigError)):
                raise
            complain(f"dexrun replay: not verified: {error}\n")  # it costs itself alone
            code = NOT_DONE
            continue
        if verdict.same:
            say(f"episode {verdict.episode}: {verdict.ticks} ticks, every target the same\n")
        else:
            say(f"episode {verdict.episode}: {verdict.ticks} ticks the same, then {verdict.difference}\n")
            code = NOT_DONE
    return code


def targets_of(episode: Episode, which: str) -> Floats:
    """``[T, D]`` the targets of an episode at its own tick rate, without the ticks that had none.

    Raises:
        RecordingError: there are none.
    """
    rows: Floats = episode.array("/ticks", which)
    with reading(episode.path, "/ticks"):
        usable = rows[np.isfinite(rows).all(axis=1)]
    if not len(usable):
        raise RecordingError(f"{episode.path}: no {which} targets in it")
    return usable


def _send(episode: Episode, settings: Settings, which: str) -> int:
    from dexrun.app import run

    rows = targets_of(episode, which)
    for line in differences(episode, settings):
        say(f"{line}\n")
    say(f"episode {episode.index}: {len(rows)} {which} targets: {episode.task}\n")

    @contextlib.asynccontextmanager
    async def opener(robot: Robot, *_: Any) -> AsyncIterator[Mode]:
        yield ReplayMode(robot, rows)

    # What was replayed stays the latest run: it is the one with the recording.
    return run(settings, opener=opener, latest=False)


class ReplayMode:
    """Moves slowly to where the episode began, then sends its targets, one a tick."""

    def __init__(self, robot: Robot, rows: Floats) -> None:
        self._robot = robot
        self._rows = rows
        self.step = "moving to the first target"

    def broken_off(self, why: str) -> None:
        """It begins anew, from the first target."""

    def attempts(self) -> list[dict[str, Any]]:
        """None."""
        return []

    def statistics(self) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
        """Neither planner nor policy takes part."""
        return None, None

    async def run(self) -> Outcome:
        """Send everything."""
        from dexrun.modes.moves import carry_out
        from dexrun.outcome import Outcome, stopped
        from policies.motion import MotionLimits, plan_joint_move

        robot, control = self._robot, self._robot.control
        if self._rows.shape[1] != robot.model.joints:
            why = f"recorded with {self._rows.shape[1]} joints; this arm has {robot.model.joints}"
            return stopped(why, exit_code=NOT_DONE)
        while control.target is None:
            await control.ticked()
        speed = robot.settings.engage_speed_rad_s
        limits = MotionLimits.uniform(robot.model, speed, rate_hz=robot.settings.control.rate_hz)
        start = control.target.copy()
        approach = await robot.clock.run_blocking(lambda: plan_joint_move(start, self._rows[0], limits))
        for step, rows in (("moving to the first target", approach), ("replaying", self._rows)):
            self.step = step
            logger.info("{} ({} targets)", step, len(rows))
            missed = await carry_out(robot, rows)
            if missed or missed is None:
                return Outcome("incomplete", missed or "something else was followed", exit_code=NOT_DONE)
        control.idle()
        clips = json.dumps(dict(robot.statistics.clips))
        return Outcome("completed", f"{len(self._rows)} targets sent, clipped: {clips}")
