"""The table at the end of a rollout."""

from __future__ import annotations

from pathlib import Path

import pytest

from dexrun.modes.tally import EpisodeTally, interval, summarised, table
from runtime.pilot import Pilot
from runtime.recording.disk import Draft
from runtime.recording.takes import Take

S = 1_000_000_000


def tally(index: int, label: str, seconds: float, why: str = "key", **counts: int) -> EpisodeTally:
    take = Take(index, "put the cube in the tray", 0, Draft(Path(), ()), (), 0, 0)
    take.label, take.reason, take.end_ns = label, why, round(seconds * S)
    made = EpisodeTally(take)
    made.driven.update({Pilot.POLICY: round(seconds * 30) - counts.get("person", 0)})
    made.driven[Pilot.PERSON] = counts.get("person", 0)
    made.held, made.takeovers = counts.get("held", 0), counts.get("takeovers", 0)
    return made


def test_successes_are_counted_over_what_has_an_outcome() -> None:
    tallies = [
        tally(0, "success", 4.0, person=30, takeovers=1),
        tally(1, "failure", 10.0, "episode_s is over", held=60),
        tally(2, "none", 2.0),
        tally(3, "success", 5.0),
    ]
    tallies[1].failures["policy_error"] = 3
    thrown_away = tally(4, "failure", 1.0)
    thrown_away.take.discarded = True
    summary = summarised([*tallies, thrown_away], 30.0)
    counted = {key: summary[key] for key in ("successes", "failures", "without_outcome", "success_rate")}
    assert counted == {"successes": 2, "failures": 1, "without_outcome": 1, "success_rate": 0.6667}
    first = summary["episodes"][0]
    assert (first["policy_s"], first["person_s"], first["takeovers"]) == (3.0, 1.0, 1)
    assert table(summary) == (
        "episode  outcome  seconds  policy  person  why\n"
        "      0  success      4.0     3.0     1.0  key\n"
        "      1  failure     10.0    10.0     0.0  episode_s is over; policy: policy_error 3; held 2.0 s\n"
        "      2        -      2.0     2.0     0.0  key\n"
        "      3  success      5.0     5.0     0.0  key\n"
        "2 of 3 episodes succeeded: 67%, 95 % interval 21% to 94%; 1 without an outcome\n"
    )


def test_intervals_are_wilsons() -> None:
    # the values of statsmodels' proportion_confint(..., method="wilson")
    assert interval(14, 20) == pytest.approx((0.4810, 0.8545), abs=1e-3)
    assert interval(0, 10) == pytest.approx((0.0, 0.2775), abs=1e-3)
    assert interval(10, 10) == pytest.approx((0.7225, 1.0), abs=1e-3)
    assert interval(0, 0) == (0.0, 1.0)
    assert table(summarised([], 30.0)).splitlines()[-1] == "no episode has an outcome"
