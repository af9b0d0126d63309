"""DexVLA's folders, words and pictures: read as the public code writes and sees them, refused in one line."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from safetensors.torch import save_file  # noqa: E402

from policies import model_folder as folders  # noqa: E402
from policies.checkpoint import CheckpointError  # noqa: E402
from policies.dexvla.config import DexVlaConfig  # noqa: E402
from policies.dexvla.load import begun_with, begun_with_nothing, load_dexvla, load_head  # noqa: E402
from policies.dexvla.network import DexVla, drawn, public_name  # noqa: E402
from policies.dexvla.pictures import PictureSize, cropped, patches  # noqa: E402
from policies.dexvla.policy import DexVlaPolicy  # noqa: E402
from policies.dexvla.prompts import Prompts  # noqa: E402
from policies.dexvla.shape import DexVlaShape  # noqa: E402
from policies.dexvla.words import ENDS, NEXT, PICTURE, byte_vlm, byte_words  # noqa: E402
from policies.training.adapters import add_adapters, merged  # noqa: E402
from runtime.inference import InferenceFailureError, checked  # noqa: E402
from tests.policies.dexvla_small import SMALL  # noqa: E402
from tests.policies.test_learned import ROBOT, observe  # noqa: E402

CPU = torch.device("cpu")
SHAPE = DexVlaShape.model_validate(
    {
        **SMALL,
        "head": {**SMALL["head"], "state_size": 6, "action_size": 6, "combine_width": 1024},
        "image_width": 84,
    }
)


def test_rows_that_are_no_numbers_move_nothing() -> None:
    """Where rows are kept within a range, infinity must not become the end of it."""
    given = {"shape": SHAPE, "units": {"convention": "symmetric"}, "longest_reasoning": 2}
    policy = DexVlaPolicy(DexVlaConfig.model_validate(given), ROBOT)
    policy.warm_up()
    here = observe().arm.position[None]
    free, bound = observe(), observe(committed=np.repeat(here, 3, axis=0), frozen_steps=0)
    assert checked(policy.infer(bound), 6).rows.shape == (SHAPE.head.chunk, 6)
    for value in (np.nan, np.inf):
        with torch.no_grad():
            policy._network.policy_head.final_layer.linear.bias[2] = value
        for seen in (free, bound):
            with pytest.raises(InferenceFailureError, match="actions hold NaN") as raised:
                checked(policy.infer(seen), 6)
            assert raised.value.kind == "not_finite"


@pytest.fixture(scope="module")
def network() -> DexVla:
    return drawn(lambda: begun_with_nothing(SHAPE)[0], 0).eval()


@pytest.fixture(scope="module")
def public(network: DexVla, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as the public code's training leaves it."""
    folder = tmp_path_factory.mktemp("dexvla") / "checkpoint-2"
    folder.mkdir()
    vlm = byte_vlm(SHAPE.vlm)
    text = dict(vlm.pop("text_config"))
    rope = text.pop("rope_parameters")
    head = SHAPE.head
    config = {
        **vlm, **text,
        "architectures": ["Qwen2VLForConditionalGenerationForVLA"],
        "model_type": "qwen2_vla",
        "rope_theta": rope["rope_theta"],
        "rope_scaling": {"type": "mrope", "mrope_section": rope["mrope_section"]},
        "vision_config": {**vlm["vision_config"], "in_chans": 3, "spatial_patch_size": 14},
        "torch_dtype": "bfloat16", "transformers_version": "4.45.2",
        "using_film": True, "llm_loss_weight": 1.0, "concat": "token_cat",
        "policy_head_type": "scale_dp_policy", "policy_head_size": "ScaleDP_L",
        "policy_head_config": {
            "model_type": "scale_dp_policy", "state_dim": 6, "input_dim": 6, "output_dim": 6,
            "prediction_horizon": head.chunk, "depth": head.layers, "n_emb": head.width,
            "num_heads": head.heads, "mlp_ratio": 4.0, "num_inference_timesteps": 10,
            "num_train_timesteps": 100, "is_tinyvla": False, "cond_dim": 48,
        },
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    state = {name: value.clone() for name, value in network.public_state().items()}
    names = sorted(state)
    parts = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for file, held in parts.items():
        save_file({name: state[name] for name in held}, folder / file)
    index = {"weight_map": {name: file for file, held in parts.items() for name in held}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    byte_words().save(folder)
    stats = {f"qpos_{kind}": np.full(6, value) for kind, value in (("mean", 0.1), ("std", 0.5))}
    stats |= {
        f"action_{kind}": np.full(6, v) for kind, v in (("min", -1), ("max", 1), ("mean", 0), ("std", 1))
    }
    (folder.parent / "dataset_stats.pkl").write_bytes(pickle.dumps(stats))
    return folder


def test_a_folder_of_the_public_code_is_the_same_network(network: DexVla, public: Path) -> None:
    loaded = load_dexvla(public, DexVlaShape(image_width=84, image_height=56), "float32", CPU)
    assert loaded.network.shape.head == SHAPE.head
    state = loaded.network.public_state()
    assert all(torch.equal(state[name], value) for name, value in network.public_state().items())
    size = Prompts(loaded.words, network, 1).size
    pixels = patches(torch.rand(1, 3, *size.seen), size)
    read = [
        net.eval().read(Prompts(loaded.words, net, 1).one("Go.", pixels), loaded.words.end, 4)
        for net in (network, loaded.network)
    ]
    assert read[0].said == read[1].said
    torch.testing.assert_close(read[0].condition, read[1].condition)
    assert loaded.stats.qpos_std.tolist() == [0.5] * 6


def _edit(**changes: Any) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, **changes}))

    return edit


