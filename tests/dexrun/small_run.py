"""A whole run on the stepped clock without a world: real application, modes, loop and safety; the devices go
where they are told. A second of it takes some hundredths of a second.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import anyio
import numpy as np

from dexrun import app, assembly, policies
from dexrun.config.load import load
from dexrun.config.settings import Settings
from dexrun.modes.hand_over import HandOver
from dexrun.modes.mode import Mode
from dexrun.modes.opening import open_mode
from dexrun.panel.link import AttachedRun, NoRunError, live_runs
from dexrun.robot import Robot
from dexrun.run_record import RunRecord
from runtime.beat import Beat
from runtime.clock import NS_PER_S, Clock
from runtime.interfaces import ArmDriver, CameraDriver, LeaderDriver, PolicySpec
from runtime.latest import Latest
from runtime.messages import (
    CameraInfo,
    DeviceError,
    FaultKind,
    Floats,
    Intrinsics,
    Observation,
    PolicyAnswer,
)
from runtime.pilot import Pilot
from runtime.ports import LoopListener
from runtime.ring import Mailbox, Ring
from tests.dexrun.rig import newest
from tests.dexrun.tables import ARMS, WRIST
from tests.policies.test_grasp_mode import TINY

D = 6
DEVICE_HZ = 60
FOLLOWS_S = 0.05
"""A joint is so far behind its goal."""
FAST = np.array([0.1, -0.03, -0.04, 0.05, 0.12, 0.02])
"""Radians a tick, of some joints more than the velocity limit permits."""


class Device:
    """What a driver of any of them has: a period, and a plug."""

    def __init__(self, name: str, clock: Clock, rate_hz: float = DEVICE_HZ) -> None:
        self.name = name
        self.calibration: Mapping[str, Any] = {}
        self.unplugged = False
        self._clock = clock
        self._period_ns = round(NS_PER_S / rate_hz)
        self._due_ns = clock.now_ns()

    def _here(self) -> None:
        if self.unplugged:
            raise DeviceError(self.name, FaultKind.GONE, "a desk", "unplugged")

    def open(self) -> None:
        self._here()
        self._due_ns = self._clock.now_ns()

    def poll(self) -> bool:
        self._here()
        self._due_ns += self._period_ns
        self._clock.wait_until_ns(self._due_ns)
        self._deliver(self._due_ns)
        return True

    def _deliver(self, now_ns: int) -> None: ...

    def close(self) -> None: ...

    def statistics(self) -> Mapping[str, int]:
        return {}


class Arm(Device):
    """Goes to its goal; of each target it says that it was written."""

    def __init__(self, name: str, clock: Clock, start: Floats) -> None:
        super().__init__(name, clock)
        fields = dict.fromkeys(("position", "velocity", "load"), ((D,), "<f8"))
        self.states, self.sent = Ring(fields, 64), Ring({"position": ((D,), "<f8")}, 64)
        self.health = Ring({"temperature_c": ((D,), "<f8")}, 4)
        self.targets = Mailbox({"position": ((D,), "<f8")})
        self.position, self.goal = start.copy(), start.copy()

    def _deliver(self, now_ns: int) -> None:
        sample = self.targets.take()
        if sample is not None:
            self.goal = sample["position"].copy()
            self.sent.push(now_ns, position=self.goal)
        before = self.position
        self.position = self._stopped(before + (self.goal - before) / (FOLLOWS_S * DEVICE_HZ))
        velocity = (self.position - before) * DEVICE_HZ
        self.states.push(now_ns, position=self.position, velocity=velocity, load=0.0)

    def _stopped(self, position: Floats) -> Floats:
        """How far it gets; here nothing is in its way."""
        return position


class Leader(Device):
    """With motors; `hand` moves it on, rad/s, while they do not hold it."""

    def __init__(self, name: str, clock: Clock, start: Floats) -> None:
        super().__init__(name, clock)
        fields = dict.fromkeys(("position", "velocity", "load"), ((D,), "<f8"))
        self.states, self.guide = Ring(fields, 64), Mailbox({"position": ((D,), "<f8")})
        self.position, self.hand, self.held = start.copy(), np.zeros(D), False
        self.way: list[Floats] = []

    def _deliver(self, now_ns: int) -> None:
        sample = self.guide.take()
        if sample is not None:
            self.held = bool(np.isfinite(sample["position"]).all())
            if self.held:
                self.position = sample["position"].copy()
        if not self.held:
            self.position = self.position + self.hand / DEVICE_HZ
        self.way.append(self.position.copy())
        self.states.push(now_ns, position=self.position, velocity=0.0, load=0.0)


class Camera(Device):
    """Grey."""

    def __init__(self, name: str, clock: Clock) -> None:
        super().__init__(name, clock, 10)
        self.frames = Ring({"color": ((12, 16, 3), "|u1")}, 8)
        self.info = CameraInfo(name, Intrinsics(16, 12, 12.0, 12.0, 8.0, 6.0))

    def _deliver(self, now_ns: int) -> None:
        self.frames.push(now_ns, color=128)


class Builder:
    """In the place of `dexrun.assembly._Builder`."""

    def __init__(self, configured: Settings, clock: Clock, model: Any, tabletop: Any) -> None:
        del tabletop
        unscripted = configured.teleop.model_copy(update={"scripted": False})
        self.settings = configured.model_copy(update={"teleop": unscripted})
        self._clock, self._start = clock, model.middle()[:D]  # of every arm
        self.beat: Latest[Beat] = Latest()

    def arms(self) -> dict[str, ArmDriver]:
        return {key: Arm(key, self._clock, self._start) for key in self.settings.arm_tables()}

    def leaders(self, arms: Mapping[str, ArmDriver]) -> dict[str, LeaderDriver]:
        return {key: Leader(key, self._clock, self._start) for key in self.settings.leader_tables()}

    def cameras(self) -> dict[str, CameraDriver]:
        return {name: Camera(name, self._clock) for name in self.settings.cameras}

    def force(self) -> None: ...


@dataclass
class Rush:
    """A policy that goes on from where the arm is, faster than it may."""

    spec: PolicySpec = field(default_factory=lambda: PolicySpec("rush", 20, cameras=("wrist",)))
    turn: float = 1.0

    def warm_up(self) -> None: ...

    def infer(self, observation: Observation) -> PolicyAnswer:
        self.turn = -self.turn
        position = observation.arm.position
        fast = np.tile(FAST, position.size // D)
        return PolicyAnswer(position + np.arange(1, 21)[:, None] * self.turn * fast)

    def reset(self) -> None: ...

    def statistics(self) -> Mapping[str, int]:
        return {}

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Moment:
    """A tick, and how things stood at its end; `stop`: a person's stop (`dexrun.stopping.StopPhase`)."""

    record: Any
    state: str
    reason: str
    phase: str
    share: float
    held: bool
    stop: str = "ready"

    @property
    def target(self) -> Floats:
        """``[D]``, NaN where none was posted."""
        clipped: Floats = self.record["clipped"]
        return clipped

    @property
    def pilot(self) -> Pilot:
        return Pilot(int(self.record["pilot"]))


