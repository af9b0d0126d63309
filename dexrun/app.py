"""Runs a mode from start to summary. One task group owns every task; teardown is the reverse of start."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from typing import Any

import anyio
import anyio.lowlevel
from loguru import logger

from dexrun.assembly import open_robot
from dexrun.config.load import dump
from dexrun.config.settings import Settings
from dexrun.episodes.keys import PAUSE, TAKE_OVER, hint, stop_hint
from dexrun.episodes.recording import RunRecording, open_recording
from dexrun.exit_codes import BAD_CONFIGURATION, NOT_DONE
from dexrun.modes.mode import Mode
from dexrun.modes.opening import open_mode
from dexrun.modes.tally import table
from dexrun.outcome import Outcome, stopped
from dexrun.panel.beside import PanelSide, open_panel
from dexrun.printing import complain, say
from dexrun.rate_watch import RateWatch
from dexrun.robot import Robot
from dexrun.run_folder import CONFIG, SUMMARY, RunFolder
from dexrun.run_record import RunRecord
from dexrun.signals import Ending
from dexrun.simulation.score import score
from dexrun.summary import summarise
from dexrun.terminal.dashboard import Dashboard, Status
from dexrun.terminal.log import close_log, open_log
from dexrun.terminal.status import run_status
from drivers.world.client import WorldError
from planner.errors import PlannerError
from runtime.clock import NS_PER_S, Clock, RealClock
from runtime.interfaces import PerceptionError, PolicyError
from runtime.lag import LagMonitor
from runtime.messages import DeviceError
from runtime.realtime import realtime
from runtime.stepped import SteppedClock, SteppedClockError
from runtime.teardown import boxed

_FIRST_TICK_S = 5.0
_JUDGE_S = 3.0
_STOP_S = 3.0
_BRAKE_S = 1.0
"""Longer than an arm takes to come to rest; one that is held by a fault meanwhile does not keep the run."""

Opener = Callable[
    [Robot, RunFolder, RunRecord, RunRecording | None], contextlib.AbstractAsyncContextManager[Mode]
]
"""Opens a mode, as `dexrun.modes.opening.open_mode` does."""


def run(
    settings: Settings, clock: Clock | None = None, opener: Opener = open_mode, *, latest: bool = True
) -> int:
    """Run the configured mode, or the one that `opener` opens; returns the exit code.

    `latest` says whether ``runs/latest`` shall be this run, once it has begun.
    """
    if clock is None:
        clock = SteppedClock() if settings.realtime.clock == "stepped" else RealClock()
    with Ending() as ending:
        try:
            folder = RunFolder(settings.runs, clock.wall_ns(), latest=latest)
            folder.write_json(CONFIG, _resolved(settings))
        except OSError as error:
            where = f"runs = {str(settings.runs)!r}"
            complain(f"dexrun: {where}: nothing can be written there: {error}\n")
            return BAD_CONFIGURATION
        return _run(settings, clock, folder, opener, ending)


def _run(settings: Settings, clock: Clock, folder: RunFolder, opener: Opener, ending: Ending) -> int:
    try:
        sinks = open_log(folder.path, settings.terminal.level, settings.log)
    except (
        OSError
    ) as error:  # without a name: what threads and processes hand each other lies in shared memory
        where = error.filename or "/dev/shm"  # noqa: S108 - only told
        complain(f"dexrun: {where} cannot be written, and a run needs it: {error.strerror}\n")
        return BAD_CONFIGURATION
    record, began_ns = RunRecord(), clock.now_ns()
    try:
        try:
            clock.run(_supervise, settings, clock, folder, record, opener, ending)
        except (WorldError, SteppedClockError) as error:  # simulated time itself came to its end
            record.fail(error)
            _conclude(settings, clock, folder, record, began_ns)
        return _exit_code(folder, record, settings.terminal.style)
    finally:
        close_log(sinks)


def _exit_code(folder: RunFolder, record: RunRecord, style: str) -> int:
    """Say how the run ended. Without its summary it has not done all that was asked."""
    outcome, path = record.outcome, folder.path / SUMMARY
    if record.rollout is not None and style != "none":
        say(table(record.rollout))
        sys.stdout.flush()
    if outcome.exit_code:
        logger.error("{}: {}", outcome.outcome, outcome.reason)
    if record.unwritten:
        logger.error("{} cannot be written: {}", path, record.unwritten)
        return outcome.exit_code or NOT_DONE
    logger.info("summary in {}", path)
    return outcome.exit_code


def _resolved(settings: Settings) -> Any:
    import json

    return json.loads(dump(settings))


async def _supervise(
    settings: Settings, clock: Clock, folder: RunFolder, record: RunRecord, opener: Opener, ending: Ending
) -> None:
    """The root: ends on the mode's own end, on a fault, or on a signal; always writes a summary."""
    began_ns = clock.now_ns()
    async with anyio.create_task_group() as root:
        with anyio.CancelScope() as work:
            root.start_soon(_signals, ending, work, record)
            await anyio.lowlevel.checkpoint()  # one may have come already: then nothing is started
            try:
                await _whole(settings, clock, folder, record, opener)
            except* (DeviceError, WorldError, PlannerError) as errors:
                record.fail(errors)
            except* (PolicyError, PerceptionError) as errors:
                record.fail(errors, BAD_CONFIGURATION)
            except* Exception as errors:
                logger.opt(exception=errors).debug("a defect")
                record.fail(errors)
        _conclude(settings, clock, folder, record, began_ns)
        root.cancel_scope.cancel()