def _without(*names: str) -> Callable[[Path], None]:
    def remove(folder: Path) -> None:
        for name in names:
            (folder / name).unlink()

    return remove


def _adapter(folder: Path) -> None:
    (folder / "adapter_config.json").write_text("{}")
    (folder / "model.safetensors.index.json").unlink()


def _cut(folder: Path) -> None:
    file = folder / "model-00001-of-00002.safetensors"
    file.write_bytes(file.read_bytes()[:100])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_edit(model_type="llava"), "a model of type 'llava'; expected qwen2_vla"),
        (_edit(policy_head_type="unet_diffusion_policy"), "the head here is scale_dp_policy"),
        (_edit(using_film=False), "a model without FiLM"),
        (_edit(hidden_size="many"), "its sizes are of no Qwen2-VL"),
        (_edit(vision_config=3), "its sizes are of no Qwen2-VL"),
        (_edit(num_hidden_layers=3), r"does not fit: missing model\.layers\.2\."),
        (_edit(image_token_id=7), "image_token_id is 7, and .*tokenizer.json has"),
        (_without("config.json"), r"there is no config\.json in it"),
        (_without("tokenizer.json"), r"there is no tokenizer\.json in it"),
        (_without("model.safetensors.index.json"), "weights are read from safetensors alone"),
        (_without("model-00002-of-00002.safetensors"), "no such file"),
        (_without("../dataset_stats.pkl"), r"no dataset_stats\.pkl in it or beside it"),
        (_adapter, "adapters alone"),
        (_cut, "no whole safetensors file"),
    ],
)
def test_a_folder_that_is_something_else_is_refused_in_one_line(
    public: Path, tmp_path: Path, change: Callable[[Path], None], said: str
) -> None:
    folder = shutil.copytree(public.parent, tmp_path / "held") / public.name
    change(folder)
    with pytest.raises(CheckpointError, match=said) as caught:
        load_dexvla(folder, DexVlaShape(), "float32", CPU)
    assert "\n" not in str(caught.value)


def test_weights_without_room_are_not_read(public: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folders, "free_bytes", lambda device: 1 << 10)
    with pytest.raises(CheckpointError, match=r"its weights need 0\.01 GiB of cpu, where 0\.00 GiB are free"):
        load_dexvla(public, DexVlaShape(), "float32", CPU)


def test_the_prompt_is_the_models_own_chat() -> None:
    words = byte_words()
    text = (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"
        f"<|vision_start|>{PICTURE * 6}<|vision_end|>Pick it up.<|im_end|>\n<|im_start|>assistant\n"
    )
    made = [*words.before(1, 6), *words.instruction("Pick it up."), *words.after()]
    assert made == words._tokenizer.encode(text).ids
    assert words.reasoning(words.answer("Grasp it.\x1b[2J")) == r"Grasp it.\x1b[2J"
    assert words.end not in words.instruction(f"Stop.{ENDS}")
    assert NEXT not in words.reasoning(words.answer("Go."))


