"""Whatever a person asks for, in whatever order, and whatever is unplugged meanwhile: what the arm is told.

Commands come as a panel sends them, at any tick of a rollout with a leader that can be brought; what is
looked at is every target that was posted.
"""

from __future__ import annotations

import itertools
import os
import signal
import tempfile
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
from tests.dexrun.small_run import D, Moment, Small, perform

RATE = 30
VELOCITY, ACCELERATION = 2.5, 20.0
GRIPPER = 5
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
            "reset",
        ]
    ).map(lambda name: (name, ())),
    st.sampled_from(["this", "that", ""]).map(lambda text: ("tell", (("text", text),))),
    st.sampled_from([LEAST_SPEED, 0.3, 1.0, 7, -1, None]).map(lambda value: ("speed", (("value", value),))),
    st.sampled_from(["success", "failure", "none", "well"]).map(lambda label: ("label", (("label", label),))),
)
DONE = st.sampled_from(
    [f"{what} {device}" for what in ("unplug", "plug") for device in ("arm", "leader", "wrist")]
)
PUSHED = st.sampled_from(["push", "let be"])
STEPS = st.lists(
    st.builds(
        lambda ticks, what: Step(ticks, *what),
        st.integers(0, 25),
        st.one_of(
            ASKED, ASKED, ASKED, DONE.map(lambda name: (name, ())), PUSHED.map(lambda name: (name, ()))
        ),
    ),
    max_size=16,
)
ENDS = st.sampled_from(["quit", "stop", "stop quit", "quit stop", "signal", "signal signal"])


class Person:
    """Plays steps, and remembers what was asked for and when."""

    def __init__(self, small: Small) -> None:
        self.small = small
        self.homes: list[int] = []

    async def do(self, step: Step) -> None:
        small = self.small
        await small.pass_ticks(step.ticks)
        what, _, device = step.name.partition(" ")
        if what in ("unplug", "plug"):
            self._device(device).unplugged = what == "unplug"
        elif step.name == "push":
            small.leader.hand = np.array([0.9, -0.4, 0.5, 0.3, -0.8, 0.5])
        elif step.name == "let be":
            small.leader.hand = np.zeros(D)
        else:
            small.asks(step.name, **dict(step.args))

    def _device(self, name: str) -> Any:
        return self.small.up.drivers[name]


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
        assert np.abs(speed[:GRIPPER]).max() <= allowed + 1e-6, (int(now.record["tick"]), speed, allowed)


def check_stop(moments: list[Moment]) -> None:
    """After a latch the arm comes to rest, and never moves again."""
    stopped = [at for at, moment in enumerate(moments) if moment.state == "stopped"]
    if not stopped:
        return
    assert all(moment.state == "stopped" for moment in moments[stopped[0] :])
    for _, now, speed in targets_of(moments[stopped[0] + BRAKING_TICKS :]):
        assert np.abs(speed).max() <= STILL, int(now.record["tick"])


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


def check_end(small: Small, asked: str, moments: list[Moment]) -> None:
    """There is a summary, and it and the exit code say how the run ended."""
    reason, code = small.summary["stop_reason"], small.code
    if small.summary["outcome"] == "stopped" and not reason.startswith("interrupted"):
        assert code == STOPPED, reason
    elif asked.startswith("signal"):
        assert (code, reason) == (NOT_DONE, "interrupted (SIGINT)")
    else:
        assert code in (OK, NOT_DONE), reason
    if "stop" in asked.split():
        assert small.summary["outcome"] == "stopped", reason
    if not asked.startswith("signal"):
        last = targets_of(moments[-2:])
        assert all(np.abs(speed).max() <= STILL for _, _, speed in last), "the run ended before the arm stood"


def played(folder: Path, steps: list[Step], end: str, **keys: str) -> Small:
    async def script(small: Small) -> None:
        person = Person(small)
        await small.until(lambda: small.mode is not None)
        try:
            for step in steps:
                await person.do(step)
            await small.pass_ticks(5)
            for word in end.split():
                if word == "signal":
                    os.kill(os.getpid(), signal.SIGINT)
                else:
                    small.asks(word)
            await small.pass_ticks(100)
        except NoRunError:
            return  # it has ended by itself

    return perform(folder, script, rollout__take_over="true", **keys)


@pytest.mark.slow
@settings(max_examples=60, suppress_health_check=list(HealthCheck), deadline=None)
@given(steps=STEPS, end=ENDS, park=st.booleans(), home=st.booleans())
def test_whatever_is_asked_for_in_whatever_order(steps: list[Step], end: str, park: bool, home: bool) -> None:
    keys = {"control__stop_after_hold_s": "2", "rollout__home": str(home).lower()}
    if park:
        keys["control__park_rad"] = "[0.3, -1.0, 1.0, 0.5, 0.0]"
    with tempfile.TemporaryDirectory() as folder:
        small = played(Path(folder), steps, end, **keys)
        moments = small.moments
        check_speed(moments)
        check_stop(moments)
        check_hold(moments)
        check_who_drives(moments)
        check_leader(small)
        check_end(small, end, moments)
