"""What the control loop follows: chunks become rows of the horizon, the next one is asked for in time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

from runtime.blends import blend_from
from runtime.control_options import LoopOptions
from runtime.engagement import Engagement
from runtime.horizon import Horizon
from runtime.inputs import LeaderSource
from runtime.interfaces import ChunkSource, StartingSource
from runtime.messages import ActionChunk, Floats, PolicyStatus
from runtime.pilot import Pilot
from runtime.requests import RequestTiming
from runtime.snapshots import State, recall_known, remember
from runtime.statistics import RunStatistics
from runtime.tick import TickFlag

Source = ChunkSource | LeaderSource

_STATE = ("_chunk_rows", "_taken", "_pressing", "_anew")


@runtime_checkable
class Asked(Protocol):
    """A source that is asked for something: which attempt it is, and at what, in words."""

    number: int
    instruction: str


@dataclass(frozen=True, slots=True)
class AttemptStatus:
    """What the source that is followed said last of how it stands; nothing of an older epoch counts."""

    status: PolicyStatus = PolicyStatus.RUNNING
    why: str = ""
    reasoning: str = ""


def shortened(chunk: ActionChunk, step: int, execute_steps: int) -> ActionChunk:
    """`chunk` with at most `execute_steps` rows from `step` on; 0 leaves it whole."""
    if not execute_steps:
        return chunk
    rows = max(0, step - chunk.step) + execute_steps
    return replace(chunk, actions=chunk.actions[:rows])


def pilot_of(source: Source | None) -> Pilot:
    """Who drives while `source` is followed."""
    if source is None:
        return Pilot.NOBODY
    if isinstance(source, LeaderSource):
        return Pilot.PERSON
    return Pilot.POLICY if getattr(source, "delivered", None) is None else Pilot.MOTION


def described(source: Source | None) -> dict[str, Any]:
    """What a replay must know of a source; and of a policy's, what it is asked to do."""
    delivered = getattr(source, "delivered", None)
    kind = "leader" if isinstance(source, LeaderSource) else "none" if source is None else "chunks"
    about: dict[str, Any] = {
        "source": kind,
        "finite": delivered is not None,
        "delivered": bool(delivered),
    }
    if isinstance(source, Asked):
        about.update(instruction=source.instruction, attempt=source.number)
    return about


