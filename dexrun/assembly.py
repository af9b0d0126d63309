"""Puts a robot together: the simulated tabletop if one is addressed, drivers on threads, the control loop.

Everything is brought up in order of need and taken down in reverse, whatever happens in between.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Mapping

import anyio

from dexrun.config.settings import Settings
from dexrun.robot import Robot
from dexrun.simulation.tabletop import SimulatedTabletop, open_tabletop
from drivers.arms.choice import robot_of_all
from runtime.arm_model import ArmModel
from runtime.arms import arms_as_one, leaders_as_one
from runtime.beat import Beat
from runtime.clock import NS_PER_S, Clock
from runtime.control import ControlLoop
from runtime.control_options import LoopOptions
from runtime.device import DeviceThread
from runtime.faults import FaultLog, FaultPolicy
from runtime.inputs import Watch
from runtime.interfaces import ArmDriver, CameraDriver, Driver, ForceDriver, LeaderDriver
from runtime.latest import Latest
from runtime.messages import Decision, DeviceError, FaultKind
from runtime.part_context import ArmContext, DeviceContext
from runtime.parts import DeviceTable
from runtime.ring import Ring
from runtime.safety import SafetyStage
from runtime.statistics import RunStatistics
from runtime.tick import tick_layout

_RECORD_SECONDS = 20
_TO_SAY_WHY_S = 0.5
"""Longer than a device's own deadline: what it says then is better than that nothing came."""


@contextlib.asynccontextmanager
async def open_robot(settings: Settings, clock: Clock) -> AsyncIterator[Robot]:
    """A robot whose devices deliver and whose control loop ticks, holding the arm where it is.

    Raises:
        DeviceError: a device is not there; nothing has moved.
        drivers.world.client.WorldError: the simulated tabletop does not start.
    """
    async with contextlib.AsyncExitStack() as stack:
        tabletop = await stack.enter_async_context(open_tabletop(settings, clock))
        robot = _build(settings, clock, tabletop)
        for name, driver in _wanted(robot):
            thread = DeviceThread(
                driver,
                clock,
                _reporter(robot),
                robot.faults.recovered,
                settings.devices,
                None if clock.stepped else settings.realtime,
            )
            robot.threads[name] = thread
            stack.push_async_callback(thread.stop)
        await _start_all(robot)
        yield robot


def _reporter(robot: Robot) -> Callable[[DeviceError], Decision]:
    """Counts a device's faults. One that cannot be opened at the start ends the run, which tells of it."""

    def report(error: DeviceError) -> Decision:
        if robot.threads[error.device].state == "opening":
            robot.faults.log.count(error.device, error.kind)
            return Decision.STOP
        return robot.faults.device(error)

    return report


# --- the robot


class _Builder:
    """Makes drivers of tables whose addresses are real by now; what is lent goes by the configured ones."""

    def __init__(
        self, configured: Settings, clock: Clock, model: ArmModel, tabletop: SimulatedTabletop | None
    ) -> None:
        self.settings = configured if tabletop is None else tabletop.addressed(configured)
        self._configured: Mapping[str, DeviceTable] = configured.device_tables()
        self._clock = clock
        self._model = model
        self._tabletop = tabletop
        self.beat: Latest[Beat] = Latest()

    def _lent(self, key: str) -> object:
        return None if self._tabletop is None else self._tabletop.lent(self._configured[key].address)

    def _arm_context(self, key: str, follower: Ring | None = None) -> ArmContext:
        _, _, name = key.partition(".")
        tables = {**self.settings.arm_tables(), **self.settings.all_leader_tables()}
        others = {other: table for other, table in tables.items() if other != key}
        joints, model = self._model.layout.part(name), self._model
        return ArmContext(
            key,
            self._clock,
            self._lent(key),
            self.beat,
            joints=joints,
            others=others,
            arm_model=lambda: model.arm(name),
            follower=follower,
        )

    def arms(self) -> dict[str, ArmDriver]:
        tables = self.settings.arm_tables()
        return {key: table.build(self._arm_context(key)) for key, table in tables.items()}

    def leaders(self, arms: Mapping[str, ArmDriver]) -> dict[str, LeaderDriver]:
        tables = self.settings.leader_tables()
        led = dict(zip(tables, arms.values(), strict=True)) if tables else {}
        return {key: table.build(self._arm_context(key, led[key].states)) for key, table in tables.items()}

    def cameras(self) -> dict[str, CameraDriver]:
        return {
            name: camera.build(DeviceContext(name, self._clock, self._lent(f"cameras.{name}"), self.beat))
            for name, camera in self.settings.cameras.items()
        }

    def force(self) -> ForceDriver | None:
        table = self.settings.force
        if table is None:
            return None
        return table.build(DeviceContext("force", self._clock, self._lent("force"), self.beat))


