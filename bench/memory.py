"""``python -m bench.memory``: what a run keeps of every episode, in memory; one JSON line.

One stepped run of teleoperation with `--episodes` episodes of `--episode-s` seconds; by default an hour of
200. After each the memory of the program is read. What it grows by is taken over the second half, when every
buffer has been used.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import resource
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import anyio
import numpy as np

from bench.campaign_plan import LIGHT
from dexrun.app import run
from dexrun.config.load import load
from dexrun.episodes.recording import RunRecording
from dexrun.modes.mode import Mode
from dexrun.modes.opening import open_mode
from dexrun.robot import Robot
from dexrun.run_folder import RunFolder
from dexrun.run_record import RunRecord
from runtime.clock import NS_PER_S
from runtime.stepped import SteppedClock

ROOT = Path(__file__).parents[1]
RESET_S = 0.5


def resident_mib() -> float:
    """Of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def measure(episodes: int, episode_s: float, runs: Path, extra: Sequence[str]) -> tuple[int, list[float]]:
    """The exit code of a run of so many episodes, and the memory after each, in MiB."""
    clock, seen = SteppedClock(), list[float]()

    async def look(recording: RunRecording) -> None:
        while True:
            recorded = recording.episodes.recorded
            await clock.sleep_until_ns(clock.now_ns() + NS_PER_S // 5)
            if recording.episodes.recorded > recorded:
                gc.collect()
                seen.append(resident_mib())

    @contextlib.asynccontextmanager
    async def opener(
        robot: Robot, folder: RunFolder, record: RunRecord, recording: RunRecording | None
    ) -> AsyncIterator[Mode]:
        assert recording is not None  # noqa: S101 - it is configured
        async with open_mode(robot, folder, record, recording) as mode, anyio.create_task_group() as beside:
            beside.start_soon(look, recording)
            yield mode
            beside.cancel_scope.cancel()

    options = LIGHT | {"mode": "teleop", "teleop.scripted": "false", "world.operator.enabled": "true"}
    options |= {"recording.episodes": str(episodes), "recording.episode_s": str(episode_s)}
    options |= {"recording.reset_s": str(RESET_S), "runs": str(runs), "terminal.level": "WARNING"}
    words = [word for key, value in options.items() for word in (f"--{key}", value)]
    return run(load(["--config", str(ROOT / "config.toml"), *words, *extra], {}), clock, opener), seen


def growth_mib(seen: Sequence[float]) -> float:
    """By how much memory grows with each episode, over the second half."""
    late = np.array(seen[len(seen) // 2 :])
    return float(np.polyfit(np.arange(len(late)), late, 1)[0]) if len(late) > 2 else float("nan")


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--episodes", type=int, default=200)
    parser.add_argument("--episode-s", type=float, default=17.5)
    options, extra = parser.parse_known_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        code, seen = measure(options.episodes, options.episode_s, Path(folder), extra)
    figures = {
        "bench": "memory",
        "exit_code": code,
        "episodes": len(seen),
        "simulated_s": round(options.episodes * (options.episode_s + RESET_S)),
        "first_mib": round(seen[0], 1),
        "half_mib": round(seen[len(seen) // 2], 1),
        "last_mib": round(seen[-1], 1),
        "kib_per_episode": round(growth_mib(seen) * 1024, 1),
    }
    print(json.dumps(figures))
    return code


if __name__ == "__main__":
    sys.exit(main())
