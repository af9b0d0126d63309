"""Runs a mode from start to summary. One task group owns every task; teardown is the reverse of start."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import anyio
from loguru import logger

from dexrun.assembly import Robot, open_robot
from dexrun.config import Settings, dump
from dexrun.dashboard import Dashboard, Status
from dexrun.modes import Mode, open_mode
from dexrun.outcome import BAD_CONFIGURATION, NOT_DONE, Outcome, stopped
from dexrun.run_folder import RunFolder, close_log, open_log
from dexrun.score import score
from dexrun.summary import summarise
from drivers.world.client import WorldError
from planner.errors import PlannerError
from runtime.clock import NS_PER_S, Clock, RealClock
from runtime.interfaces import PolicyError
from runtime.lag import LagMonitor
from runtime.messages import DeviceError
from runtime.realtime import realtime
from runtime.stepped import SteppedClock

_FIRST_TICK_S = 5.0


@dataclass
class Report:
    """What is known for the summary, filled in as the run goes on, so that it is there however it ends."""

    outcome: Outcome = field(default_factory=lambda: stopped("the run was cut short"))
    planner: dict[str, Any] | None = None
    policy: dict[str, Any] | None = None
    extra: dict[str, Any] = field(default_factory=dict)


def run(settings: Settings, clock: Clock | None = None) -> int:
    """Run the configured mode; returns the exit code."""
    if clock is None:
        clock = SteppedClock() if settings.realtime.clock == "stepped" else RealClock()
    folder = RunFolder(settings.runs, clock.wall_ns())
    sinks = open_log(folder.path, settings.terminal.level)
    try:
        folder.write_json("config.json", _resolved(settings))
        outcome = clock.run(_supervise, settings, clock, folder)
        if outcome.exit_code:
            logger.error("{}: {}", outcome.outcome, outcome.reason)
        logger.info("summary in {}", folder.path / "summary.json")
        return outcome.exit_code
    finally:
        close_log(sinks)


def _resolved(settings: Settings) -> Any:
    import json

    return json.loads(dump(settings))


async def _supervise(settings: Settings, clock: Clock, folder: RunFolder) -> Outcome:
    """The root: ends on the mode's own end, on a fault at start, or on a signal; always writes a summary."""
    began_ns = clock.now_ns()
    report = Report()
    last: list[Robot] = []
    async with anyio.create_task_group() as root:
        await root.start(_signals, root.cancel_scope, report)
        try:
            await _whole(settings, clock, folder, report, last)
        except* (DeviceError, WorldError, PlannerError) as errors:
            report.outcome = stopped(_first_line(errors))
        except* PolicyError as errors:
            report.outcome = stopped(_first_line(errors), exit_code=BAD_CONFIGURATION)
        root.cancel_scope.cancel()
    summary = summarise(
        settings,
        report.outcome,
        clock.now_ns() - began_ns,
        last[0] if last else None,
        planner=report.planner,
        policy=report.policy,
        extra=report.extra,
    )
    folder.write_summary(summary)
    return report.outcome


def _first_line(errors: BaseExceptionGroup[Any]) -> str:
    error: BaseException = errors
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return " ".join(str(error).split())


async def _signals(
    scope: anyio.CancelScope,
    report: Report,
    *,
    task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED,
) -> None:
    """Ctrl-C and SIGTERM end the run cleanly."""
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        task_status.started()
        async for number in signals:
            reason = f"interrupted ({signal.Signals(number).name})"
            logger.warning("{}: stopping", reason)
            report.outcome = stopped(reason, report.outcome.attempts, NOT_DONE)
            scope.cancel()
            return


async def _whole(
    settings: Settings, clock: Clock, folder: RunFolder, report: Report, last: list[Robot]
) -> None:
    began_ns = clock.now_ns()
    interrupted = report.outcome
    async with open_robot(settings, clock) as robot:
        last.append(robot)
        async with open_mode(robot, folder, report.extra) as mode:
            try:
                async with ticking(robot):
                    report.extra["first_tick_s"] = round((clock.now_ns() - began_ns) / NS_PER_S, 3)
                    with _realtime(settings, clock, report):
                        outcome = await _with_terminal(robot, mode)
                    report.outcome = outcome
            finally:
                if report.outcome is not interrupted and not report.outcome.attempts:
                    report.outcome = _with_attempts(report.outcome, mode)
                report.planner, report.policy = mode.statistics()
            if robot.world is not None:
                report.extra["judge"] = await clock.run_blocking(
                    lambda: score(robot, settings.planner.prompt)
                )


def _with_attempts(outcome: Outcome, mode: Mode) -> Outcome:
    return Outcome(outcome.outcome, outcome.reason, mode.attempts(), outcome.exit_code)


@contextlib.contextmanager
def _realtime(settings: Settings, clock: Clock, report: Report) -> Any:
    """Ask the system for punctuality; on a stepped clock there is nothing to be punctual about."""
    if clock.stepped:
        yield
        return
    with realtime(settings.realtime) as applied:
        report.extra["realtime"] = {"applied": applied.applied, "refused": applied.refused}
        yield


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
        with anyio.CancelScope(shield=True):
            await dashboard.stop()


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
    elapsed_s = (now_ns - began_ns) / NS_PER_S
    force = robot.force.samples.newest() if robot.force is not None else None
    return Status(
        mode=robot.settings.mode,
        step=mode.step,
        state=robot.control.state
        if not robot.control.reason
        else f"{robot.control.state}: {robot.control.reason}",
        elapsed_s=elapsed_s,
        rate_hz=statistics.ticks / elapsed_s if elapsed_s > 0 else 0.0,
        period_error_us=statistics.period_error.summary(1e-3),
        work_us=statistics.work.summary(1e-3),
        horizon=len(robot.control.horizon),
        ticks=statistics.ticks,
        missed=statistics.missed,
        starved=statistics.starved,
        sensor_rates_hz=statistics.rates_hz(now_ns),
        force_n=() if force is None else tuple(float(value) for value in force["force"]),
        clips=dict(statistics.clips),
        faults=robot.faults.log.summary(robot.survived()),
    )
