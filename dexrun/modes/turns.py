"""Whose turn it is in a mode that works by itself, and what waits while a person has the arm."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator

import anyio

from dexrun.modes.hand_over import DrivingPhase
from runtime.clock import NS_PER_S, Clock
from runtime.control import ControlLoop


class ModeTurns:
    """Follows the phases of a `HandOver`. Time limits made here run in the mode's own turns alone.

    Attributes:
        mine: whether it is the mode's turn.
        lost: how often it was taken from the mode. driven: how often a person drove meanwhile.
    """

    def __init__(self, clock: Clock, control: ControlLoop) -> None:
        self._clock = clock
        self._control = control
        self._limits: dict[anyio.CancelScope, float] = {}
        self._lost_ns, self._others_ns = 0, clock.now_ns()
        self.mine = True
        self.lost = self.driven = 0

    def changed(self, phase: DrivingPhase) -> None:
        """Told every new phase, at once."""
        self.driven += phase is DrivingPhase.PERSON
        mine = phase is DrivingPhase.POLICY
        if mine == self.mine:
            return
        self.mine, now_ns = mine, self._clock.now_ns()
        if mine:
            self._others_ns += now_ns - self._lost_ns
            passed_s = (now_ns - self._lost_ns) / NS_PER_S
            for limit, deadline in self._limits.items():
                limit.deadline = deadline + passed_s
            return
        self.lost, self._lost_ns = self.lost + 1, now_ns
        for limit in self._limits:
            self._limits[limit], limit.deadline = limit.deadline, math.inf

    async def wait(self) -> None:
        """Until it is the mode's turn, and the arm stands still."""
        while not (self.mine and self._control.resting):
            await self._control.ticked()

    def own_s(self) -> float:
        """How long it was the mode's turn so far."""
        now_ns = self._clock.now_ns()
        return (now_ns - self._others_ns - (0 if self.mine else now_ns - self._lost_ns)) / NS_PER_S

    @contextlib.contextmanager
    def at_most(self, seconds: float) -> Iterator[anyio.CancelScope]:
        """As `anyio.move_on_after`, less the time that is not the mode's turn."""
        with anyio.move_on_after(seconds) as limit:
            self._limits[limit] = limit.deadline
            if not self.mine:  # what passed of the others' turn before is not given back
                self._limits[limit] -= (self._clock.now_ns() - self._lost_ns) / NS_PER_S
                limit.deadline = math.inf
            try:
                yield limit
            finally:
                del self._limits[limit]
