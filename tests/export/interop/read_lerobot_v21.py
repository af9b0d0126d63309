"""Reads a version 2.1 data set with LeRobot 0.3.3 and GR00T's modality.json, and saves what it gives.

usage: read_lerobot_v21.py ROOT OUT.npz
"""

import json
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
from lerobot.datasets.lerobot_dataset import LeRobotDataset


def main() -> None:
    root, out = sys.argv[1:]
    data = LeRobotDataset("local/test", root=Path(root), video_backend="pyav")
    modality = json.loads((Path(root) / "meta" / "modality.json").read_text())
    saved: dict[str, list[object]] = {}
    for index in range(len(data)):
        row = data[index]
        for part, source in (("state", "observation.state"), ("action", "action")):
            for name, place in modality[part].items():
                values = row[place.get("original_key", source)][place["start"] : place["end"]]
                saved.setdefault(f"{part}.{name}", []).append(np.asarray(values))
        for name, place in modality["video"].items():
            saved.setdefault(f"video.{name}", []).append(np.asarray(row[place["original_key"]]))
        saved.setdefault("language", []).append(np.asarray(row["task"]))
    arrays = {key: np.stack(values) for key, values in saved.items()}
    np.savez(out, version=version("lerobot"), episodes=data.num_episodes, fps=data.fps, **arrays)


main()
