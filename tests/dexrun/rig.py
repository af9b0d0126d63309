"""A whole simulated robot on a stepped clock, for tests: one red cube, sensors at modest rates."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import anyio
import numpy as np

from dexrun import app
from dexrun.app import run, ticking
from dexrun.assembly import open_robot
from dexrun.config.load import load
from dexrun.config.settings import Settings
from dexrun.modes.opening import Mode, open_mode
from dexrun.robot import Robot
from dexrun.simulation import tabletop
from drivers.feetech import registers as reg
from drivers.feetech.bus import FeetechBus
from drivers.feetech.port import BusPort
from drivers.world.faults import Fault
from runtime.clock import NS_PER_S, Clock
from runtime.messages import Floats
from runtime.recording.mcap_file import OPEN_SUFFIX
from runtime.stepped import SteppedClock

ROOT = Path(__file__).parents[2]
CUBE = '[{shape="cube", color="red", x_m=0.2, y_m=-0.05, yaw_rad=0.3}]'
LIGHT = {
    "realtime.clock": "stepped",
    "terminal.style": "none",
    "world.placed": CUBE,
    "world.force.rate_hz": "60",
    "force.rate_hz": "60",
    "force.tare_samples": "12",
    "cameras.head.fps": "10",
    "cameras.head.width": "320",
    "cameras.head.height": "240",
    "cameras.wrist.fps": "6",
    "cameras.wrist.width": "160",
    "cameras.wrist.height": "120",
    "arm.state_rate_hz": "60",
    "recording.api": "false",
}
AS_SERVED = {
    "cameras__head__width": "640",
    "cameras__head__height": "480",
    "cameras__wrist__width": "320",
    "cameras__wrist__height": "240",
}
"""Pictures as a server expects them that has the cameras of config.toml."""
PATIENT = {
    "realtime__clock": "real",
    "arm__packet_timeout_s": "1",
    "arm__give_up_s": "10",
    "force__silence_s": "10",
    "devices__first_data_s": "60",
    "control__stop_after_hold_s": "0",
}
"""The real clock, on a machine that is busy with other things: what is late is waited for."""
GRASPED_S = "10"
"""So long into a run, the cube is up; the rest of it, carrying and looking, is another third."""
SERVOS = range(1, 7)
STANDING_TICKS = 80
"""Joints that hold still are this near to their goals: gravity bends the arm by some degrees."""


def arguments(runs: Path, **keys: str) -> list[str]:
    """The default configuration, made light, as a command line; `keys` with ``__`` for ``.``."""
    given = {**LIGHT, "runs": str(runs), **{name.replace("__", "."): value for name, value in keys.items()}}
    words = ["--config", str(ROOT / "config.toml")]
    for name, value in given.items():
        words += [f"--{name}", value]
    return words


def settings(runs: Path, **keys: str) -> Settings:
    """The same as a configuration."""
    return load(arguments(runs, **keys), {})


# --- what the servos say


@dataclass(frozen=True)
class Servos:
    """Read over the follower's own wire, in ticks; once the runtime has let go of it."""

    position: list[int]
    goal: list[int]
    torque: list[int]

    def holding(self, joints: int = 5) -> bool:
        """Whether torque is on and the first `joints` are where they are asked to be."""
        off = np.abs(np.subtract(self.goal, self.position))[:joints]
        return all(self.torque) and bool((off <= STANDING_TICKS).all())


def read_servos(port: str) -> Servos:
    """Ask all six."""
    line = BusPort("rig", port, 1_000_000, 10.0, emulated=True)
    bus = FeetechBus("rig", {i: str(i) for i in SERVOS}, line, 2)
    try:
        registers = (reg.PRESENT_POSITION, reg.GOAL_POSITION, reg.TORQUE_ENABLE)
        return Servos(*([bus.read(servo, register) for servo in SERVOS] for register in registers))
    finally:
        bus.close()


# --- whole runs


