"""One moment of a run, in numbers, from what its parts count."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dexrun.terminal.dashboard import Status
from runtime.clock import NS_PER_S
from runtime.printable import line

if TYPE_CHECKING:
    from dexrun.modes.mode import Mode
    from dexrun.robot import Robot


def run_status(robot: Robot, mode: Mode | None, began_ns: int) -> Status:
    """How the run stands now; without a `mode` it is still being opened."""
    now_ns = robot.clock.now_ns()
    statistics = robot.statistics
    force = robot.force.samples.newest() if robot.force is not None else None
    return Status(
        mode=robot.settings.mode,
        step="opening" if mode is None else line(mode.step),
        reasoning=line(robot.control.attempt.reasoning),
        state=line(": ".join(filter(None, (robot.control.state, robot.control.reason)))),
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
