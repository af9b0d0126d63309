"""``python -m bench.grasp --seeds 20 --real 3``: "clear the table" on random scenes; one JSON line.

Every scene is a whole run of the program in a process of its own, on the stepped clock; `--real` of the
same seeds are run once more in real time, one after the other, and must end alike.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent


def play(seed: int, clock: str, runs: Path, extra: list[str]) -> dict[str, Any]:
    """One whole run; returns its summary with ``seed``, ``exit_code`` and ``wall_s``."""
    folder = runs / f"{clock}-{seed}"
    command = [sys.executable, "-m", "dexrun", "--config", str(ROOT / "config.toml")]
    command += ["--world.seed", str(seed), "--realtime.clock", clock, "--runs", str(folder)]
    command += ["--terminal.style", "none", *extra]
    began = time.monotonic()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    wall_s = time.monotonic() - began
    path = folder / "latest" / "summary.json"
    if not path.exists():
        return {"seed": seed, "exit_code": done.returncode, "wall_s": wall_s, "error": done.stderr[-500:]}
    summary = json.loads(path.read_text())
    return {**summary, "seed": seed, "exit_code": done.returncode, "wall_s": wall_s}


def completed(summary: dict[str, Any]) -> bool:
    """Said to be done, and done by the judge's ground truth."""
    return summary.get("outcome") == "completed" and summary.get("judge", {}).get("success", False)


def report(stepped: list[dict[str, Any]], real: list[dict[str, Any]], elapsed_s: float) -> dict[str, Any]:
    """The figures of the line; `elapsed_s` is what all stepped runs took together, side by side or not."""
    judges = [run["judge"] for run in stepped if "judge" in run]
    first = [a for run in stepped for a in run.get("attempts", []) if a["attempt"] == 1]
    simulated_s = sum(run.get("duration_s", 0.0) for run in stepped)
    wall_s = sum(run["wall_s"] for run in stepped)
    same = {run["seed"]: completed(run) for run in stepped}
    return {
        "bench": "grasp",
        "scenes": len(stepped),
        "completed": sum(map(completed, stepped)),
        "completed_share": round(sum(map(completed, stepped)) / max(1, len(stepped)), 3),
        "objects": sum(judge["objects_total"] for judge in judges),
        "objects_in_tray": sum(judge["objects_in_tray"] for judge in judges),
        "first_attempts": len(first),
        "first_attempt_success": round(sum(a["completed"] for a in first) / max(1, len(first)), 3),
        "simulated_s": round(simulated_s, 1),
        "wall_s_per_scene": round(wall_s / max(1, len(stepped)), 1),
        "faster_than_real_time": {
            "one_scene": round(simulated_s / max(1e-9, wall_s), 2),
            "all_scenes": round(simulated_s / max(1e-9, elapsed_s), 2),
        },
        "failed_seeds": [run["seed"] for run in stepped if not completed(run)],
        "real_time": [
            {
                "seed": run["seed"],
                "completed": completed(run),
                "same_outcome": completed(run) == same.get(run["seed"]),
                "missed_ticks": run.get("missed_ticks"),
                "starved_ticks": run.get("starved_ticks"),
                "period_error_us": run.get("period_error_us"),
                "first_tick_s": run.get("first_tick_s"),
            }
            for run in real
        ],
        "cores": os.cpu_count(),
    }


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first", type=int, default=0, help="first seed")
    parser.add_argument("--real", type=int, default=3, help="so many of the seeds in real time, too")
    parser.add_argument("--jobs", type=int, default=1, help="stepped runs side by side")
    parser.add_argument("--keep", type=Path, help="keep the runs here")
    arguments, extra = parser.parse_known_args()
    seeds = range(arguments.first, arguments.first + arguments.seeds)
    with tempfile.TemporaryDirectory() as scratch:
        runs = arguments.keep or Path(scratch)
        began = time.monotonic()
        with ThreadPoolExecutor(arguments.jobs) as pool:
            stepped = list(pool.map(lambda seed: play(seed, "stepped", runs, extra), seeds))
        elapsed_s = time.monotonic() - began
        real = [play(seed, "real", runs, extra) for seed in seeds[: arguments.real]]
    print(json.dumps({**report(stepped, real, elapsed_s), "jobs": arguments.jobs}))


if __name__ == "__main__":
    main()