def _conclude(settings: Settings, clock: Clock, folder: RunFolder, record: RunRecord, began_ns: int) -> None:
    """Write the summary."""
    summary = summarise(settings, record, clock.now_ns() - began_ns)
    try:
        folder.write_summary(summary)
    except OSError as error:
        record.unwritten = error.strerror or str(error)


async def _signals(ending: Ending, scope: anyio.CancelScope, record: RunRecord) -> None:
    """Ctrl-C, SIGTERM and a hang-up end the run cleanly; once it ends, further ones change nothing."""
    while True:
        reason = f"interrupted ({(await ending.next()).name})"
        if record.decided:
            logger.warning("{}: the run is ending already", reason)
            continue
        logger.warning("{}: stopping", reason)
        latched = "" if record.robot is None else record.robot.control.latched
        record.conclude(stopped(f"{latched}; {reason}") if latched else stopped(reason, exit_code=NOT_DONE))
        if record.robot is not None:
            await _brake(record.robot, reason)
        scope.cancel()


async def _brake(robot: Robot, reason: str) -> None:
    """Bring the arm to rest, if it moves by now: what is cancelled leaves the last target as it is.

    A servo would be told to stand where it is read while it still moves, and come back from beyond.
    """
    control = robot.control
    if control.target is None:
        return
    control.stop(reason, brakes=True)
    with anyio.move_on_after(_BRAKE_S):
        while control.state != "stopped" or control.braking:
            await control.ticked()


async def _whole(
    settings: Settings, clock: Clock, folder: RunFolder, record: RunRecord, opener: Opener
) -> None:
    began_ns = clock.now_ns()
    async with open_robot(settings, clock) as robot:
        record.robot = robot
        async with (
            open_recording(robot, settings, folder, record) as recording,
            open_panel(robot, folder.path) as panel,
            opener(robot, folder, record, recording) as mode,
        ):
            panel.works(mode)
            try:
                # Before the first tick: the collection that precedes freezing takes some 60 ms.
                pauses = recording is not None or settings.mode != "teleop"
                with _realtime(robot, record, pauses=pauses):
                    async with ticking(robot):
                        folder.began()
                        record.first_tick_s = round((clock.now_ns() - began_ns) / NS_PER_S, 3)
                        outcome = await _with_terminal(robot, mode, recording, panel)
                        record.conclude(outcome)
            finally:
                record.attempts = mode.attempts()
                record.planner, record.policy = mode.statistics()
                if recording is not None:
                    recording.end()  # what follows may take seconds, and is no part of it
                await _judge(robot, record)


