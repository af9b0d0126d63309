"""How many training samples a second come out of data sets: two cameras of 480x640, fifty rows of action.

The same recording as MCAP, LeRobot v3.0 video and DexGraspVLA zarr, samples drawn at random by one process;
beside it LeRobotDataset 0.4.4 on the same files, where its environment is. Figures are samples per second and
per second of processor (``cpu``), which a busy machine does not change. ``ratio`` is of the latter, against
LeRobotDataset, with pictures turned into what it gives (float32, channels first, 0 to 1); ``bytes`` are
without that, which a trainer does on its accelerator. ``wait_share`` is the part of its time that a training
step of ``--step-s`` on one processor waits for batches of eight, which `dexrun train`'s own loader has from
one other process; of that step, everything but the wait is made up. One JSON line.

usage: python -m bench.data [--seconds 5] [--peer .venv-lerobot-data/bin/python] [--peer-path FOLDER]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from bench.export import SIZE, Scene
from dexrun.export.formats import format_named
from dexrun.export.job import export
from dexrun.export.options import ExportOptions
from policies.data.dataset import ACTION, STATE
from policies.data.opening import open_dataset
from policies.data.windows import Windows, WindowSpec
from tests.export.synthetic import Made, write_run

CAMERAS = ("observation.images.head", "observation.images.wrist")
HORIZON, EPISODES, EPISODE_S, BATCH = 50, 4, 8.0, 8
ROOT = Path(__file__).parents[1]
PEERS = (".venv-lerobot-data", ".venv-lerobot")
_FEWEST = 100
_BATCHES = 20
_RATE = "tests/data_sets/interop/lerobot_rate.py"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement")
    parser.add_argument("--step-s", type=float, default=0.5)
    parser.add_argument("--peer", type=Path, help="python of LeRobot's environment")
    parser.add_argument("--peer-path", default="", help="PYTHONPATH for it")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-data-") as folder:
        sets = _made(Path(folder))
        found: dict[str, Any] = {"bytes": {}, "float": {}}
        for name, path in sets.items():
            windows = _windows(path)
            found["bytes"][name] = _rate(windows, arguments.seconds, as_float=False)
            found["float"][name] = _rate(windows, arguments.seconds, as_float=True)
        found["step_s"] = arguments.step_s
        found["wait_share"] = {
            name: _wait_share(_windows(path), arguments.step_s) for name, path in sets.items()
        }
        peer = _peer(arguments.peer, arguments.peer_path, sets["lerobot-v3"], arguments.seconds)
        if peer:
            found["lerobot"] = peer
            found["ratio"] = {
                name: round(one["cpu"] / peer["cpu"], 2) for name, one in found["float"].items()
            }
    print(json.dumps({"bench": "data", "horizon": HORIZON, "cameras": 2, "size": SIZE, **found}))


def _made(folder: Path) -> dict[str, Path]:
    scene = Scene()
    made = Made(
        seconds=EPISODE_S, head=SIZE, wrist=SIZE, head_depth=False, lossless=False, picture=scene.color
    )
    write_run(folder / "run", *[made] * EPISODES)
    sets = {"mcap": folder / "run"}
    for name in ("lerobot-v3", "dexgrasp-zarr"):
        sets[name] = folder / name
        export([folder / "run"], format_named(name), sets[name], ExportOptions(jobs=2, missing_mask="zeros"))
    return sets


def _windows(path: Path) -> Windows:
    spec = {STATE: (0,), ACTION: tuple(range(HORIZON)), **dict.fromkeys(CAMERAS, (0,))}
    return Windows(open_dataset(path), WindowSpec(spec))


def _rate(windows: Windows, seconds: float, *, as_float: bool) -> dict[str, float]:
    """Samples a second, at random, and a second of processor."""
    order = np.random.default_rng(0).permutation(len(windows))
    windows[int(order[0])]
    count, start, before = 0, time.perf_counter(), time.process_time()
    while (elapsed := time.perf_counter() - start) < seconds or count < _FEWEST:
        sample = windows[int(order[count % len(order)])]
        if as_float:
            for camera in CAMERAS:
                np.multiply(np.moveaxis(sample[camera], -1, 1), np.float32(1 / 255), order="C")
        count += 1
    cpu_s = time.process_time() - before
    return {"wall": round(count / elapsed, 1), "cpu": round(count / cpu_s, 1)}


def _wait_share(windows: Windows, step_s: float) -> float:
    import torch

    from policies.training.loading import loader

    torch.set_num_threads(1)
    order = np.random.default_rng(1).permutation(len(windows))[: _BATCHES * BATCH]
    batches = iter(loader(windows, order.reshape(-1, BATCH).tolist(), 1, in_memory=False, pinned=False))
    next(batches)  # the worker has begun
    waited = worked = 0.0
    while True:
        start = time.perf_counter()
        if next(batches, None) is None:
            break
        got, before = time.perf_counter(), time.process_time()
        while time.process_time() - before < step_s:
            np.dot(*[np.ones((64, 64))] * 2)
        waited, worked = waited + got - start, worked + time.perf_counter() - got
    return round(waited / (waited + worked), 4)


def _peer(python: Path | None, path: str, root: Path, seconds: float) -> dict[str, Any]:
    """LeRobotDataset's figure; nothing where there is no environment of it."""
    known = [ROOT / name / "bin" / "python" for name in PEERS]
    chosen = python or next((each for each in known if each.exists()), None)
    if chosen is None:
        return {}
    command = [str(chosen), str(ROOT / _RATE), str(root), str(HORIZON), str(seconds)]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": path}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        return {"cpu": float("nan"), "error": done.stderr.strip().splitlines()[-1][:200]}
    answer: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return answer


if __name__ == "__main__":
    main()
