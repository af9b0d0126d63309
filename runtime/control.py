"""The control loop: once per tick, one safe joint target. No I/O, no waiting, no image-sized memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import anyio

from runtime.beat import Beat
from runtime.clock import Clock
from runtime.control_options import LoopOptions
from runtime.following import AttemptStatus, FollowedSource, Source, described, pilot_of
from runtime.horizon import Horizon
from runtime.inputs import LoopInputs, Watch
from runtime.latest import Latest
from runtime.messages import Clip, Floats
from runtime.output import LoopOutput
from runtime.pacer import Pacer
from runtime.ports import ArmPort, LoopListener, Safety
from runtime.ring import Ring
from runtime.setpoint import Setpoint
from runtime.snapshots import State
from runtime.statistics import RunStatistics
from runtime.supervisor import Supervisor, Transition, Trouble
from runtime.tick import TickFlag, TickRecorder
from runtime.written import Goals, sent_ring

_STARVED = (TickFlag.STARVED | TickFlag.WAITING).value
_ROUNDING = 1e-6


class ControlLoop:
    """Follows a source of targets through the safety stage, once per tick.

    Five parts carry it, each with its own memory: `LoopInputs` (what is measured), `Supervisor` (whether it
    runs, holds or stands), `FollowedSource` (the rows of what is followed), `Setpoint` (what is asked for)
    and `LoopOutput` (what is sent).

    All methods are called on the loop's task or between its ticks, on the same thread. `grippers` are the
    joints that are left out of seams and parking poses; `holders` (by default these) are those that may hold
    something, and push against it while they stand still. A source is not followed without fresh data of
    `watches`. `goals`, by default what `arm` says, tells which targets reached the servos. `beat` is told
    when the ticks are due, before the first.
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
        self._clock, self._options, self._statistics = clock, options, statistics
        self._pacer = Pacer(clock, options.rate_hz, statistics, beat)
        self._inputs = LoopInputs(arm.states, force, watches, options.state_max_age_s)
        self._supervisor = Supervisor(
            options.stop_after_hold_s, options.stop_after_starved_s, faults, parks=bool(options.park_rad)
        )
        self._following = FollowedSource(joints, options, grippers, statistics, self._note)
        self._output = LoopOutput(
            arm, safety, options.rate_hz, grippers if holders is None else holders, goals
        )
        self._setpoint = Setpoint(options, grippers, self._supervisor, self._following, self._output)
        self._recorder = None if records is None else TickRecorder(records, joints, sent_ring(arm))
        self._listener: LoopListener | None = None
        self._tick = -1
        self._ending = False
        self._ticked: anyio.Event | None = None

    # --- what a mode asks for

    def follow(self, source: Source) -> int:
        """Take targets from `source` from the next tick on, come to slowly; returns the new epoch.

        Chunks of the source followed before are of an older epoch, and dropped.
        """
        self._note("follow", **described(source))
        self._setpoint.stand()
        self._setpoint.engage()
        return self._following.begin(source)

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
        self._setpoint.brake()

    def _follow_nothing(self) -> None:
        self._setpoint.stand()
        self._following.leave()

    def hold(self, reason: str = "asked to hold") -> None:
        """Hold the last target until `resume`; the horizon is kept and goes on from where it was."""
        self._note("hold", reason=reason)
        self._supervisor.hold(reason)

    def resume(self) -> None:
        """Go on after `hold`."""
        self._note("resume")
        self._supervisor.resume()

    def stop(self, reason: str, *, brakes: bool = False, resettable: bool = False) -> None:
        """Latch a stop: hold until `reset_latch`. The first reason stays.

        What is held is the last target, which an arm that was fast goes past and comes back to; one that
        `brakes` holds where it comes to rest within the limits of the safety stage (as `rest` does).
        `resettable` says that somebody may reset it, who then looks whether it still is (`final`).
        """
        how = {"brakes": brakes, "resettable": resettable}
        self._note("stop", reason=reason, **{name: True for name, so in how.items() if so})
        self._supervisor.stop(reason, resettable=resettable)
        if brakes:
            self._setpoint.brake()

    def limit_speed(self, share: float) -> None:
        """Move at most at this share of the velocity limits, from the next tick on.

        Raises:
            ValueError: it is not from `runtime.limits.LEAST_SPEED` to 1.
        """
        self._output.limit_speed(share)
        self._note("speed", share=share)

    def give_up(self, reason: str) -> None:
        """What is waited for does not come: park the arm, if that is configured, then latch a stop."""
        self._note("give_up", reason=reason)
        self._supervisor.give_up(reason)

    def reset_latch(self) -> None:
        """Forget the latched stop and what led to it; nothing is followed until `follow`."""
        self._note("reset_latch")
        self._supervisor.reset()
        self._output.reset()
        self._follow_nothing()

    def _note(self, kind: str, **values: Any) -> None:
        if self._listener is not None:
            self._listener.noted(kind, {"after_tick": self._tick, **values})

    def snapshot(self) -> State:
        """What is remembered between ticks, the safety stage's own memory apart, for `restore`."""
        return {
            "_tick": self._tick,
            **self._inputs.snapshot(),
            "supervisor": self._supervisor.snapshot(),
            **self._following.snapshot(),
            **self._setpoint.snapshot(),
            **self._output.snapshot(),
        }

    def restore(self, state: State, source: Source | None) -> None:
        """Go on from where another loop was at its `snapshot`, following `source`.

        That may be one of a recording made by an earlier version: what it lacked, this one does without from
        then on, so that its targets are the same (decision 0213).
        """
        self._tick = state["_tick"]
        self._inputs.restore(state)
        self._supervisor.restore(state["supervisor"])
        self._following.restore(state, source)
        self._setpoint.restore(state)
        self._output.restore(state)

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
    def final(self) -> bool:
        """Whether a stop is latched that may not be reset: one of a fault, or of the safety stage."""
        return self._supervisor.final

    @property
    def known(self) -> bool:
        """Whether it was known in the newest tick where the arm is."""
        return self._inputs.fresh

    @property
    def transitions(self) -> Sequence[Transition]:
        """The newest changes of state."""
        return self._supervisor.transitions

    @property
    def resting(self) -> bool:
        """Whether nothing is followed, and the arm has been braked where `rest` asked for it."""
        return self.source is None and not self._setpoint.braking

    @property
    def braking(self) -> bool:
        """Whether `rest`, or a `stop` that brakes, has not brought the arm to rest yet."""
        return self._setpoint.braking

    @property
    def position(self) -> Floats | None:
        """``[D]`` the newest measured position; ``None`` before the first."""
        return self._inputs.position

    @property
    def target(self) -> Floats | None:
        """``[D]`` the last target that was posted, or where it is known that a joint's servo did not get it,
        the goal that it has; ``None`` before the first.
        """
        return self._output.target

    @property
    def speed(self) -> float:
        """The share of the velocity limits at which the arm may move (`limit_speed`)."""
        return self._output.speed

    @property
    def source(self) -> Source | None:
        """What is followed."""
        return self._following.source

    @property
    def horizon(self) -> Horizon:
        """Rows left and steps executed."""
        return self._following.horizon

    @property
    def attempt(self) -> AttemptStatus:
        """How the source that is followed stands, as its newest chunk says."""
        return self._following.attempt

    @property
    def exhausted(self) -> bool:
        """Whether a finite source (one with a true ``delivered``) was followed to its last row.

        Where the arm is by then is another matter (`dexrun.modes.moves`).
        """
        return self._following.exhausted

    @property
    def refused(self) -> str:
        """Why a piece of the finite source that is followed could not be taken (`Splice.verdict`), if so."""
        return self._following.refused

    async def changed(self) -> None:
        """Wait until `state` or `reason` changes."""
        await self._supervisor.changed()

    async def ticked(self) -> None:
        """Wait until the next tick is done."""
        if self._ticked is None:
            self._ticked = anyio.Event()
        await self._ticked.wait()

    # --- the loop

    async def run(self) -> None:
        """Tick until `close`. The last target stays; the arm's driver, at its end, stops what still moves."""
        self._pacer.rehearse = self._rehearse
        while not self._ending:
            self.tick(await self._pacer.next())
            self._pacer.finished()

    def _rehearse(self) -> None:
        self._output.rehearse(self._inputs)

    def tick(self, tick: int) -> None:
        """One tick: read, decide, splice, request, make safe, post, record, ask for more."""
        now_ns = self._pacer.started_ns or self._clock.now_ns()
        skipped, self._tick = tick - self._tick - 1, tick
        passed_s = self._output.begin_tick(now_ns, skipped)
        self._read(now_ns, passed_s)
        self._decide(now_ns)
        self._following.drain(tick)
        requested, flags = self._setpoint.next(now_ns, tick, fresh=self._inputs.fresh)
        clips, posted = Clip.NONE, None
        if self._inputs.fresh:
            clips, posted = self._post(now_ns, requested, passed_s)
            flags |= TickFlag.POSTED
        elif (reason := self._output.unsent(self._inputs)) is not None:
            self._supervisor.stop(reason)
        if skipped:
            flags |= TickFlag.SKIPPED_BEFORE
        self._account(now_ns, clips, flags)
        self._record(now_ns, requested, posted, clips, flags)
        if self.state == "running":
            self._following.ask(tick, pressing=bool(clips & Clip.FORCE))
        if self._ticked is not None:
            self._ticked.set()
            self._ticked = None
        if self._listener is not None:
            self._listener.ticked()

    def _read(self, now_ns: int, passed_s: float) -> None:
        """Newest state and force. After a gap the arm may be anywhere: go on from where it is.

        A gap is one in the arm's state, or in these ticks: the process did not run. It may begin while a tick
        is waited for, which is late then and has skipped none; the next one comes soon after it.
        """
        inputs, rate_hz = self._inputs, self._options.rate_hz
        known, before = inputs.fresh, inputs.position
        gap_ns = inputs.read(now_ns)
        if inputs.fresh and inputs.position is not None:
            late_s = (passed_s * rate_hz - 1 - _ROUNDING) / rate_hz
            if not known or (self._output.resumes and late_s > self._options.state_max_age_s):
                self._output.go_on(now_ns, inputs.position, before, gap_ns)
                self._setpoint.engage()
        self._output.look_at_goals(now_ns, fresh=inputs.fresh)

    def _decide(self, now_ns: int) -> None:
        """Enter this tick's state."""
        before = self._supervisor.decide(
            self._tick,
            now_ns,
            self._inputs.missing(now_ns, self.source),
            following=self.source is not None,
            movable=self._inputs.fresh and self.target is not None,
        )
        self._setpoint.enter(before)

    def _post(self, now_ns: int, requested: Floats, passed_s: float) -> tuple[Clip, Floats]:
        result = self._output.post(now_ns, requested, self._inputs, passed_s)
        if result.stop_reason is not None:
            self._supervisor.stop(result.stop_reason)
        self._setpoint.answered(requested, result)
        return result.clips, result.target

    def _account(self, now_ns: int, clips: Clip, flags: TickFlag) -> None:
        self._statistics.ticked(clips, flags)
        starved = bool(flags.value & _STARVED) and not self._following.starting
        self._supervisor.starved(starved, now_ns)

    def _record(
        self, now_ns: int, requested: Floats, posted: Floats | None, clips: Clip, flags: TickFlag
    ) -> None:
        if self._recorder is None:
            return
        horizon, inputs, leader = self.horizon, self._inputs, self._following.leader
        numbers = {"tick": self._tick, "step": horizon.step, "epoch": horizon.epoch, "horizon": len(horizon)}
        numbers["trouble"], numbers["pilot"] = self._supervisor.trouble, pilot_of(self.source)
        sample, held = None if leader is None else leader.sample, self._output.held
        self._recorder.write(
            now_ns, requested, posted, held, inputs.state, inputs.force, sample, numbers, clips, flags
        )
