"""What must hold where an address is the simulated tabletop's.

Each raises ``ValueError`` whose message begins with the key that is wrong.
"""

from __future__ import annotations

from pydantic import ValidationError

from dexrun.config.addresses import WORLD_ADDRESS, in_world
from dexrun.config.settings import Settings
from drivers.world.config import CAMERAS, WIRES, arm_wire, leader_wire
from runtime.body import RobotDescription


def world_addresses(settings: Settings) -> None:
    """There is such a simulated device, and it is of that kind."""
    arms = tuple(arm_wire(name) for name in settings.followers())
    leaders = tuple(leader_wire(name) for name in settings.followers())
    wires = dict.fromkeys(settings.arm_tables(), arms) | dict.fromkeys(settings.all_leader_tables(), leaders)
    devices = {**settings.all_leader_tables(), **settings.device_tables()}
    for name, device in devices.items():
        if not in_world(device.address):
            continue
        key = next(iter(device.addresses()))
        there = wires.get(name) or WIRES.get(device.driver) or (*CAMERAS, *WIRES["serial"])
        if device.address.removeprefix(WORLD_ADDRESS) not in there:
            known = ", ".join(f"{WORLD_ADDRESS}{each}" for each in there)
            raise ValueError(
                f"{name}.{key} = {device.address!r}: the simulated tabletop has no such device for "
                f"driver {device.driver!r}; give {known}"
            )


def world_cameras(settings: Settings) -> None:
    """What is asked of a simulated camera is what one can show."""
    for name, camera in settings.cameras.items():
        address = camera.address
        options = CAMERAS.get(address.removeprefix(WORLD_ADDRESS)) if in_world(address) else None
        if options is None:
            continue
        try:
            options(width=camera.width, height=camera.height, fps=camera.fps)
        except ValidationError as error:
            wrong = error.errors()[0]
            key = f"cameras.{name}.{wrong['loc'][0]}"
            raise ValueError(
                f"{key} = {wrong['input']:g}: simulated, it {wrong['msg'].removeprefix('Input ')}"
            ) from None


def world_pose(settings: Settings, robot: RobotDescription) -> None:
    """The simulated arm can stand where it is to."""
    if not settings.simulated:
        return
    from drivers.world.physics import start_joints
    from drivers.world.scene import sensing_arm

    try:
        start_joints(settings.world, robot)
        sensing_arm(settings.world, robot)
    except ValueError as error:
        raise ValueError(f"world.{error}") from None