async def _judge(robot: Robot, record: RunRecord) -> None:
    """The score, where there is ground truth to score by; however the run ended."""
    world = robot.world
    if world is None:
        return

    async def ask() -> None:
        prompt = robot.settings.planner.prompt if record.asked is None else record.asked()
        record.judge = await robot.clock.run_blocking(lambda: score(world, prompt, _JUDGE_S))

    try:
        answered = await boxed("the judge", 2 * _JUDGE_S, ask)  # somebody else's question may be under way
        missing = "" if answered else "the simulated world was not to be asked"
    except WorldError as error:
        missing = str(error)
    if missing:
        record.judge_missing = missing


@contextlib.contextmanager
def _realtime(robot: Robot, record: RunRecord, *, pauses: bool) -> Iterator[None]:
    """Ask the system for punctuality; on a stepped clock there is nothing to be punctual about."""
    if robot.clock.stepped:
        yield
        return
    with realtime(robot.settings.realtime, robot.realtime, pauses=pauses) as applied:
        record.realtime = {"applied": applied.applied, "refused": applied.refused}
        yield


@contextlib.asynccontextmanager
async def ticking(robot: Robot) -> AsyncIterator[None]:
    """The control loop runs; afterwards an arm that is being braked is brought to rest, and stays there."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(robot.control.run, name="control")
        tasks.start_soon(RateWatch(robot).run, name="rates")
        if not robot.clock.stepped:
            tasks.start_soon(LagMonitor(robot.clock, robot.statistics.loop_lag).run, name="loop-lag")
        with anyio.fail_after(_FIRST_TICK_S):
            await robot.control.ticked()
        yield
        for _ in range(round(_BRAKE_S * robot.settings.control.rate_hz)):
            if not robot.control.braking:
                break
            await robot.control.ticked()
        robot.control.close()
        await robot.control.ticked()
        tasks.cancel_scope.cancel()


async def _with_terminal(
    robot: Robot, mode: Mode, recording: RunRecording | None, panel: PanelSide
) -> Outcome:
    began_ns = robot.clock.now_ns()
    settings = robot.settings
    in_episodes = recording is not None and settings.mode != "grasp"
    pressed = settings.recording.keys and not robot.clock.stepped and sys.stdin.isatty()
    usual = TAKE_OVER if settings.grasp.take_over else PAUSE

    def status() -> Status:
        status, stopped = run_status(robot, mode, began_ns), stop_hint(robot.stopping.phase)
        if recording is None or not in_episodes:
            return replace(status, keys=stopped or usual) if pressed and settings.mode == "grasp" else status
        now = recording.episodes.status()
        return replace(status, episode=str(now), keys=stopped or hint(now) if pressed else "")

    dashboard = Dashboard(robot.clock, settings.terminal, status)
    dashboard.start()
    try:
        return await _until_stopped(robot, mode, panel)
    finally:
        await boxed("the terminal", _STOP_S, dashboard.stop)


async def _until_stopped(robot: Robot, mode: Mode, panel: PanelSide) -> Outcome:
    """The mode's own outcome, unless a stop is latched first that ends the run, or a person wants no more."""
    result: list[Outcome] = []

    async def watch() -> None:
        control = robot.control
        while not (control.final and control.state == "stopped"):
            await control.changed()
        result.append(stopped(control.latched, mode.attempts()))
        tasks.cancel_scope.cancel()

    async def quit() -> None:
        result.append(Outcome("incomplete", await panel.quit(), mode.attempts(), NOT_DONE))
        robot.control.rest()
        tasks.cancel_scope.cancel()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watch, name="latch")
        tasks.start_soon(quit, name="quit")
        tasks.start_soon(panel.run, name="panel")
        result.append(await _worked(robot, mode))
        tasks.cancel_scope.cancel()
    if why := robot.control.latched:  # whatever else came in the same tick, a stop wins
        return stopped(why, mode.attempts())
    return result[0]


async def _worked(robot: Robot, mode: Mode) -> Outcome:
    """Run the mode; after each stop by a person that was reset, once more."""
    stopping = robot.stopping
    while True:
        with stopping.breaks_off() as work:
            return await mode.run()
        assert work.cancelled_caught  # noqa: S101 - else it has returned
        await stopping.braked()
        if robot.control.source is not None:
            robot.control.rest()
        mode.broken_off(robot.control.latched)
        if not await stopping.decided():
            return Outcome("incomplete", "asked to quit after the stop was reset", mode.attempts(), NOT_DONE)
