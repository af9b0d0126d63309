"""The simulated tabletop of a run: started where a device is addressed as its, and what it lends to drivers.

Drivers know nothing of it: their tables get the addresses that the tabletop opened, and what it lends them
stands in for what a person knows of real hardware.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping
from typing import Any

from loguru import logger

from dexrun.config.addresses import WORLD_ADDRESS, in_world
from dexrun.config.settings import Settings
from dexrun.simulation.lifeline import Lifeline
from drivers.feetech.options import FeetechOptions
from drivers.force.config import ForceConfig
from drivers.world.client import WorldClient
from drivers.world.config import CAMERAS, WorldConfig
from runtime.clock import Clock
from runtime.messages import DeviceError, FaultKind
from runtime.parts import CameraTable, DeviceTable
from runtime.stepped import SteppedClock
from runtime.teardown import boxed
from runtime.units import MIDDLE

HEAD = f"{WORLD_ADDRESS}head"
_CLOSE_S = 10.0


class SimulatedTabletop:
    """A tabletop that runs.

    Attributes:
        client: talks to its process.
        lifeline: stops the arm when that process dies.
    """

    def __init__(self, client: WorldClient, names: Mapping[str, str]) -> None:
        self.client = client
        self.lifeline = Lifeline(client, names)

    def addressed(self, settings: Settings) -> Settings:
        """`settings` with every ``world:`` address replaced by the one that was opened for it.

        Afterwards ``teleop.scripted`` alone says whether there is a leader for the scripted operator.

        Raises:
            DeviceError: there is no such device.
        """
        update: dict[str, Any] = {
            "cameras": dict(settings.cameras),
            "arms": dict(settings.arms),
            "leaders": dict(settings.leaders),
            "teleop": settings.teleop.model_copy(update={"scripted": settings.scripted}),
        }
        for key, table in settings.device_tables().items():
            group, _, name = key.partition(".")
            if name:
                update[group][name] = self._found(name if group == "cameras" else key, table)
            else:
                update[key] = self._found(key, table)
        return settings.model_copy(update=update)

    def _found(self, device: str, table: DeviceTable) -> DeviceTable:
        if not in_world(table.address):
            return table
        key, address = next(iter(table.addresses().items()))
        addresses = self.client.addresses
        name = address.removeprefix(WORLD_ADDRESS)
        if name not in addresses:
            known = ", ".join(WORLD_ADDRESS + each for each in sorted(addresses))
            raise DeviceError(device, FaultKind.NOT_FOUND, address, f"the simulated tabletop has {known}")
        return table.model_copy(update={key: addresses[name]})

    def lent(self, address: str) -> Any:
        """What the driver of the device at `address` gets along (`runtime.part_context.DeviceContext.lent`).

        Nothing where the address is not the tabletop's: an arm's calibration could be burnt into another.
        """
        if not in_world(address):
            return None
        name = address.removeprefix(WORLD_ADDRESS)
        if name in self.client.calibration:
            middles = self.client.middles_rad[name]
            return {
                joint: {**entry, **({MIDDLE: middles[joint]} if joint in middles else {})}
                for joint, entry in self.client.calibration[name].items()
            }
        if address == HEAD:
            return self.client.realsense_context
        info = self.client.camera_infos.get(name)
        return None if info is None else info.intrinsics


@contextlib.asynccontextmanager
async def open_tabletop(settings: Settings, clock: Clock) -> AsyncIterator[SimulatedTabletop | None]:
    """The tabletop, standing; ``None`` if no device that the mode opens is its.

    Raises:
        drivers.world.client.WorldError: it does not start.
        DeviceError: a camera cannot be put where the configuration says.
    """
    if not settings.simulated:
        yield None
        return
    logger.info("starting the simulated tabletop")
    force = settings.force if isinstance(settings.force, ForceConfig) else None  # whose wire it speaks
    speeds = {
        table.address.removeprefix(WORLD_ADDRESS): table.baudrate
        for table in {**settings.arm_tables(), **settings.leader_tables()}.values()
        if isinstance(table, FeetechOptions)
    }
    client = WorldClient(as_configured(settings), clock, force, settings.followers(), speeds)
    try:
        await clock.run_blocking(client.wait_ready)
        _ = client.head  # the emulated camera must be plugged in before anybody looks for it
        tabletop = SimulatedTabletop(client, _names(settings))
        if isinstance(clock, SteppedClock):
            clock.attach(tabletop.lifeline)
        yield tabletop
    finally:
        await close(client, clock)


async def close(client: WorldClient, clock: Clock) -> None:
    """Take the tabletop down. Time-boxed."""
    if isinstance(clock, SteppedClock):
        clock.detach()
    await boxed("the simulated tabletop", _CLOSE_S, lambda: clock.run_blocking(client.close))


def as_configured(settings: Settings) -> WorldConfig:
    """The world's cameras are where, and as large as, the configured cameras say."""
    world = settings.world
    for name, camera in settings.cameras.items():
        wire = camera.address.removeprefix(WORLD_ADDRESS)
        if in_world(camera.address) and wire in CAMERAS:
            update: dict[str, Any] = {"width": camera.width, "height": camera.height, "fps": camera.fps}
            if camera.address == HEAD and camera.extrinsics is not None:
                update.update(_placement(name, camera))
            changed = getattr(world, wire).model_copy(update=update)
            world = world.model_copy(update={wire: changed})
    return world


def _names(settings: Settings) -> dict[str, str]:
    """The cameras' names by their wires: the tabletop's head camera may be called anything."""
    addresses = {name: camera.address for name, camera in settings.cameras.items()}
    return {each.removeprefix(WORLD_ADDRESS): name for name, each in addresses.items() if in_world(each)}


def _placement(name: str, camera: CameraTable) -> dict[str, Any]:
    where = camera.extrinsics
    if where is None or where.position_m is None or where.look_at_m is None:
        raise DeviceError(
            name,
            FaultKind.UNSUPPORTED,
            camera.address,
            "the simulated camera is placed by position_m and look_at_m",
        )
    return {"position_m": where.position_m, "look_at_m": where.look_at_m}
