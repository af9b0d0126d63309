"""DexVLA's head, FiLM, projector and whole network against the public code, with the same weights."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from safetensors import safe_open  # noqa: E402
from safetensors.torch import load_file  # noqa: E402

from policies.dexvla.network import DexVla, DexVlaPrompt, drawn  # noqa: E402
from policies.dexvla.scaledp import ScaleDp  # noqa: E402
from tests.policies.dexvla_small import SHAPE, numbers, weight  # noqa: E402

FILE = Path(__file__).parent / "data" / "dexvla_outputs.safetensors"
KNOWN = load_file(FILE)
with safe_open(FILE, "pt") as opened:
    NAMES = {name: tuple(shape) for name, shape in json.loads(opened.metadata()["names"]).items()}

NOISE, TIMES, START = (
    numbers("noise", (2, 6, 5), 1.0),
    torch.tensor([63, 7]),
    numbers("start", (1, 6, 5), 1.0),
)
STATES, ACTIONS = numbers("states", (2, 7), 1.0), numbers("actions", (2, 6, 5), 0.5)
IS_PAD = torch.tensor([[False] * 6, [False] * 4 + [True] * 2])
PICTURES = [3, *[5] * 6, 4, 3, *[5] * 2, 4]
ROWS = (([1, 9, *PICTURES, 20, 21, 22, 23, 2, 8, 1, 10], [30, 31, 32, 33, 2]),
        ([1, 9, *PICTURES, 24, 25, 2, 8, 1, 10], [34, 35, 2]))  # fmt: skip
END = 40


@pytest.fixture(scope="module")
def network() -> DexVla:
    made = DexVla(SHAPE).eval()
    made.load_public({name: weight(name, shape) for name, shape in NAMES.items() if name != "lm_head.weight"})
    return made


@pytest.fixture(autouse=True)
def no_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


def batch() -> tuple[DexVlaPrompt, torch.Tensor]:
    longest = max(len(asked) + len(said) for asked, said in ROWS)
    words = torch.tensor([[0] * (longest - len(a) - len(s)) + a + s for a, s in ROWS])
    said = torch.tensor([[False] * (longest - len(s)) + [True] * len(s) for _, s in ROWS])
    grids = torch.tensor([[1, 4, 6], [1, 2, 4]] * 2)
    return DexVlaPrompt(words, words != 0, numbers("pixels", (64, 1176), 1.0), grids), said


def off(found: torch.Tensor, name: str) -> float:
    """How far any number is from the public code's; of other shapes, not a number."""
    known = KNOWN[name]
    return float((found.detach() - known).abs().max()) if found.shape == known.shape else math.nan


def test_names_and_sizes_are_the_public_codes(network: DexVla) -> None:
    found = {name: tuple(value.shape) for name, value in network.public_state().items()}
    assert found == {name: shape for name, shape in NAMES.items() if name != "lm_head.weight"}
    assert network.vlm.lm_head.weight is network.vlm.get_input_embeddings().weight


def test_the_head_predicts_and_denoises_as_the_public_one(network: DexVla) -> None:
    head, condition = network.policy_head, numbers("condition", (2, 1, 32), 1.0)[:, 0]
    about = head.about(condition, STATES)
    assert off(head.predict(NOISE, TIMES, about), "head.predicted") < 1e-5
    assert off(head.loss(ACTIONS, IS_PAD, about, NOISE, TIMES), "head.loss") < 1e-5
    assert off(head.sample(about[:1], START), "head.chunk") < 1e-5


def test_projector_and_film_are_the_public_ones(network: DexVla) -> None:
    prompt, reasoning = numbers("prompt", (9, 32), 1.0)[None], numbers("reasoning", (4, 32), 1.0)[None]
    projected = network.input_action_proj(prompt, torch.ones(1, 9, dtype=torch.bool))
    assert off(projected, "projected") < 1e-6
    said = network.reasoning_action_proj(reasoning, torch.ones(1, 4, dtype=torch.bool))
    assert off(network.reasoning_film(projected, said), "film") < 1e-6


