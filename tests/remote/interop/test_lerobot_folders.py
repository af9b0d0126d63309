"""Folders that LeRobot makes now, and one that is written for it, answered on both sides."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file

from dexrun.data.convert import main
from dexrun.export.command import main as export_main
from policies.data.dataset import ACTION, IMAGES, STATE, Feature
from runtime.units import UnitMap
from tests.export.synthetic import Made, write_run
from tests.policies import lerobot_rig
from tests.policies.lerobot_rig import DATA, Played, joint_units
from tests.policies.test_lerobot_writing import SIZE, checkpoint
from tests.remote.interop.peers import HERE, ROOT, needs
from tests.training.rig import HeldDataset, held, trained
from tests.training.smolvla_small import SHAPE, settings, with_everything

PEER = "lerobot"
CLOSE = 1e-5
pytestmark = needs(PEER)


def answered(folder: Path, said: dict[str, Any]) -> Played:
    """LeRobot's side of an episode."""
    python = ROOT / f".venv-{PEER}" / "bin" / "python"
    given = {**said, "vlm": str(DATA / said["vlm"])} if "vlm" in said else said
    words = [str(python), str(HERE / "lerobot_folder_peer.py"), str(folder), json.dumps(given)]
    subprocess.run(words, check=True, env={**os.environ, "HF_HUB_OFFLINE": "1"}, capture_output=True)
    known = load_file(folder / "known.safetensors")
    return Played(folder, said, known, joint_units(lerobot_rig.ROBOT, UnitMap(convention="lerobot_degrees")))


def farthest(episode: Played) -> float:
    """How far any number of its chunks is from ours, in the widths of the data."""
    policy = episode.policy()
    width = policy._normaliser.action.factor.numpy()
    return max(
        float(np.abs((episode.units.to_policy(rows) - chunk) / width).max())
        for step, chunk in episode.chunks()
        for rows in (policy.infer(episode.at(step, policy.spec.history_steps)).rows,)
    )


@pytest.mark.parametrize("name", ["act", "act_ensemble", "diffusion", "diffusion_other", "smolvla"])
def test_a_folder_that_lerobot_makes_now(name: str, tmp_path: Path) -> None:
    said = json.loads((DATA / name / "said.json").read_text())
    (tmp_path / name).mkdir()
    assert farthest(answered(tmp_path / name, said)) < CLOSE


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
    assert farthest(answered(tmp_path / "act", said)) < CLOSE


def test_a_folder_written_for_lerobot_runs_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "pretrained_model"
    assert main([str(checkpoint(tmp_path / "last")), str(target), "--lerobot"]) == 0
    said = {"kind": "act", "cameras": ["head", "wrist"], "size": list(SIZE), "joints": 6, "steps": 6}
    episode = answered(target, {**said, "load": True})
    monkeypatch.setitem(lerobot_rig.NAMES, "head", "head")
    assert farthest(episode) < CLOSE


SIDES = (24, 40)


def of_degrees(dataset: HeldDataset) -> HeldDataset:
    """Two cameras, and joints as LeRobot's arms have them."""
    names = (STATE, ACTION)
    for episode in dataset.episodes:
        head = episode.arrays.pop(IMAGES + "head")
        episode.arrays |= {IMAGES + "front": head, IMAGES + "wrist": head[:, ::-1].copy()}
        for name in names:
            episode.arrays[name] = episode.arrays[name] * np.array([40.0] * 5 + [100.0], np.float32)
    features = {name: each for name, each in dataset.features.items() if name != IMAGES + "head"}
    features |= {name: replace(features[name], unit="lerobot_degrees") for name in names}
    pictures = {IMAGES + name: Feature((*SIDES, 3), "uint8", "rgb") for name in ("front", "wrist")}
    dataset.features = {**features, **pictures}
    return dataset


def test_a_smolvla_that_was_trained_here_runs_there(tmp_path: Path) -> None:
    """Every weight under its own name, adapters merged; chunks and an episode of `select_action`."""
    recipe = {"shape": SHAPE, "stage": "lora", "lora_rank": 2}
    given = settings(tmp_path / "trained", steps=3, recipe=recipe, optimizer={"lr": 1e-2})
    trained(given, of_degrees(held(2, 8, SIDES)))
    target = tmp_path / "pretrained_model"
    assert main([str(tmp_path / "trained/last"), str(target), "--lerobot"]) == 0
    said = {"kind": "smolvla", "cameras": ["front", "wrist"], "size": list(SIDES), "joints": 6, "steps": 7}
    said |= {"vlm": str(target / "vlm"), "task": "put the cup on the tray", "load": True}
    assert farthest(answered(target, said)) < CLOSE


def test_lerobot_refuses_a_smolvla_with_inputs_that_it_has_not_and_says_which(tmp_path: Path) -> None:
    switches = {"use_depth": True, "use_force": True}
    trained(settings(tmp_path / "trained", steps=1, switches=switches), with_everything())
    folder = (tmp_path / "trained/last").resolve()
    said = {"kind": "smolvla", "cameras": ["head"], "size": [24, 40], "joints": 6, "steps": 1, "load": True}
    with pytest.raises(subprocess.CalledProcessError) as caught:
        answered(folder, {**said, "vlm": str(folder / "vlm")})
    assert "smolvla with inputs that LeRobot has not: depth, force" in caught.value.stderr.decode()


TINY = {"dim_model": 32, "dim_feedforward": 32, "n_heads": 2, "n_encoder_layers": 1, "latent_dim": 4}
TINY |= {"n_vae_encoder_layers": 1, "chunk_size": 10, "n_action_steps": 10}


@pytest.mark.slow
def test_what_lerobots_own_trainer_makes_of_an_export_runs_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_run(tmp_path / "run", *[Made(head=SIZE, wrist=SIZE, head_depth=False)] * 2)
    assert export_main([str(tmp_path / "run"), "--format", "lerobot-v3", "--to", str(tmp_path / "data")]) == 0
    given = {f"policy.{key}": value for key, value in TINY.items()}
    given |= {"policy.type": "act", "policy.device": "cpu", "policy.push_to_hub": "false"}
    given |= {"policy.pretrained_backbone_weights": "null", "wandb.enable": "false", "eval_freq": 0}
    given |= {"dataset.repo_id": "local/made", "dataset.root": tmp_path / "data"}
    given |= {"output_dir": tmp_path / "out", "steps": 2, "save_freq": 2, "batch_size": 2, "num_workers": 0}
    words = [str(ROOT / f".venv-{PEER}" / "bin" / "python"), str(HERE / "lerobot_trainer_peer.py")]
    offline = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hub")}
    words += [f"--{key}={value}" for key, value in given.items()]
    subprocess.run(words, check=True, env=offline, capture_output=True)
    folder = tmp_path / "out/checkpoints/last/pretrained_model"
    said = {"kind": "act", "cameras": ["head", "wrist"], "size": list(SIZE), "joints": 6, "steps": 12}
    episode = answered(folder, {**said, "load": True})
    monkeypatch.setitem(lerobot_rig.NAMES, "head", "head")
    assert farthest(episode) < CLOSE
