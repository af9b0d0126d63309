"""ACT gives the original's numbers (see data/README.md)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from dexrun.config.serve_options import ServeOptions
from policies.act.config import ActConfig
from policies.act.load import load_act
from policies.act.model import ActModel
from policies.act.options import ActShape
from policies.act.policy import ActInference
from policies.remote.act_zmq.server import aggregate
from policies.remote.serving.service import Client

DATA = Path(__file__).parent / "data"
CLOSE = {"rtol": 0.0, "atol": 1e-5}
CONFIG = ActConfig(
    checkpoint=str(DATA / "act_policy_best.ckpt"),
    stats=str(DATA / "act_dataset_stats.pkl"),
    shape=ActShape(heads=4),
)

Reference = dict[str, torch.Tensor]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def reference() -> Reference:
    return load_file(DATA / "act_outputs.safetensors")


@pytest.fixture
def model() -> ActModel:
    return load_act(CONFIG)[0].eval()


def as_float(images: torch.Tensor) -> torch.Tensor:
    return images.permute(0, 1, 4, 2, 3).float() / 255


def test_shape_comes_from_the_original_checkpoint(model: ActModel) -> None:
    assert model.shape == ActShape(
        state_size=7, action_size=5, chunk=6, hidden=32, feedforward=48, heads=4, encoder_layers=2,
        latent=32, base_width=8,
    )  # fmt: skip


def test_backbone_is_torchvisions(model: ActModel, reference: Reference) -> None:
    with torch.no_grad():
        maps = model.features(as_float(reference["images"]))
        folded = model.on_pixels()(reference["images"].flatten(0, 1)).view_as(maps)
    torch.testing.assert_close(maps[:, 0], reference["features"], **CLOSE)
    torch.testing.assert_close(folded[:, 0], reference["features"], **CLOSE)


def test_chunk_straightforward(model: ActModel, reference: Reference) -> None:
    with torch.no_grad():
        actions, _ = model.decode(reference["qpos"], model.features(as_float(reference["images"])))
    torch.testing.assert_close(actions, reference["chunk"], **CLOSE)


def test_chunk_as_it_is_run(model: ActModel, reference: Reference) -> None:
    network = ActInference(model, torch.device("cpu"), "float32")
    torch.testing.assert_close(network(reference["qpos"], reference["images"]), reference["chunk"], **CLOSE)


def test_loss(model: ActModel, reference: Reference) -> None:
    with torch.no_grad():
        loss = model.loss(
            reference["qpos"],
            as_float(reference["images"]),
            reference["actions"],
            reference["is_pad"],
            10.0,
            reference["latent_noise"],
        )
    torch.testing.assert_close(loss.l1, reference["loss_l1"], **CLOSE)
    torch.testing.assert_close(loss.kl, reference["loss_kl"], **CLOSE)
    torch.testing.assert_close(loss.loss, reference["loss_loss"], **CLOSE)


def test_statistics_come_from_the_original_pickle() -> None:
    stats = load_act(CONFIG)[1]
    assert (stats.qpos_mean.shape, stats.action_std.shape) == ((7,), (5,))
    assert (stats.action_std > 0.1).all()


def test_serves_aggregation_is_the_originals(reference: Reference) -> None:
    client = Client("one", seen_ns=0)
    decay = ServeOptions().aggregation
    made = [aggregate(client, chunk, decay) for chunk in reference["ensemble_chunks"].double().numpy()]
    np.testing.assert_allclose(made, reference["ensemble_actions"].numpy(), atol=1e-6)
