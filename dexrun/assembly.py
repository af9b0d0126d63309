"""Puts a robot together: the simulated world if one is addressed, drivers on their threads, the control loop.

Everything is brought up in order of need and taken down in reverse, whatever happens in between.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import anyio
from loguru import logger

from dexrun.config.addresses import WORLD_ADDRESS, in_world
from dexrun.config.settings import Settings
from dexrun.devices import build_arm, build_cameras
from dexrun.simulation.lifeline import Lifeline
from drivers.feetech.calibration import Calibration, JointCalibration
from drivers.feetech.config import FeetechConfig
from drivers.feetech.driver import FeetechArm
from drivers.force.driver import SerialForce
from drivers.opencv_camera.config import Calibration as PinholeCalibration
from drivers.opencv_camera.config import OpenCvConfig
from drivers.realsense.config import RealSenseConfig
from drivers.world.config import WorldConfig
from runtime.arm_model import ArmModel
from runtime.clock import NS_PER_S, Clock
from runtime.control import ControlLoop, LoopOptions, Watch, tick_layout
from runtime.device import DeviceThread
from runtime.faults import FaultLog, FaultPolicy
from runtime.interfaces import CameraDriver, Driver
from runtime.messages import CameraInfo, Decision, DeviceError, FaultKind
from runtime.realtime import Realtime
from runtime.ring import Ring
from runtime.safety import SafetyStage
from runtime.statistics import RunStatistics
from runtime.stepped import SteppedClock
from runtime.teardown import boxed

if TYPE_CHECKING:
    from drivers.world.client import WorldClient

_RECORD_SECONDS = 20
_CLOSE_WORLD_S = 10.0
_COUNTED_ELSEWHERE = ("tares", "silent")
"""What drivers count that is no fault, or is reported as one besides."""


@dataclass
class Robot:
    """Everything that a mode works with.

    Attributes:
        threads: one per device that runs, by name.
        model: of the arm, for the loop's own thread; others take a copy.
        world: the simulated tabletop, if any device is its.
        realtime: its `collect` is for when the arm rests and follows nothing: a late tick hurts nobody.
    """

    settings: Settings
    clock: Clock
    arm: FeetechArm
    leader: FeetechArm | None
    cameras: dict[str, CameraDriver]
    force: SerialForce | None
    control: ControlLoop
    safety: SafetyStage
    model: ArmModel
    records: Ring
    statistics: RunStatistics
    faults: FaultPolicy
    world: WorldClient | None = None
    threads: dict[str, DeviceThread] = field(default_factory=dict)
    realtime: Realtime = field(default_factory=Realtime)

    @property
    def drivers(self) -> dict[str, Driver]:
        """Every device, by its name in the configuration."""
        return {name: thread.driver for name, thread in self.threads.items()}

    def survived(self) -> dict[str, Mapping[str, int]]:
        """Faults that the drivers dealt with by themselves."""
        counted = {name: driver.statistics() for name, driver in self.drivers.items()}
        return {
            name: {kind: times for kind, times in kinds.items() if kind not in _COUNTED_ELSEWHERE}
            for name, kinds in counted.items()
        }


@contextlib.asynccontextmanager
async def open_robot(settings: Settings, clock: Clock) -> AsyncIterator[Robot]:
    """A robot whose devices deliver and whose control loop ticks, holding the arm where it is.

    Raises:
        DeviceError: a device is not there; nothing has moved.
        drivers.world.client.WorldError: the simulated tabletop does not start.
    """
    async with contextlib.AsyncExitStack() as stack:
        world = await _open_world(settings, clock, stack)
        lifeline = None if world is None else Lifeline(world)
        if lifeline is not None and isinstance(clock, SteppedClock):
            clock.attach(lifeline)
        robot = _build(settings, clock, world, lifeline)
        for name, driver in _wanted(robot):
            thread = DeviceThread(driver, clock, _reporter(robot), robot.faults.recovered, settings.devices)
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


# --- the simulated world


async def _open_world(
    settings: Settings, clock: Clock, stack: contextlib.AsyncExitStack
) -> WorldClient | None:
    if not settings.simulated:
        return None
    from drivers.world.client import WorldClient

    logger.info("starting the simulated tabletop")
    client = WorldClient(_world_as_configured(settings), clock, settings.force)
    stack.push_async_callback(_close_world, client, clock)
    await clock.run_blocking(client.wait_ready)
    _ = client.head  # the emulated camera must be plugged in before anybody looks for it
    return client


async def _close_world(client: WorldClient, clock: Clock) -> None:
    if isinstance(clock, SteppedClock):
        clock.detach()
    await boxed("the simulated tabletop", _CLOSE_WORLD_S, lambda: clock.run_blocking(client.close))


def _world_as_configured(settings: Settings) -> WorldConfig:
    """The world's cameras are where, and as large as, the configured cameras say."""
    world = settings.world
    for name, camera in settings.cameras.items():
        if isinstance(camera, RealSenseConfig) and camera.serial == f"{WORLD_ADDRESS}head":
            placed = {} if camera.extrinsics is None else _placement(name, camera)
            size = {"width": camera.width, "height": camera.height, "fps": camera.fps}
            world = world.model_copy(update={"head": world.head.model_copy(update={**size, **placed})})
        elif isinstance(camera, OpenCvConfig) and camera.source == f"{WORLD_ADDRESS}wrist":
            size = {"width": camera.width, "height": camera.height, "fps": camera.fps}
            world = world.model_copy(update={"wrist": world.wrist.model_copy(update=size)})
    return world