@pytest.mark.parametrize("size", [PictureSize(308, 252), PictureSize(320, 240)])
def test_patches_are_those_of_the_models_own_processor(size: PictureSize) -> None:
    random = np.random.default_rng(0)
    image = random.integers(0, 256, (size.height // 8, size.width // 8, 3), np.uint8)
    image = np.repeat(np.repeat(image, 8, axis=0), 8, axis=1)
    image = np.pad(image, [(0, size.height - image.shape[0]), (0, size.width - image.shape[1]), (0, 0)])
    own = transformers.Qwen2VLImageProcessor()(images=[image], return_tensors="pt")
    assert own["image_grid_thw"].tolist() == [list(size.grid)]
    made = patches(torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255, size)[0]
    grey_level = 1 / 255 / 0.26
    assert float((made - own["pixel_values"]).abs().max()) < (1e-5 if size.width == 308 else 2.1 * grey_level)
    assert size.tokens == 99


def test_a_picture_is_brought_to_size_and_its_rim_cut_off() -> None:
    size = PictureSize(320, 240)
    image = torch.zeros(1, 480, 640, 3, dtype=torch.uint8)
    image[:, :10] = 255  # of which 12 rows of 240 are cut off above and below, together
    assert float(cropped(image, size, middle=True).max()) == 0
    assert cropped(image, size, middle=True).shape == (1, 3, 240, 320)


def test_adapters_alone_are_trained_in_the_language_model_and_merged_when_written(network: DexVla) -> None:
    before = {name: value.clone() for name, value in network.public_state().items()}
    adapted, words = begun_with_nothing(SHAPE)
    adapted.load_public({name: value.clone() for name, value in before.items()})
    add_adapters(adapted.eval().vlm, lambda name: "lm_head" not in name, 2, 4, 0.0)
    trained = {name for name, value in adapted.named_parameters() if value.requires_grad}
    of_vlm = {name for name in trained if name.startswith("vlm.")}
    assert of_vlm
    assert all(".lora_" in name for name in of_vlm)
    assert {"policy_head.pos_embed", "reasoning_film.scale_fc.weight"} <= trained
    torch.manual_seed(0)
    for name, value in adapted.named_parameters():
        if ".lora_B" in name:
            torch.nn.init.normal_(value, std=0.1)
    after = merged(adapted, adapted.public_state(), public_name)
    assert after.keys() == before.keys()
    assert not torch.equal(
        after["model.layers.0.mlp.up_proj.weight"], before["model.layers.0.mlp.up_proj.weight"]
    )
    plain, _ = begun_with_nothing(SHAPE)
    plain.load_public(after)
    prompts = Prompts(words, adapted, 1)
    prompt = prompts.one("Go.", patches(torch.rand(1, 3, *prompts.size.seen), prompts.size))
    with torch.no_grad():
        made, own = (each.eval().hidden(prompt, each.positions(prompt)) for each in (plain, adapted))
    torch.testing.assert_close(made, own, rtol=0, atol=1e-5)


def test_it_begins_with_a_qwen2_vl_and_a_head_that_was_trained_alone(network: DexVla, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(network.vlm.config.to_dict(), default=str))
    own = {k: v.clone() for k, v in network.vlm.state_dict().items() if k != "lm_head.weight"}
    save_file(own, tmp_path / "model.safetensors")
    byte_words().save(tmp_path)
    begun, _ = begun_with(tmp_path, SHAPE)
    assert torch.equal(
        begun.public_state()["visual.merger.mlp.0.weight"],
        network.public_state()["visual.merger.mlp.0.weight"],
    )
    assert all(value.device.type == "cpu" for value in begun.state_dict().values())
    assert float(begun.policy_head.blocks[0].adaLN_modulation[1].weight.detach().abs().max()) == 0
    head = {f"policy.noise_pred_net.{k}": v for k, v in network.policy_head.state_dict().items()}
    head["policy.noise_pred_net.x_embedder.weight"] = torch.zeros(48, 14)  # of another arm
    torch.save({"nets": {"nets": {**head, "policy.obs_encoder.x": torch.zeros(2)}}}, tmp_path / "head.pth")
    kept = begun.policy_head.cond_obs_emb.weight.clone()
    load_head(begun, tmp_path / "head.pth")
    assert torch.equal(
        begun.policy_head.blocks[1].attn.qkv.weight, network.policy_head.blocks[1].attn.qkv.weight
    )
    assert torch.equal(begun.policy_head.cond_obs_emb.weight, kept)
    torch.save({"nets": {"nets": {"policy.noise_pred_net.x": torch.zeros(1)}}}, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match="not a head of 2 layers of 48"):
        load_head(begun, tmp_path / "other.pth")
