"""The control loop: once per tick, one safe joint target. No I/O, no waiting, no image-sized memory."""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import anyio
import numpy as np
from pydantic import Field

from runtime.blends import BlendOptions, blend_from
from runtime.clock import NS_PER_S, Clock
from runtime.horizon import CAPACITY, Horizon
from runtime.interfaces import ChunkSource
from runtime.messages import Clip, Decision, Floats
from runtime.pacer import Pacer
from runtime.ring import Layout, Mailbox, Ring, Sample
from runtime.statistics import RunStatistics


class ControlOptions(BlendOptions):
    """Table ``[control]``.

    Attributes:
        rate_hz: ticks per second.
        request_below: a new chunk is asked for once no more than this share of the last one is left
            (LeRobot's ``chunk_size_threshold``); 1 asks at every tick, as ACT's temporal ensemble wants.
        state_max_age_s: the arm's state may be this old.
        stop_after_hold_s: a fault that lasts this long latches a stop; 0 holds for ever.
        follow_blend_s: how long a new source, or the one gone back to, is faded in from where the arm is.
        horizon_rows: rows that the horizon holds at most; a prepared motion must fit in.
    """

    rate_hz: float = Field(default=30.0, gt=0, le=1000)
    request_below: float = Field(default=0.5, ge=0, le=1)
    state_max_age_s: float = Field(default=0.1, gt=0)
    stop_after_hold_s: float = Field(default=10.0, ge=0)
    follow_blend_s: float = Field(default=0.3, ge=0)
    horizon_rows: int = Field(default=CAPACITY, ge=1024)


class SafetyOutcome(Protocol):
    """What the safety stage answers: a target that may be sent, why it differs, and why to stop, if so."""

    @property
    def target(self) -> Floats: ...

    @property
    def clips(self) -> Clip: ...

    @property
    def stop_reason(self) -> str | None: ...


class Safety(Protocol):
    """`runtime.safety.SafetyStage`, as far as the loop knows it."""

    def apply(
        self,
        requested: Floats,
        present: Floats,
        previous: Floats,
        force_n: Floats | None,
        load: Floats | None,
        dt_s: float,
    ) -> SafetyOutcome:
        """The target to send in place of `requested`."""

    def reset(self) -> None:
        """The next target starts from rest."""


class ArmPort(Protocol):
    """What the loop needs of `runtime.interfaces.ArmDriver`.

    A driver that knows what it wrote may also have a ring ``sent`` with field ``position`` ``[D]``, in the
    robot's units and stamped at the write; otherwise what was posted is recorded as sent.
    """

    @property
    def states(self) -> Ring: ...

    @property
    def targets(self) -> Mailbox: ...


@dataclass(frozen=True, slots=True)
class Watch:
    """A sensor without whose fresh data the arm must not move on its own."""

    name: str
    ring: Ring
    max_age_s: float


class LeaderSource:
    """A leader arm as the source of targets: field ``position`` of `states`, at most `max_age_s` old.

    `convert` maps the leader's joints to the follower's, ``[D]`` to ``[D]``.
    """

    def __init__(
        self, states: Ring, max_age_s: float = 0.1, convert: Callable[[Floats], Floats] | None = None
    ) -> None:
        self._states = states
        self._max_age_ns = round(max_age_s * NS_PER_S)
        self._convert = convert
        self._sample: Sample | None = None

    def target(self, now_ns: int) -> Floats | None:
        """The newest position, or ``None`` if it is too old."""
        sample = self._states.newest(self._sample)
        if sample is None or now_ns - sample.stamp_ns > self._max_age_ns:
            return None
        self._sample = sample
        position: Floats = sample["position"]
        return position.copy() if self._convert is None else self._convert(position)


Source = ChunkSource | LeaderSource


class TickFlag(enum.IntFlag):
    """What was special about a tick, in its record.

    ``STARVED``: the source had nothing in time; ``WAITING``: its first chunk has not come yet.
    """

    NONE = 0
    STARVED = 1
    HOLDING = 2
    STOPPED = 4
    IDLE = 8
    STALE_STATE = 16
    LEADER = 32
    POSTED = 64
    BLENDING = 128
    SKIPPED_BEFORE = 256
    WAITING = 512


