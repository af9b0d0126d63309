"""ACT out of a data set: it learns, and its folder runs with no further key."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dexrun.config.load import load
from drivers.arms.so100 import JOINT_NAMES, JOINT_RANGES_RAD
from policies.act.config import ActConfig
from policies.act.load import load_act
from policies.act.model import ActModel, dropped
from policies.act.policy import ActPolicy, known_state
from policies.act.recipe import _known
from policies.act.resnet import ResNet18
from policies.checkpoint import CheckpointError
from policies.data.dataset import ACTION, FORCE, IMAGES, STATE, TIP, DatasetError, Feature
from policies.training.trouble import TrainingError
from runtime.interfaces import PolicyError
from runtime.joints import JointLayout
from runtime.messages import ArmState, Frame, Observation, Tip
from tests.dexrun.rig import ROOT
from tests.training.rig import TINY, HeldDataset, held, options, trained

ROBOT = JointLayout(JOINT_NAMES, np.array(JOINT_RANGES_RAD), (5,))


def observation(dataset: HeldDataset, number: int, row: int) -> Observation:
    arrays = dataset.episodes[number].arrays
    zeros = np.zeros(6)
    frame = Frame("head", 1, arrays[IMAGES + "head"][row])
    state = ArmState(1, arrays[STATE][row].astype(float), zeros, zeros)
    return Observation(0, 0, 1, state, frames={"head": frame})


def run(folder: Path) -> ActPolicy:
    arguments = ["--config", str(ROOT / "config.toml"), "--policy.checkpoint", str(folder / "last")]
    table: Any = load(arguments, {}).policy
    policy = ActPolicy(table, ROBOT)
    policy.warm_up()
    return policy


@pytest.mark.slow
def test_ten_episodes_are_learned_by_heart_and_run(tmp_path: Path) -> None:
    dataset = held(rows=6, size=(16, 16))
    end = trained(
        options(
            tmp_path,
            steps=300,
            save_every=300,
            log_every=300,
            batch=20,
            validation={"share": 0},
            optimizer={"lr": 3e-3},
            schedule={"name": "cosine", "warmup_steps": 20},
            recipe={"dropout": 0.0},
            policy={"type": "act", "shape": {**TINY, "hidden": 32, "feedforward": 32}},
        ),
        dataset,
    )
    assert np.mean(end.losses[-10:]) < 0.06
    policy = run(tmp_path)
    errors = [
        policy.infer(observation(dataset, number, 1)).rows - dataset.episodes[number].arrays[ACTION][1:6]
        for number in range(10)
    ]
    assert np.abs(errors).mean() < 0.03  # of motions of about 1 rad


def test_the_folder_says_what_it_was_trained_on(tmp_path: Path) -> None:
    trained(options(tmp_path, steps=1))
    arguments = ["--config", str(ROOT / "config.toml"), "--policy.checkpoint", str(tmp_path / "last")]
    table: Any = load(arguments, {}).policy
    assert (table.type, table.rate_hz, table.cameras) == ("act", 10.0, ("head",))
    assert (table.image_width, table.image_height) == (32, 32)
    assert table.keys.state == {"state": JOINT_NAMES}
    assert table.keys.action == {"action": JOINT_NAMES}
    assert table.units.convention == "rad"
    assert table.shape.norm == "group"


def test_force_is_part_of_the_state(tmp_path: Path) -> None:
    dataset = held()
    dataset.features = {**dataset.features, FORCE: Feature((3,), "float32", "N")}
    for episode in dataset.episodes:
        episode.arrays[FORCE] = np.ones((episode.length, 3), np.float32)
    trained(options(tmp_path, steps=1), dataset)
    arguments = ["--config", str(ROOT / "config.toml"), "--policy.checkpoint", str(tmp_path / "last")]
    table: Any = load(arguments, {}).policy
    assert table.keys.state == {"state": (*JOINT_NAMES, "force.0", "force.1", "force.2")}
    _, stats = load_act(table)
    assert stats.qpos_std[6:].tolist() == [1e-2] * 3  # what hardly varies is not blown up


def test_where_the_object_is_is_part_of_the_state_live_as_in_the_data_set(tmp_path: Path) -> None:
    """The same numbers; before the object was seen, the mean of those that were."""
    dataset, random = held(), np.random.default_rng(1)
    dataset.features = {**dataset.features, TIP: Feature((3,), "float32", "m", ("x", "y", "z"))}
    dataset.about = {"tip_camera": "head"}
    for episode in dataset.episodes:
        episode.arrays[TIP] = random.uniform(-0.2, 0.4, (episode.length, 3)).astype(np.float32)
    dataset.episodes[0].arrays[TIP][:4] = np.nan
    end = trained(options(tmp_path, steps=2, switches={"use_language_tip": True}), dataset)
    assert np.isfinite(end.losses).all()
    policy = run(tmp_path)
    assert (policy.spec.cameras, policy.spec.masks, policy.spec.tip) == (("head",), ("head",), True)
    arrays, row = dataset.episodes[3].arrays, 5
    there = arrays[TIP][row].astype(float)
    seen = replace(observation(dataset, 3, row), tip=Tip(there, there, there, 1))
    (state,) = policy._map.state_vectors(seen).values()
    assert state.tolist() == [*arrays[STATE][row].astype(float), *there]
    mean = policy._stats.qpos_mean[6:]
    np.testing.assert_allclose(mean, dataset.statistics(TIP).mean)
    unseen, middle = (policy.infer(replace(seen, tip=tip)).rows for tip in (None, Tip(mean, mean, mean, 1)))
    np.testing.assert_allclose(unseen, middle, atol=1e-6)
    assert np.abs(policy.infer(seen).rows - unseen).max() > 1e-4
    # what else is not a number is not made one: neither of the arm, which then holds, nor in training
    lost = replace(seen, arm=replace(seen.arm, position=np.full(6, np.nan)))
    assert np.isnan(policy.infer(lost).rows).all()
    dataset.episodes[0].arrays[STATE][:] = np.inf
    with pytest.raises(TrainingError, match="not a finite number"):
        trained(options(tmp_path / "broken", steps=1, switches={"use_language_tip": True}), dataset)


def test_of_what_is_not_a_number_the_tip_alone_is_the_mean() -> None:
    """A sensor of force that fails must hold the arm, not tell the policy of a force that is usual."""
    state = np.array([[0.5, np.nan, np.nan, 0.25, np.nan]])
    expected = [[0.5, np.nan, 0.0, 0.25, 0.0]]
    live = known_state(state, np.array([False, False, True, True, True]))
    trained_on = _known(torch.from_numpy(state), 3).numpy()
    np.testing.assert_array_equal(live, expected)
    np.testing.assert_array_equal(trained_on, expected)
    np.testing.assert_array_equal(_known(torch.from_numpy(state), 0).numpy(), state)


def test_it_begins_with_a_checkpoint(tmp_path: Path) -> None:
    first = trained(options(tmp_path / "first"))
    policy = {"type": "act", "shape": TINY, "checkpoint": str(first.checkpoint / "model.safetensors")}
    second = trained(options(tmp_path / "second", policy=policy, steps=1))
    assert second.losses[0] < first.losses[0]
    wrong = {**policy, "shape": {**TINY, "chunk": 7}}
    with pytest.raises(PolicyError, match=r"its chunk is 5, and the data set and policy\.shape make 7"):
        trained(options(tmp_path / "third", policy=wrong))


def test_imagenets_weights_keep_their_frozen_norms(tmp_path: Path) -> None:
    torch.manual_seed(3)
    net = ResNet18(4)
    file = {**net.state_dict(), "fc.weight": torch.zeros(2, 2), "bn1.num_batches_tracked": torch.tensor(1)}
    torch.save(file, tmp_path / "resnet18.pth")
    given = {"recipe": {"backbone": str(tmp_path / "resnet18.pth"), "backbone_lr": 0.0}}
    trained(options(tmp_path / "out", steps=2, **given))
    table = ActConfig.model_validate({"checkpoint": str(tmp_path / "out/last/model.safetensors")})
    model, _ = load_act(table)
    assert model.shape.norm == "frozen_batch"
    assert torch.equal(model.resnet.conv1.weight, net.conv1.weight)
    torch.save({"weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match=r"does not fit: missing bn1\.bias, .*; unexpected weight"):
        trained(options(tmp_path / "other", recipe={"backbone": str(tmp_path / "other.pth")}))


def test_pictures_of_several_sizes_are_brought_to_one(tmp_path: Path) -> None:
    dataset = held()
    dataset.features = {**dataset.features, IMAGES + "wrist": Feature((16, 24, 3), "uint8", "rgb")}
    for episode in dataset.episodes:
        episode.arrays[IMAGES + "wrist"] = np.zeros((episode.length, 16, 24, 3), np.uint8)
    with pytest.raises(DatasetError, match=r"several sizes \(head 32x32, wrist 24x16\)"):
        trained(options(tmp_path / "a"), dataset)
    policy = {"type": "act", "shape": TINY, "image_width": 32, "image_height": 16}
    trained(options(tmp_path / "b", steps=1, policy=policy), dataset)


def test_what_it_has_no_input_for_is_refused(tmp_path: Path) -> None:
    from policies.act.options import ActTraining
    from policies.act.recipe import ActRecipe
    from policies.data.dataset import Switches

    recipe = ActRecipe(ActConfig(cameras=("head",)), ActTraining())
    assert recipe.reads(Switches(use_force=True)) == Switches(cameras=("head",), use_force=True)
    with pytest.raises(PolicyError, match="use_depth: act has no input for it"):
        recipe.reads(Switches(use_depth=True))


def test_dropout_keeps_its_share_and_the_mean() -> None:
    torch.manual_seed(0)
    x = torch.ones(1000, 1001, requires_grad=True)
    made = dropped(x, 0.1)
    kept = float((made > 0).float().mean())
    assert kept == pytest.approx(1 - 26 / 256, abs=1e-3)
    assert float(made.detach().max()) == pytest.approx(256 / 230)
    made.sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad, made)


def test_the_first_place_alone_is_the_first_of_all() -> None:
    torch.manual_seed(0)
    model = ActModel(ActConfig.model_validate({"shape": {**TINY, "encoder_layers": 2}}).shape)
    x, pos, pad = torch.randn(3, 7, 16), torch.randn(1, 7, 16), torch.rand(3, 7) > 0.7
    pad[:, 0] = False
    whole = model.encoder(x, pos, pad)
    torch.testing.assert_close(model.encoder(x, pos, pad, first=True), whole[:, :1])


def test_norms_in_the_weights_give_what_norms_after_them_do() -> None:
    torch.manual_seed(0)
    net = ResNet18(4)
    for name, buffer in net.named_buffers():
        if name.endswith(("weight", "var")):
            buffer.uniform_(0.5, 2)
        else:
            buffer.normal_()
    x = torch.rand(2, 3, 32, 32)
    from bench.act_original import _backbone

    torch.testing.assert_close(net(x), _backbone(net, x), rtol=1e-4, atol=1e-4)


def test_group_norms_run_as_they_were_trained() -> None:
    torch.manual_seed(0)
    shape = ActConfig.model_validate({"shape": {**TINY, "norm": "group"}}).shape
    model = ActModel(shape)
    pixels = torch.randint(0, 256, (1, 32, 32, 3), dtype=torch.uint8)
    maps = model.features(pixels[None].permute(0, 1, 4, 2, 3).float() / 255)
    torch.testing.assert_close(model.on_pixels()(pixels), maps[0], rtol=1e-5, atol=1e-5)
