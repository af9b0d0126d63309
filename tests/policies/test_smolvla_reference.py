"""SmolVLA's network against LeRobot's own, with the same weights."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from safetensors.torch import load_file  # noqa: E402

from policies.lerobot.smolvla_network import Reading, SmolVla  # noqa: E402
from policies.lerobot.smolvla_shape import SmolVlaShape  # noqa: E402
from policies.linear import can_pack  # noqa: E402
from policies.smolvla.flow import drawn_times, flow_error, mean_of_real  # noqa: E402
from policies.smolvla.options import SmolVlaTraining  # noqa: E402
from policies.smolvla.parts import choose  # noqa: E402

DATA = Path(__file__).parent / "data"
SHAPE = SmolVlaShape(
    vlm={
        "vision_config": {
            "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
            "image_size": 32, "patch_size": 4,
        },
        "text_config": {
            "model_type": "llama", "hidden_size": 24, "intermediate_size": 48, "num_attention_heads": 6,
            "num_key_value_heads": 2, "num_hidden_layers": 4, "head_dim": 4, "vocab_size": 40,
            "pad_token_id": 2, "bos_token_id": 1, "eos_token_id": 2, "rms_norm_eps": 1e-5,
        },
        "scale_factor": 4,
        "image_token_id": 39,
        "tie_word_embeddings": False,
    },
    vlm_layers=3,
    chunk=6,
    state_size=8,
    action_size=8,
)  # fmt: skip
KNOWN = load_file(DATA / "smolvla_outputs.safetensors")


@pytest.fixture(scope="module")
def network() -> SmolVla:
    made = SmolVla(SHAPE).eval()
    weights = load_file(DATA / "smolvla_weights.safetensors")
    result = made.load_state_dict({k.removeprefix("model."): v for k, v in weights.items()}, strict=False)
    assert not result.unexpected_keys
    assert result.missing_keys == ["vlm_with_expert.vlm.lm_head.weight"]
    return made


@pytest.fixture
def no_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


def reading(network: SmolVla) -> Reading:
    return network.read(KNOWN["pixels"], KNOWN["words"], KNOWN["word_mask"], KNOWN["state"])


@pytest.mark.usefixtures("no_gradients")
def test_a_chunk_is_the_references(network: SmolVla) -> None:
    chunk = network.sample(reading(network), KNOWN["noise"])
    torch.testing.assert_close(chunk, KNOWN["chunk"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("flow", [True, False])
def test_a_packed_networks_chunk_is_the_references(network: SmolVla, flow: bool) -> None:
    packed = copy.deepcopy(network)
    packed.pack(flow=flow)
    with torch.no_grad():
        seen = reading(packed)
        torch.testing.assert_close(packed.sample(seen, KNOWN["noise"]), KNOWN["chunk"], rtol=0, atol=1e-5)
    model, expert = packed.vlm_with_expert.vlm.model, packed.vlm_with_expert.lm_expert
    given_up = [
        each.weight.numel() == 0
        for each in (model.vision_model.encoder.layers[0].mlp.fc1, expert.layers[0].self_attn.q_proj)
    ]
    can = can_pack(torch.empty(1))
    assert given_up == [can, can and flow]
    if not flow:  # what is guided needs the flow's gradient
        noise = KNOWN["noise"].clone().requires_grad_(True)
        pull = packed.velocity(noise, packed.time_part(torch.ones(1)), seen)
        assert torch.autograd.grad(pull.sum(), noise)[0].abs().max() > 0


@pytest.mark.usefixtures("no_gradients")
def test_the_loss_is_the_references(network: SmolVla) -> None:
    seen, times = reading(network), KNOWN["time"]
    error = flow_error(network, seen, KNOWN["actions"], KNOWN["noise"], times, None)
    torch.testing.assert_close(error, KNOWN["loss"], rtol=0, atol=3e-5)
    none_given = torch.zeros(error.shape[:2], dtype=torch.bool)
    same = flow_error(network, seen, KNOWN["actions"], KNOWN["noise"], times, none_given)
    torch.testing.assert_close(same, KNOWN["loss"], rtol=0, atol=3e-5)
    real = torch.ones(error.shape[:2], dtype=torch.bool)
    real[0, 4:] = False
    loss = mean_of_real(error, 5, real)
    rows = torch.cat([KNOWN["loss"][0, :4, :5], *KNOWN["loss"][1:, :, :5]])
    torch.testing.assert_close(loss, rows.mean(), rtol=1e-5, atol=0)


def test_times_are_of_lerobots_beta() -> None:
    torch.manual_seed(0)
    times = drawn_times(20_000, torch.device("cpu"))
    known = torch.distributions.Beta(1.5, 1.0).sample((20_000,)) * 0.999 + 0.001
    assert times.min() > 0.001
    assert times.max() <= 1
    levels = torch.tensor([0.1, 0.25, 0.5, 0.75, 0.9])
    torch.testing.assert_close(times.quantile(levels), known.quantile(levels), rtol=0, atol=0.01)


def test_what_is_frozen_is_not_gone_through_backwards(
    network: SmolVla, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pictures and words come before what learns: gradients are the same without any of theirs."""
    learning = copy.deepcopy(network)
    choose(learning, SmolVlaTraining())
    given = (KNOWN["actions"], KNOWN["noise"], KNOWN["time"], None)

    def gradients() -> dict[str, torch.Tensor]:
        learning.zero_grad()
        flow_error(learning, reading(learning), *given).mean().backward()
        return {name: p.grad.clone() for name, p in learning.named_parameters() if p.grad is not None}

    apart = gradients()
    assert "state_proj.weight" in apart
    monkeypatch.setattr("policies.lerobot.smolvla_network._learns_after", lambda *_: False)
    together = gradients()
    assert apart.keys() == together.keys()
    for name, each in apart.items():
        torch.testing.assert_close(each, together[name], rtol=1e-4, atol=1e-6)


