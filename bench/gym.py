"""``python -m bench.gym``: how much faster than real time the table in one process runs; one JSON line.

An arm that moves over a table of five objects, two cameras at 10 Hz, on one core: whole ticks of the
runtime's control loop, safety stage included. The floor is what cannot be left out: MuJoCo's steps and the
same pictures, drawn and read back, from as many calls. Processor time of the one thread counts; `wall` is the
same by the clock, which on a busy machine says more of the machine.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from dexrun.gym.defaults import default_settings, lighter
from dexrun.gym.engine import TableEngine
from dexrun.gym.eyes import Shot
from dexrun.gym.held import HeldTarget

_AWAY = np.array([0.5, 0.9, -0.7, 0.4, 0.6, 0.5])
_SEED = 3


def timed(work: Callable[[], Any]) -> tuple[float, float]:
    """Processor seconds and wall seconds."""
    cpu, wall = time.process_time(), time.perf_counter()
    work()
    return time.process_time() - cpu, time.perf_counter() - wall


def moving(engine: TableEngine, seconds: float, every: int) -> None:
    """The arm swings over the table; every `every` ticks all cameras are looked at."""
    eyes = engine.eyes
    held = HeldTarget(engine.home, every)
    engine.control.follow(held)
    for tick in range(round(seconds * engine.settings.control.rate_hz)):
        if tick % every == 0:
            held.aim(engine.home + _AWAY * (1 - math.cos(0.05 * tick)) / 2)
        engine.tick()
        if tick % every == 0 and eyes is not None:
            for name in engine.pictures:
                eyes.frame(name)


def floor(engine: TableEngine, seconds: float, every: int) -> None:
    """The same steps and pictures, without anything around them."""
    import mujoco

    table, eyes = engine.table, engine.eyes
    rate_hz = engine.settings.control.rate_hz
    ticks = round(seconds * rate_hz)
    steps = round(1e9 / rate_hz / table.step_ns)
    views = []
    if eyes is not None:
        views = [eyes._drawn_with(*each) for each in engine.pictures.items()]  # noqa: SLF001 - the very same
    for tick in range(ticks):
        mujoco.mj_step(table.model, table.data, steps)
        if tick % every == 0:
            for renderer, view in views:
                renderer.draw(table.data, view, view.image.copy())


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=30.0, help="simulated, each")
    parser.add_argument("--size", type=int, default=128, help="of both pictures, square")
    parser.add_argument("--rate", type=float, default=10.0, help="pictures a second")
    arguments = parser.parse_args()
    os.environ.setdefault("LP_NUM_THREADS", "0")
    size = arguments.size
    pictures = {"head": Shot("head", size, size), "wrist": Shot("wrist", size, size)}
    settings = lighter(default_settings())
    engine = TableEngine(settings, pictures)
    engine.load(settings.world.model_copy(update={"seed": _SEED}))
    every = max(1, round(settings.control.rate_hz / arguments.rate))
    moving(engine, 1.0, every)
    ours = timed(lambda: moving(engine, arguments.seconds, every))
    blind = timed(lambda: moving(engine, arguments.seconds, 10**6))
    least = timed(lambda: floor(engine, arguments.seconds, every))
    engine.close()
    print(
        json.dumps(
            {
                "bench": "gym",
                "simulated_s": arguments.seconds,
                "pictures": f"2x {size}x{size} at {arguments.rate:g} Hz",
                "times_real_time": round(arguments.seconds / ours[0], 1),
                "times_real_time_without_pictures": round(arguments.seconds / blind[0], 1),
                "times_real_time_floor": round(arguments.seconds / least[0], 1),
                "ratio_to_floor": round(ours[0] / least[0], 2),
                "wall": round(arguments.seconds / ours[1], 1),
                "cores": os.cpu_count(),
                "load": os.getloadavg()[0],
            }
        )
    )


if __name__ == "__main__":
    main()