@dataclass
class Small:
    """One run; a listener of its control loop (`runtime.ports.LoopListener`).

    Attributes:
        robot, mode: once they are up. code: the exit code. summary: what was written.
        moments: every tick.
    """

    robot: Robot | None = None
    mode: Mode | None = None
    code: int = -1
    summary: dict[str, Any] = field(default_factory=dict)
    moments: list[Moment] = field(default_factory=list)
    errors: list[BaseException] = field(default_factory=list)
    run: AttachedRun | None = None
    record: RunRecord | None = None
    answers: dict[int, str] = field(default_factory=dict)

    @property
    def up(self) -> Robot:
        assert self.robot is not None
        return self.robot

    @property
    def arm(self) -> Arm:
        (arm,) = self.up.arms.values()
        assert isinstance(arm, Arm)
        return arm

    @property
    def leaders(self) -> list[Leader]:
        return [leader for leader in self.up.leaders.values() if isinstance(leader, Leader)]

    @property
    def leader(self) -> Leader:
        (leader,) = self.leaders
        return leader

    @property
    def hand_over(self) -> HandOver | None:
        """The mode's, if it is up and has one."""
        mode = getattr(self.mode, "_mode", self.mode)  # of one episode
        hand = getattr(getattr(mode, "_take_over", mode), "hand_over", None)
        return hand if isinstance(hand, HandOver) else None

    async def until(self, condition: Callable[[], bool], most_s: float = 60.0) -> None:
        """Wait, tick by tick."""
        for _ in range(round(30 * most_s)):
            if condition():
                return
            await self.up.control.ticked()
        raise TimeoutError(self.mode.step if self.mode else "no mode")

    async def pass_ticks(self, count: int) -> None:
        for _ in range(count):
            await self.up.control.ticked()

    def asks(self, name: str, seen: int | None = None, **args: Any) -> int:
        """A panel's command; the number of its answer."""
        assert self.run is not None
        return self.run.send(name, args, "laptop", seen)

    async def says(self, name: str, seen: int | None = None, **args: Any) -> str:
        """The same, and what came of it: empty, or why it was refused."""
        number = self.asks(name, seen, **args)
        await self.until(lambda: number in self.answers)
        return self.answers[number]

    def clipped(self) -> Floats:
        """``[N, D]``: the targets, NaN where none was posted."""
        return np.array([each.target for each in self.moments])

    def noted(self, kind: str, values: Mapping[str, Any]) -> None: ...

    def ticked(self) -> None:
        control, record = self.up.control, self.up.records.newest()
        phase = "" if self.hand_over is None else self.hand_over.phase.name
        held, stop = any(each.held for each in self.leaders), str(self.up.stopping.phase)
        self.moments.append(Moment(record, control.state, control.reason, phase, control.speed, held, stop))


