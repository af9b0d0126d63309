"""The control loop: once per tick, one safe joint target. No I/O, no waiting, no image-sized memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import anyio
import numpy as np
from pydantic import Field

from runtime.arms import late
from runtime.beat import Beat
from runtime.blends import SplicingOptions, blend_from
from runtime.clock import NS_PER_S, Clock
from runtime.engagement import Engagement
from runtime.horizon import CAPACITY, Horizon
from runtime.inputs import (
    LONGEST_STATE_AGE_S,
    LeaderSource,
    Watch,
    gone_on_from,
    read_force,
    sample_of,
    sent_ring,
    stale_watch,
)
from runtime.interfaces import ChunkSource, StartingSource
from runtime.joints import posed
from runtime.latest import Latest
from runtime.messages import ActionChunk, Clip, Floats, PolicyStatus
from runtime.options import Options
from runtime.pacer import Pacer
from runtime.parking import Parking
from runtime.pilot import Pilot
from runtime.ports import ArmPort, Safety
from runtime.requests import RequestTiming
from runtime.ring import Ring
from runtime.snapshots import State, recall, remember
from runtime.statistics import RunStatistics
from runtime.supervisor import Supervisor, Transition, Trouble
from runtime.tick import TickFlag, TickRecorder, tick_layout
from runtime.written import Goals, NoGoals, WrittenGoals

__all__ = [
    "ArmPort",
    "AttemptStatus",
    "ControlLoop",
    "ControlOptions",
    "LeaderSource",
    "LoopOptions",
    "Safety",
    "TickFlag",
    "Transition",
    "Watch",
    "tick_layout",
]


class ControlOptions(Options):
    """Table ``[control]``.

    Attributes:
        rate_hz: ticks per second. A policy's rows have a rate of their own (``policy.rate_hz``).
        state_max_age_s: the arm's state, and the leader's, may be this old; then the arm holds.
        stop_after_hold_s: a fault that lasts this long latches a stop; 0 holds for ever.
        stop_after_starved_s: a source that gives nothing for this long latches a stop; 0 waits for ever.
        park_rad: where a fault or a starved source that lasted too long brings the arm before the stop is
            latched, straight through the joints' angles and through the safety stage; grippers, if it has no
            values for them, stay as they are. Empty: it stays where it is.
        park_speed_rad_s: of the joint with the longest way there.
        follow_blend_s: how long engaging takes to get up to its speed.
        arrived_rad: a prepared move is done when every joint, grippers left out, is measured this near to its
            end.
        engage_speed_rad_s: how fast a joint is brought to what is followed, at the beginning and after
            anything that held the arm, until it has met it (a gripper: travels a second).
        horizon_rows: rows that the horizon holds at most; a prepared motion comes in pieces.
    """

    rate_hz: float = Field(default=30.0, gt=0, le=1000)
    state_max_age_s: float = Field(default=0.1, gt=0, le=LONGEST_STATE_AGE_S)
    stop_after_hold_s: float = Field(default=10.0, ge=0)
    stop_after_starved_s: float = Field(default=30.0, ge=0)
    park_rad: tuple[float, ...] = ()
    park_speed_rad_s: float = Field(default=0.5, gt=0)
    follow_blend_s: float = Field(default=0.3, ge=0)
    arrived_rad: float = Field(default=0.15, gt=0, le=1)
    engage_speed_rad_s: float = Field(default=0.8, gt=0)
    horizon_rows: int = Field(default=CAPACITY, ge=1024)


class LoopOptions(ControlOptions, SplicingOptions):
    """Both tables' worth: ``[control]`` and what ``[policy]`` says of splicing."""

    @classmethod
    def of(
        cls, control: ControlOptions, splicing: SplicingOptions, engage_speed_rad_s: float | None = None
    ) -> LoopOptions:
        """From the two tables, and a mode's own engaging speed if it has one."""
        if engage_speed_rad_s is not None:
            control = control.model_copy(update={"engage_speed_rad_s": engage_speed_rad_s})
        chosen = {name: getattr(splicing, name) for name in SplicingOptions.model_fields}
        return cls(**control.model_dump(), **chosen)


