"""Runs a mode from start to summary. One task group owns every task; teardown is the reverse of start."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import anyio
import anyio.lowlevel
from loguru import logger

from dexrun.assembly import Robot, open_robot
from dexrun.config.load import dump
from dexrun.config.settings import Settings
from dexrun.episodes.recording import RunRecording, open_recording
from dexrun.modes.mode import Mode
from dexrun.modes.opening import open_mode
from dexrun.outcome import BAD_CONFIGURATION, NOT_DONE, STOPPED, Outcome, stopped
from dexrun.run_folder import RunFolder, close_log, open_log
from dexrun.signals import Ending
from dexrun.simulation.score import score
from dexrun.summary import summarise
from dexrun.terminal.dashboard import Dashboard, Status
from drivers.world.client import WorldError
from planner.errors import PlannerError
from runtime.clock import NS_PER_S, Clock, RealClock
from runtime.interfaces import PolicyError
from runtime.lag import LagMonitor
from runtime.messages import DeviceError
from runtime.realtime import Realtime, realtime
from runtime.stepped import SteppedClock, SteppedClockError
from runtime.teardown import boxed

_FIRST_TICK_S = 5.0
_JUDGE_S = 3.0
_STOP_S = 3.0

Opener = Callable[
    [Robot, RunFolder, dict[str, Any], RunRecording | None], contextlib.AbstractAsyncContextManager[Mode]
]
"""Opens a mode, as `dexrun.modes.open_mode` does."""


@dataclass
class Report:
    """What is known for the summary, filled in as the run goes on, so that it is there however it ends.

    Attributes:
        decided: whether `outcome` is the run's own, or a person's signal: nothing later changes it.
        robot: once it is up.
        unwritten: why there is no summary, if so.
    """

    outcome: Outcome = field(default_factory=lambda: stopped("the run was cut short"))
    decided: bool = False
    attempts: list[dict[str, Any]] = field(default_factory=list)
    robot: Robot | None = None
    planner: dict[str, Any] | None = None
    policy: dict[str, Any] | None = None
    extra: dict[str, Any] = field(default_factory=dict)
    unwritten: str = ""

    def fail(self, error: BaseException, exit_code: int = STOPPED) -> None:
        """The run ends because of `error`; a fault on the way down does not hide what ended it."""
        if not self.decided:
            self.outcome = stopped(_first_line(error), exit_code=exit_code)


def run(
    settings: Settings, clock: Clock | None = None, opener: Opener = open_mode, *, latest: bool = True
) -> int:
    """Run the configured mode, or the one that `opener` opens; returns the exit code.

    `latest` says whether ``runs/latest`` shall be this run.
    """
    if clock is None:
        clock = SteppedClock() if settings.realtime.clock == "stepped" else RealClock()
    with Ending() as ending:
        try:
            folder = RunFolder(settings.runs, clock.wall_ns(), latest=latest)
            folder.write_json("config.json", _resolved(settings))
        except OSError as error:
            where = f"runs = {str(settings.runs)!r}"
            sys.stderr.write(f"dexrun: {where}: nothing can be written there: {error}\n")
            return BAD_CONFIGURATION
        return _run(settings, clock, folder, opener, ending)


def _run(settings: Settings, clock: Clock, folder: RunFolder, opener: Opener, ending: Ending) -> int:
    sinks = open_log(folder.path, settings.terminal.level)
    report, began_ns = Report(), clock.now_ns()
    try:
        try:
            clock.run(_supervise, settings, clock, folder, report, opener, ending)
        except (WorldError, SteppedClockError) as error:  # simulated time itself came to its end
            report.fail(error)
            _conclude(settings, clock, folder, report, began_ns)
        return _exit_code(folder, report)
    finally:
        close_log(sinks)


def _exit_code(folder: RunFolder, report: Report) -> int:
    """Say how the run ended. Without its summary it has not done all that was asked."""
    outcome, path = report.outcome, folder.path / "summary.json"
    if outcome.exit_code:
        logger.error("{}: {}", outcome.outcome, outcome.reason)
    if report.unwritten:
        logger.error("{} cannot be written: {}", path, report.unwritten)
        return outcome.exit_code or NOT_DONE
    logger.info("summary in {}", path)
    return outcome.exit_code


def _resolved(settings: Settings) -> Any:
    import json

    return json.loads(dump(settings))


async def _supervise(
    settings: Settings, clock: Clock, folder: RunFolder, report: Report, opener: Opener, ending: Ending
) -> None:
    """The root: ends on the mode's own end, on a fault, or on a signal; always writes a summary."""
    began_ns = clock.now_ns()
    async with anyio.create_task_group() as root:
        with anyio.CancelScope() as work:
            root.start_soon(_signals, ending, work, report)
            await anyio.lowlevel.checkpoint()  # one may have come already: then nothing is started
            try:
                await _whole(settings, clock, folder, report, opener)
            except* DeviceError as errors:
                report.fail(errors)
                report.extra.setdefault("device_faults", _as_faults(errors))
            except* (WorldError, PlannerError) as errors:
                report.fail(errors)
            except* PolicyError as errors:
                report.fail(errors, BAD_CONFIGURATION)
            except* Exception as errors:
                logger.opt(exception=errors).debug("a defect")
                report.fail(errors)
        _conclude(settings, clock, folder, report, began_ns)
        root.cancel_scope.cancel()


