"""An arm that goes where it is told at once, and the control loop on top, on a stepped clock."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import anyio
import numpy as np

from runtime.control import ControlLoop
from runtime.control_options import LoopOptions
from runtime.inputs import Watch
from runtime.messages import ActionChunk, Clip, Decision, Floats
from runtime.ports import Safety
from runtime.ring import Mailbox, Ring, Sample
from runtime.statistics import RunStatistics
from runtime.stepped import SteppedClock
from runtime.tick import TickFlag, tick_layout

D = 3
MS = 1_000_000
TICK = 10 * MS
"""The rig's loop runs at 100 Hz, so that ticks are whole milliseconds."""

STATES = dict.fromkeys(("position", "velocity", "load"), ((D,), "<f8"))


@dataclass
class Outcome:
    target: Floats
    clips: Clip = Clip.NONE
    stop_reason: str | None = None


class Guard:
    """A safety stage that lets everything pass, unless told otherwise, and notes what it was asked."""

    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []
        self.resets = self.gaps = 0
        self.lasts: list[tuple[float, float]] = []
        self.unsent_s = 0.0
        self.speed = 1.0
        self.rule: Callable[[Floats], Outcome] = lambda requested: Outcome(requested.copy())

    def apply(
        self,
        requested: Floats,
        present: Floats,
        previous: Floats,
        force_n: Floats | None,
        load: Floats | None,
        dt_s: float,
    ) -> Outcome:
        force = None if force_n is None else force_n.copy()
        self.calls.append(
            {"present": present.copy(), "previous": previous.copy(), "force": force, "dt_s": dt_s}
        )
        return self.rule(requested)

    def rehearse(self, *values: object) -> None:
        """Nothing to go through."""

    def reset(self) -> None:
        self.resets += 1

    def interrupted(self) -> None:
        self.gaps += 1

    def lasted(self, dt_s: float, passed_s: float) -> None:
        self.lasts.append((dt_s, passed_s))

    def slowing(self, previous: Floats, dt_s: float) -> Floats:
        return previous

    def limit_speed(self, share: float) -> None:
        self.speed = share

    def unsent(self, force_n: Floats | None, dt_s: float) -> str | None:
        self.unsent_s += dt_s
        return None


class Arm:
    def __init__(self) -> None:
        self.states = Ring(STATES, 16)
        self.targets = Mailbox({"position": ((D,), "<f8")})


class Chunks:
    """A source that answers a request with `make(step)`, at `rate_hz`, after `delay` further polls."""

    def __init__(
        self, make: Callable[[int], list[float] | Floats], delay: int = 0, rate_hz: float = 0.0
    ) -> None:
        self._make, self._delay, self._rate_hz = make, delay, rate_hz
        self.requests: list[tuple[int, int, list[float], int]] = []
        self._in_flight: list[tuple[int, ActionChunk]] = []

    def request(self, step: int, epoch: int, committed: Floats, frozen_steps: int) -> bool:
        if self._in_flight:
            return False
        self.requests.append((step, epoch, committed[:, 0].tolist(), frozen_steps))
        rows = np.asarray(self._make(step), float)
        actions = np.repeat(rows[:, None], D, 1) if rows.ndim == 1 else rows
        self._in_flight.append(
            (self._delay, ActionChunk(actions, step, epoch, 0, 0.01, rate_hz=self._rate_hz))
        )
        return True

    def poll(self) -> ActionChunk | None:
        self._in_flight = [(left - 1, chunk) for left, chunk in self._in_flight]
        if self._in_flight and self._in_flight[0][0] < 0:
            return self._in_flight.pop(0)[1]
        return None


class Motion(Chunks):
    """One chunk, and no more."""

    delivered = False

    def __init__(self, rows: list[float]) -> None:
        super().__init__(lambda step: rows)

    def request(self, step: int, epoch: int, committed: Floats, frozen_steps: int) -> bool:
        return not self.requests and super().request(step, epoch, committed, frozen_steps)

    def poll(self) -> ActionChunk | None:
        chunk = super().poll()
        self.delivered = self.delivered or chunk is not None
        return chunk


async def finished(loop: ControlLoop) -> bool:
    """Wait until the source is exhausted (``True``), or will not be (``False``): stopped, or refused."""
    while not loop.exhausted:
        if loop.state == "stopped" or loop.refused:
            return False
        await loop.ticked()
    return True


@dataclass
class Rig:
    options: dict[str, Any] = field(default_factory=dict)
    watches: tuple[Watch, ...] = ()
    force: Ring | None = None
    sent: Ring | None = None
    arm: Any = field(default_factory=Arm)
    stage: Safety | None = None

    def __post_init__(self) -> None:
        self.clock = SteppedClock()
        if self.sent is not None:
            self.arm.sent = self.sent
        self.guard = Guard()
        self.statistics = RunStatistics()
        self.fault: tuple[Decision, str] | None = None
        self.alive = True
        self.reach = np.inf  # the servos get no farther, whatever they are asked for
        self.records = Ring(tick_layout(D, 2 if self.force else 0), 4096)
        settings = {
            "rate_hz": 100,
            "follow_blend_s": 0,
            "engage_speed_rad_s": 1e15,
            "state_max_age_s": 0.025,
            **self.options,
        }
        self.loop = ControlLoop(
            self.clock,
            LoopOptions.model_validate(settings),
            self.arm,
            self.stage or self.guard,
            self.statistics,
            force=self.force,
            watches=self.watches,
            faults=lambda: self.fault,
            records=self.records,
            grippers=(D - 1,),
        )

    def _device(self) -> None:
        """5 ms before each tick: take the newest target and be there; publish unless not alive."""
        position = np.zeros(D)
        due = 5 * MS
        while True:
            self.clock.wait_until_ns(due)
            target = self.arm.targets.take()
            if target is not None and self.alive:
                position = np.minimum(target["position"], self.reach)
            if self.alive:
                self.arm.states.push(due, position=position, velocity=0, load=0)
            due += TICK

    def run(self, main: Callable[[], Awaitable[None]]) -> None:
        """Run `main` beside the loop and, if there is one arm, the device."""

        async def everything() -> None:
            if isinstance(self.arm, Arm):
                self.clock.spawn("arm", self._device)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self.loop.run)
                await main()
                self.loop.close()

        self.clock.run(everything)

    async def ticks(self, count: int) -> None:
        for _ in range(count):
            await self.loop.ticked()

    def history(self) -> list[Sample]:
        cursor = self.records.reader("oldest")
        out = []
        while (sample := cursor.next()) is not None:
            out.append(sample)
        return out

    def requested(self) -> list[float]:
        """First joint of what was requested at each tick."""
        return [round(float(s["requested"][0]), 9) for s in self.history()]

    def flags(self) -> list[TickFlag]:
        return [TickFlag(int(s["flags"])) for s in self.history()]
