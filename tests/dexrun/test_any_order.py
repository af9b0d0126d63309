"""Whatever a person asks for, in whatever order, and whatever is unplugged meanwhile: what the arm is told.

Commands come as a panel sends them, at any tick of a rollout with a leader that can be brought, on one arm or
on two, or of a teleoperation; the disk is full now and then; signals come as ever. What is looked at is every
target that was posted.
"""

from __future__ import annotations

import itertools
import os
import signal
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dexrun.exit_codes import NOT_DONE, OK, STOPPED
from dexrun.panel.link import NoRunError
from runtime.limits import LEAST_SPEED
from runtime.messages import Floats
from runtime.pilot import Pilot
from runtime.recording.reader import Recording
from tests.dexrun.small_run import TWO_ARMS, D, Moment, Small, perform
from tests.small_disk import small_disk

RATE = 30
VELOCITY, ACCELERATION = 2.5, 20.0
GRIPPER = 5
"""Of each arm, the last joint."""
BRAKING_TICKS = 4 + int(np.ceil(VELOCITY / (0.9 * ACCELERATION / RATE)))
RETURN_TICKS = 30
"""After it was held an arm that was fast goes past what is held, and is back in this time."""
STILL = 1e-9
MAY: dict[str, set[Pilot]] = {
    "NOBODY": {Pilot.NOBODY, Pilot.MOTION},
    "POLICY": {Pilot.NOBODY, Pilot.POLICY},
    "PAUSED": {Pilot.NOBODY, Pilot.MOTION},
    "BRINGING": {Pilot.NOBODY},
    "OFFERED": {Pilot.NOBODY},
    "AWAITED": {Pilot.NOBODY},
    "PERSON": {Pilot.PERSON},
}
"""What may be followed, by who drives."""


@dataclass(frozen=True)
class Step:
    """Ticks that pass, then what is asked for, or done to the robot."""

    ticks: int
    name: str
    args: tuple[tuple[str, Any], ...] = ()


ASKED = st.one_of(
    st.sampled_from(
        [
            "hold",
            "resume",
            "home",
            "pause",
            "take",
            "take",
            "give",
            "start",
            "end",
            "discard",
            "keep",
            "stop",
        ]
    ).map(lambda name: (name, ())),
    st.tuples(
        st.sampled_from(["reset", "reset", "resume"]), st.sampled_from(["newest", "newest", "before", "none"])
    ).map(lambda asked: (asked[0], (("seen", asked[1]),))),
    st.just(("go on", ())),
    st.sampled_from(["this", "that", ""]).map(lambda text: ("tell", (("text", text),))),
    st.sampled_from([LEAST_SPEED, 0.3, 1.0, 7, -1, None]).map(lambda value: ("speed", (("value", value),))),
    st.sampled_from(["success", "failure", "none", "well"]).map(lambda label: ("label", (("label", label),))),
)
DONE = st.sampled_from(
    [f"{what} {device}" for what in ("unplug", "plug") for device in ("arm", "leader", "wrist")]
)
PUSHED = st.sampled_from(["push", "let be"])
DISK = st.sampled_from(["fill", "clear"])


def some(*done: st.SearchStrategy[str]) -> st.SearchStrategy[list[Step]]:
    """Steps of what is asked for, and of what is `done` besides."""
    besides = [each.map(lambda name: (name, ())) for each in done]
    what = st.one_of(ASKED, ASKED, ASKED, *besides)
    return st.lists(st.builds(lambda ticks, what: Step(ticks, *what), st.integers(0, 25), what), max_size=16)


ENDS = st.sampled_from(
    [
        "quit",
        "stop",
        "stop quit",
        "quit stop",
        "SIGINT",
        "SIGTERM",
        "SIGINT SIGINT",
        "SIGINT SIGTERM",
        "stop SIGINT",
        "SIGTERM stop",
    ]
)


class Person:
    """Plays steps.

    Attributes:
        old: commands of somebody who has not seen the newest stop.
    """

    def __init__(self, small: Small, ballast: Path | None) -> None:
        self.small = small
        self.old: list[int] = []
        self._ballast = ballast

    async def do(self, step: Step) -> None:
        small = self.small
        await small.pass_ticks(step.ticks)
        what, _, device = step.name.partition(" ")
        if what in ("unplug", "plug"):
            self._device(device).unplugged = what == "unplug"
        elif step.name in ("push", "let be"):
            for leader in small.leaders:
                leader.hand = np.array([0.9, -0.4, 0.5, 0.3, -0.8, 0.5]) * (step.name == "push")
        elif step.name in ("fill", "clear"):
            self._have_the_disk(full=step.name == "fill")
        elif step.name == "go on":
            await small.pass_ticks(BRAKING_TICKS)
            for name in ("reset", "resume"):
                small.asks(name, small.up.stopping.number)
        elif "seen" in dict(step.args):
            self._asks_as_seen(step.name, str(dict(step.args)["seen"]))
        else:
            small.asks(step.name, **dict(step.args))

    def _asks_as_seen(self, name: str, seen: str) -> None:
        number = self.small.up.stopping.number
        known = {"newest": number, "before": number - 1, "none": None}[seen]
        asked = self.small.asks(name, known)
        if seen == "before":
            self.old.append(asked)

    def _device(self, name: str) -> Any:
        drivers = self.small.up.drivers
        return drivers.get(name) or drivers[f"{name}s.left"]

    def _have_the_disk(self, *, full: bool) -> None:
        """Not a byte is left on it, or what was put there is gone."""
        assert self._ballast is not None
        if not full:
            self._ballast.unlink(missing_ok=True)
            return
        with self._ballast.open("ab", buffering=0) as file:
            for size in (1 << 16, 1 << 12):
                while True:
                    try:
                        if file.write(bytes(size)) < size:
                            break
                    except OSError:
                        break