def _conclude(settings: Settings, clock: Clock, folder: RunFolder, report: Report, began_ns: int) -> None:
    """Write the summary."""
    if report.attempts:
        report.outcome = replace(report.outcome, attempts=report.attempts)
    robot, extra = report.robot, dict(report.extra)
    faults = extra.pop("device_faults", {})
    summary = summarise(
        settings,
        report.outcome,
        clock.now_ns() - began_ns,
        robot,
        planner=report.planner,
        policy=report.policy,
        extra=extra if robot is not None else {"device_faults": faults, **extra},
    )
    try:
        folder.write_summary(summary)
    except OSError as error:
        report.unwritten = error.strerror or str(error)


def _as_faults(errors: BaseExceptionGroup[DeviceError]) -> dict[str, dict[str, int]]:
    error = _first(errors)
    return {error.device: {error.kind: 1}} if isinstance(error, DeviceError) else {}


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _first_line(error: BaseException) -> str:
    first = _first(error)
    expected = isinstance(first, DeviceError | WorldError | PlannerError | PolicyError)
    text = " ".join(str(first).split())
    return text if expected else f"{type(first).__name__}: {text}".rstrip(": ")


async def _signals(ending: Ending, scope: anyio.CancelScope, report: Report) -> None:
    """Ctrl-C, SIGTERM and a hang-up end the run cleanly; once it ends, further ones change nothing."""
    while True:
        reason = f"interrupted ({(await ending.next()).name})"
        if report.decided:
            logger.warning("{}: the run is ending already", reason)
            continue
        logger.warning("{}: stopping", reason)
        report.outcome, report.decided = stopped(reason, exit_code=NOT_DONE), True
        scope.cancel()


async def _whole(settings: Settings, clock: Clock, folder: RunFolder, report: Report, opener: Opener) -> None:
    began_ns = clock.now_ns()
    async with open_robot(settings, clock) as robot:
        report.robot = robot
        async with (
            open_recording(robot, settings, folder, report.extra) as recording,
            opener(robot, folder, report.extra, recording) as mode,
        ):
            try:
                # Before the first tick: the collection that precedes freezing takes some 60 ms.
                pauses = recording is not None or settings.mode == "grasp"
                with _realtime(settings, clock, report, pauses=pauses) as applied:
                    robot.at_rest = applied.collect
                    if recording is not None:
                        recording.episodes.on_end = applied.collect
                    async with ticking(robot):
                        report.extra["first_tick_s"] = round((clock.now_ns() - began_ns) / NS_PER_S, 3)
                        outcome = await _with_terminal(robot, mode)
                        report.outcome, report.decided = outcome, True
            finally:
                report.attempts = mode.attempts()
                report.planner, report.policy = mode.statistics()
                if recording is not None:
                    recording.end()  # what follows may take seconds, and is no part of it
                await _judge(robot, report)


