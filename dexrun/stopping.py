"""A person's stop: latched until somebody resets it, and nothing moves until somebody has the run go on.

``ready`` -> `PersonsStop.stop` -> ``latched`` -> `reset` -> ``reset`` -> `go_on` -> ``ready``; `stop` leads
to ``latched`` from everywhere. What was being done when it came is broken off (`dexrun.modes.mode.Mode`); the
run waits here until it goes on, or is to end. A stop by a fault or by the safety stage is not this one's: it
ends the run, also where it comes while this one is latched.

Stops are numbered. Who resets, or has the run go on, names the newest one that he has seen: what was asked
for before it, and came late, has no effect.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import anyio
from loguru import logger

from runtime.clock import NS_PER_S, Clock
from runtime.control import ControlLoop
from runtime.recording.recorder import EpisodeError

_ALLOWED = frozenset({"label", "success", "failure", "discard", "keep", "help", "speed"})
"""What may be asked for in any phase, as keys, requests and pages name it: nothing moves by it."""


class StopPhase(enum.StrEnum):
    """How the newest stop stands."""

    READY = "ready"
    LATCHED = "latched"
    RESET = "reset"


class PersonsStop:
    """Everything is called on the loop, and happens at once.

    Attributes:
        phase: of the newest stop. number: how many there were.
        log: what became of each, for ``summary.json``.
        stamp_ns: when the newest one came.
    """

    def __init__(self, control: ControlLoop, clock: Clock) -> None:
        self.phase = StopPhase.READY
        self.number, self.stamp_ns = 0, -1
        self.log: list[dict[str, Any]] = []
        self._control = control
        self._clock = clock
        self._began_ns = clock.now_ns()
        self._work = anyio.CancelScope()
        self._broken_off = self._ending = False
        self._decided = anyio.Event()

    # --- what a person may ask for

    def stop(self, by: str) -> None:
        """Brake, and latch. Always possible; asked for again, only what was seen before it gets old."""
        self._control.stop(f"stopped by {by}", brakes=True, resettable=True)
        self.number += 1
        self.stamp_ns = self._clock.now_ns()
        if self.phase is not StopPhase.LATCHED:
            self._broken_off = self.phase is StopPhase.RESET  # nothing goes on since the stop before
            self.phase = StopPhase.LATCHED
            self.log.append({"by": by, "t_s": self._now_s()})
            logger.warning("stopped by {}: latched", by)
        self._work.cancel()

    def reset(self, by: str, seen: int | None) -> None:
        """Release the latch; the arm stays held where it is.

        Args:
            by: who asks.
            seen: the number of the newest stop that he knows of.

        Raises:
            EpisodeError: it cannot be reset, or `seen` is not the newest.
        """
        if why := self.unresettable():
            raise EpisodeError(why)
        self._check(seen)
        self._control.reset_latch()
        self._control.hold(f"the stop was reset by {by}; nothing moves until somebody resumes")
        self.phase = StopPhase.RESET
        self.log[-1].update(reset_by=by, reset_s=self._now_s())
        logger.warning("the stop was reset by {}", by)

    def go_on(self, by: str, seen: int | None) -> None:
        """After `reset`: what the mode does may move the arm again, as at the beginning.

        Raises:
            EpisodeError: nothing was reset, or `seen` is not the newest stop.
        """
        if self.phase is not StopPhase.RESET:
            raise EpisodeError("no stop was reset")
        self._check(seen)
        self.phase = StopPhase.READY
        self._control.resume()
        self.log[-1].update(resumed_by=by, resumed_s=self._now_s())
        logger.warning("{} has the run go on", by)
        self._decide()

    def quit(self) -> bool:
        """The run is to end; whether it waits here, and nobody else needs to be told."""
        self._ending = True
        self._decide()
        return self.phase is not StopPhase.READY

    def commands(self) -> Mapping[str, Callable[[], None]]:
        """The terminal's keys, by command; who presses one there has seen everything."""
        return {
            "estop": lambda: self.stop("the terminal"),
            "reset": lambda: self.reset("the terminal", self.number),
            "go_on": lambda: self.go_on("the terminal", self.number),
        }

    @property
    def help(self) -> str:
        """The keys, for a person."""
        return "e emergency stop, r reset it, g go on after that"

    # --- what is so

    def hinders(self, name: str) -> str:
        """Why `name` cannot be asked for now; ``""`` if a stop is no reason."""
        if self.phase is StopPhase.READY or name in _ALLOWED:
            return ""
        if self.phase is StopPhase.LATCHED:
            return f"{self._control.latched}: reset the stop first"
        return "the stop was reset: resume first"

    def unresettable(self) -> str:
        """Why the stop cannot be reset now; ``""`` if it can."""
        control = self._control
        if control.final:
            return f"{control.latched}: that is no stop to be reset, and ends the run; start it anew"
        if self.phase is not StopPhase.LATCHED:
            return "no stop is latched"
        if not control.known:
            return "it is not known where the arm is: the stop cannot be reset"
        if not self._broken_off or control.state != "stopped" or control.braking:
            return "the arm is being braked; reset the stop once it stands"
        return ""

    def state(self) -> dict[str, Any] | None:
        """For pages and the HTTP API; ``None`` as long as nobody has stopped the arm."""
        if not self.log:
            return None
        newest = self.log[-1]
        now = {"number": self.number, "phase": str(self.phase), "by": newest["by"], "t_s": newest["t_s"]}
        return {**now, "unresettable": self.unresettable() if self.phase is StopPhase.LATCHED else ""}

    def _check(self, seen: int | None) -> None:
        if seen is None:
            raise EpisodeError(f"say which stop is meant: the newest is number {self.number}")
        if seen != self.number:
            raise EpisodeError(f"stop number {seen} is not the newest, which is {self.number}: look again")

    def _now_s(self) -> float:
        return round((self._clock.now_ns() - self._began_ns) / NS_PER_S, 3)

    # --- the application's

    @contextmanager
    def breaks_off(self) -> Iterator[anyio.CancelScope]:
        """What goes on within is cancelled as soon as somebody stops the arm."""
        with anyio.CancelScope() as self._work:
            if self.phase is not StopPhase.READY:  # it came before there was anything to break off
                self._work.cancel()
            yield self._work

    async def braked(self) -> None:
        """Until the arm stands. Who wants the end does not wait for an arm that says nothing."""
        control = self._control
        while (control.state != "stopped" or control.braking) and (control.known or not self._ending):
            await control.ticked()
        await control.ticked()  # once more, so that a recording has it at rest

    async def decided(self) -> bool:
        """What went on is broken off: wait until somebody has the run go on (``True``), or end."""
        self._broken_off = True
        while self.phase is not StopPhase.READY and not self._ending:
            await self._decided.wait()
        return not self._ending

    def _decide(self) -> None:
        self._decided.set()
        self._decided = anyio.Event()