@dataclass(frozen=True)
class Both:
    """Two listeners of a control loop."""

    first: LoopListener
    second: LoopListener

    def noted(self, kind: str, values: Mapping[str, Any]) -> None:
        self.first.noted(kind, values)
        self.second.noted(kind, values)

    def ticked(self) -> None:
        self.first.ticked()
        self.second.ticked()


Script = Callable[[Small], Awaitable[None]]


def _watched(small: Small, folder: Path, script: Script) -> Any:
    """`dexrun.assembly.open_robot`, and beside it what a person does, and a look at every tick."""
    opened = assembly.open_robot

    async def look() -> None:
        place = 0
        while True:
            await small.up.control.ticked()
            if small.run is not None:
                with contextlib.suppress(NoRunError):
                    place, answers = small.run.answers_since(place)
                    small.answers.update({each["id"]: each["error"] for each in answers})

    async def play() -> None:
        try:
            await small.up.control.ticked()
            with contextlib.closing(AttachedRun.attach(live_runs(folder)[0], small.up.clock)) as small.run:
                await script(small)
        except Exception as error:
            small.errors.append(error)
            raise

    @contextlib.asynccontextmanager
    async def open_robot(settings: Settings, clock: Clock) -> AsyncIterator[Robot]:
        async with opened(settings, clock) as small.robot, anyio.create_task_group() as beside:
            small.robot.control.tell(small)
            beside.start_soon(look)
            beside.start_soon(play)
            yield small.robot
            beside.cancel_scope.cancel()

    return open_robot


@contextlib.asynccontextmanager
async def _no_table(*_: Any) -> AsyncIterator[None]:
    yield None


@contextlib.contextmanager
def _in_place(
    small: Small, folder: Path, script: Script, policy: Any, builder: Callable[..., Builder] | None
) -> Iterator[app.Opener]:
    @contextlib.asynccontextmanager
    async def mode_watched(robot: Robot, *rest: Any) -> AsyncIterator[Mode]:
        _, small.record, recording = rest
        if recording is not None:
            robot.control.tell(Both(small, recording))
        async with open_mode(robot, *rest) as small.mode:
            yield small.mode

    with contextlib.ExitStack() as replaced:
        replaced.enter_context(mock.patch.object(app, "open_robot", _watched(small, folder, script)))
        if builder is not None:
            replaced.enter_context(mock.patch.object(assembly, "_Builder", builder))
            replaced.enter_context(mock.patch.object(assembly, "open_tabletop", _no_table))
        if policy is not None:
            replaced.enter_context(mock.patch.object(policies, "build_policy", return_value=policy))
        yield mode_watched


def perform(
    folder: Path,
    script: Script,
    policy: Any = None,
    tables: str = ARMS + WRIST,
    builder: Callable[..., Builder] = Builder,
    **keys: str,
) -> Small:
    """One run in a folder of its own, with `script` beside it."""
    file, runs = folder / "config.toml", folder / "runs"
    file.write_text(tables.format(runs=runs, cube="[]"))
    given = {
        "mode": "rollout",
        "panel__share": "always",
        "recording__rollout": "false",
        "recording__teleop": "false",
        "recording__episodes": "99",
        "recording__episode_s": "60",
        **TINY["act"],
        "policy__type": "act",
        "policy__cameras": '["wrist"]',
        "policy__blend": "latest",
        **keys,
    }
    if given["mode"] == "teleop":
        given = {name: value for name, value in given.items() if not name.startswith("policy")}
    words = [word for name, value in given.items() for word in (f"--{name.replace('__', '.')}", value)]
    words = ["--config", str(file), "--task", "rush", *words]
    return watched(runs, words, script, policy or Rush(), builder)


def watched(
    runs: Path,
    words: list[str],
    script: Script,
    policy: Any = None,
    builder: Callable[..., Builder] | None = None,
) -> Small:
    """One run of a command line, with `script` beside it; by default with its own parts."""
    small = Small()
    with _in_place(small, runs, script, policy, builder) as opener:
        small.code = app.run(load(words, {}), None, opener)
    if small.errors:
        raise small.errors[0]
    small.summary = json.loads((newest(runs) / "summary.json").read_text())
    return small