@pytest.mark.usefixtures("no_gradients")
def test_rows_that_are_given_are_seen_clean(network: SmolVla) -> None:
    """Their noise counts for nothing, and they are at time 0."""
    given = torch.zeros(KNOWN["actions"].shape[:2], dtype=torch.bool)
    given[:, :2] = True
    noise = KNOWN["noise"].clone()
    noise[:, :2] = 7.0
    seen, rest = reading(network), (KNOWN["time"], given)
    one = flow_error(network, seen, KNOWN["actions"], KNOWN["noise"], *rest)
    two = flow_error(network, seen, KNOWN["actions"], noise, *rest)
    torch.testing.assert_close(one[:, 2:], two[:, 2:])
    assert (one[:, 2:] - KNOWN["loss"][:, 2:]).abs().max() > 1e-3


@pytest.mark.usefixtures("no_gradients")
def test_words_that_are_not_there_change_nothing(network: SmolVla) -> None:
    known = {name: KNOWN[name][1:] for name in ("pixels", "words", "word_mask", "state", "noise")}
    padded = network.read(known["pixels"], known["words"], known["word_mask"], known["state"])
    short = network.read(known["pixels"], known["words"][:, :5], None, known["state"])
    torch.testing.assert_close(
        network.sample(short, known["noise"]), network.sample(padded, known["noise"]), rtol=0, atol=1e-5
    )


@pytest.mark.usefixtures("no_gradients")
def test_pictures_are_seen_as_the_model_itself_sees_them(network: SmolVla) -> None:
    model = network.vlm_with_expert.vlm.model
    pixels = KNOWN["pixels"].flatten(0, 1)
    own = model.connector(model.vision_model(pixel_values=pixels).last_hidden_state)
    torch.testing.assert_close(network.see(pixels), own * 24**0.5, rtol=1e-6, atol=1e-5)
