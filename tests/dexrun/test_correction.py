"""A person corrects grasp mode: takes the arm in an attempt, lifts the object, and gives back."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anyio
import anyio.lowlevel
import numpy as np
import pytest

from dexrun.config.load import ConfigError, load
from dexrun.config.recording_options import RecordingOptions
from dexrun.data.recorded import recorded_settings
from dexrun.data.verify import verify
from dexrun.episodes.episodes import Episodes
from dexrun.episodes.keys import press
from dexrun.episodes.unrecorded import Unrecorded
from dexrun.exit_codes import NOT_DONE, OK
from dexrun.modes.attempt_episodes import AttemptEpisodes
from dexrun.modes.grasp import GraspMode
from dexrun.modes.grasp_attempt import GraspAttempt
from dexrun.modes.hand_over import DrivingPhase
from dexrun.modes.perception import NotSegmentedError, Perception
from dexrun.modes.sight_thread import PerceptionParts
from dexrun.modes.turns import ModeTurns
from dexrun.outcome import Outcome
from planner import plan
from planner.questions.mark import BoundingBox
from planner.questions.propose import Propose
from policies.data.opening import open_dataset
from runtime.clock import NS_PER_S
from runtime.interfaces import Segmentation
from runtime.messages import Clip, Frame, TrackedMask
from runtime.pilot import Pilot
from runtime.recording.reader import Recording
from runtime.ring import Ring
from runtime.stepped import SteppedClock
from tests.dexrun.rig import CUBE, Stage, assert_tame, perform
from tests.dexrun.tables import ARMS, WRIST

JUMP = Clip.VELOCITY | Clip.ACCELERATION


BOX = BoundingBox(bbox_2d=(1.0, 1.0, 5.0, 5.0))


def test_time_limits_run_in_the_modes_own_turns_alone() -> None:
    clock, ended = SteppedClock(), list[float]()

    async def rest(seconds: float) -> None:
        await clock.sleep_until_ns(clock.now_ns() + round(seconds * NS_PER_S))

    async def main() -> None:
        turns = ModeTurns(clock, SimpleNamespace(resting=True, ticked=anyio.lowlevel.checkpoint))  # type: ignore[arg-type]
        turns.changed(DrivingPhase.POLICY)
        with turns.at_most(1.0) as limit:
            await rest(0.5)
            for phase in (DrivingPhase.PAUSED, DrivingPhase.BRINGING, DrivingPhase.PERSON):
                turns.changed(phase)
                await rest(10.0)
            assert not turns.mine
            turns.changed(DrivingPhase.POLICY)
            await rest(10.0)
        ended.append(clock.now_ns() / NS_PER_S)
        assert limit.cancelled_caught
        assert (turns.lost, turns.driven) == (1, 1)

    clock.run(main)
    assert ended == pytest.approx([31.0], abs=0.01)


def test_a_time_limit_that_begins_in_somebody_elses_turn_does_not_run_until_the_modes_own() -> None:
    """As where a person who has the run go on after a stop pauses it in the same tick."""
    clock, ended = SteppedClock(), list[float]()

    async def rest(seconds: float) -> None:
        await clock.sleep_until_ns(clock.now_ns() + round(seconds * NS_PER_S))

    async def main() -> None:
        turns = ModeTurns(clock, SimpleNamespace(resting=True, ticked=anyio.lowlevel.checkpoint))  # type: ignore[arg-type]
        await rest(1.0)
        turns.changed(DrivingPhase.PAUSED)
        await rest(5.0)
        with turns.at_most(2.0) as limit:
            await rest(20.0)
            turns.changed(DrivingPhase.POLICY)
            await rest(20.0)
        ended.append(clock.now_ns() / NS_PER_S)
        assert limit.cancelled_caught

    clock.run(main)
    assert ended == pytest.approx([28.0], abs=0.01)


def test_every_attempt_is_an_episode_from_grasping_to_the_verdict() -> None:
    clock = SteppedClock()
    episodes = Episodes(Unrecorded(clock), RecordingOptions(), now_ns=clock.now_ns)
    record, steps = AttemptEpisodes(episodes), plan.GraspPlan("clear the table")

    def do(step: Any) -> bool:
        """Whether an episode is on once `step` is what comes next."""
        steps.step = step
        record.after(steps)
        record.before(steps)
        return episodes.recording

    for number, completed in enumerate((True, False), start=1):
        assert not do(Propose(()))
        steps.attempts.append(plan.Attempt("the cube", number))
        assert do(plan.Grasp("the cube", BOX, number))
        steps.attempts[-1].grasped = True
        assert do(plan.Place("the cube"))
        assert do(plan.Home("placed"))
        steps.attempts[-1].completed = completed
    assert not do(Propose(()))
    told = [(each["task"], each["label"], each["stop_reason"]) for each in episodes.recorder.reports]
    assert told == [("the cube", "success", "done"), ("the cube", "failure", "not done")]


@pytest.mark.parametrize(
    ("holds_up", "had_up", "made"),
    [
        (True, True, plan.Lifted(0.09)),
        (False, True, plan.PutDown()),
        (False, False, None),
        (True, False, None),
    ],
)
def test_what_is_handed_back_is_told_by_what_the_gripper_held(
    holds_up: bool, had_up: bool, made: Any
) -> None:
    attempt = object.__new__(GraspAttempt)
    moves = SimpleNamespace(holds_up=lambda: holds_up, height=lambda: 0.09)
    vars(attempt).update(_moves=moves, _had_up=had_up)
    assert attempt._handed_back() == made


def test_a_gripper_that_closes_on_nothing_holds_nothing() -> None:
    """While it closes it is asked for more than it is, as if something kept it open."""
    attempt, told = object.__new__(GraspAttempt), list[bool]()
    phases = [True] * 10 + [False] + [True] * 17
    vars(attempt).update(
        _moves=SimpleNamespace(holds_something=lambda: phases.pop(0), holds_up=lambda: True),
        _turns=SimpleNamespace(mine=False),
        _rate_hz=30.0,
        _had_up=False,
        _held_ticks=0,
    )
    while phases:
        attempt.look()
        told.append(attempt._had_up)
    assert told.index(True) == 10 + 1 + 15


def test_keys_of_a_mode_with_episodes_of_its_own_are_its_own() -> None:
    pressed: list[str] = []
    extra = {name: (lambda name=name: pressed.append(name)) for name in ("take", "quit")}
    for command in ("toggle", "take", "success", "quit"):
        press(None, command, extra)  # type: ignore[arg-type]
    assert pressed == ["take", "quit"]


def test_taking_over_without_a_leader_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text((ARMS.partition("[leader]")[0] + WRIST).format(runs=tmp_path, cube=CUBE))
    words = ["--config", str(file), "--grasp.head", "wrist", "--grasp.wrist", "", "--policy.type", "still"]
    load(words, {})
    with pytest.raises(ConfigError, match=r"grasp\.take_over = true needs a \[leader\] table"):
        load([*words, "--grasp.take_over", "true"], {})


class Eye:
    """A camera, a segmenter and a tracker that sees what it is shown."""

    name = "head"

    def __init__(self) -> None:
        self.frames = Ring({"color": ((8, 8, 3), "|u1")}, 4)

    def segment(self, color: Any, prompt: Any) -> Any:
        return Segmentation(np.ones((8, 8), np.uint8), 1.0)

    def init(self, frame: Frame, mask: Any) -> TrackedMask:
        return TrackedMask("head", frame.stamp_ns, mask, 1.0)


def test_what_is_tracked_is_tracked_on_for_whoever_goes_on() -> None:
    clock, eye, kept = SteppedClock(), Eye(), list[int]()
    parts = PerceptionParts("eye", eye, eye)  # type: ignore[arg-type]
    perception = Perception(eye, parts, clock, lambda mask: kept.append(mask.stamp_ns))  # type: ignore[arg-type]
    frame = Frame("head", 7, np.zeros((8, 8, 3), np.uint8), None)

    async def main() -> None:
        perception.start()
        with pytest.raises(NotSegmentedError, match="not tracked any more"):
            await perception.keep_on(1)
        await perception.track(frame, BOX, 2)
        mask = await perception.keep_on(3)
        assert (mask.attempt, mask.stamp_ns, perception.failure(3)) == (3, 7, "")
        await perception.stop()

    clock.run(main)
    assert kept == [7]  # no mask is recorded twice


@pytest.mark.slow
def test_what_a_person_lifted_is_placed_and_every_row_says_who_drove(tmp_path: Path) -> None:
    async def script(stage: Stage) -> None:
        await stage.until(lambda: stage.step.startswith("grasp") and len(stage.up.control.horizon) > 0)
        mode = stage.mode
        assert isinstance(mode, GraspMode)
        await stage.rest(0.8)
        mode.commands()["take"]()  # the script takes what is offered, lifts, and gives back
        await stage.until(lambda: stage.step.startswith("the person drives"))
        await stage.until(lambda: stage.step.startswith("place"))
        mode.commands()["pause"]()
        await stage.rest(0.5)
        mode.commands()["pause"]()

    stage = perform(tmp_path, script, grasp__take_over="true", grasp__attempt_timeout_s="8")
    summary = stage.summary
    assert stage.code == OK, summary["stop_reason"]
    (attempt,) = summary["attempts"]
    assert (attempt["grasped"], attempt["completed"]) == (True, True)
    assert attempt["person_s"] > 3
    assert summary["judge"]["success"]
    assert_tame(stage.up)
    with Recording(stage.folder) as recording:
        (episode,) = recording.episodes
        assert (episode.label, episode.task) == ("success", attempt["instruction"])
        ticks = episode.columns("/ticks")
        pilots, clips = ticks["pilot"], ticks["clips"]
        assert set(pilots.tolist()) == set(Pilot)
        for at in np.flatnonzero(np.diff(pilots) != 0):
            assert not (clips[at : at + 6] & JUMP).any(), (at, pilots[at : at + 2])
        verdict = verify(episode, recorded_settings(episode))
        assert verdict.same, verdict.difference
    dataset = open_dataset(stage.folder)
    mark = dataset.episodes[0].read("intervention", np.arange(dataset.episodes[0].length)).reshape(-1)
    assert 0 < mark.sum() < len(mark)


class Followed:
    """What the mode uses of a control loop that follows a person."""

    def __init__(self) -> None:
        self.source: Any = "the person's leader"
        self.asked: list[str] = []

    def idle(self) -> None:
        self.asked.append("idle")

    def rest(self) -> None:
        self.asked.append("rest")

    def follow(self, source: Any) -> None:
        self.source = source


def bare(**parts: Any) -> GraspMode:
    """A mode of which a test makes what it needs."""
    mode = object.__new__(GraspMode)
    vars(mode).update(parts)
    return mode


def test_an_attempt_that_comes_to_nothing_while_a_person_drives_leaves_him_the_arm() -> None:
    """He took over while the object was still being looked for."""

    async def track(*_: Any) -> None:
        raise NotSegmentedError("nothing stands out")

    control, attempt = Followed(), object.__new__(GraspAttempt)
    vars(attempt).update(
        _control=control,
        _step=plan.Grasp("the cube", BOX, 1),
        _marked="a picture",
        _options=SimpleNamespace(attempt_timeout_s=25.0),
        _worker=SimpleNamespace(attempt=lambda words: SimpleNamespace(number=1)),
        _perception=SimpleNamespace(track=track, forget=lambda: None),
        _failures=SimpleNamespace(note=lambda attempt: None),
    )

    async def main() -> None:
        outcome = await attempt.run()
        assert isinstance(outcome, plan.Failed)

    anyio.run(main)
    assert (control.source, control.asked) == ("the person's leader", [])


@pytest.mark.parametrize("mine", [True, False])
def test_another_prompt_takes_the_arm_from_the_mode_alone(mine: bool) -> None:
    control = Followed()
    mode = bare(
        _control=control,
        _turns=SimpleNamespace(mine=mine),
        _record=None,
        _plan=plan.GraspPlan("clear the table"),
        _options=plan.PlanConfig(),
        _told="put the cube in the tray",
    )
    mode._begin_anew()
    assert mode.prompt == "put the cube in the tray"
    assert control.asked == (["rest"] if mine else [])


def test_who_ends_the_run_before_it_has_begun_is_not_waited_for() -> None:
    clock = SteppedClock()

    async def main() -> Outcome:
        control: Any = SimpleNamespace(resting=True, source=None, ticked=anyio.sleep_forever)
        turns = ModeTurns(clock, control)
        hand_over = SimpleNamespace(rest=lambda: turns.changed(DrivingPhase.NOBODY))
        mode = bare(
            _clock=clock,
            _control=control,
            _robot=SimpleNamespace(leader=None),
            _turns=turns,
            _take_over=SimpleNamespace(hand_over=hand_over),
            _record=None,
            _plan=plan.GraspPlan("clear the table"),
            _left_s=300.0,
            _options=SimpleNamespace(time_limit_s=300.0),
            _moves=SimpleNamespace(home=anyio.sleep_forever),
            _told="",
            _done=[],
            _quitting=False,
            _whole=anyio.CancelScope(),
            _present=anyio.CancelScope(),
        )
        mode._quit()
        return await mode.run()

    outcome = clock.run(main)
    assert (outcome.outcome, outcome.reason, outcome.exit_code) == ("incomplete", "asked to quit", NOT_DONE)
    assert clock.now_ns() == 0
