"""The part: its table, and how it is built."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from drivers.force.options import SerialForceOptions
from runtime.part_context import DeviceContext

if TYPE_CHECKING:
    from drivers.force.driver import SerialForce


class ForceConfig(SerialForceOptions):
    """A sensor that streams its channels over a serial port by itself."""

    is_default: ClassVar[bool] = True

    def build(self, context: DeviceContext) -> SerialForce:
        from drivers.force.driver import SerialForce

        return SerialForce(context.name, self, context.clock)
