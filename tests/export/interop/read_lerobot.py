"""Reads a data set with LeRobot's own LeRobotDataset and saves what it gives. Runs in LeRobot's environment.

usage: read_lerobot.py ROOT OUT.npz [DELTA_KEY SECONDS...]
"""

import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
from lerobot.datasets.lerobot_dataset import LeRobotDataset


def main() -> None:
    root, out, *delta = sys.argv[1:]
    deltas = {delta[0]: [float(x) for x in delta[1:]]} if delta else None
    data = LeRobotDataset("local/test", root=Path(root), delta_timestamps=deltas, video_backend="pyav")
    saved: dict[str, list[object]] = {}
    for index in range(len(data)):
        for key, value in data[index].items():
            saved.setdefault(key, []).append(np.asarray(value))
    arrays = {key: np.stack(values) for key, values in saved.items()}
    stats = {f"stats/{k}/{n}": np.asarray(v) for k, one in data.meta.stats.items() for n, v in one.items()}
    np.savez(
        out,
        version=version("lerobot"),
        episodes=data.num_episodes,
        frames=data.num_frames,
        fps=data.fps,
        tasks=np.array(list(data.meta.tasks.index)),
        **arrays,
        **stats,
    )


main()
