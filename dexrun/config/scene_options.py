"""What stands on the table and does not move."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from drivers.world.layout import fixed_boxes
from runtime.options import Options
from runtime.table_model import FixedBox

Length = Annotated[float, Field(gt=0, le=5)]


class BoxOptions(Options):
    """Something that the arms keep off, as a box in the frame that they stand in.

    Attributes:
        name: for a person.
        center_m: its middle. size_m: its whole lengths along x, y and z, before it is turned.
        yaw_rad: by how much it is turned about the vertical.
    """

    name: str = ""
    center_m: tuple[float, float, float]
    size_m: tuple[Length, Length, Length]
    yaw_rad: float = 0.0


class SceneOptions(Options):
    """Table ``[scene]``: what stands on the table and does not move; it counts as the table does.

    Attributes:
        boxes: each a box; something hollow, such as a tray, is its walls.
        tray: whether the simulated table's tray counts, where a simulated arm works.
    """

    boxes: tuple[BoxOptions, ...] = ()
    tray: bool = True

    def fixed(self, *, simulated: bool) -> tuple[FixedBox, ...]:
        """All of it; `simulated` says whether an arm is on the simulated table."""
        own = tuple(FixedBox(box.center_m, box.size_m, box.yaw_rad) for box in self.boxes)
        return (*own, *(fixed_boxes() if simulated and self.tray else ()))