Source = ChunkSource | LeaderSource


class LoopListener(Protocol):
    """Told what the loop does, on the loop; both must return at once."""

    def noted(self, kind: str, values: Mapping[str, Any]) -> None:
        """A command or a chunk: what the loop was asked for and was given, so that it can be replayed."""

    def ticked(self) -> None:
        """The work of a tick is done."""


_STATE = (
    *("target", "position", "speed", "_tick", "_chunk_rows", "_anchor", "_fresh", "_slows"),
    *("_taken", "_refused", "_posted_ns", "_before_ns"),
)
_ON_TIME = 0.1
"""A tick that is off by no more than this share of a period is on time."""
_ROUNDING = 1e-6


def shortened(chunk: ActionChunk, step: int, execute_steps: int) -> ActionChunk:
    """`chunk` with at most `execute_steps` rows from `step` on; 0 leaves it whole."""
    if not execute_steps:
        return chunk
    rows = max(0, step - chunk.step) + execute_steps
    return replace(chunk, actions=chunk.actions[:rows])


@runtime_checkable
class Asked(Protocol):
    """A source that is asked for something: which attempt it is, and at what, in words."""

    number: int
    instruction: str


class _Nobody:
    """Does not listen."""

    def noted(self, kind: str, values: Mapping[str, Any]) -> None:
        """Not kept."""

    def ticked(self) -> None:
        """Of no interest."""


@dataclass(frozen=True, slots=True)
class AttemptStatus:
    """What the source that is followed said last of how it stands; nothing of an older epoch counts."""

    status: PolicyStatus = PolicyStatus.RUNNING
    why: str = ""
    reasoning: str = ""