@dataclass
class Stage:
    """A whole run, watched.

    Attributes:
        robot, mode: once they are up.
        code: the exit code. summary: what was written. folder: the run's.
        servos: how the runtime left them.
    """

    robot: Robot | None = None
    mode: Mode | None = None
    code: int = -1
    summary: dict[str, Any] = field(default_factory=dict)
    folder: Path = Path()
    servos: Servos | None = None
    errors: list[BaseException] = field(default_factory=list)

    @property
    def up(self) -> Robot:
        """The robot."""
        assert self.robot is not None
        return self.robot

    @property
    def step(self) -> str:
        """What the mode says that it does."""
        return "" if self.mode is None else self.mode.step

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait, tick by tick."""
        while not condition():
            await self.up.control.ticked()

    async def rest(self, seconds: float) -> None:
        """Let time pass."""
        await rest(self.up, seconds)

    def inject(self, device: str, kind: str, **values: Any) -> None:
        """Make a fault happen, at the wire."""
        inject(self.up, device, kind, **values)

    def targets(self) -> Floats:
        """``[N, D]`` of the ticks still in the ring: what safety let through; NaN where nothing was sent."""
        return targets(self.up)

    def digest(self) -> str:
        """Of every field of every tick record still in the ring."""
        digest = hashlib.sha256()
        for sample in records(self.up):
            digest.update(sample.stamp_ns.to_bytes(8, "little"))
            for name in sorted(self.up.records.layout):
                digest.update(np.ascontiguousarray(sample[name]).tobytes())
        return digest.hexdigest()


Script = Callable[[Stage], Awaitable[None]]


@contextlib.contextmanager
def staged(stage: Stage, script: Script | None) -> Iterator[app.Opener]:
    """Runs started within are `stage`'s: `script` is played beside the mode that the opener opens."""
    real_mode, real_close = open_mode, tabletop.close

    async def play_script() -> None:
        try:
            if script is not None:
                await script(stage)
        except Exception as error:
            stage.errors.append(error)
            raise

    @contextlib.asynccontextmanager
    async def robot_watched(settings: Settings, clock: Clock) -> AsyncIterator[Robot]:
        async with open_robot(settings, clock) as stage.robot, anyio.create_task_group() as beside:
            beside.start_soon(play_script)
            yield stage.robot
            beside.cancel_scope.cancel()

    @contextlib.asynccontextmanager
    async def mode_watched(robot: Robot, *rest: Any) -> AsyncIterator[Mode]:
        async with real_mode(robot, *rest) as stage.mode:
            yield stage.mode

    async def close_watched(client: Any, clock: Clock) -> None:
        with contextlib.suppress(Exception), anyio.CancelScope(shield=True):
            stage.servos = await clock.run_blocking(lambda: read_servos(client.addresses["follower"]))
        await real_close(client, clock)

    with (
        mock.patch.object(app, "open_robot", robot_watched),
        mock.patch.object(tabletop, "close", close_watched),
    ):
        yield mode_watched


def newest(runs: Path) -> Path:
    """The run that ended last, whether it began or not."""
    folders = [folder for folder in runs.iterdir() if folder.is_dir() and not folder.is_symlink()]
    summaries = [folder / "summary.json" for folder in folders if (folder / "summary.json").exists()]
    return max(summaries, key=lambda summary: summary.stat().st_mtime_ns).parent


def play(runs: Path, **keys: str) -> tuple[int, dict[str, Any]]:
    """One whole run; returns its exit code and its summary."""
    stage = perform(runs, **keys)
    return stage.code, stage.summary


def perform(runs: Path, script: Script | None = None, clock: Clock | None = None, /, **keys: str) -> Stage:
    """One whole run, with `script` beside it."""
    stage = Stage()
    with staged(stage, script) as opener:
        stage.code = run(settings(runs, **keys), clock, opener)
    if stage.errors:
        raise stage.errors[0]
    stage.folder = newest(runs)
    stage.summary = json.loads((stage.folder / "summary.json").read_text())
    assert list(stage.folder.rglob(f"*{OPEN_SUFFIX}")) == []
    return stage


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


def records(robot: Robot) -> Iterator[Any]:
    """Every tick record still in the ring, oldest first."""
    ring = robot.records
    for index in range(max(0, ring.published - ring.capacity + 1), ring.published):
        sample = ring.read(index)
        assert sample is not None
        yield sample


def targets(robot: Robot) -> Floats:
    """``[N, D]`` what safety let through."""
    return np.array([sample["clipped"].copy() for sample in records(robot)]).reshape(-1, robot.model.joints)


def assert_tame(robot: Robot) -> None:
    """No two neighbouring targets are further apart than the velocity limit allows."""
    sent = targets(robot)
    sent = sent[np.isfinite(sent).all(axis=1)]
    fastest = float(np.abs(np.diff(sent[:, :5], axis=0)).max(initial=0.0))
    assert fastest <= robot.settings.safety.max_velocity_rad_s / robot.settings.control.rate_hz + 1e-9
