"""How far a follower is behind its leader: ``python -m bench.teleop_latency [--rates 30 100]``; one line.

Whole runs of teleoperation in the simulated tabletop with its scripted operator, on the stepped clock: the
figures are exact and hang on no machine. From the recording, per rate of the control loop:

``goal_ms``: at any time, how long ago the leader was where the servos' goal of now is: its sampling, the wait
for a tick, and the time until the next goal; mean and max.
``motion_ms``: the shift at which the follower's measured motion fits the leader's best, servos' lag included.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.messages import Floats
from runtime.recording.reader import Episode, Recording
from runtime.tick import TickFlag

ROOT = Path(__file__).parent.parent
LONGEST_MS = 400
SMOOTH_MS = 40


def play(rate_hz: float, seconds: float, runs: Path, extra: list[str]) -> Path:
    """One run; returns its folder."""
    command = [sys.executable, "-m", "dexrun", "--config", str(ROOT / "config.toml"), "--mode", "teleop"]
    command += ["--realtime.clock", "stepped", "--terminal.style", "none", "--recording.api", "false"]
    command += ["--control.rate_hz", str(rate_hz), "--teleop.duration_s", str(seconds)]
    folder = runs / f"{rate_hz:g}"
    subprocess.run([*command, "--runs", str(folder), *extra], cwd=ROOT, check=True, capture_output=True)
    return folder / "latest"


def goal_ages_ms(ticks: dict[str, NDArray[Any]], sent_ns: NDArray[np.int64]) -> tuple[float, float]:
    """Mean over time, and largest, of the age of the leader's state that the goal in force was made of."""
    led = (ticks["flags"] & TickFlag.LEADER != 0) & (ticks["leader_stamp_ns"] >= 0)
    stamps, leader = ticks["stamp_ns"][led], ticks["leader_stamp_ns"][led]
    tick = np.searchsorted(stamps, sent_ns, side="right") - 1
    known = tick >= 0
    written, tick = sent_ns[known], tick[known]
    age, held = (written - leader[tick])[:-1], np.diff(written)
    return float((held * (age + held / 2)).sum() / held.sum()) / 1e6, float((age + held).max()) / 1e6


def motion_lag_ms(leader: tuple[NDArray[np.int64], Floats], arm: tuple[NDArray[np.int64], Floats]) -> float:
    """The shift between two motions ``(stamps, positions[N, D])`` at which their speeds differ least."""
    begin, end = max(leader[0][0], arm[0][0]), min(leader[0][-1], arm[0][-1])
    grid = np.arange(begin, end, 1_000_000)

    def speed(stamps: NDArray[np.int64], positions: Floats) -> Floats:
        even = np.stack([np.interp(grid, stamps, joint) for joint in positions.T], axis=1)
        return np.asarray(even[SMOOTH_MS:] - even[:-SMOOTH_MS])

    led, followed = speed(*leader), speed(*arm)
    count = len(led) - LONGEST_MS
    errors = [
        float(((followed[shift : shift + count] - led[:count]) ** 2).sum()) for shift in range(LONGEST_MS)
    ]
    return float(np.argmin(errors))


def measured(episode: Episode) -> dict[str, Any]:
    """The figures of one episode."""
    mean, largest = goal_ages_ms(episode.columns("/ticks"), episode.stamps("/arm/sent"))
    sides = [
        (episode.stamps(t), episode.array(t, "position")[:, :5]) for t in ("/leader/state", "/arm/state")
    ]
    return {
        "goal_ms": {"mean": round(mean, 2), "max": round(largest, 2)},
        "motion_ms": motion_lag_ms(sides[0], sides[1]),
    }


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rates", type=float, nargs="+", default=[30.0, 100.0], help="of the control loop")
    parser.add_argument("--seconds", type=float, default=10.0, help="of teleoperation")
    arguments, extra = parser.parse_known_args()
    rates: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for rate_hz in arguments.rates:
            with Recording(play(rate_hz, arguments.seconds, Path(scratch), extra)) as recording:
                rates[f"{rate_hz:g}"] = measured(recording.episodes[0])
    print(json.dumps({"bench": "teleop_latency", "rates_hz": rates}))


if __name__ == "__main__":
    main()