def test_the_whole_networks_losses_are_the_public_ones(network: DexVla) -> None:
    prompt, said = batch()
    hidden = network.hidden(prompt, network.positions(prompt))
    there = prompt.there[..., None]
    torch.testing.assert_close(hidden * there, KNOWN["hidden"] * there, rtol=0, atol=2e-5)
    assert off(network.condition(hidden, prompt.there & ~said, said), "condition.rows") < 1e-5
    logits = network.vlm.lm_head(hidden)
    torch.testing.assert_close(logits * there, KNOWN["logits"] * there, rtol=0, atol=5e-5)
    loss = network.loss(prompt, said, STATES, ACTIONS, IS_PAD, 0.5, NOISE, TIMES)
    assert off(loss.language, "llm_loss") < 1e-5
    assert off(loss.action, "action_loss") < 1e-5
    assert off(loss.loss, "loss") < 1e-5


def test_what_it_says_and_does_is_the_public_ones(network: DexVla) -> None:
    prompt, _ = batch()
    asked = torch.tensor([ROWS[0][0]])
    one = DexVlaPrompt(asked, torch.ones_like(asked, dtype=torch.bool), prompt.patches[:32], prompt.grids[:2])
    reading = network.read(one, END, 256)
    assert list(reading.said) == KNOWN["run.words"][0].tolist()
    assert off(reading.condition, "run.condition.rows") < 1e-5
    about = network.policy_head.about(reading.condition, STATES[:1])
    assert off(network.policy_head.sample(about, START), "run.chunk") < 1e-5


def test_in_bfloat16_a_chunk_is_near_the_public_one() -> None:
    """Which denoises in bfloat16, too; here the arithmetic between the network's steps is in float32."""
    head = ScaleDp(SHAPE.head, 32)
    own = {name.removeprefix("policy_head."): shape for name, shape in NAMES.items() if "policy_head" in name}
    head.load_state_dict({name: weight(f"policy_head.{name}", shape) for name, shape in own.items()})
    condition = numbers("condition", (2, 1, 32), 1.0)[:1, 0]
    assert off(head.bfloat16().sample(head.about(condition, STATES[:1]), START), "head.chunk_bfloat16") < 0.05


@pytest.mark.parametrize("kind", ["qwen2_vl", "qwen2_5_vl"])
def test_what_it_reads_and_says_is_what_transformers_itself_does(kind: str) -> None:
    vision = dict(SHAPE.vlm["vision_config"])
    if kind == "qwen2_5_vl":
        vision |= {"hidden_size": 32, "intermediate_size": 48, "out_hidden_size": 32, "window_size": 56}
        vision["fullatt_block_indexes"] = [1]
        del vision["embed_dim"], vision["mlp_ratio"]
    shape = SHAPE.model_copy(update={"vlm": {**SHAPE.vlm, "model_type": kind, "vision_config": vision}})
    network = drawn(lambda: DexVla(shape), 3).eval()
    prompt, _ = batch()
    both = {
        "attention_mask": prompt.there.long(),
        "mm_token_type_ids": (prompt.words == 5).int(),
        "pixel_values": prompt.patches,
        "image_grid_thw": prompt.grids,
    }
    own = network.vlm.model(input_ids=prompt.words, **both).last_hidden_state
    found, there = network.hidden(prompt, network.positions(prompt)), prompt.there[..., None]
    torch.testing.assert_close(found * there, own * there, rtol=0, atol=1e-5)
    one = DexVlaPrompt(prompt.words[:1], prompt.there[:1], prompt.patches[:32], prompt.grids[:2])
    alone = {"mm_token_type_ids": both["mm_token_type_ids"][:1], "pixel_values": one.patches}
    greedy = network.vlm.generate(
        one.words,
        attention_mask=one.there.long(),
        image_grid_thw=one.grids,
        **alone,
        do_sample=False,
        max_new_tokens=9,
        eos_token_id=63,
        pad_token_id=0,
    )
    assert network.read(one, 63, 9).said == tuple(greedy[0, one.words.shape[1] :].tolist())
