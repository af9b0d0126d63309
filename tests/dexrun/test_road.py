"""The road of somebody who has nothing but a laptop: a configuration, ten episodes, a policy, a table."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.dexrun.rig import ROOT

TINY = {"hidden": 16, "feedforward": 16, "heads": 2, "encoder_layers": 1, "base_width": 8, "norm": "group"}
"""So small a network learns nothing: what is tried is that each command takes what the one before left."""


@pytest.mark.slow
def test_from_an_empty_folder_to_an_evaluation_table_without_an_editor(tmp_path: Path) -> None:
    def dexrun(*words: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "dexrun", *words],
            cwd=tmp_path,
            env={
                **os.environ,
                "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "torch"),
            },  # else where temporary files go
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    assert "written to config.toml" in dexrun("init", "--simulated")
    assert " 0 FAIL" in dexrun("doctor", "--config", "config.toml")
    collect = ("collect", "--config", "config.toml", "--episodes", "10", "--to", "data/pick")
    assert "10 demonstrations in data/pick" in dexrun(*collect, "--no-depth", "--oversample", "1")
    assert "10 episodes looked at" in dexrun("data", "check", "data/pick")
    shape = [word for key, value in TINY.items() for word in (f"--policy.shape.{key}", str(value))]
    recipe = ("train", "--config", str(ROOT / "docs/examples/train-act.toml"), "--steps", "4", "--batch", "2")
    dexrun(*recipe, "--data", "data/pick", "--to", "outputs/pick", *shape)
    judged = ("eval", "--policy", "outputs/pick/last", "--config", "config.toml", "--to", "outputs/table")
    said = dexrun(*judged, "--engine", "fast", "--scenes", "1", "--world.objects", "1")
    assert (tmp_path / "outputs/table/table.txt").read_text() in said
    summary = json.loads((tmp_path / "outputs/table/summary.json").read_text())
    assert (summary["engine"], summary["seeds"]) == ("fast", [10_000, 10_000])  # from, to
    (candidate,) = summary["candidates"].values()
    assert (candidate["errors"], candidate["scenes"]["count"], candidate["objects"]["count"]) == (0, 1, 1)
    assert candidate["attempts"] > 0
    assert 0 < candidate["inference_s"]["p50"] <= candidate["inference_s"]["max"]  # the network did drive
