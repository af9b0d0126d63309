"""How fast one minute of two 640x480 cameras, depth, joints and force becomes a LeRobot v3 data set.

Prints one JSON line: ``ratio`` is recorded seconds per second of export. usage: python -m bench.export
[--seconds 60] [--episodes 1] [--format lerobot-v3] [--codec h264] [--depth video] [--jobs 2]
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from dexrun.export.formats import format_named
from dexrun.export.job import export
from dexrun.export.options import ExportOptions
from tests.export.synthetic import Made, write_run

SIZE = (480, 640)


class Scene:
    """Pictures with the detail and the noise of a table seen by a camera: shapes that move over a texture."""

    def __init__(self, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        coarse = rng.integers(40, 200, (12, 16, 3))
        smooth = np.kron(coarse, np.ones((40, 40, 1))) + rng.normal(0, 6, (*SIZE, 3))
        self._table = np.clip(smooth, 0, 255).astype(np.int16)
        self._noise = [rng.integers(-3, 4, (*SIZE, 3), dtype=np.int16) for _ in range(8)]
        ramp = np.linspace(450, 700, SIZE[0])[:, None] + np.zeros(SIZE)
        self._depth = ramp.astype(np.int16)
        self._jitter = [rng.integers(-2, 3, SIZE, dtype=np.int16) for _ in range(8)]
        self._holes = rng.random(SIZE) < 0.03

    def color(self, rng: Any, size: tuple[int, int], row: int) -> Any:
        image = self._table + self._noise[row % 8]
        top, left = 100 + row // 3 % 200, 100 + row % 400
        image[top : top + 80, left : left + 80] = (200, 40, 30)
        return np.clip(image, 0, 255).astype(np.uint8)

    def depth(self, rng: Any, size: tuple[int, int], row: int) -> Any:
        image = self._depth + self._jitter[row % 8]
        top, left = 100 + row // 3 % 200, 100 + row % 400
        image[top : top + 80, left : left + 80] -= 30
        image[self._holes] = 0
        return image.astype(np.uint16)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--episodes", type=int, default=1)
    parser.add_argument("--format", default="lerobot-v3")
    parser.add_argument("--codec", default="h264")
    parser.add_argument("--depth", default="video")
    parser.add_argument("--jobs", type=int, default=2)
    arguments = parser.parse_args()
    scene = Scene()
    made = Made(
        seconds=arguments.seconds / arguments.episodes,
        head=SIZE,
        wrist=SIZE,
        lossless=False,
        picture=scene.color,
        depth_picture=scene.depth,
    )
    with tempfile.TemporaryDirectory(prefix="bench-export-") as folder:
        run = Path(folder, "run")
        write_run(run, *[made] * arguments.episodes)
        options = ExportOptions(codec=arguments.codec, depth=arguments.depth, jobs=arguments.jobs)
        target = Path(folder, "data set")
        before, start = _cpu_s(), time.monotonic()
        outcome = export([run], format_named(arguments.format), target, options)
        wall_s, cpu_s = time.monotonic() - start, _cpu_s() - before
        files = [target] if target.is_file() else [p for p in target.rglob("*") if p.is_file()]
        size = sum(path.stat().st_size for path in files)
        recorded = sum(path.stat().st_size for path in run.rglob("*.mcap"))
    print(
        json.dumps(
            {
                "benchmark": "export",
                "format": arguments.format,
                "codec": arguments.codec,
                "depth": arguments.depth,
                "jobs": arguments.jobs,
                "episodes": arguments.episodes,
                "recorded_s": arguments.seconds,
                "rows": sum(slot.length for slot in outcome.slots),
                "wall_s": round(wall_s, 2),
                "ratio": round(arguments.seconds / wall_s, 2),
                "cpu_s_per_recorded_s": round(cpu_s / arguments.seconds, 3),
                "recording_mb": round(recorded / 1e6, 1),
                "data_set_mb": round(size / 1e6, 1),
            }
        )
    )


def _cpu_s() -> float:
    both = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in both)


if __name__ == "__main__":
    main()