class FollowedSource:
    """One source after the other, and of each the next row.

    Of the loop's task alone; its ticks call `drain`, `row` (where it runs) and `ask`, in this order.

    Args:
        note: told of every chunk that came and of every request that was taken, for a replay.

    Attributes:
        source: what is followed; ``None``: nothing.
        horizon: rows left and steps executed.
        attempt: how the source stands, as its newest chunk says.
        refused: why a piece of the finite source that is followed could not be taken (`Splice.verdict`), or
            ``""``.
    """

    def __init__(
        self,
        joints: int,
        options: LoopOptions,
        grippers: Sequence[int],
        statistics: RunStatistics,
        note: Callable[..., None],
    ) -> None:
        self.source: Source | None = None
        self.attempt = AttemptStatus()
        self.horizon = Horizon(joints, blend_from(options), options.horizon_rows, options.rate_hz, grippers)
        self._options = options
        self._statistics = statistics
        self._note = note
        self._timing = RequestTiming()
        self.refused = ""
        self._chunk_rows = 0
        self._taken: Floats | None = None
        self._keeps = True
        self._pressing = self._anew = False

    def begin(self, source: Source) -> int:
        """Follow `source` from its beginning; returns the new epoch: what is of an older one is dropped."""
        self.source, self._chunk_rows = source, 0
        self._taken, self.refused = None, ""
        self._anew = False
        self.attempt = AttemptStatus()
        self._timing.restart()
        return self.horizon.restart()

    def leave(self) -> None:
        """Follow nothing."""
        self.source = None
        self.horizon.restart()

    @property
    def delivered(self) -> bool:
        """Whether the source is finite, and has given all of it."""
        return bool(getattr(self.source, "delivered", False))

    @property
    def exhausted(self) -> bool:
        """Whether a finite source was followed to its last row."""
        return self.delivered and not self.refused and len(self.horizon) == 0

    @property
    def starting(self) -> bool:
        """Whether the source cannot give anything yet; it has a deadline of its own."""
        return isinstance(self.source, StartingSource) and bool(self.source.unready)

    @property
    def chunks(self) -> ChunkSource | None:
        """The source, where it gives chunks."""
        return None if isinstance(self.source, LeaderSource) else self.source

    @property
    def leader(self) -> LeaderSource | None:
        """The source, where it is a leader arm."""
        return self.source if isinstance(self.source, LeaderSource) else None

    def drain(self, tick: int) -> None:
        """Splice what has arrived."""
        source = self.chunks
        if source is None:
            return
        while (chunk := source.poll()) is not None:
            self._note("chunk", chunk=chunk)
            if chunk.epoch == self.horizon.epoch:
                self._timing.arrived(tick)
                self.attempt = AttemptStatus(
                    chunk.status, chunk.why, chunk.reasoning or self.attempt.reasoning
                )
                if not len(chunk.actions) and chunk.status is not PolicyStatus.RUNNING:
                    continue  # that it has ended is all it says
            chunk = shortened(chunk, self.horizon.open_step, self._options.execute_steps)
            splice = self.horizon.splice(chunk)
            self._statistics.spliced(splice.verdict, splice.seam, chunk.inference_s)
            if splice.verdict == "spliced":
                self._chunk_rows = len(chunk.actions)
            elif hasattr(source, "delivered") and chunk.epoch == self.horizon.epoch:
                self.refused = splice.verdict

    def row(
        self, now_ns: int, tick: int, previous: Floats, engagement: Engagement
    ) -> tuple[Floats | None, TickFlag]:
        """What is asked for now, ``[D]``, and how it came about; ``None`` where there is nothing.

        While the `engagement` waits for the joints, which were sent to `previous` ``[D]`` last, the row that
        was taken last stays.
        """
        if (leader := self.leader) is not None:
            row = leader.target(now_ns)
            return row, TickFlag.LEADER if row is not None else TickFlag.LEADER | TickFlag.STARVED
        horizon, speed, taken = self.horizon, 1.0, self._taken
        if taken is not None:
            if self.exhausted:
                return taken, TickFlag.NONE
            if engagement.active and engagement.waits(taken, previous, finite=self.delivered):
                return taken, TickFlag.NONE
        if self._options.stretch and not self.delivered:  # a prepared motion is all there
            speed = self._timing.speed(
                tick, horizon.step, horizon.left, self._chunk_rows, horizon.rows_per_tick
            )
        row = horizon.take(speed)
        self._taken = row if self._keeps else None
        if row is not None or self.exhausted:
            return row, TickFlag.STRETCHED if speed < 1.0 else TickFlag.NONE
        return None, TickFlag.STARVED if self._chunk_rows else TickFlag.WAITING

    def ask(self, tick: int, *, pressing: bool = False) -> None:
        """Ask for the next chunk once the horizon is short, or just lasts for the slowest late inference.

        And once the force limit has begun to change what is asked for, since something is `pressing`: what
        was planned before does not go on from there.
        """
        self._anew = self._anew or (pressing and not self._pressing)
        self._pressing = pressing
        source = self.chunks
        if source is None or self.attempt.status is not PolicyStatus.RUNNING:
            return
        horizon, delay = self.horizon, self._timing.delay
        left = len(horizon)
        if left and horizon.rows_per_tick < 1.0 and self._timing.asked_at(horizon.step):
            return  # the policy counts steps, too: one request for each at most
        if self._anew or left <= max(
            self._options.request_below * self._chunk_rows, horizon.reached_in(delay + 1)
        ):
            frozen = min(horizon.reached_in(delay), left)
            if source.request(horizon.step, horizon.epoch, horizon.pending(), frozen):
                self._anew = False
                self._timing.asked(tick, horizon.step)
                self._note("request")

    def snapshot(self) -> State:
        """What is remembered between ticks, for `restore`; a part of the loop's own."""
        return {
            **remember(self, _STATE),
            "_refused": self.refused,
            **described(self.source),
            "horizon": self.horizon.snapshot(),
            "timing": self._timing.snapshot(),
            "status": str(self.attempt.status),
        }

    def restore(self, state: State, source: Source | None) -> None:
        """Go on from where another one was at its `snapshot`, following `source`."""
        self._keeps = "_taken" in state  # loops kept no row before they engaged
        recall_known(self, _STATE, state)
        self.refused = state.get("_refused", "")
        self.horizon.restore(state["horizon"])
        self._timing.restore(state["timing"])
        self.attempt = AttemptStatus(PolicyStatus(state.get("status", PolicyStatus.RUNNING)))
        self.source = source