def tick_layout(joints: int, force_channels: int = 0) -> Layout:
    """Layout of the ring of tick records; a record is stamped with the tick's start.

    ``requested``, ``clipped`` (after safety), ``sent`` (what the driver wrote last before this tick ended,
    at ``sent_stamp_ns``), the arm's ``position``, ``velocity``, ``load`` at ``state_stamp_ns``, all float64
    ``[D]``; ``force`` ``[K]`` at ``force_stamp_ns``; ``clips`` (`Clip`), ``flags`` (`TickFlag`), ``tick``,
    ``step`` (rows executed), ``epoch``, ``horizon`` (rows left). What does not exist is NaN, or -1.
    """
    vectors = ("requested", "clipped", "sent", "position", "velocity", "load")
    numbers = ("state_stamp_ns", "sent_stamp_ns", "force_stamp_ns", "tick", "step", "epoch", "horizon")
    layout: dict[str, tuple[tuple[int, ...], str]] = dict.fromkeys(vectors, ((joints,), "<f8"))
    layout["force"] = ((force_channels,), "<f8")
    layout.update(dict.fromkeys((*numbers, "clips", "flags"), ((), "<i8")))
    return layout


@dataclass(frozen=True, slots=True)
class Transition:
    """A change of the loop's state."""

    tick: int
    stamp_ns: int
    state: str
    reason: str


def stale(newest_ns: int | None, now_ns: int, max_age_s: float) -> bool:
    """Whether the newest stamp is missing or too old."""
    return newest_ns is None or now_ns - newest_ns > max_age_s * NS_PER_S


def stale_watch(watches: Sequence[Watch], now_ns: int) -> str | None:
    """Why to hold: the first watched sensor without fresh data."""
    for watch in watches:
        if stale(watch.ring.newest_stamp_ns(), now_ns, watch.max_age_s):
            return f"{watch.name}: no data for {watch.max_age_s:g} s"
    return None


def fade(row: Floats, origin: Floats, left: int, total: int) -> Floats:
    """`row` faded in from `origin`, `left` of `total` ticks before the end."""
    share = (total - left + 1) / (total + 1)
    return np.asarray(origin + share * (row - origin))


Trouble = tuple[Decision, str]


