"""The simulated tabletop, when its process dies: time goes on, and the arm is stopped."""

from __future__ import annotations

from collections.abc import Mapping

from loguru import logger

from drivers.world.client import WorldClient, WorldError
from runtime.messages import Decision
from runtime.supervisor import Trouble


class Lifeline:
    """Implements `runtime.stepped.Simulation` for a `WorldClient`, whose failures it keeps to itself.

    Raised into the clock they would tear down the loop, and nothing could be let go of in order any more.
    On the real clock nobody advances the world, and `trouble` looks after its process.

    Args:
        names: what the configuration calls the devices, by the world's own words for their wires.

    Attributes:
        failure: why the world moves no more; ``""`` while it does.
    """

    def __init__(self, world: WorldClient, names: Mapping[str, str]) -> None:
        self._world = world
        self._names = names
        self.failure = ""

    def next_event_ns(self) -> int | None:
        return None if self.failure else self._world.next_event_ns()

    def advance(self, to_ns: int) -> Mapping[str, int]:
        if self.failure:
            return {}
        try:
            sent = self._world.advance(to_ns)
        except WorldError as error:
            self.failure = str(error)
            logger.error("{}", error)
            return {}
        return {self._names.get(wire, wire): units for wire, units in sent.items()}

    def trouble(self) -> Trouble | None:
        """What the control loop has to know. Asked in every tick: a system call that does not wait."""
        if not self.failure and (ended := self._world.ended()):
            self.failure = ended
            logger.error("{}", ended)
        return (Decision.STOP, self.failure) if self.failure else None