def _build(configured: Settings, clock: Clock, tabletop: SimulatedTabletop | None) -> Robot:
    description = robot_of_all(configured.followers())
    model = description.model(boxes=configured.fixed_boxes)
    builder = _Builder(configured, clock, model, tabletop)
    settings = builder.settings
    arms = builder.arms()
    leaders, cameras, force = builder.leaders(arms), builder.cameras(), builder.force()
    arm = arms_as_one(arms)
    statistics = RunStatistics()
    faults = FaultPolicy(settings.faults, clock, FaultLog())
    rate = settings.control.rate_hz
    channels = settings.force.channels if settings.force is not None else 0
    records = Ring(tick_layout(model.joints, channels), max(64, round(_RECORD_SECONDS * rate)))
    safety = SafetyStage(settings.safety, model)
    control = ControlLoop(
        clock,
        LoopOptions.of(settings.control, settings.policy, settings.engage_speed_rad_s),
        arm,
        safety,
        statistics,
        force=force.samples if force is not None else None,
        watches=_watches(settings, cameras, force),
        faults=faults.active if tabletop is None else lambda: tabletop.lifeline.trouble() or faults.active(),
        records=records,
        grippers=model.grippers,
        holders=model.fingers.joints.tolist(),
        beat=builder.beat,
    )
    return Robot(
        settings,
        clock,
        arms,
        leaders,
        arm,
        leaders_as_one(leaders),
        cameras,
        force,
        control,
        safety,
        model.copy(),
        description,
        records,
        statistics,
        faults,
        None if tabletop is None else tabletop.client,
    )


def _watches(
    settings: Settings, cameras: Mapping[str, CameraDriver], force: ForceDriver | None
) -> list[Watch]:
    """Sensors without whose fresh data the arm must not move."""
    watches = [Watch(name, cameras[name].frames, settings.grasp.stale_camera_s) for name in _needed(settings)]
    if force is not None:
        watches.append(Watch("force", force.samples, settings.grasp.stale_force_s))
    return watches


def _needed(settings: Settings) -> list[str]:
    if settings.mode == "rollout":
        return list(dict.fromkeys(need.camera for need in settings.policy.needs_cameras()))
    return [settings.grasp.head] if settings.mode == "grasp" else []


def _wanted(robot: Robot) -> list[tuple[str, Driver]]:
    wanted: list[tuple[str, Driver]] = [*robot.arms.items(), *robot.leaders.items()]
    wanted += list(robot.cameras.items())
    if robot.force is not None:
        wanted.append(("force", robot.force))
    return wanted


async def _start_all(robot: Robot) -> None:
    """Open every device at once, and wait until all deliver; the first that cannot be opened ends it all.

    Raises:
        DeviceError: that one's; ``silent``: open, and nothing comes.
    """
    failures: list[DeviceError] = []

    async def start(thread: DeviceThread) -> None:
        try:
            await thread.start()
        except DeviceError as error:
            failures.append(error)

    async with anyio.create_task_group() as group:
        for thread in robot.threads.values():
            group.start_soon(start, thread)
    if failures:
        raise failures[0]
    rings = {name: arm.states for name, arm in robot.arms.items()}
    rings.update({name: camera.frames for name, camera in robot.cameras.items()})
    rings.update({name: leader.states for name, leader in robot.leaders.items()})
    if robot.force is not None:
        rings["force"] = robot.force.samples
    for name, ring in rings.items():
        robot.statistics.meter(name, ring)
    await _all_deliver(robot, rings)


async def _all_deliver(robot: Robot, rings: Mapping[str, Ring]) -> None:
    """Wait for the first data of every device, each as long as it may take."""
    begun_ns, clock = robot.clock.now_ns(), robot.clock
    limits_s = {name: _longest_start_s(robot.settings, name) for name in rings}
    while silent := [name for name, ring in rings.items() if ring.newest_stamp_ns() is None]:
        for name in silent:
            if clock.now_ns() - begun_ns >= round(limits_s[name] * NS_PER_S):
                raise _no_data(robot, name, limits_s[name])
        await clock.sleep_until_ns(clock.now_ns() + NS_PER_S // 100)


def _longest_start_s(settings: Settings, name: str) -> float:
    own_s = _table(settings, name).longest_start_s()
    return max(settings.devices.first_data_s, own_s + _TO_SAY_WHY_S if own_s else 0.0)


def _no_data(robot: Robot, name: str, limit_s: float) -> DeviceError:
    """What the device itself said, if it said anything."""
    if (error := robot.faults.newest.get(name)) is not None:
        return error
    robot.faults.log.count(name, FaultKind.SILENT)
    detail = f"it is open, and has sent nothing for {limit_s:g} s"
    return DeviceError(name, FaultKind.SILENT, _table(robot.settings, name).address, detail)


def _table(settings: Settings, name: str) -> DeviceTable:
    tables = settings.device_tables()
    return tables.get(name) or tables[f"cameras.{name}"]