class ControlLoop:
    """Follows a source of targets through the safety stage, 30 times a second.

    All methods are called on the loop's task or between its ticks, on the same thread.

    Attributes:
        state: ``"idle"`` (no source: holds where it is), ``"running"``, ``"holding"`` (asked for, or because
            of a fault), ``"stopped"`` (latched: holds until `reset_latch`).
        reason: why it holds or stopped; ``""`` otherwise.
        transitions: the newest changes of state.
        position: ``[D]`` the newest measured position; ``None`` before the first.
        target: ``[D]`` the last target that was posted; ``None`` before the first.
        horizon: rows left and steps executed.
    """

    def __init__(
        self,
        clock: Clock,
        options: ControlOptions,
        arm: ArmPort,
        safety: Safety,
        statistics: RunStatistics,
        *,
        force: Ring | None = None,
        watches: Sequence[Watch] = (),
        faults: Callable[[], Trouble | None] = lambda: None,
        records: Ring | None = None,
    ) -> None:
        self.state, self.reason = "idle", ""
        self.position: Floats | None = None
        self.target: Floats | None = None
        self.transitions: deque[Transition] = deque(maxlen=256)
        joints = arm.states.layout["position"][0][0]
        self.horizon = Horizon(joints, blend_from(options), options.horizon_rows)
        self._clock = clock
        self._options = options
        self._arm = arm
        self._safety = safety
        self._statistics = statistics
        self._force_ring, self._force = force, _channel(force)
        self._sent_ring, self._sent = _sent_ring(arm), _channel(_sent_ring(arm))
        self.watches = tuple(watches)
        self._faults = faults
        self._records = records
        self._pacer = Pacer(clock, options.rate_hz, statistics)
        self._arm_state = arm.states.blank()
        self._source: Source | None = None
        self._chunk_rows = 0
        self._delays: deque[int] = deque(maxlen=16)
        self._anchor: Floats | None = None
        self._fade_left, self._fade_ticks = 0, max(0, round(options.follow_blend_s * options.rate_hz))
        self._asked_hold = ""
        self._latched = ""
        self._trouble_since_ns: int | None = None
        self._fresh = False
        self._ending = False
        self._changed = anyio.Event()
        self._ticked = anyio.Event()
        self._nothing = np.full(joints, np.nan)

    # --- what a mode asks for

    def follow(self, source: Source) -> int:
        """Take targets from `source` from the next tick on, faded in; returns the new epoch.

        Chunks of the source followed before are of an older epoch, and dropped.
        """
        self._source = source
        self._chunk_rows = 0
        self._delays.clear()
        self._fade_in()
        return self.horizon.restart()

    def idle(self) -> None:
        """Follow nothing; hold the last target."""
        self._source = None
        self.horizon.restart()
        self._anchor = self.target

    def hold(self, reason: str = "asked to hold") -> None:
        """Hold the last target until `resume`; the horizon is kept and goes on from where it was."""
        self._asked_hold = reason

    def resume(self) -> None:
        """Go on after `hold`."""
        self._asked_hold = ""

    def stop(self, reason: str) -> None:
        """Latch a stop: hold until `reset_latch`. The first reason stays."""
        self._latched = self._latched or reason

    def reset_latch(self) -> None:
        """Forget the latched stop and what led to it; nothing is followed until `follow`."""
        self._latched = ""
        self._trouble_since_ns = None
        self._safety.reset()
        self.idle()

    def close(self) -> None:
        """Make `run` return after the present tick."""
        self._ending = True

    async def changed(self) -> None:
        """Wait until `state` or `reason` changes."""
        await self._changed.wait()

    async def ticked(self) -> None:
        """Wait until the next tick is done."""
        await self._ticked.wait()

    @property
    def exhausted(self) -> bool:
        """Whether a finite source (one with a true ``delivered``) was followed to its last row."""
        return bool(getattr(self._source, "delivered", False)) and len(self.horizon) == 0

    # --- the loop

    async def run(self) -> None:
        """Tick until `close`; the arm is left with its measured position as the target."""
        try:
            while not self._ending:
                self.tick(await self._pacer.next())
                self._pacer.finished()
        finally:
            self._settle()

    def tick(self, tick: int) -> None:
        """One tick: read, decide, request, make safe, post, record, ask for more."""
        now_ns = self._pacer.started_ns or self._clock.now_ns()
        flags = TickFlag.SKIPPED_BEFORE if tick > self._tick + 1 else TickFlag.NONE
        dt_s = (tick - self._tick) / self._options.rate_hz
        self._tick = tick
        self._read(now_ns)
        self._enter(now_ns, *self._decide(now_ns))
        self._drain()
        requested, more = self._request(now_ns)
        flags |= more
        clips = Clip.NONE
        if self._fresh:
            result = self._safety.apply(
                requested, self._arm_state["position"], self._previous(), self._force_n(), self._load(), dt_s
            )
            clips, flags = result.clips, flags | TickFlag.POSTED
            self._post(now_ns, result)
        self._account(flags, clips)
        self._record(now_ns, requested, clips, flags)
        self._ask()
        self._ticked.set()
        self._ticked = anyio.Event()

    _tick = -1

    def _read(self, now_ns: int) -> None:
        """Newest state and force. After a gap the arm may be anywhere: begin again from where it is."""
        known = self._arm.states.newest(self._arm_state) is not None
        fresh = known and not stale(self._arm_state.stamp_ns, now_ns, self._options.state_max_age_s)
        if fresh:
            self.position = self._arm_state["position"]
            if not self._fresh:
                self.target = self._anchor = self.position.copy()
                self._safety.reset()
                self._fade_in()
        self._fresh = fresh
        for ring, sample in ((self._force_ring, self._force), (self._sent_ring, self._sent)):
            if ring is not None and sample is not None:
                ring.newest(sample)

    def _decide(self, now_ns: int) -> tuple[str, str]:
        """State and reason of this tick; latches a stop where that is due."""
        trouble = self._trouble(now_ns)
        if trouble is None:
            self._trouble_since_ns = None
        else:
            since = now_ns if self._trouble_since_ns is None else self._trouble_since_ns
            self._trouble_since_ns = since
            limit_s = self._options.stop_after_hold_s
            if trouble[0] is Decision.STOP:
                self.stop(trouble[1])
            elif limit_s and now_ns - since >= limit_s * NS_PER_S:
                self.stop(f"{trouble[1]} (held for {limit_s:g} s)")
        if self._latched:
            return "stopped", self._latched
        if trouble is not None:
            return "holding", trouble[1]
        if self._asked_hold:
            return "holding", self._asked_hold
        return ("idle", "") if self._source is None else ("running", "")

    def _trouble(self, now_ns: int) -> Trouble | None:
        fault = self._faults()
        if fault is not None and fault[0] is Decision.STOP:
            return fault
        if not self._fresh:
            return Decision.HOLD, f"arm: no state for {self._options.state_max_age_s:g} s"
        if fault is not None and fault[0] is Decision.HOLD:
            return fault
        if self._source is None:
            return None
        late = stale_watch(self.watches, now_ns)
        return None if late is None else (Decision.HOLD, late)

    def _enter(self, now_ns: int, state: str, reason: str) -> None:
        if (state, reason) == (self.state, self.reason):
            return
        if state != self.state:
            if state == "running":
                self._fade_in()
            elif self.state == "running":
                self._anchor = self.target
        self.state, self.reason = state, reason
        self.transitions.append(Transition(self._tick, now_ns, state, reason))
        self._changed.set()
        self._changed = anyio.Event()

    def _fade_in(self) -> None:
        self._anchor = self.target
        self._fade_left = self._fade_ticks

    def _drain(self) -> None:
        """Splice what has arrived."""
        source = self._source
        if source is None or isinstance(source, LeaderSource):
            return
        while (chunk := source.poll()) is not None:
            splice = self.horizon.splice(chunk)
            self._statistics.spliced(splice.verdict, splice.seam, chunk.inference_s)
            if chunk.epoch == self.horizon.epoch:
                self._delays.append(self.horizon.step - chunk.tick)
            if splice.verdict == "spliced":
                self._chunk_rows = len(chunk.actions)

    def _request(self, now_ns: int) -> tuple[Floats, TickFlag]:
        """The requested target and how it came about."""
        if self.state != "running":
            flag = {"idle": TickFlag.IDLE, "stopped": TickFlag.STOPPED}.get(self.state, TickFlag.HOLDING)
            return self._hold_target(), flag | (TickFlag.NONE if self._fresh else TickFlag.STALE_STATE)
        row, flag = self._row(now_ns)
        if row is None:
            return self._previous(), flag
        if self._fade_left and self._anchor is not None:
            row = fade(row, self._anchor, self._fade_left, self._fade_ticks)
            self._fade_left -= 1
            flag |= TickFlag.BLENDING
        return row, flag

    def _row(self, now_ns: int) -> tuple[Floats | None, TickFlag]:
        if isinstance(self._source, LeaderSource):
            row, flag = self._source.target(now_ns), TickFlag.LEADER
        else:
            row, flag = self.horizon.take(), TickFlag.NONE
        if row is None:
            self._anchor = self.target
            if not self.exhausted:
                flag |= TickFlag.STARVED if self._chunk_rows or flag else TickFlag.WAITING
        return row, flag

    def _hold_target(self) -> Floats:
        return self._anchor if self._anchor is not None else self._previous()

    def _previous(self) -> Floats:
        """The target sent before; at first, the measured position."""
        return self.target if self.target is not None else self._nothing

    def _force_n(self) -> Floats | None:
        return self._force["force"] if self._force is not None and self._force.index >= 0 else None

    def _load(self) -> Floats:
        load: Floats = self._arm_state["load"]
        return load

    def _post(self, now_ns: int, result: SafetyOutcome) -> None:
        self.target = result.target
        self._arm.targets.post(now_ns, position=result.target)
        if result.stop_reason is not None:
            self.stop(result.stop_reason)
            self._anchor = result.target

    def _account(self, flags: TickFlag, clips: Clip) -> None:
        if clips:
            self._statistics.clipped(clips)
        self._statistics.starved += bool(flags & TickFlag.STARVED)
        self._statistics.waiting += bool(flags & TickFlag.WAITING)
        self._statistics.held += bool(flags & (TickFlag.HOLDING | TickFlag.STOPPED))

    def _record(self, now_ns: int, requested: Floats, clips: Clip, flags: TickFlag) -> None:
        if self._records is None:
            return
        state, posted = self._arm_state, self._previous() if flags & TickFlag.POSTED else self._nothing
        sent, sent_ns = posted, now_ns if flags & TickFlag.POSTED else -1
        if self._sent is not None:
            sent, sent_ns = self._sent["position"], self._sent.stamp_ns
        with self._records.write(now_ns) as slot:
            slot["requested"][:], slot["clipped"][:], slot["sent"][:] = requested, posted, sent
            for name in ("position", "velocity", "load"):
                slot[name][:] = state[name] if state.index >= 0 else np.nan
            slot["force"][:] = np.nan if self._force is None else self._force["force"]
            slot["state_stamp_ns"][...], slot["sent_stamp_ns"][...] = state.stamp_ns, sent_ns
            slot["force_stamp_ns"][...] = -1 if self._force is None else self._force.stamp_ns
            slot["tick"][...], slot["step"][...] = self._tick, self.horizon.step
            slot["epoch"][...], slot["horizon"][...] = self.horizon.epoch, len(self.horizon)
            slot["clips"][...], slot["flags"][...] = int(clips), int(flags)

    def _ask(self) -> None:
        """Ask for the next chunk once the horizon is short."""
        source = self._source
        if self.state != "running" or source is None or isinstance(source, LeaderSource):
            return
        left = len(self.horizon)
        if left <= self._options.request_below * self._chunk_rows:
            frozen = min(max(self._delays, default=0), left)
            source.request(self.horizon.step, self.horizon.epoch, self.horizon.pending(), frozen)

    def _settle(self) -> None:
        """Leave a target at which nothing moves."""
        now_ns = self._clock.now_ns()
        self._read(now_ns)
        if self._fresh and self.position is not None:
            self._arm.targets.post(now_ns, position=self.position)


def _sent_ring(arm: ArmPort) -> Ring | None:
    ring = getattr(arm, "sent", None)
    return ring if isinstance(ring, Ring) and "position" in ring.layout else None


def _channel(ring: Ring | None) -> Sample | None:
    return ring.blank() if ring is not None else None
