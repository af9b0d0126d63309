"""Samples a second of LeRobotDataset. Runs in LeRobot's environment (`bench.data`).

usage: lerobot_rate.py ROOT HORIZON SECONDS
"""

import contextlib
import json
import sys
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch

_OPERATORS = torch.library.Library("torchvision", "FRAGMENT")
for _name in ("nms", "qnms"):  # beside a torch without CUDA, torchvision's own library does not load
    with contextlib.suppress(RuntimeError):
        _OPERATORS.define(f"{_name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")


def main() -> None:
    from lerobot.datasets.lerobot_dataset import LeRobotDataset
    from lerobot.datasets.video_utils import get_safe_default_codec

    torch.set_num_threads(1)
    root, horizon, seconds = Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    deltas = {"action": [row / 30 for row in range(horizon)]}
    data = LeRobotDataset("local/bench", root=root, delta_timestamps=deltas)
    order = np.random.default_rng(0).permutation(len(data))
    data[int(order[0])]
    count, start, before = 0, time.perf_counter(), time.process_time()
    while (elapsed := time.perf_counter() - start) < seconds or count < 100:
        data[int(order[count % len(order)])]
        count += 1
    print(  # noqa: T201
        json.dumps(
            {
                "wall": round(count / elapsed, 1),
                "cpu": round(count / (time.process_time() - before), 1),
                "version": version("lerobot"),
                "backend": get_safe_default_codec(),
            }
        )
    )


main()