async def _judge(robot: Robot, report: Report) -> None:
    """The score, where there is ground truth to score by; however the run ended."""
    if robot.world is None:
        return

    async def ask() -> None:
        prompt = robot.settings.planner.prompt
        report.extra["judge"] = await robot.clock.run_blocking(lambda: score(robot, prompt, _JUDGE_S))

    try:
        answered = await boxed("the judge", 2 * _JUDGE_S, ask)  # somebody else's question may be under way
        missing = "" if answered else "the simulated world was not to be asked"
    except WorldError as error:
        missing = str(error)
    if missing:
        report.extra["judge_missing"] = missing


@contextlib.contextmanager
def _realtime(settings: Settings, clock: Clock, report: Report, *, pauses: bool) -> Iterator[Realtime]:
    """Ask the system for punctuality; on a stepped clock there is nothing to be punctual about."""
    if clock.stepped:
        yield Realtime()
        return
    with realtime(settings.realtime, pauses=pauses) as applied:
        report.extra["realtime"] = {"applied": applied.applied, "refused": applied.refused}
        yield applied


@contextlib.asynccontextmanager
async def ticking(robot: Robot) -> AsyncIterator[None]:
    """The control loop runs; afterwards the arm is asked to stay where it is."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(robot.control.run, name="control")
        if not robot.clock.stepped:
            tasks.start_soon(LagMonitor(robot.clock, robot.statistics.loop_lag).run, name="loop-lag")
        with anyio.fail_after(_FIRST_TICK_S):
            await robot.control.ticked()
        yield
        robot.control.close()
        await robot.control.ticked()
        tasks.cancel_scope.cancel()


async def _with_terminal(robot: Robot, mode: Mode) -> Outcome:
    began_ns = robot.clock.now_ns()

    def status() -> Status:
        return _status(robot, mode, began_ns)

    dashboard = Dashboard(robot.clock, robot.settings.terminal, status)
    dashboard.start()
    try:
        return await _until_latched(robot, mode)
    finally:
        await boxed("the terminal", _STOP_S, dashboard.stop)


async def _until_latched(robot: Robot, mode: Mode) -> Outcome:
    """The mode's own outcome, unless the control loop latches a stop first."""
    result: list[Outcome] = []

    async def watch() -> None:
        while robot.control.state != "stopped":
            await robot.control.changed()
        result.append(stopped(robot.control.reason, mode.attempts()))
        tasks.cancel_scope.cancel()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watch, name="latch")
        outcome = await mode.run()
        result.append(outcome)
        tasks.cancel_scope.cancel()
    return result[0]


def _status(robot: Robot, mode: Mode, began_ns: int) -> Status:
    now_ns = robot.clock.now_ns()
    statistics = robot.statistics
    force = robot.force.samples.newest() if robot.force is not None else None
    return Status(
        mode=robot.settings.mode,
        step=mode.step,
        state=robot.control.state
        if not robot.control.reason
        else f"{robot.control.state}: {robot.control.reason}",
        elapsed_s=(now_ns - began_ns) / NS_PER_S,
        rate_hz=statistics.recent_tick_hz(now_ns),
        period_error_us=statistics.period_error.summary(1e-3),
        work_us=statistics.work.summary(1e-3),
        horizon=len(robot.control.horizon),
        ticks=statistics.ticks,
        missed=statistics.missed,
        starved=statistics.starved,
        sensor_rates_hz=statistics.recent_rates_hz(now_ns),
        force_n=() if force is None else tuple(float(value) for value in force["force"]),
        clips=dict(statistics.clips),
        faults=robot.faults.log.summary(robot.survived()),
    )
