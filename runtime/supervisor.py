"""Whether the control loop runs, holds or stands: the state machine, without the arm."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import anyio

from runtime.clock import NS_PER_S
from runtime.messages import Decision
from runtime.snapshots import State, recall_known, remember

_STATE = ("state", "reason", "trouble", "_asked", "_latched", "_final", "_parking")

Trouble = tuple[Decision, str]
"""What is wrong, and what it asks for."""

_TROUBLE = {Decision.RETRY: 0, Decision.HOLD: 1, Decision.STOP: 2}


@dataclass(frozen=True, slots=True)
class Transition:
    """A change of state or of its reason."""

    tick: int
    stamp_ns: int
    state: str
    reason: str


class Patience:
    """Says when something has lasted too long."""

    def __init__(self, limit_s: float) -> None:
        self.limit_s = limit_s
        self.since_ns: int | None = None

    def tried(self, lasting: bool, now_ns: int) -> bool:
        """Whether it lasts for `limit_s` by now; a limit of 0 is never reached."""
        if not lasting:
            self.since_ns = None
            return False
        if self.since_ns is None:
            self.since_ns = now_ns
        return self.limit_s > 0 and now_ns - self.since_ns >= self.limit_s * NS_PER_S


class Supervisor:
    """States: ``"idle"``, ``"running"``, ``"holding"``, ``"parking"``, ``"stopped"`` (see
    `runtime.control.ControlLoop`).

    `trouble` says what the newest tick was asked for by what is wrong: 0 nothing, 1 hold, 2 stop.

    A latched stop wins over parking, parking over trouble, trouble over a hold that was asked for. With
    `parks` what lasts too long parks the arm, if it can move; `parked` then latches the stop. Whoever asks to
    hold has it stand where it is: then it is not parked, and if it was on the way, that is where it ends.

    A stop that may be reset becomes one that may not (`final`) by any other that comes while it is latched.
    """

    def __init__(
        self,
        hold_limit_s: float,
        starve_limit_s: float,
        faults: Callable[[], Trouble | None],
        *,
        parks: bool = False,
    ) -> None:
        self.state, self.reason = "idle", ""
        self.trouble = 0
        self.transitions: deque[Transition] = deque(maxlen=256)
        self._faults = faults
        self._holding = Patience(hold_limit_s)
        self._starving = Patience(starve_limit_s)
        self._asked = ""
        self._latched, self._final = "", False
        self._parks, self._parking = parks, ""
        self._changed = anyio.Event()

    def hold(self, reason: str) -> None:
        """Hold until `resume`."""
        self._asked = reason
        if self._parking:
            self.parked(f"not parked: {reason}")

    def resume(self) -> None:
        """End what `hold` began."""
        self._asked = ""

    def stop(self, reason: str, *, resettable: bool = False) -> None:
        """Latch; the first reason stays, and what made the stop final is said behind it."""
        if resettable and self._parking:  # what lasted too long was on its way to a stop that is final
            reason, resettable = f"{self._parking}; not parked: {reason}", False
        if not self._latched:
            self._latched, self._final = reason, not resettable
        elif not (resettable or self._final):
            self._latched, self._final = f"{self._latched}; {reason}", True

    def reset(self) -> None:
        """Forget the latch and how long anything lasted."""
        self._latched, self._parking, self._final = "", "", False
        self._holding.tried(lasting=False, now_ns=0)
        self._starving.tried(lasting=False, now_ns=0)

    def parked(self, how: str) -> None:
        """The arm was brought away, or could not be: latch the stop that this was for."""
        self.stop(f"{self._parking}; {how}")

    def give_up(self, reason: str) -> None:
        """Something lasted too long: park the arm, if that is configured, and latch a stop."""
        if not self._parks or self._latched:
            self.stop(reason)
        elif self._asked:
            self.stop(f"{reason}; not parked: {self._asked}")
        else:
            self._parking = self._parking or reason

    @property
    def latched(self) -> str:
        """Why a stop is latched, from the moment that it is asked for; empty where none is."""
        return self._latched

    @property
    def final(self) -> bool:
        """Whether a stop is latched that was not said to be one that may be reset."""
        return self._final

    def snapshot(self) -> State:
        """What is remembered between ticks, for `restore`."""
        patience = {"holding": self._holding.since_ns, "starving": self._starving.since_ns}
        return {**remember(self, _STATE), **patience}

    def restore(self, state: State) -> None:
        """Go on from where another one was at its `snapshot`; an earlier version knew no final stops."""
        recall_known(self, _STATE, state)
        self._holding.since_ns, self._starving.since_ns = state["holding"], state["starving"]

    def starved(self, starved: bool, now_ns: int) -> None:
        """Once a tick: whether the source had nothing. Latches a stop if that lasts."""
        if self._starving.tried(starved, now_ns):
            self.give_up(f"no action for {self._starving.limit_s:g} s")

    def decide(
        self, tick: int, now_ns: int, input_trouble: str | None, *, following: bool, movable: bool = True
    ) -> str:
        """The state of this tick; returns the one of the tick before.

        `input_trouble` says which input is missing or too old, if one is; `movable`, whether it is known
        where the arm is.
        """
        trouble = self._worst(input_trouble)
        self.trouble = 0 if trouble is None else _TROUBLE[trouble[0]]
        if trouble is not None and trouble[0] is Decision.STOP:
            self.stop(trouble[1])
        elif self._holding.tried(trouble is not None, now_ns) and trouble is not None:
            self.give_up(f"{trouble[1]} (held for {self._holding.limit_s:g} s)")
        if self._parking and not movable:
            self.parked("not parked: it is not known where the arm is")
        before = self.state
        self._enter(tick, now_ns, *self._choose(trouble, following))
        return before

    def _worst(self, input_trouble: str | None) -> Trouble | None:
        """A fault before what follows from it: it names the port."""
        fault = self._faults()
        if fault is not None and fault[0] is not Decision.RETRY:
            return fault
        return None if input_trouble is None else (Decision.HOLD, input_trouble)

    def _choose(self, trouble: Trouble | None, following: bool) -> tuple[str, str]:
        if self._latched:
            return "stopped", self._latched
        if self._parking:
            return "parking", self._parking
        if trouble is not None:
            return "holding", trouble[1]
        if self._asked:
            return "holding", self._asked
        return ("running", "") if following else ("idle", "")

    def _enter(self, tick: int, now_ns: int, state: str, reason: str) -> None:
        if (state, reason) != (self.state, self.reason):
            self.state, self.reason = state, reason
            self.transitions.append(Transition(tick, now_ns, state, reason))
            self._changed.set()
            self._changed = anyio.Event()

    async def changed(self) -> None:
        """Wait until state or reason change."""
        await self._changed.wait()
