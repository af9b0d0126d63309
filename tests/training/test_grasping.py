"""The DexGraspVLA controller out of a data set: it learns, its frozen backbones stay, its folder runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dexrun.config.load import load
from policies.checkpoint import read_state
from policies.data.dataset import ACTION, IMAGES, MASKS, STATE, DatasetError, Feature, Switches
from policies.data.umi import UmiSpec, UmiWindows
from policies.data.windows import Windows
from policies.dexgrasp.config import DexGraspConfig
from policies.dexgrasp.options import DexGraspTraining
from policies.dexgrasp.policy import DexGraspPolicy
from policies.dexgrasp.recipe import DexGraspRecipe
from policies.training.augment import color_jitter, turned
from policies.training.options import TrainingOptions
from runtime.interfaces import PolicyError
from runtime.messages import ArmState, Frame, Observation, TrackedMask
from tests.dexrun.rig import ROOT
from tests.training.rig import HeldDataset, HeldEpisode, held, options, trained
from tests.training.test_acting import ROBOT

SHAPE = {
    "head": "tiny14",
    "wrist": "tiny14",
    "image_size": 28,
    "position_grid": 2,
    "horizon": 4,
    "layers": 2,
    "heads": 2,
    "mask_layers": 1,
    "mask_heads": 2,
    "dropout": 0.0,
}


def seen(**given: Any) -> HeldDataset:
    """`held`, with a wrist camera and a mask."""
    dataset = held(size=(28, 28), **given)
    random = np.random.default_rng(5)
    dataset.features = {
        **dataset.features,
        IMAGES + "wrist": Feature((20, 20, 3), "uint8", "rgb"),
        MASKS + "head": Feature((28, 28), "uint8", "mask"),
    }
    for episode in dataset.episodes:
        rows = episode.length
        episode.arrays[IMAGES + "wrist"] = random.integers(0, 256, (rows, 20, 20, 3), dtype=np.uint8)
        episode.arrays[MASKS + "head"] = random.integers(0, 2, (rows, 28, 28), dtype=np.uint8)
    return dataset


def grasping(to: Path, recipe: Any = None, shape: Any = SHAPE, **changes: Any) -> TrainingOptions:
    given = {"policy": {"type": "dexgrasp", "shape": shape}, "recipe": recipe or {"jitter": False}}
    return options(to, **{**given, **changes})


def learning(to: Path, steps: int, **more: Any) -> TrainingOptions:
    return grasping(
        to,
        {"jitter": False, "cache_features": True},
        steps=steps,
        save_every=steps,
        log_every=steps,
        batch=50,
        validation={"share": 0},
        optimizer={"lr": 2e-3, "betas": [0.95, 0.999]},
        schedule={"name": "cosine", "warmup_steps": 20},
        **more,
    )


@pytest.mark.slow
def test_ten_episodes_are_learned_by_heart_and_run(tmp_path: Path) -> None:
    dataset = seen(rows=5)
    end = trained(learning(tmp_path, 4000, ema={"enabled": True}), dataset)
    assert np.mean(end.losses[-100:]) < 0.03
    arguments = ["--config", str(ROOT / "config.toml"), "--policy.checkpoint", str(tmp_path / "last")]
    table: Any = load(arguments, {}).policy
    assert (table.type, table.units.convention, table.shape.horizon) == ("dexgrasp", "rad", 4)
    policy = DexGraspPolicy(table, ROBOT)
    policy.warm_up()
    errors = []
    for episode in dataset.episodes:
        arrays, zeros = episode.arrays, np.zeros(6)
        frames = {name: Frame(name, 1, arrays[IMAGES + name][0]) for name in ("head", "wrist")}
        masks = {"head": TrackedMask("head", 1, arrays[MASKS + "head"][0], 1.0)}
        state = ArmState(1, arrays[STATE][0].astype(float), zeros, zeros)
        rows = policy.infer(Observation(0, 0, 1, state, frames=frames, masks=masks)).rows
        errors.append(np.abs(rows - arrays[ACTION][:4]).mean())
    assert np.mean(errors) < 0.05  # of motions of about 1 rad


def test_backbones_are_frozen_and_saved(tmp_path: Path) -> None:
    trained(grasping(tmp_path), seen())
    first, last = (read_state(tmp_path / f"checkpoints/00000{n}/model.safetensors") for n in (3, 6))
    changed = {name for name, value in first.items() if not torch.equal(value, last[name])}
    assert {name.split(".")[1] for name in changed if name.startswith("obs_encoder.")} == {
        "mask_process_net",
        "head_net",
        "wrist_net",
        "state_net",
    }
    assert any(name.startswith("obs_encoder.dino_head.") for name in first)
    assert not any(name.startswith("normalizer.") for name in changed)


def test_features_on_the_disk_train_the_same(tmp_path: Path) -> None:
    plain = trained(grasping(tmp_path / "plain", steps=3), seen())
    recipe = {"jitter": False, "cache_features": True}
    kept = trained(grasping(tmp_path / "kept", recipe, steps=3), seen())
    np.testing.assert_allclose(kept.losses, plain.losses, rtol=2e-3)  # they are kept in half precision
    assert len(list((tmp_path / "kept/cache").iterdir())) == 2
    resumed = trained(grasping(tmp_path / "kept", recipe, steps=5), seen(), resume=True)
    assert resumed.step == 5
    assert len(list((tmp_path / "kept/cache").iterdir())) == 2
    with pytest.raises(ValueError, match="give jitter = false with it"):
        DexGraspTraining(cache_features=True)


def test_it_goes_on_bit_for_bit_with_jitter(tmp_path: Path) -> None:
    recipe = {"jitter": True}
    whole = trained(grasping(tmp_path / "whole", recipe), seen())
    first = trained(grasping(tmp_path / "cut", recipe, steps=3), seen())
    second = trained(grasping(tmp_path / "cut", recipe), seen(), resume=True)
    assert first.losses + second.losses == whole.losses


def test_earlier_observations_are_looked_at_and_one_camera_is_enough(tmp_path: Path) -> None:
    shape = {**SHAPE, "head": "none", "observation_steps": 2}
    dataset = seen()
    dataset.features = {k: v for k, v in dataset.features.items() if not k.startswith(MASKS)}
    trained(grasping(tmp_path, shape=shape, steps=2), dataset)
    arguments = ["--config", str(ROOT / "config.toml"), "--policy.checkpoint", str(tmp_path / "last")]
    table: Any = load(arguments, {}).policy
    assert (table.shape.head, table.shape.observation_steps) == (None, 2)
    assert DexGraspPolicy(table, ROBOT).spec.cameras == ("wrist",)


def test_what_is_missing_is_told(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"no 'observation.images.wrist' in it, which dexgrasp needs"):
        trained(grasping(tmp_path / "a"), held())
    public = {**SHAPE, "head": "vits14"}
    with pytest.raises(PolicyError, match=r"recipe.head_backbone is not given: .*dinov2_vits14_pretrain.pth"):
        trained(grasping(tmp_path / "b", shape=public), seen())
    recipe = DexGraspRecipe(DexGraspConfig(head_camera="top"), DexGraspTraining())
    assert recipe.reads(Switches()) == Switches(cameras=("top", "wrist"), use_mask=True)
    with pytest.raises(PolicyError, match="use_force: dexgrasp has no input for it"):
        recipe.reads(Switches(use_force=True))


def test_colours_change_and_shapes_do_not() -> None:
    torch.manual_seed(0)
    images = torch.rand(2, 3, 8, 8)
    torch.testing.assert_close(turned(images, 0.0), images)
    torch.testing.assert_close(turned(images, 1 / 3)[:, 1], images[:, 0])  # red is green
    torch.testing.assert_close(turned(turned(images, 0.07), -0.07), images)
    gray = images[:, :1].expand(-1, 3, -1, -1)
    torch.testing.assert_close(color_jitter(gray, 0, 0, 0.3, 0.1), gray, atol=1e-4, rtol=0)
    torch.testing.assert_close(color_jitter(images, 0, 0, 0, 0), images)
    made = color_jitter(images, 0.3, 0.3, 0.3, 0.1)
    assert 0 <= float(made.min()) <= float(made.max()) <= 1
    assert not torch.equal(made, images)


def poses(rows: int = 12) -> HeldDataset:
    """A UMI replay buffer of two episodes."""
    random = np.random.default_rng(2)
    made = []
    for number in range(2):
        arrays = {
            STATE: np.cumsum(random.normal(scale=0.02, size=(rows, 7)), axis=0).astype(np.float32),
            IMAGES + "wrist": random.integers(0, 256, (rows, 28, 28, 3), dtype=np.uint8),
        }
        made.append(HeldEpisode(number, {**arrays, ACTION: arrays[STATE]}))
    features = {
        STATE: Feature((7,), "float32", "", ("x", "y", "z", "rx", "ry", "rz", "width")),
        ACTION: Feature((7,), "float32", "", ("x", "y", "z", "rx", "ry", "rz", "width")),
        IMAGES + "wrist": Feature((28, 28, 3), "uint8", "rgb"),
    }
    return HeldDataset(features, made, rate_hz=60.0, format="umi-zarr")


UMI = {**SHAPE, "head": "none", "observation_steps": 2}


def test_a_umi_sample_is_the_references(tmp_path: Path) -> None:
    dataset = poses()
    table = DexGraspConfig.model_validate({"shape": UMI})
    recipe = DexGraspRecipe(table, DexGraspTraining(jitter=False, down=2))
    prepared = recipe.prepare(dataset, tmp_path)
    windows = Windows(prepared, recipe.windows(prepared))
    expected = UmiWindows(dataset, UmiSpec(2, 2, 4, 2))
    assert len(windows) == len(expected) == 12
    assert prepared.rate_hz == 30.0
    for index in (0, 1, 5, 11):  # the second of an episode has no row two rows before it
        sample, wanted = windows[index], expected[index]
        state = [wanted["robot0_eef_pos"], wanted["robot0_eef_rot_axis_angle"]]
        np.testing.assert_array_equal(sample[STATE][0], np.concatenate(state, axis=1))
        np.testing.assert_array_equal(sample[ACTION][0], wanted["action"])
        pixels = np.moveaxis(sample[IMAGES + "wrist"][0], -1, 1) / np.float32(255)
        np.testing.assert_array_equal(pixels, wanted["wrist"])


@pytest.mark.parametrize("cached", [False, True])
def test_the_umi_variant_trains_and_loads(tmp_path: Path, cached: bool) -> None:
    recipe = {"jitter": False, "cache_features": cached, "down": 2}
    end = trained(grasping(tmp_path, recipe, UMI, steps=30, save_every=30, optimizer={"lr": 3e-3}), poses())
    assert np.mean(end.losses[-5:]) < np.mean(end.losses[:5])
    arguments = ["--config", str(ROOT / "config.toml"), "--policy.checkpoint", str(tmp_path / "last")]
    table: Any = load(arguments, {}).policy
    policy = DexGraspPolicy(table, ROBOT)
    assert policy.spec.end_effector
    assert (policy.controller.shape.state_size, policy.controller.shape.action_size) == (9, 10)
    scale = policy.controller.normalizer.params_dict[ACTION]["scale"]
    assert scale[3:9].tolist() == [1.0] * 6
    with pytest.raises(DatasetError, match=r"give policy.shape.head = 'none'"):
        trained(grasping(tmp_path / "two", recipe), poses())