def targets_of(moments: list[Moment]) -> list[tuple[Moment, Moment, Floats]]:
    """Neighbouring ticks that both posted a target, and how fast that went, rad/s."""
    return [
        (before, now, (now.target - before.target) * RATE)
        for before, now in itertools.pairwise(moments)
        if np.isfinite(now.target).all() and np.isfinite(before.target).all()
    ]


def check_speed(moments: list[Moment]) -> None:
    """No joint is faster than its limit, times what a person has limited it to, once it is braked to that."""
    allowed = VELOCITY
    for before, now, speed in targets_of(moments):
        allowed = max(VELOCITY * before.share, allowed - 0.9 * ACCELERATION / RATE)
        joints = speed.reshape(-1, D)[:, :GRIPPER]
        assert np.abs(joints).max() <= allowed + 1e-6, (int(now.record["tick"]), speed, allowed)


def check_rest(moments: list[Moment]) -> None:
    """The arm comes to rest, and stays there; nothing is followed then."""
    for _, now, speed in targets_of(moments[BRAKING_TICKS:]):
        assert np.abs(speed).max() <= STILL, int(now.record["tick"])


def check_stop(moments: list[Moment]) -> None:
    """After a latch that nobody may reset the arm comes to rest, and never moves again."""
    stopped = [at for at, each in enumerate(moments) if (each.state, each.stop) == ("stopped", "ready")]
    if stopped:
        assert all(moment.state == "stopped" for moment in moments[stopped[0] :])
        check_rest(moments[stopped[0] :])


def check_persons_stop(moments: list[Moment]) -> None:
    """From a person's stop until somebody has the run go on the arm stands, also once the stop is reset."""
    for waits, group in itertools.groupby(moments, lambda each: each.stop != "ready"):
        run = list(group)
        if not waits:
            continue
        check_rest(run)
        for now in run:
            assert now.state == ("stopped" if now.stop == "latched" else "holding") or now is run[-1]
        assert all(now.pilot is Pilot.NOBODY for now in run[BRAKING_TICKS + 2 :])


def check_hold(moments: list[Moment]) -> None:
    """While it is held what is asked for stays the same, or is where the arm is asked to be already; and the
    arm is there before long.
    """
    for held, group in itertools.groupby(moments, lambda each: each.state == "holding"):
        run = list(group)
        if not held:
            continue
        for before, now, _ in targets_of(run):
            moved = np.abs(now.record["requested"] - before.record["requested"]).max()
            here = np.abs(now.record["requested"] - before.target).max()
            assert min(moved, here) <= STILL, int(now.record["tick"])
        for _, now, speed in targets_of(run[RETURN_TICKS:]):
            assert np.abs(speed).max() <= STILL, int(now.record["tick"])


def check_who_drives(moments: list[Moment]) -> None:
    """Nothing is followed but what whoever drives has followed; paused, an arm moves home alone."""
    for before, now in itertools.pairwise(moments):
        assert now.pilot in MAY.get(now.phase, set(Pilot)) | MAY.get(before.phase, set()), (
            int(now.record["tick"]),
            before.phase,
            now.phase,
            now.pilot,
        )


def check_leader(small: Small) -> None:
    """Its motors hold it only to be taken over."""
    for phase, group in itertools.groupby(small.moments, lambda each: each.phase in ("BRINGING", "OFFERED")):
        if not phase:
            assert not any(each.held for each in list(group)[3:])


def check_end(small: Small, asked: str, moments: list[Moment], *, stopped: bool) -> None:
    """There is a summary, and it and the exit code say how the run ended; `stopped`, as the last thing."""
    reason, code = small.summary["stop_reason"], small.code
    if small.summary["outcome"] == "stopped" and not reason.startswith("interrupted"):
        assert code == STOPPED, reason
    elif asked.startswith("SIG") and "could be written" not in reason:  # by which it had ended
        assert (code, reason) == (NOT_DONE, f"interrupted ({asked.split()[0]})")
    else:
        assert code in (OK, NOT_DONE), reason
    if stopped:
        assert small.summary["outcome"] == "stopped", reason
    last = targets_of(moments[-2:])
    assert all(np.abs(speed).max() <= STILL for _, _, speed in last), "the run ended before the arm stood"


