"""Whatever a person asks for, in whatever order, and whatever is unplugged meanwhile: what the arm is told.

Commands come as a panel sends them, at any tick of a rollout with a leader that can be brought, on one arm or
on two, or of a teleoperation; the disk is full now and then; signals come as ever. What is looked at is every
target that was posted.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runtime.limits import LEAST_SPEED
from runtime.recording.reader import Recording
from tests.dexrun import any_order
from tests.dexrun.any_order import Person, Step, play
from tests.dexrun.tables import TWO_ARMS, WRIST

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


ENDS = st.sampled_from([*any_order.ENDS, "SIGINT SIGINT"])
PARKED = {True: "[0.3, -1.0, 1.0, 0.5, 0.0]", False: "[]"}


@pytest.mark.slow
@settings(max_examples=60, suppress_health_check=list(HealthCheck), deadline=None)
@given(steps=some(DONE, PUSHED), end=ENDS, park=st.booleans(), home=st.booleans())
def test_whatever_is_asked_for_in_whatever_order(steps: list[Step], end: str, park: bool, home: bool) -> None:
    keys = {"control__park_rad": PARKED[park], "rollout__home": str(home).lower()}
    with tempfile.TemporaryDirectory() as folder:
        play(Path(folder), steps, end, Person(), rollout__take_over="true", **keys)


@pytest.mark.slow
@settings(max_examples=30, suppress_health_check=list(HealthCheck), deadline=None)
@given(steps=some(DONE, PUSHED), end=ENDS, park=st.booleans(), home=st.booleans())
def test_whatever_is_asked_of_two_arms(steps: list[Step], end: str, park: bool, home: bool) -> None:
    both = f"{PARKED[park][:-1]}, {PARKED[park][1:]}" if park else "[]"
    keys = {"control__park_rad": both, "rollout__home": str(home).lower(), "tables": TWO_ARMS + WRIST}
    with tempfile.TemporaryDirectory() as folder:
        play(Path(folder), steps, end, Person(), rollout__take_over="true", **keys)


@pytest.mark.slow
@settings(max_examples=30, suppress_health_check=list(HealthCheck), deadline=None)
@given(steps=some(DONE, PUSHED, PUSHED), end=ENDS, park=st.booleans(), recorded=st.booleans())
def test_whatever_is_asked_of_teleoperation(steps: list[Step], end: str, park: bool, recorded: bool) -> None:
    keys = {"mode": "teleop", "control__park_rad": PARKED[park], "recording__teleop": str(recorded).lower()}
    with tempfile.TemporaryDirectory() as folder:
        play(Path(folder), steps, end, Person(), **keys)


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
            small = play(Path(folder), steps, end, Person(ballast), rollout__take_over="true", **keys)
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