def _placement(name: str, camera: RealSenseConfig) -> dict[str, Any]:
    where = camera.extrinsics
    if where is None or where.position_m is None or where.look_at_m is None:
        raise DeviceError(
            name,
            FaultKind.UNSUPPORTED,
            camera.serial,
            "the simulated camera is placed by position_m and look_at_m",
        )
    return {"position_m": where.position_m, "look_at_m": where.look_at_m}


def _real_addresses(settings: Settings, world: WorldClient | None) -> Settings:
    """`settings` with every ``world:`` address replaced by the one that the world opened.

    Raises:
        DeviceError: the world has no such device.
    """
    if world is None:
        return settings
    addresses = world.addresses

    def real(device: str, address: str) -> str:
        if not in_world(address):
            return address
        name = address.removeprefix(WORLD_ADDRESS)
        if name not in addresses:
            known = ", ".join(WORLD_ADDRESS + each for each in sorted(addresses))
            raise DeviceError(device, FaultKind.NOT_FOUND, address, f"the simulated tabletop has {known}")
        return addresses[name]

    update: dict[str, Any] = {"arm": _with(settings.arm, "port", real("arm", settings.arm.port))}
    if settings.leader is not None:
        update["leader"] = _with(settings.leader, "port", real("leader", settings.leader.port))
    if settings.force is not None:
        update["force"] = _with(settings.force, "port", real("force", settings.force.port))
    cameras: dict[str, Any] = {}
    for name, camera in settings.cameras.items():
        key = "serial" if isinstance(camera, RealSenseConfig) else "source"
        address = getattr(camera, key)
        camera = _with(camera, key, real(name, address) if isinstance(address, str) else address)
        wire = str(address).removeprefix(WORLD_ADDRESS)
        cameras[name] = _calibrated(camera, world.camera_infos.get(wire)) if wire != address else camera
    return settings.model_copy(update={**update, "cameras": cameras})


def _calibrated(camera: Any, info: CameraInfo | None) -> Any:
    """A simulated colour camera's intrinsics, as a lab would have measured them, unless configured."""
    if info is None or not isinstance(camera, OpenCvConfig) or camera.calibration is not None:
        return camera
    pinhole = info.intrinsics
    measured = PinholeCalibration(
        fx_px=pinhole.fx,
        fy_px=pinhole.fy,
        cx_px=pinhole.cx,
        cy_px=pinhole.cy,
        distortion=pinhole.coefficients,
    )
    return _with(camera, "calibration", measured)


def _with(options: Any, key: str, value: object) -> Any:
    return options.model_copy(update={key: value})


# --- the robot


