"""The part: ``[leader]`` with ``driver = "jog"``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from drivers.jog.options import JogOptions
from runtime.part_context import ArmContext

if TYPE_CHECKING:
    from drivers.jog.driver import JogLeader


class JogConfig(JogOptions):
    """A leader without an arm, for teleoperation and for taking over: keys, a gamepad, or a hand in space."""

    def build(self, context: ArmContext) -> JogLeader:
        from drivers.jog.driver import JogLeader

        return JogLeader(self, context)
