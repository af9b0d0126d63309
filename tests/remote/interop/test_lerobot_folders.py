"""Folders that LeRobot makes now, and one that is written for it, answered on both sides."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file

from dexrun.data.convert import main
from runtime.units import UnitMap
from tests.policies import lerobot_rig
from tests.policies.lerobot_rig import DATA, Played, joint_units
from tests.policies.test_lerobot_writing import SIZE, checkpoint
from tests.remote.interop.peers import HERE, ROOT, needs

PEER = "lerobot"
pytestmark = needs(PEER)


def answered(folder: Path, said: dict[str, Any]) -> Played:
    """LeRobot's side of an episode."""
    python = ROOT / f".venv-{PEER}" / "bin" / "python"
    given = {**said, "vlm": str(DATA / said["vlm"])} if "vlm" in said else said
    words = [str(python), str(HERE / "lerobot_folder_peer.py"), str(folder), json.dumps(given)]
    subprocess.run(words, check=True, env={**os.environ, "HF_HUB_OFFLINE": "1"}, capture_output=True)
    known = load_file(folder / "known.safetensors")
    return Played(folder, said, known, joint_units(lerobot_rig.ROBOT, UnitMap(convention="lerobot_degrees")))


def compare(episode: Played) -> None:
    """Every chunk of it with ours."""
    policy = episode.policy()
    width = policy._normaliser.action.factor.numpy()
    for step, chunk in episode.chunks():
        rows = policy.infer(episode.at(step, policy.spec.history_steps)).rows
        assert np.abs((episode.units.to_policy(rows) - chunk) / width).max() < 1e-5


@pytest.mark.parametrize("name", ["act", "act_ensemble", "diffusion", "diffusion_other", "smolvla"])
def test_a_folder_that_lerobot_makes_now(name: str, tmp_path: Path) -> None:
    said = json.loads((DATA / name / "said.json").read_text())
    (tmp_path / name).mkdir()
    compare(answered(tmp_path / name, said))


def test_a_folder_of_whole_size(tmp_path: Path) -> None:
    config = {"chunk_size": 20, "n_action_steps": 20, "pretrained_backbone_weights": None}
    said = {
        "kind": "act",
        "cameras": ["front"],
        "size": [120, 160],
        "joints": 6,
        "steps": 2,
        "config": config,
    }
    (tmp_path / "act").mkdir()
    compare(answered(tmp_path / "act", said))


def test_a_folder_written_for_lerobot_runs_there(tmp_path: Path) -> None:
    target = tmp_path / "pretrained_model"
    assert main([str(checkpoint(tmp_path / "last")), str(target), "--lerobot"]) == 0
    said = {"kind": "act", "cameras": ["head", "wrist"], "size": list(SIZE), "joints": 6, "steps": 6}
    episode = answered(target, {**said, "load": True})
    lerobot_rig.NAMES.setdefault("head", "head")
    compare(episode)