def _build(
    configured: Settings, clock: Clock, world: WorldClient | None, lifeline: Lifeline | None = None
) -> Robot:
    settings = _real_addresses(configured, world)
    arm = build_arm("arm", settings.arm, clock, _calibration(configured.arm, world))
    leader = None
    if settings.leader is not None and configured.leader is not None and settings.mode == "teleop":
        leader = build_arm("leader", settings.leader, clock, _calibration(configured.leader, world))
    contexts = {} if world is None else _contexts(settings, world)
    cameras = build_cameras(settings.cameras, clock, contexts)
    force = SerialForce("force", settings.force, clock) if settings.force is not None else None
    model = ArmModel()
    statistics = RunStatistics()
    faults = FaultPolicy(settings.faults, clock, FaultLog())
    rate = settings.control.rate_hz
    channels = settings.force.channels if settings.force is not None else 0
    records = Ring(tick_layout(model.joints, channels), max(64, round(_RECORD_SECONDS * rate)))
    safety = SafetyStage(settings.safety, model)
    control = ControlLoop(
        clock,
        LoopOptions.of(settings.control, settings.policy),
        arm,
        safety,
        statistics,
        force=force.samples if force is not None else None,
        watches=_watches(settings, cameras, force),
        faults=faults.active if lifeline is None else lambda: lifeline.trouble() or faults.active(),
        records=records,
        grippers=model.grippers,
    )
    return Robot(
        settings,
        clock,
        arm,
        leader,
        cameras,
        force,
        control,
        safety,
        model.copy(),
        records,
        statistics,
        faults,
        world,
    )


def _calibration(configured: FeetechConfig, world: WorldClient | None) -> Calibration | None:
    """What a simulated arm brings along. A real one has a file of its own: another's could be burnt in."""
    if world is None or not in_world(configured.port):
        return None
    return {name: JointCalibration(**entry) for name, entry in world.calibration.items()}


def _contexts(settings: Settings, world: WorldClient) -> dict[str, Any]:
    serial = world.head.serial
    return {
        name: world.realsense_context
        for name, camera in settings.cameras.items()
        if isinstance(camera, RealSenseConfig) and camera.serial == serial
    }


def _watches(
    settings: Settings, cameras: Mapping[str, CameraDriver], force: SerialForce | None
) -> list[Watch]:
    """Sensors without whose fresh data the arm must not move."""
    watches = [Watch(name, cameras[name].frames, settings.grasp.stale_camera_s) for name in _needed(settings)]
    if force is not None:
        watches.append(Watch("force", force.samples, settings.grasp.stale_force_s))
    return watches


def _needed(settings: Settings) -> list[str]:
    return [settings.grasp.head] if settings.mode == "grasp" else []


def _wanted(robot: Robot) -> list[tuple[str, Driver]]:
    wanted: list[tuple[str, Driver]] = [("arm", robot.arm)]
    if robot.leader is not None:
        wanted.append(("leader", robot.leader))
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
    rings = {"arm": robot.arm.states, **{name: camera.frames for name, camera in robot.cameras.items()}}
    if robot.leader is not None:
        rings["leader"] = robot.leader.states
    if robot.force is not None:
        rings["force"] = robot.force.samples
    for name, ring in rings.items():
        robot.statistics.meter(name, ring)
    await _all_deliver(robot, rings)


async def _all_deliver(robot: Robot, rings: Mapping[str, Ring]) -> None:
    limit_s = robot.settings.devices.first_data_s
    deadline_ns = robot.clock.now_ns() + round(limit_s * NS_PER_S)
    while silent := [name for name, ring in rings.items() if ring.newest_stamp_ns() is None]:
        if robot.clock.now_ns() >= deadline_ns:
            name = silent[0]
            robot.faults.log.count(name, FaultKind.SILENT)
            where = _address(robot.settings, name)
            raise DeviceError(
                name, FaultKind.SILENT, where, f"it is open, and has sent nothing for {limit_s:g} s"
            )
        await robot.clock.sleep_until_ns(robot.clock.now_ns() + NS_PER_S // 100)


def _address(settings: Settings, name: str) -> str:
    camera = settings.cameras.get(name)
    if camera is None:
        device = settings.serial_devices()[name]
        return device.serial_number or device.port
    return str(camera.serial if isinstance(camera, RealSenseConfig) else camera.source)
