"""What became of each episode of a rollout: the table at its end."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from runtime.pilot import Pilot
from runtime.recording.takes import Take

_Z = 1.96
"""Of a normal distribution: 95 % lie within so many standard deviations."""


@dataclass
class EpisodeTally:
    """What was counted while an episode was on.

    Attributes:
        driven: ticks by who drove. held: ticks in which the arm was held by a fault or a missing input.
        takeovers: how often a person took control. failures: the policy's, by kind.
    """

    take: Take
    driven: Counter[Pilot] = field(default_factory=Counter)
    held: int = 0
    takeovers: int = 0
    failures: Counter[str] = field(default_factory=Counter)

    def as_json(self, rate_hz: float) -> dict[str, Any]:
        """For the summary. ``outcome`` is the label; ``why`` says what ended it."""
        return {
            "episode": self.take.index,
            "task": self.take.task,
            "outcome": self.take.label,
            "duration_s": round(self.take.duration_s, 3),
            "why": self.take.reason,
            "policy_s": round(self.driven[Pilot.POLICY] / rate_hz, 3),
            "person_s": round(self.driven[Pilot.PERSON] / rate_hz, 3),
            "held_s": round(self.held / rate_hz, 3),
            "takeovers": self.takeovers,
            "policy_failures": dict(self.failures),
        }


def interval(successes: int, count: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a rate (E. B. Wilson, 1927); 0 to 1 where nothing was counted."""
    if count == 0:
        return 0.0, 1.0
    share, z2 = successes / count, _Z**2
    middle = share + z2 / (2 * count)
    half = _Z * math.sqrt(share * (1 - share) / count + z2 / (4 * count**2))
    low, high = ((middle + sign * half) / (1 + z2 / count) for sign in (-1, 1))
    return max(0.0, low), min(1.0, high)


def summarised(tallies: Iterable[EpisodeTally], rate_hz: float) -> dict[str, Any]:
    """The summary's ``rollout``: episodes that were not discarded, and how many were a success.

    The rate is of those that have an outcome.
    """
    episodes = [tally.as_json(rate_hz) for tally in tallies if not tally.take.discarded]
    outcomes = Counter(str(episode["outcome"]) for episode in episodes)
    judged = outcomes["success"] + outcomes["failure"]
    low, high = interval(outcomes["success"], judged)
    return {
        "successes": outcomes["success"],
        "failures": outcomes["failure"],
        "without_outcome": outcomes["none"],
        "success_rate": round(outcomes["success"] / judged, 4) if judged else None,
        "interval_95": [round(low, 4), round(high, 4)],
        "episodes": episodes,
    }


_COLUMNS = ("episode", "outcome", "seconds", "policy", "person", "why")


def table(summary: Mapping[str, Any]) -> str:
    """For a person: a line for each episode, and one for all."""
    rows: list[Sequence[str]] = [_COLUMNS]
    for each in summary["episodes"]:
        outcome = "-" if each["outcome"] == "none" else each["outcome"]
        seconds = [f"{each[key]:.1f}" for key in ("duration_s", "policy_s", "person_s")]
        rows.append((str(each["episode"]), outcome, *seconds, _why(each)))
    widths = [max(len(row[column]) for row in rows) for column in range(len(_COLUMNS) - 1)]
    lines = [
        "  ".join([*(cell.rjust(width) for cell, width in zip(row, widths, strict=False)), row[-1]]).rstrip()
        for row in rows
    ]
    return "\n".join([*lines, in_words(summary), ""])


def in_words(summary: Mapping[str, Any]) -> str:
    """Successes of how many."""
    judged = summary["successes"] + summary["failures"]
    open_ones = summary["without_outcome"]
    rest = f"; {open_ones} without an outcome" if open_ones else ""
    if not judged:
        return f"no episode has an outcome{rest}"
    low, high = summary["interval_95"]
    return (
        f"{summary['successes']} of {judged} episodes succeeded: {summary['success_rate']:.0%}, "
        f"95 % interval {low:.0%} to {high:.0%}{rest}"
    )


def _why(each: Mapping[str, Any]) -> str:
    failures = ", ".join(f"{kind} {times}" for kind, times in each["policy_failures"].items())
    held = f"held {each['held_s']:.1f} s" if each["held_s"] else ""
    policy = f"policy: {failures}" if failures else ""
    return "; ".join(part for part in (each["why"], policy, held) if part)
