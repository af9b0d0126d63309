"""Whatever a person asks for, in whatever order: who asks, and what must hold of any run all the same.

What is looked at is every target that was posted, and what the run left.
"""

from __future__ import annotations

import itertools
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from dexrun.exit_codes import NOT_DONE, OK, STOPPED
from dexrun.panel.link import NoRunError
from runtime.messages import Floats
from runtime.pilot import Pilot
from tests.dexrun.small_run import D, Moment, Small, perform

RATE = 30
VELOCITY, ACCELERATION = 2.5, 20.0
GRIPPER = 5
"""Of each arm, the last joint."""
BRAKING_TICKS = 4 + int(np.ceil(VELOCITY / (0.9 * ACCELERATION / RATE)))
RETURN_TICKS = 30
"""After it was held an arm that was fast goes past what is held, and is back in this time."""
STILL = 1e-9
ENDS = (
    *("quit", "stop", "stop quit", "quit stop", "SIGINT", "SIGTERM", "SIGINT SIGTERM", "stop SIGINT"),
    "SIGTERM stop",
)
"""By commands and signals, one after the other."""
MAY: dict[str, set[Pilot]] = {
    "NOBODY": {Pilot.NOBODY, Pilot.MOTION},
    "POLICY": {Pilot.NOBODY, Pilot.POLICY},
    "PAUSED": {Pilot.NOBODY, Pilot.MOTION},
    "BRINGING": {Pilot.NOBODY},
    "OFFERED": {Pilot.NOBODY},
    "AWAITED": {Pilot.NOBODY},
    "PERSON": {Pilot.PERSON},
}
"""What may be followed, by who drives; in grasp mode what drives may make prepared moves, too."""
ALONE = {**MAY, "POLICY": MAY["POLICY"] | {Pilot.MOTION}}


@dataclass(frozen=True)
class Step:
    """Ticks that pass, then what is asked for, or done to the robot."""

    ticks: int
    name: str
    args: tuple[tuple[str, Any], ...] = ()


class Person:
    """Plays steps.

    Attributes:
        old: commands of somebody who has not seen the newest stop.
        stops: those that were sent as the last thing. signals: the same, and the run was not ending yet.
        small: the run, once it is one.
    """

    small: Small

    def __init__(self, ballast: Path | None = None) -> None:
        self.old: list[int] = []
        self.stops: list[int] = []
        self.signals: list[str] = []
        self._ballast = ballast

    async def play(self, steps: list[Step], end: str, small: Small) -> None:
        """All of it; the run ends in between, or at the latest afterwards."""
        self.small = small
        await small.until(lambda: small.mode is not None)
        try:
            await self._all(steps)
            await small.pass_ticks(5)
            for word in end.split():
                await self._end(word)
            await small.pass_ticks(40)
            small.asks("quit")  # a stop waits for somebody
            await small.pass_ticks(100)
        except NoRunError:
            return  # it has ended

    async def _all(self, steps: list[Step]) -> None:
        for step in steps:
            await self.do(step)

    async def _end(self, word: str) -> None:
        if word.startswith("SIG"):
            if not (self.small.record and self.small.record.decided):
                self.signals.append(word)
            os.kill(os.getpid(), signal.Signals[word])
            return
        number = self.small.asks(word)
        if word == "stop":
            self.stops.append(number)

    @property
    def stopped(self) -> bool:
        """Whether a stop was the last thing, and was done."""
        return any(self.small.answers.get(number) == "" for number in self.stops)

    async def do(self, step: Step) -> None:
        small = self.small
        await small.pass_ticks(step.ticks)
        what, _, device = step.name.partition(" ")
        if what in ("unplug", "plug"):
            if (driver := self._device(device)) is not None:
                driver.unplugged = what == "unplug"
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
        return drivers.get(name) or drivers.get(f"{name}s.left")

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
        allowed = max(VELOCITY * before.share, VELOCITY * now.share, allowed - 0.9 * ACCELERATION / RATE)
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


def check_range(small: Small) -> None:
    """No joint is asked beyond its range."""
    low, high = small.up.model.ranges.T
    for moment in small.moments:
        inside = (moment.target >= low) & (moment.target <= high) | np.isnan(moment.target)
        assert inside.all(), (int(moment.record["tick"]), moment.target)


def check_who_drives(small: Small) -> None:
    """Nothing is followed but what whoever drives has followed; paused, an arm moves home alone."""
    may = ALONE if small.summary["mode"] == "grasp" else MAY
    for before, now in itertools.pairwise(small.moments):
        assert now.pilot in may.get(now.phase, set(Pilot)) | may.get(before.phase, set()), (
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


def check_end(person: Person) -> None:
    """There is a summary, and it and the exit code say how the run ended."""
    small = person.small
    reason, code = small.summary["stop_reason"], small.code
    if small.summary["outcome"] == "stopped" and not reason.startswith("interrupted"):
        assert code == STOPPED, reason
    elif person.signals and "could be written" not in reason:
        assert (code, reason) == (NOT_DONE, f"interrupted ({person.signals[0]})")
    else:
        assert code == (OK if small.summary["outcome"] == "completed" else NOT_DONE), reason
    if person.stopped:
        assert small.summary["outcome"] == "stopped", reason
    last = targets_of(small.moments[-2:])
    assert all(np.abs(speed).max() <= STILL for _, _, speed in last), "the run ended before the arm stood"


def check_order(person: Person) -> None:
    """What was asked for before the newest stop is not done."""
    answers = person.small.answers
    assert all(answers[number] for number in person.old if number in answers)


def check(person: Person) -> None:
    """All that must hold of any run."""
    small, moments = person.small, person.small.moments
    check_range(small)
    check_speed(moments)
    check_stop(moments)
    check_persons_stop(moments)
    check_hold(moments)
    check_who_drives(small)
    check_leader(small)
    check_order(person)
    check_end(person)


def play(
    folder: Path,
    steps: list[Step],
    end: str,
    person: Person,
    run: Callable[..., Small] = perform,
    **given: str,
) -> Small:
    """One `run`, and all that is checked of it."""
    keys = {"control__stop_after_hold_s": "2", **given}
    small = run(folder, partial(person.play, steps, end), **keys)
    check(person)
    return small