class ControlLoop:
    """Follows a source of targets through the safety stage, once per tick.

    All methods are called on the loop's task or between its ticks, on the same thread. `grippers` are the
    joints that are left out of seams and parking poses; `holders` (by default these) are those that may hold
    something, and push against it while they stand still. `goals`, by default what `arm` says, tells which
    targets reached the servos. `beat` is told when the ticks are due, before the first.

    Attributes:
        position: ``[D]`` the newest measured position; ``None`` before the first.
        target: ``[D]`` the last target that was posted, or where it is known that a joint's servo did not get
            it, the goal that it has; ``None`` before the first.
        horizon: rows left and steps executed.
        attempt: how the source that is followed stands, as its newest chunk says.
        watches: sensors without which a source is not followed.
        speed: the share of the velocity limits at which the arm may move (`limit_speed`).
    """

    def __init__(
        self,
        clock: Clock,
        options: LoopOptions,
        arm: ArmPort,
        safety: Safety,
        statistics: RunStatistics,
        *,
        force: Ring | None = None,
        watches: Sequence[Watch] = (),
        faults: Callable[[], Trouble | None] = lambda: None,
        records: Ring | None = None,
        grippers: Sequence[int] = (),
        holders: Sequence[int] | None = None,
        goals: Goals | None = None,
        beat: Latest[Beat] | None = None,
    ) -> None:
        joints = arm.states.layout["position"][0][0]
        self.position: Floats | None = None
        self.target: Floats | None = None
        self.attempt = AttemptStatus()
        self.watches = tuple(watches)
        self._listener: LoopListener = _Nobody()
        self.horizon = Horizon(joints, blend_from(options), options.horizon_rows, options.rate_hz, grippers)
        self._clock = clock
        self._options = options
        self._arm = arm
        self._safety = safety
        self._statistics = statistics
        posed_joints = [joint for joint in range(joints) if joint not in grippers]
        parked = posed(len(options.park_rad), joints, grippers)
        self._parking = Parking(options.park_rad, options.park_speed_rad_s, options.rate_hz, parked)
        self._supervisor = Supervisor(
            options.stop_after_hold_s, options.stop_after_starved_s, faults, parks=bool(self._parking)
        )
        self._pacer = Pacer(clock, options.rate_hz, statistics, beat)
        sent = sent_ring(arm)
        self._recorder = None if records is None else TickRecorder(records, joints, sent)
        told = NoGoals() if sent is None else WrittenGoals(sent, options.rate_hz)
        self._goals: Goals = told if goals is None else goals
        self._held: Floats | None = None
        self._posted_ns = self._before_ns = -1
        self._state = arm.states.blank()
        self._force_ring, self._force = force, sample_of(force)
        self._source: Source | None = None
        self._tick, self._chunk_rows = -1, 0
        self._timing = RequestTiming()
        self._engagement = Engagement(
            options.engage_speed_rad_s, options.follow_blend_s, options.rate_hz, joints, posed_joints
        )
        self.speed = 1.0
        self._taken: Floats | None = None
        self._refused = ""
        self._holders = list(grippers if holders is None else holders)
        self._anchor: Floats | None = None
        self._fresh = self._ending = self._slows = False
        self._ticked: anyio.Event | None = None
        self._nowhere = np.full(joints, np.nan)

    # --- what a mode asks for

    def follow(self, source: Source) -> int:
        """Take targets from `source` from the next tick on, come to slowly; returns the new epoch.

        Chunks of the source followed before are of an older epoch, and dropped.
        """
        self._note("follow", **_about(source))
        self._source, self._chunk_rows, self._slows = source, 0, False
        self._taken, self._refused = None, ""
        self.attempt = AttemptStatus()
        self._timing.restart()
        self._engage_anew()
        return self.horizon.restart()

    def idle(self) -> None:
        """Follow nothing; hold the last target."""
        self._note("idle")
        self._follow_nothing()

    def rest(self) -> None:
        """Follow nothing; brake within the limits of the safety stage, and hold where that ends.

        After `idle` an arm that was fast is braked by the safety stage, goes past the target that is held,
        and comes back.
        """
        self._note("rest")
        self._follow_nothing()
        self._slows = True

    def _follow_nothing(self) -> None:
        self._source, self._anchor, self._slows = None, self.target, False
        self.horizon.restart()

    def hold(self, reason: str = "asked to hold") -> None:
        """Hold the last target until `resume`; the horizon is kept and goes on from where it was."""
        self._note("hold", reason=reason)
        self._supervisor.hold(reason)

    def resume(self) -> None:
        """Go on after `hold`."""
        self._note("resume")
        self._supervisor.resume()

    def stop(self, reason: str, *, brakes: bool = False) -> None:
        """Latch a stop: hold until `reset_latch`. The first reason stays.

        What is held is the last target, which an arm that was fast goes past and comes back to; one that
        `brakes` holds where it comes to rest within the limits of the safety stage (as `rest` does).
        """
        self._note("stop", reason=reason, **({"brakes": True} if brakes else {}))
        self._supervisor.stop(reason)
        self._slows = self._slows or brakes

    def limit_speed(self, share: float) -> None:
        """Move at most at this share of the velocity limits, from the next tick on.

        Raises:
            ValueError: it is not from `runtime.limits.LEAST_SPEED` to 1.
        """
        self._safety.limit_speed(share)
        self.speed = share
        self._note("speed", share=share)

    def give_up(self, reason: str) -> None:
        """What is waited for does not come: park the arm, if that is configured, then latch a stop."""
        self._note("give_up", reason=reason)
        self._supervisor.give_up(reason)

    def reset_latch(self) -> None:
        """Forget the latched stop and what led to it; nothing is followed until `follow`."""
        self._note("reset_latch")
        self._supervisor.reset()
        self._safety.reset()
        self._follow_nothing()

    def _note(self, kind: str, **values: Any) -> None:
        self._listener.noted(kind, {"after_tick": self._tick, **values})

    def snapshot(self) -> State:
        """What is remembered between ticks, the safety stage's own memory apart, for `restore`."""
        return {
            **remember(self, _STATE),
            **_about(self._source),
            "supervisor": self._supervisor.snapshot(),
            "horizon": self.horizon.snapshot(),
            "timing": self._timing.snapshot(),
            "engagement": self._engagement.snapshot(),
            "parking": self._parking.left,
            "status": str(self.attempt.status),
        }

    def restore(self, state: State, source: Source | None) -> None:
        """Go on from where another loop was at its `snapshot`, following `source`."""
        recall(self, _STATE, state)
        self._engagement.restore(state["engagement"])
        self._supervisor.restore(state["supervisor"])
        self.horizon.restore(state["horizon"])
        self._timing.restore(state["timing"])
        self._parking.left = state["parking"]
        self.attempt = AttemptStatus(PolicyStatus(state["status"]))
        self._source = source

    def tell(self, listener: LoopListener) -> None:
        """Let `listener` know from now on."""
        self._listener = listener

    def close(self) -> None:
        """Make `run` return after the present tick."""
        self._ending = True

    @property
    def state(self) -> str:
        """``"idle"`` (no source: holds where it is), ``"running"``, ``"holding"`` (asked for, or because of
        a fault), ``"parking"`` (it lasted too long: on the way to where a stop is latched) or ``"stopped"``
        (latched: holds until `reset_latch`).
        """
        return self._supervisor.state

    @property
    def reason(self) -> str:
        """Why it holds or stopped; ``""`` otherwise."""
        return self._supervisor.reason

    @property
    def latched(self) -> str:
        """Why a stop is latched, from the moment that it is asked for; ``""`` where none is."""
        return self._supervisor.latched

    @property
    def transitions(self) -> Sequence[Transition]:
        """The newest changes of state."""
        return self._supervisor.transitions

    @property
    def resting(self) -> bool:
        """Whether nothing is followed, and the arm has been braked where `rest` asked for it."""
        return self._source is None and not self._slows

    @property
    def braking(self) -> bool:
        """Whether `rest`, or a `stop` that brakes, has not brought the arm to rest yet."""
        return self._slows

    @property
    def source(self) -> Source | None:
        """What is followed."""
        return self._source

    @property
    def _stretches(self) -> bool:
        """Whether rows are taken slower while a chunk is waited for; a prepared motion is all there."""
        return self._options.stretch and not self._delivered

    @property
    def exhausted(self) -> bool:
        """Whether a finite source (one with a true ``delivered``) was followed to its last row.

        Where the arm is by then is another matter (`dexrun.modes.moves`).
        """
        return self._delivered and not self._refused and len(self.horizon) == 0

    @property
    def refused(self) -> str:
        """Why a piece of the finite source that is followed could not be taken (`Splice.verdict`), if so."""
        return self._refused

    @property
    def _delivered(self) -> bool:
        return bool(getattr(self._source, "delivered", False))

    async def changed(self) -> None:
        """Wait until `state` or `reason` changes."""
        await self._supervisor.changed()

    async def ticked(self) -> None:
        """Wait until the next tick is done."""
        if self._ticked is None:
            self._ticked = anyio.Event()
        await self._ticked.wait()

    async def finished(self) -> bool:
        """Wait until the source is exhausted (``True``), or will not be (``False``): stopped, or refused."""
        while not self.exhausted:
            if self.state == "stopped" or self._refused:
                return False
            await self.ticked()
        return True

    # --- the loop

    async def run(self) -> None:
        """Tick until `close`. The last target stays; the arm's driver, at its end, stops what still moves."""
        self._pacer.rehearse = self._rehearse
        while not self._ending:
            self.tick(await self._pacer.next())
            self._pacer.finished()

    def tick(self, tick: int) -> None:
        """One tick: read, decide, request, make safe, post, record, ask for more."""
        now_ns = self._pacer.started_ns or self._clock.now_ns()
        skipped, self._tick = tick - self._tick - 1, tick
        self._read(now_ns, skipped)
        self._decide(now_ns)
        self._drain()
        requested, flags = self._request(now_ns)
        clips, posted = Clip.NONE, None
        if self._fresh:
            clips, posted = self._post(now_ns, requested, self._passed_s(now_ns, skipped))
            flags |= TickFlag.POSTED
        else:
            self._lie_idle(1.0 / self._options.rate_hz)
        self._before_ns = now_ns
        if skipped:
            flags |= TickFlag.SKIPPED_BEFORE
        self._account(now_ns, clips, flags)
        self._record(now_ns, requested, posted, clips, flags)
        self._ask()
        if self._ticked is not None:
            self._ticked.set()
            self._ticked = None
        self._listener.ticked()

    def _read(self, now_ns: int, skipped: int) -> None:
        """Newest state and force. After a gap the arm may be anywhere: go on from where it is.

        A gap is one in the arm's state, or in these ticks: the process did not run. It may begin while a tick
        is waited for, which is late then and has skipped none; the next one comes soon after it.
        """
        max_age_s, last_ns = self._options.state_max_age_s, self._state.stamp_ns
        max_age_ns = round(max_age_s * NS_PER_S)
        fresh = self._arm.states.newest(self._state, now_ns=now_ns, max_age_ns=max_age_ns) is not None
        if fresh:
            before, self.position = self.position, self._state["position"].copy()
            if not self._fresh or self._stood_still_s(now_ns, skipped) > max_age_s:
                self._go_on(now_ns, self.position, before, self._state.stamp_ns - last_ns)
        self._fresh = fresh
        self._look_at_goals(now_ns)
        if self._force_ring is not None and self._force is not None:
            read_force(self._force_ring, self._force)

    def _look_at_goals(self, now_ns: int) -> None:
        """A joint whose servo did not get its last target goes on from the goal that it has."""
        target, self._held = self.target, None
        if target is None or not self._fresh:
            return
        held = self._held = self._goals.behind(now_ns, self._posted_ns, target)
        if held is not None:
            self.target = np.where(np.isnan(held), target, held)

    def _go_on(self, now_ns: int, position: Floats, before: Floats | None, gap_ns: int) -> None:
        """The first tick after a gap of `gap_ns` in the arm's state."""
        target = self.target
        if target is not None and before is not None:
            self.target = gone_on_from(position, target, before, gap_ns, self._holders)
            self._safety.interrupted()
        else:
            self.target = position
            self._safety.reset()
        if self.target is not target:
            self._goals.restart(now_ns, self.target)
        self._engage_anew()

    def _decide(self, now_ns: int) -> None:
        """Enter this tick's state; what is held is the target at which the arm was when it began."""
        before = self._supervisor.decide(
            self._tick,
            now_ns,
            self._missing(now_ns),
            following=self._source is not None,
            movable=self._fresh and self.target is not None,
        )
        if self.state == "running" != before:
            self._engage_anew()
        elif before in ("running", "parking") and self.state != before:
            self._anchor = self.target
        if self.state == "parking" != before and self.target is not None:
            self._parking.begin(self.target, self.speed)

    def _missing(self, now_ns: int) -> str | None:
        """Which input is missing or too old: the arm always; the rest only while a source is followed."""
        if not self._fresh:
            max_age_s = self._options.state_max_age_s
            name = late(self._arm.states, "arm", now_ns, round(max_age_s * NS_PER_S))
            return f"{name}: no state for {max_age_s:g} s"
        if self._source is None:
            return None
        leader = self._source.missing(now_ns) if isinstance(self._source, LeaderSource) else None
        return leader or stale_watch(self.watches, now_ns)

    def _engage_anew(self) -> None:
        self._anchor = self.target
        self._engagement.begin()

    def _drain(self) -> None:
        """Splice what has arrived."""
        source = self._source
        if source is None or isinstance(source, LeaderSource):
            return
        while (chunk := source.poll()) is not None:
            self._note("chunk", chunk=chunk)
            if chunk.epoch == self.horizon.epoch:
                self._timing.arrived(self._tick)
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
                self._refused = splice.verdict

    def _request(self, now_ns: int) -> tuple[Floats, TickFlag]:
        """The requested target and how it came about."""
        if self.state == "parking":
            return self._park(), _FLAGS[self.state]
        if self.state in ("idle", "stopped") and self._slows:
            self._slow_down()
        if self.state != "running":
            held = self._anchor if self._anchor is not None else self._previous()
            return held, _FLAGS[self.state] | (TickFlag.NONE if self._fresh else TickFlag.STALE_STATE)
        row, flag = self._row(now_ns)
        if row is None:
            self._engage_anew()
            return self._previous(), flag
        return self._engage(row, flag)

    def _slow_down(self) -> None:
        """What is held moves on with the arm while that is braked."""
        before = self._previous()
        self._anchor = self._safety.slowing(before, 1.0 / self._options.rate_hz)
        self._slows = not np.array_equal(self._anchor, before)

    def _engage(self, row: Floats, flag: TickFlag) -> tuple[Floats, TickFlag]:
        if not self._engagement.active:
            return row, flag
        row = self._engagement.approach(row, self._previous())
        return row, flag | TickFlag.BLENDING if self._engagement.active else flag

    def _park(self) -> Floats:
        before = self._previous()
        row = self._parking.next(before)
        if row is None:
            self._supervisor.parked("parked" if self._parking.arrived(before) else "could not be parked")
            return before
        return row

    def _row(self, now_ns: int) -> tuple[Floats | None, TickFlag]:
        if isinstance(self._source, LeaderSource):
            row = self._source.target(now_ns)
            return row, TickFlag.LEADER if row is not None else TickFlag.LEADER | TickFlag.STARVED
        horizon, speed = self.horizon, 1.0
        taken, delivered = self._taken, self._delivered
        if taken is not None and (self.exhausted or self._awaits(taken, delivered)):
            return taken, TickFlag.NONE
        if self._stretches:
            speed = self._timing.speed(
                self._tick, horizon.step, horizon.left, self._chunk_rows, horizon.rows_per_tick
            )
        self._taken = row = horizon.take(speed)
        if row is not None or self.exhausted:
            return row, TickFlag.STRETCHED if speed < 1.0 else TickFlag.NONE
        return None, TickFlag.STARVED if self._chunk_rows else TickFlag.WAITING

    def _awaits(self, taken: Floats, delivered: bool) -> bool:
        engagement = self._engagement
        return engagement.active and engagement.waits(taken, self._previous(), finite=delivered)

    def _previous(self) -> Floats:
        """The target sent before; at first, the measured position."""
        return self.target if self.target is not None else self._nowhere

    def _passed_s(self, now_ns: int, skipped: int) -> float:
        """Since the tick before; what is within the precision of the ticks is a whole number of periods."""
        rate_hz, periods = self._options.rate_hz, skipped + 1
        if self._before_ns < 0 or now_ns <= self._before_ns:
            return periods / rate_hz
        passed_s = (now_ns - self._before_ns) / NS_PER_S
        return periods / rate_hz if abs(passed_s * rate_hz - periods) <= _ON_TIME else passed_s

    def _stood_still_s(self, now_ns: int, skipped: int) -> float:
        """How much later than a period after the last tick this one is."""
        rate_hz = self._options.rate_hz
        return (self._passed_s(now_ns, skipped) * rate_hz - 1 - _ROUNDING) / rate_hz

    def _post(self, now_ns: int, requested: Floats, passed_s: float) -> tuple[Clip, Floats]:
        """Make `requested` safe and post it.

        An arm whose target came late has stopped meanwhile: no more than a period is made up for.
        """
        dt_s = min(passed_s, 1.0 / self._options.rate_hz)
        result = self._safety.apply(
            requested,
            self._state["position"],
            self._previous(),
            self._force_n,
            self._state["load"],
            dt_s,
        )
        if dt_s < passed_s:
            self._safety.lasted(dt_s, passed_s)
        if result.stop_reason is not None:
            self._supervisor.stop(result.stop_reason)
        if self.state == "running":
            self._engagement.held_back(requested, result.target, result.clips)
        if not np.isfinite(result.target).all():  # where the arm is, nobody knows: say nothing to it
            return result.clips, self._nowhere
        if result.stop_reason is not None:
            self._anchor = result.target
        self.target, self._posted_ns = result.target, now_ns
        self._arm.targets.post(now_ns, position=result.target)
        return result.clips, result.target

    def _lie_idle(self, dt_s: float) -> None:
        """Nothing can be sent: what lasts, such as a force, goes on lasting."""
        reason = self._safety.unsent(self._force_n, dt_s)
        if reason is not None:
            self._supervisor.stop(reason)

    @property
    def _force_n(self) -> Floats | None:
        force = self._force
        return force["force"] if force is not None and force.index >= 0 else None

    def _rehearse(self) -> None:
        if self.target is not None:
            safety, state = self._safety, self._state
            safety.rehearse(self.target, state["position"], state["load"], 1.0 / self._options.rate_hz)

    def _account(self, now_ns: int, clips: Clip, flags: TickFlag) -> None:
        statistics = self._statistics
        if clips:
            statistics.clipped(clips)
        bits = flags.value  # the operators of an enumeration make objects, and this is done in every tick
        statistics.starved += bool(bits & _STARVED)
        statistics.waiting += bool(bits & _WAITING)
        statistics.stretched += bool(bits & _STRETCHED)
        statistics.held += bool(bits & _HELD)
        starved = bool(bits & (_STARVED | _WAITING))
        if starved and isinstance(self._source, StartingSource) and self._source.unready:
            starved = False  # it starts, and has a deadline of its own
        self._supervisor.starved(starved, now_ns)

    def _record(
        self, now_ns: int, requested: Floats, posted: Floats | None, clips: Clip, flags: TickFlag
    ) -> None:
        if self._recorder is None:
            return
        horizon = self.horizon
        numbers = {"tick": self._tick, "step": horizon.step, "epoch": horizon.epoch, "horizon": len(horizon)}
        numbers["trouble"], numbers["pilot"] = self._supervisor.trouble, pilot_of(self._source)
        leader = self._source.sample if isinstance(self._source, LeaderSource) else None
        self._recorder.write(
            now_ns, requested, posted, self._held, self._state, self._force, leader, numbers, clips, flags
        )

    def _ask(self) -> None:
        """Ask for the next chunk once the horizon is short, or just lasts for the slowest late inference."""
        source = self._source
        if self.state != "running" or source is None or isinstance(source, LeaderSource):
            return
        if self.attempt.status is not PolicyStatus.RUNNING:
            return
        horizon, delay = self.horizon, self._timing.delay
        left = len(horizon)
        if left and horizon.rows_per_tick < 1.0 and self._timing.asked_at(horizon.step):
            return  # the policy counts steps, too: one request for each at most
        if left <= max(self._options.request_below * self._chunk_rows, horizon.reached_in(delay + 1)):
            frozen = min(horizon.reached_in(delay), left)
            if source.request(horizon.step, horizon.epoch, horizon.pending(), frozen):
                self._timing.asked(self._tick, horizon.step)
                self._note("request")


def pilot_of(source: Source | None) -> Pilot:
    """Who drives while `source` is followed."""
    if source is None:
        return Pilot.NOBODY
    if isinstance(source, LeaderSource):
        return Pilot.PERSON
    return Pilot.POLICY if getattr(source, "delivered", None) is None else Pilot.MOTION


def _about(source: Source | None) -> dict[str, Any]:
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


_STARVED, _WAITING, _STRETCHED = TickFlag.STARVED.value, TickFlag.WAITING.value, TickFlag.STRETCHED.value
_HELD = (TickFlag.HOLDING | TickFlag.STOPPED).value
_FLAGS = {
    "idle": TickFlag.IDLE,
    "holding": TickFlag.HOLDING,
    "parking": TickFlag.HOLDING | TickFlag.PARKING,
    "stopped": TickFlag.STOPPED,
}