def check_order(small: Small, old: list[int]) -> None:
    """What was asked for before the newest stop is not done."""
    assert all(small.answers[number] for number in old if number in small.answers)


def check(small: Small, old: list[int], end: str, *, stopped: bool) -> None:
    moments = small.moments
    check_speed(moments)
    check_stop(moments)
    check_persons_stop(moments)
    check_hold(moments)
    check_who_drives(moments)
    check_leader(small)
    check_order(small, old)
    check_end(small, end, moments, stopped=stopped)


def play(folder: Path, steps: list[Step], end: str, ballast: Path | None = None, /, **keys: str) -> Small:
    """One run, and all that is checked of it."""
    old, stops = list[int](), list[int]()

    async def script(small: Small) -> None:
        person = Person(small, ballast)
        person.old = old
        await small.until(lambda: small.mode is not None)
        try:
            for step in steps:
                await person.do(step)
            await small.pass_ticks(5)
            for word in end.split():
                if word.startswith("SIG"):
                    os.kill(os.getpid(), signal.Signals[word])
                else:
                    number = small.asks(word)
                    stops.extend([number] if word == "stop" else [])
            await small.pass_ticks(40)
            small.asks("quit")  # a stop waits for somebody
            await small.pass_ticks(100)
        except NoRunError:
            return  # it has ended

    given = {"control__stop_after_hold_s": "2", "rollout__take_over": "true", **keys}
    small = perform(folder, script, **given)
    check(small, old, end, stopped=any(small.answers.get(number) == "" for number in stops))
    return small


PARKED = {True: "[0.3, -1.0, 1.0, 0.5, 0.0]", False: "[]"}


@pytest.mark.slow
@settings(max_examples=60, suppress_health_check=list(HealthCheck), deadline=None)
@given(steps=some(DONE, PUSHED), end=ENDS, park=st.booleans(), home=st.booleans())
def test_whatever_is_asked_for_in_whatever_order(steps: list[Step], end: str, park: bool, home: bool) -> None:
    keys = {"control__park_rad": PARKED[park], "rollout__home": str(home).lower()}
    with tempfile.TemporaryDirectory() as folder:
        play(Path(folder), steps, end, **keys)


@pytest.mark.slow
@settings(max_examples=30, suppress_health_check=list(HealthCheck), deadline=None)
@given(steps=some(DONE, PUSHED), end=ENDS, park=st.booleans(), home=st.booleans())
def test_whatever_is_asked_of_two_arms(steps: list[Step], end: str, park: bool, home: bool) -> None:
    both = f"{PARKED[park][:-1]}, {PARKED[park][1:]}" if park else "[]"
    keys = {"control__park_rad": both, "rollout__home": str(home).lower(), "tables": TWO_ARMS}
    with tempfile.TemporaryDirectory() as folder:
        play(Path(folder), steps, end, **keys)


@pytest.mark.slow
@settings(max_examples=30, suppress_health_check=list(HealthCheck), deadline=None)
@given(steps=some(DONE, PUSHED, PUSHED), end=ENDS, park=st.booleans(), recorded=st.booleans())
def test_whatever_is_asked_of_teleoperation(steps: list[Step], end: str, park: bool, recorded: bool) -> None:
    keys = {"mode": "teleop", "control__park_rad": PARKED[park], "recording__teleop": str(recorded).lower()}
    with tempfile.TemporaryDirectory() as folder:
        play(Path(folder), steps, end, **keys)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 12 MB."""
    with small_disk(tmp_path / "disk", 12) as folder:
        yield folder


@pytest.mark.slow
@settings(max_examples=30, suppress_health_check=list(HealthCheck), deadline=None)
@given(steps=some(DONE, PUSHED, DISK, DISK), end=ENDS)
def test_whatever_is_asked_for_while_the_disk_is_full_now_and_then(
    disk: Path, steps: list[Step], end: str
) -> None:
    """Every episode is recorded, or it is said that it is not; a run always leaves its summary."""
    keys = {"recording__rollout": "true", "recording__min_free_mib": "1", "recording__warn_free_mib": "2"}
    ballast = disk / "ballast"
    with tempfile.TemporaryDirectory(dir=disk) as folder:
        try:
            small = play(Path(folder), steps, end, ballast, **keys)
        finally:
            ballast.unlink(missing_ok=True)
        recorded = small.summary["recording"]
        written = [each for each in recorded["episodes"] if each["bytes"] or not each.get("error")]
        assert recorded["recorded"] == len(written), recorded
        for episode in recorded["episodes"]:
            assert episode["state"] in ("finished", "left"), episode
        place = Path(recorded["folder"])
        finished = [each["episode"] for each in written if each["state"] == "finished"]
        assert [int(path.stem[-6:]) for path in sorted(place.glob("*.mcap"))] == finished
        if finished:
            with Recording(place) as recording:
                assert [episode.index for episode in recording.episodes] == finished
