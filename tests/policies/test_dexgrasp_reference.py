"""The DexGraspVLA controller gives the reference implementation's numbers (see data/README.md)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from policies.ddim import make_scheduler
from policies.dexgrasp.controller import Controller, ControllerInput, assign_noise
from policies.dexgrasp.options import ControllerShape
from policies.linear import pack_all

DATA = Path(__file__).parent / "data"
SHAPE = ControllerShape(
    head="tiny14",
    wrist="tinyg14",
    image_size=42,
    position_grid=5,
    state_size=7,
    action_size=5,
    horizon=8,
    layers=2,
    heads=4,
)
CLOSE = {"rtol": 0.0, "atol": 1e-5}

Reference = dict[str, torch.Tensor]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def reference() -> Reference:
    return load_file(DATA / "dexgrasp_outputs.safetensors")


@pytest.fixture(scope="module")
def controller() -> Controller:
    made = Controller(SHAPE).eval()
    missing, unexpected = made.load(load_file(DATA / "dexgrasp_weights.safetensors"))
    assert missing == []
    assert unexpected == []
    return made


def observation(reference: Reference) -> ControllerInput:
    swap = [2, 1, 0]
    head, wrist = reference["obs.rgbm"], reference["obs.right_cam_img"]
    return ControllerInput(head[:, :, [*swap, 3]], wrist[:, :, swap], reference["obs.right_state"])


def test_state_dict_has_the_public_names_and_shapes(controller: Controller) -> None:
    theirs = load_file(DATA / "dexgrasp_weights.safetensors")
    ours = controller.state_dict()
    assert {k: v.shape for k, v in ours.items()} == {k: v.shape for k, v in theirs.items()}


def test_backbone_interpolates_positions_as_dinov2(controller: Controller, reference: Reference) -> None:
    wide = controller.obs_encoder.dino_wrist(reference["vit_wide_in"])
    torch.testing.assert_close(wide, reference["vit_wide"], **CLOSE)
    head = observation(reference).head
    assert head is not None
    encoder = controller.obs_encoder
    features = encoder.dino_head(encoder.normalized(head[:, 0, :3]))
    torch.testing.assert_close(features, reference["head_rgb_features"], **CLOSE)


def test_encoder(controller: Controller, reference: Reference) -> None:
    with torch.no_grad():
        tokens = controller.encode(observation(reference))
    torch.testing.assert_close(tokens, reference["tokens"], **CLOSE)


def test_one_denoising_step(controller: Controller, reference: Reference) -> None:
    with torch.no_grad():
        out = controller.model(reference["noise"], reference["step_t"], reference["tokens"])
    torch.testing.assert_close(out, reference["step"], **CLOSE)


@pytest.mark.parametrize("project_once", [False, True])
def test_full_sampling_with_given_noise(
    controller: Controller, reference: Reference, project_once: bool
) -> None:
    controller.fast.project_once = project_once
    actions = controller.predict_action(observation(reference), reference["noise"])
    torch.testing.assert_close(actions, reference["actions"], **CLOSE)


def test_full_sampling_with_packed_layers(reference: Reference) -> None:
    packed = Controller(SHAPE).eval()
    packed.load(load_file(DATA / "dexgrasp_weights.safetensors"))
    pack_all(packed)
    with torch.inference_mode():
        tokens = packed.encode(observation(reference))
    torch.testing.assert_close(tokens, reference["tokens"], **CLOSE)
    actions = packed.predict_action(observation(reference), reference["noise"])
    torch.testing.assert_close(actions, reference["actions"], **CLOSE)


def test_attention_maps(controller: Controller, reference: Reference) -> None:
    actions, maps = controller.attention_maps(observation(reference), reference["noise"])
    torch.testing.assert_close(actions, reference["actions"], **CLOSE)
    assert list(maps) == [45, 42, 39, 36, 33, 30, 27, 24, 21, 18, 15, 12, 9, 6, 3, 0]
    # the reference keeps its maps in half precision
    torch.testing.assert_close(maps[45][1], reference["attn_45_layer1"], rtol=1e-3, atol=1e-4)


def test_loss_with_noise_assignment(controller: Controller, reference: Reference) -> None:
    actions, noise = reference["loss_actions"], reference["loss_noise"]
    clean = controller.normalizer.normalize("action", actions)
    assert assign_noise(clean, noise).tolist() == [1, 0]
    with torch.no_grad():
        loss = controller.compute_loss(observation(reference), actions, noise, reference["loss_t"])
    torch.testing.assert_close(loss, reference["loss"], **CLOSE)


def test_sampling_is_diffusers_own_ddim(controller: Controller, reference: Reference) -> None:
    """Against the library's scheduler, over a prediction that leaves the clipping range."""
    scheduler = make_scheduler(SHAPE)
    x = reference["noise"]
    for timestep in scheduler.timesteps:
        x = scheduler.step(3.0 * torch.sin(x * 2), timestep, x).prev_sample
    ours = controller.sampler.sample(lambda y, _: 3.0 * torch.sin(y * 2), reference["noise"])
    torch.testing.assert_close(ours, x, rtol=0, atol=1e-6)
