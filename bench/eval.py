"""``python -m bench.eval``: scenes a minute of `dexrun eval`, stepped and fast, for one core; one JSON line.

The geometric policy clears the same scenes both ways, one after the other. A core's minute is a minute of
processor time: of this process for the fast engine, of the processes that a run starts for the stepped one.
`agree` counts the scenes whose tables came to the same end.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from dexrun.evaluation.fast import play_fast
from dexrun.evaluation.results import SceneResult
from dexrun.evaluation.scenes import Candidate, SceneTask, play_run

GEOMETRIC = Candidate("geometric", ("--policy.type", "geometric"))


def processor_s() -> float:
    """Of this process and of those that it has waited for."""
    return sum(os.times()[:4])


def played(
    play: Callable[[SceneTask], SceneResult], tasks: Sequence[SceneTask]
) -> tuple[Any, list[SceneResult]]:
    """What the scenes cost, and how they ended. The first is played once before, and not counted."""
    play(tasks[0])
    began_s, began_cpu_s = time.perf_counter(), processor_s()
    results = [play(task) for task in tasks]
    wall_s, cpu_s = time.perf_counter() - began_s, processor_s() - began_cpu_s
    simulated_s = sum(result.duration_s for result in results)
    figures = {
        "scenes_a_core_minute": round(60 * len(tasks) / cpu_s, 2),
        "scenes_a_minute": round(60 * len(tasks) / wall_s, 2),
        "times_real_time": round(simulated_s / cpu_s, 2),
        "objects": [sum(r.objects_in_tray for r in results), sum(r.objects_total for r in results)],
        "errors": [result.error for result in results if result.error],
    }
    return figures, results


def main() -> None:
    """Measure, and print the line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scenes", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0, help="of the first scene")
    parser.add_argument("--config", default="config.toml")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        words = ("--config", options.config)
        seeds = range(options.seed, options.seed + options.scenes)
        tasks = [SceneTask(GEOMETRIC, seed, words, Path(folder)) for seed in seeds]
        fast, quickly = played(play_fast, tasks)
        stepped, truly = played(play_run, tasks)
    same = [
        (a.objects_in_tray, a.success) == (b.objects_in_tray, b.success)
        for a, b in zip(quickly, truly, strict=True)
    ]
    ratio = fast["scenes_a_core_minute"] / stepped["scenes_a_core_minute"]
    line = {
        "scenes": options.scenes,
        "fast": fast,
        "stepped": stepped,
        "ratio": round(ratio, 2),
        "agree": sum(same),
    }
    print(json.dumps({"bench": "eval", **line}))


if __name__ == "__main__":
    main()
