"""``dexrun replay --verify``: the recorded inputs once more through control, blending and safety.

What the control loop read, and what it was told, is in the recording: the arm's state and the force of every
tick, the leader's position, every chunk, every command, and at the episode's beginning all that the loop and
the safety stage remembered. A second control loop is given the same on a stepped clock and must ask for, and
let through, the same targets, byte for byte.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dexrun.config.earlier import stage_snapshot
from dexrun.data.recorded import LoopTables
from dexrun.modes.leader import to_follower
from drivers.arms.choice import recorded
from runtime.arm_model import ModelError
from runtime.control import ControlLoop
from runtime.control_options import LoopOptions
from runtime.following import Source
from runtime.inputs import LeaderSource
from runtime.messages import ActionChunk, Decision, Floats, PolicyStatus
from runtime.recording.bounds import reading
from runtime.recording.reader import Episode, RecordedSample, RecordingError
from runtime.ring import Mailbox, Ring
from runtime.safety import SafetyStage
from runtime.snapshots import from_json
from runtime.statistics import RunStatistics
from runtime.stepped import SteppedClock
from runtime.table_model import MeshesMissingError
from runtime.tick import tick_layout

_TROUBLE = {1: Decision.HOLD, 2: Decision.STOP}
_COMPARED = ("requested", "clipped", "clips", "flags")


@dataclass(frozen=True, slots=True)
class Difference:
    """The first tick that came out differently."""

    tick: int
    field: str
    recorded: Any
    replayed: Any

    def __str__(self) -> str:
        return f"tick {self.tick}: {self.field} was {self.recorded}, is {self.replayed}"


@dataclass(slots=True)
class Comparison:
    """What the comparison of one episode gave."""

    episode: int
    ticks: int = 0
    difference: Difference | None = None

    @property
    def same(self) -> bool:
        """Whether every target was the same, byte for byte."""
        return self.difference is None


class RecordedSource:
    """A chunk source that gives what was recorded, when it was; `takes` says whether a request was taken."""

    def __init__(self, finite: bool, delivered: bool, takes: Callable[[], bool]) -> None:
        self.chunks: deque[ActionChunk] = deque()
        self._takes = takes
        self._finite = finite
        self._delivered = delivered

    @property
    def delivered(self) -> bool:
        """Whether a finite source has given its one chunk."""
        return self._finite and self._delivered

    def request(self, step: int, epoch: int, committed: Floats, frozen_steps: int) -> bool:
        """The answers are known already."""
        del step, epoch, committed, frozen_steps
        return self._takes()

    def poll(self) -> ActionChunk | None:
        """The next chunk of this tick."""
        if not self.chunks:
            return None
        self._delivered = True
        return self.chunks.popleft()


@dataclass
class _Arm:
    states: Ring
    targets: Mailbox


class _RecordedGoals:
    """What the loop was told of the goals that the servos had (`runtime.written.Goals`).

    Attributes:
        held: what the present tick went on from, ``[D]``; ``None`` in recordings made before loops did so.
    """

    def __init__(self) -> None:
        self.held: Floats | None = None

    def behind(self, now_ns: int, posted_ns: int, target: Floats) -> Floats | None:
        del now_ns, posted_ns, target
        return None if self.held is None or np.isnan(self.held).all() else self.held

    def restart(self, now_ns: int, target: Floats) -> None:
        """It was recorded what came of it."""


@dataclass
class _Inputs:
    """What the second loop reads, and the loop."""

    clock: SteppedClock
    arm: _Arm
    leader: Ring
    force: Ring | None
    records: Ring
    control: ControlLoop
    safety: SafetyStage
    grippers: tuple[int, ...]
    goals: _RecordedGoals
    trouble: list[int] = field(default_factory=lambda: [0])


def verify(episode: Episode, settings: LoopTables) -> Comparison:
    """Compare every tick of `episode` with a second run of control, blending and safety.

    Raises:
        RecordingError: the recording lacks something that is needed, or it makes no sense.
    """
    with reading(episode.path):
        return _verified(episode, settings)


def _verified(episode: Episode, settings: LoopTables) -> Comparison:
    ticks = episode.columns("/ticks")
    _complete(episode, ticks["tick"])
    inputs = _build(settings, ticks, episode)
    snapshot, commands, requested = _commands(episode)
    source = _Sources(settings, inputs, requested)
    inputs.control.restore(from_json(snapshot["control"]), source.make(snapshot["control"]))
    inputs.safety.restore(stage_snapshot(from_json(snapshot["safety"]), settings.control.rate_hz))
    chunks = deque(episode.samples("/chunks"))
    verdict = Comparison(episode.index)
    with inputs.clock:
        for row in range(len(ticks["tick"])):
            tick = int(ticks["tick"][row])
            while commands and commands[0]["after_tick"] < tick:
                _obey(inputs.control, source, commands.popleft())
            while chunks and chunks[0]["after_tick"] <= tick:
                source.give(chunks.popleft())
            _feed(inputs, ticks, row)
            source.tick = tick
            inputs.control.tick(tick)
            verdict.difference = _compare(inputs.records, ticks, row)
            if verdict.difference is not None:
                return verdict
            verdict.ticks += 1
    return verdict


def _complete(episode: Episode, ticks: NDArray[np.int64]) -> None:
    if not len(ticks):
        raise RecordingError(f"{episode.path}: no control ticks in it")
    index = episode.array("/ticks", "index")
    if (np.diff(index) != 1).any():
        lost = int(index[-1] - index[0] + 1 - len(index))
        raise RecordingError(f"{episode.path}: {lost} control ticks were not recorded; it cannot be verified")


def _commands(episode: Episode) -> tuple[Mapping[str, Any], deque[dict[str, Any]], set[int]]:
    """What was remembered at the beginning, the commands since, and the ticks whose request was taken."""
    entries = [dict(sample.values) for sample in episode.samples("/control")]
    if not entries or entries[0]["kind"] != "snapshot":
        raise RecordingError(f"{episode.path}: what the control loop remembered at the start is missing")
    requested = {int(entry["after_tick"]) for entry in entries[1:] if entry["kind"] == "request"}
    return entries[0], deque(entry for entry in entries[1:] if entry["kind"] != "request"), requested


def _build(settings: LoopTables, ticks: Mapping[str, NDArray[Any]], episode: Episode) -> _Inputs:
    joints, channels = ticks["position"].shape[1], ticks["force"].shape[1]
    state = dict.fromkeys(("position", "velocity", "load"), ((joints,), "<f8"))
    clock = SteppedClock(int(episode.stamps("/ticks")[0]) - 1)
    try:
        model = recorded(episode.robot).model(boxes=settings.boxes)
    except (ModelError, MeshesMissingError) as error:
        raise RecordingError(f"{episode.path}: {error}") from None
    if joints != model.joints:
        raise RecordingError(f"{episode.path}: an arm of {joints} joints; this one has {model.joints}")
    arm = _Arm(Ring(state, 8), Mailbox({"position": ((joints,), "<f8")}))
    force = Ring({"force": ((channels,), "<f8")}, 8) if channels else None
    safety = SafetyStage(settings.safety, model)
    records = Ring(tick_layout(joints, channels), 8)
    trouble, goals = [0], _RecordedGoals()
    control = ControlLoop(
        clock,
        LoopOptions.of(settings.control, settings.policy, settings.engage_speed_rad_s),
        arm,
        safety,
        RunStatistics(),
        force=force,
        faults=lambda: (_TROUBLE[trouble[0]], "as recorded") if trouble[0] else None,
        records=records,
        grippers=model.grippers,
        holders=model.fingers.joints.tolist(),
        goals=goals,
    )
    leader = Ring(state, 8)
    return _Inputs(clock, arm, leader, force, records, control, safety, model.grippers, goals, trouble)


class _Sources:
    """Sources in place of the recorded ones; the newest chunk source gets the recorded chunks.

    Attributes:
        tick: the present one.
    """

    def __init__(self, settings: LoopTables, inputs: _Inputs, requested: set[int]) -> None:
        self.tick = -1
        self._settings = settings
        self._inputs = inputs
        self._requested = requested
        self._chunks: RecordedSource | None = None

    def make(self, about: Mapping[str, Any]) -> Source | None:
        """One of the recorded kind."""
        grippers = self._inputs.grippers
        if about["source"] == "leader":
            return LeaderSource(
                self._inputs.leader,
                self._settings.control.state_max_age_s,
                lambda position: to_follower(self._settings.teleop, position, grippers),
            )
        if about["source"] == "none":
            return None
        takes = lambda: self.tick in self._requested  # noqa: E731 - it is one
        self._chunks = RecordedSource(about["finite"], about["delivered"], takes)
        return self._chunks

    def give(self, sample: RecordedSample) -> None:
        """A chunk for the present tick."""
        if self._chunks is None:
            raise RecordingError("a chunk was recorded while no chunk source was followed")
        self._chunks.chunks.append(
            ActionChunk(
                sample["actions"],
                sample["step"],
                sample["epoch"],
                sample["observed_ns"],
                sample["inference_s"],
                rate_hz=sample["rate_hz"],
                discrete=sample["discrete"],
                status=PolicyStatus(sample["status"]),
                why=sample["why"],
            )
        )


def _obey(control: ControlLoop, sources: _Sources, command: Mapping[str, Any]) -> None:
    kind = command["kind"]
    if kind == "follow":
        source = sources.make(command)
        if source is not None:
            control.follow(source)
    elif kind == "stop":
        how = {name: bool(command.get(name)) for name in ("brakes", "resettable")}
        control.stop(command["reason"], **how)
    elif kind == "speed":
        control.limit_speed(command["share"])
    elif kind in ("hold", "give_up"):
        getattr(control, kind)(command["reason"])
    elif kind in ("idle", "rest", "resume", "reset_latch"):
        getattr(control, kind)()
    else:
        raise RecordingError(f"the control loop was told {kind!r}, which is not known here")


def _feed(inputs: _Inputs, ticks: Mapping[str, NDArray[Any]], row: int) -> None:
    """Give the loop what it had at this tick, and move its clock there."""
    if ticks["state_stamp_ns"][row] >= 0:
        values = {name: ticks[name][row] for name in ("position", "velocity", "load")}
        inputs.arm.states.push(int(ticks["state_stamp_ns"][row]), **values)
    if ticks["leader_stamp_ns"][row] >= 0:
        inputs.leader.push(int(ticks["leader_stamp_ns"][row]), position=ticks["leader"][row])
    if inputs.force is not None and ticks["force_stamp_ns"][row] >= 0:
        inputs.force.push(int(ticks["force_stamp_ns"][row]), force=ticks["force"][row])
    inputs.goals.held = ticks["held"][row] if "held" in ticks else None
    inputs.trouble[0] = int(ticks["trouble"][row])
    inputs.clock.wait_until_ns(int(ticks["stamp_ns"][row]))


def _compare(records: Ring, ticks: Mapping[str, NDArray[Any]], row: int) -> Difference | None:
    replayed = records.newest()
    if replayed is None:
        raise RecordingError("the second control loop left no record")
    for name in _COMPARED:
        recorded = ticks[name][row]
        if np.asarray(recorded).tobytes() != replayed[name].tobytes():
            return Difference(int(ticks["tick"][row]), name, recorded, replayed[name])
    return None
