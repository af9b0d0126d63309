"""HDF5 of ACT and DexVLA, read as their loaders read it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from dexrun.export.job import ExportResult
from tests.export.synthetic import Made, Truth

Run = Callable[..., tuple[Path, list[Truth]]]
Export = Callable[..., tuple[Path, ExportResult]]

INSTRUCTION = {
    "analysis": {
        "priority_consideration": "It is nearest",
        "accessibility": "free",
        "risk_assessment": "low",
    },
    "target": "the red cube",
}


def rows_of(truth: Truth, name: str, rows: int) -> Any:
    return np.stack(truth.values[name][:: 3 if name in ("position", "velocity") else 1])[:rows]


@pytest.mark.parametrize("compression", ["none", "lzf", "gzip"])
def test_act_gives_back_the_recording(run: Run, exported: Export, compression: str) -> None:
    folder, truths = run(Made(seconds=0.5), Made(seconds=0.3, seed=1))
    target, _ = exported(folder, "act-hdf5", hdf5_compression=compression)
    for number, (truth, rows) in enumerate(zip(truths, (16, 10), strict=True)):
        with h5py.File(target / f"episode_{number}.hdf5", "r") as root:
            assert bool(root.attrs["sim"]) is True
            assert (root["/action"][()] == rows_of(truth, "sent", rows)).all()
            assert (root["/observations/qpos"][()] == rows_of(truth, "position", rows)).all()
            assert (root["/observations/qvel"][()] == rows_of(truth, "velocity", rows)).all()
            for camera in ("head", "wrist"):
                images = root[f"/observations/images/{camera}"]
                assert images.chunks == (1, *images.shape[1:])
                assert (images[()] == rows_of(truth, f"{camera} color", rows)).all()


def test_acts_loader_can_stack_episodes_of_equal_length(run: Run, exported: Export) -> None:
    folder, truths = run(Made(seconds=0.5), Made(seconds=0.3, seed=1))
    target, _ = exported(folder, "act-hdf5", equal_length=True)
    with h5py.File(target / "episode_1.hdf5", "r") as root:
        assert root["/action"].shape == root["/observations/qpos"].shape == (16, 6)
        assert (root["/action"][9:] == truths[1].values["sent"][9]).all()
        assert (root["/observations/images/head"][9:] == truths[1].values["head color"][9]).all()


def test_a_real_arms_files_say_so(run: Run, exported: Export) -> None:
    folder, _ = run(Made(seconds=0.2, port="/dev/ttyACM0"))
    target, _ = exported(folder, "act-hdf5")
    with h5py.File(target / "episode_0.hdf5", "r") as root:
        assert bool(root.attrs["sim"]) is False


def test_dexvla_has_language_and_reasonings_at_every_row(run: Run, exported: Export) -> None:
    planner = [
        (0.1, json.dumps(INSTRUCTION)),
        (0.2, "no JSON at all"),
        (0.3, json.dumps({**INSTRUCTION, "target": None})),
    ]
    folder, (truth,) = run(Made(seconds=0.5, planner=planner))
    target, _ = exported(folder, "dexvla-hdf5")
    with h5py.File(target / "episode_0.hdf5", "r") as root:
        assert root["language_raw"][0].decode("utf-8") == "put the cube into the tray"
        said = [root["substep_reasonings"][row].decode("utf-8") for row in range(16)]
        assert said[:3] == ["put the cube into the tray"] * 3
        assert said[3:9] == ["It is nearest. Grasp the red cube."] * 6
        assert said[9:] == ["The table is empty."] * 7
        assert (root["/observations/joint_positions"][()] == rows_of(truth, "position", 16)[:, :5]).all()
        assert root["/observations/images/wrist"].shape == (16, 32, 40, 3)
