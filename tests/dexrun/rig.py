"""A whole simulated robot on a stepped clock, for tests: one red cube, sensors at modest rates."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from dexrun.app import run, ticking
from dexrun.assembly import Robot, open_robot
from dexrun.config import Settings, load
from drivers.world.faults import Fault
from runtime.clock import NS_PER_S
from runtime.stepped import SteppedClock

ROOT = Path(__file__).parents[2]
CUBE = '[{shape="cube", color="red", x_m=0.2, y_m=-0.05, yaw_rad=0.3}]'
LIGHT = {
    "realtime.clock": "stepped",
    "terminal.style": "none",
    "world.placed": CUBE,
    "world.force.rate_hz": "60",
    "force.rate_hz": "60",
    "cameras.head.fps": "15",
    "cameras.wrist.fps": "10",
    "arm.state_rate_hz": "60",
}


def settings(runs: Path, **keys: str) -> Settings:
    """The default configuration, made light; `keys` with ``__`` for ``.``."""
    given = {**LIGHT, "runs": str(runs), **{name.replace("__", "."): value for name, value in keys.items()}}
    arguments = ["--config", str(ROOT / "config.toml")]
    for name, value in given.items():
        arguments += [f"--{name}", value]
    return load(arguments, {})


def play(runs: Path, **keys: str) -> tuple[int, dict[str, Any]]:
    """One whole run; returns its exit code and its summary."""
    code = run(settings(runs, **keys))
    return code, json.loads((runs / "latest" / "summary.json").read_text())


def drive(runs: Path, script: Callable[[Robot], Awaitable[None]], **keys: str) -> Robot:
    """Bring a robot up, let its control loop tick, run `script`, take it down again."""
    clock = SteppedClock()
    robots: list[Robot] = []

    async def main() -> None:
        async with open_robot(settings(runs, **keys), clock) as robot:
            robots.append(robot)
            async with ticking(robot):
                await script(robot)

    clock.run(main)
    return robots[0]


async def rest(robot: Robot, seconds: float) -> None:
    """Let simulated time pass."""
    await robot.clock.sleep_until_ns(robot.clock.now_ns() + round(seconds * NS_PER_S))


def inject(robot: Robot, device: str, kind: str, **values: Any) -> None:
    """Make a fault happen, at the wire."""
    assert robot.world is not None
    robot.world.inject(Fault.model_validate({"device": device, "kind": kind, **values}))
