"""The objects on the simulated table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from drivers.world.faults import Fault

if TYPE_CHECKING:
    from drivers.world.client import WorldClient


def put_back(world: WorldClient) -> None:
    """Put every object where it was at the beginning. Off the loop."""
    for entry in world.objects:
        world.inject(
            Fault(device="table", kind="move", object=entry["name"], x_m=entry["x_m"], y_m=entry["y_m"])
        )
