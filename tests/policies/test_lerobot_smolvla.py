"""SmolVLA's folders beyond their chunks: words, pictures of any size, committed rows, what cannot run."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from loguru import logger

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from policies.lerobot.config import LerobotFolderConfig  # noqa: E402
from policies.lerobot.policy import FolderPolicy  # noqa: E402
from runtime.interfaces import PolicyError  # noqa: E402
from runtime.messages import Floats, Frame  # noqa: E402
from tests.policies.lerobot_rig import DATA, ROBOT, Played, played  # noqa: E402


@pytest.fixture
def smolvla(tmp_path: Path) -> Played:
    return played("smolvla", tmp_path)


def rows(fixture: Played, said: str = "", **keys: Any) -> Floats:
    return fixture.policy(**keys).infer(replace(fixture.at(0), instruction=said)).rows


def test_words_end_in_a_new_line_are_cut_off_and_count(smolvla: Played) -> None:
    known = rows(smolvla, "lift the cup")
    np.testing.assert_array_equal(rows(smolvla, "lift the cup\n"), known)
    assert np.abs(rows(smolvla, "lift the cap") - known).max() > 1e-4
    np.testing.assert_array_equal(rows(smolvla, "a" * 16), rows(smolvla, "a" * 16 + "nothing of this"))


def test_words_of_several_lengths_are_answered_together(smolvla: Played) -> None:
    seen = [replace(smolvla.at(i), instruction=said) for i, said in enumerate(("lift the cup", "stop"))]
    together = smolvla.policy().infer_batch(seen)
    policy = smolvla.policy()
    for each, answer in zip(seen, together, strict=True):  # the same noise, drawn row by row
        np.testing.assert_allclose(policy.infer(each).rows, answer.rows, rtol=0, atol=1e-6)


def test_a_picture_keeps_its_shape_whatever_the_folder_says(smolvla: Played) -> None:
    seen, policy = smolvla.at(0), smolvla.policy()
    assert policy._rules["head"].width == 0
    frames = {**seen.frames, "head": Frame("head", 0, np.zeros((96, 32, 3), np.uint8))}
    assert np.isfinite(policy.infer(replace(seen, frames=frames)).rows).all()


def test_fewer_cameras_than_it_was_trained_with(smolvla: Played) -> None:
    policy = smolvla.policy(keys={"cameras": {"head": "front"}})
    assert policy.spec.cameras == ("head",)
    assert np.abs(policy.infer(smolvla.at(0)).rows - smolvla.policy().infer(smolvla.at(0)).rows).max() > 1e-4


def test_empty_cameras_are_none(smolvla: Played) -> None:
    known = smolvla.policy().infer(smolvla.at(0)).rows
    config = json.loads((smolvla.folder / "config.json").read_text())
    config["empty_cameras"] = 1
    config["input_features"]["observation.images.empty_camera_0"] = {"type": "VISUAL", "shape": [3, 480, 640]}
    (smolvla.folder / "config.json").write_text(json.dumps(config))
    np.testing.assert_array_equal(smolvla.policy().infer(smolvla.at(0)).rows, known)


def test_committed_rows_steer_the_flow_where_the_blend_asks_for_it(smolvla: Played) -> None:
    seen = smolvla.at(0)
    free = smolvla.policy(blend="rtc").infer(seen).rows
    plain = smolvla.policy().infer(seen).rows  # its layers are packed, those that have to be steered are not
    np.testing.assert_allclose(plain, free, rtol=0, atol=1e-6)
    committed = free[:5] + 0.2
    bound = replace(seen, committed=committed, frozen_steps=2)
    policy = smolvla.policy(blend="rtc")
    assert policy.spec.takes_prefix
    steered = policy.infer(bound).rows
    apart = [np.abs(made[:2, :5] - committed[:2, :5]).mean() for made in (steered, free)]
    assert apart[0] < 0.2 * apart[1]
    assert np.abs(steered[5] - free[5]).max() < np.abs(steered[1] - free[1]).max()
    assert not smolvla.policy().spec.takes_prefix
    np.testing.assert_array_equal(smolvla.policy().infer(bound).rows, plain)
    both = smolvla.policy(blend="rtc").infer_batch([bound, smolvla.at(1)])
    np.testing.assert_allclose(both[0].rows, steered, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"adapt_to_pi_aloha": True}, r"config\.json: adapt_to_pi_aloha = True: "),
        ({"attention_mode": "self_attn"}, r"config\.json: attention_mode = 'self_attn': "),
        ({"num_vlm_layers": 4}, r"model\.safetensors: does not fit: missing vlm_with_expert\."),
        ({"num_vlm_layers": 5}, r"its smolvla cannot be made: vlm_layers 5: the model has 4"),
        ({"num_vlm_layers": 10**9}, r"num_vlm_layers = 1000000000: "),
        ({"max_state_dim": 4}, r"a state of 6, and the network has 4"),
        ({"resize_imgs_with_padding": [64, 64]}, r"resize_imgs_with_padding \[64, 64\], and .* takes 32"),
    ],
)
def test_a_smolvla_that_cannot_run_is_told_in_a_line(
    smolvla: Played, change: dict[str, Any], told: str
) -> None:
    config = json.loads((smolvla.folder / "config.json").read_text())
    (smolvla.folder / "config.json").write_text(json.dumps({**config, **change}))
    with pytest.raises(PolicyError, match=told) as caught:
        smolvla.policy()
    assert "\n" not in str(caught.value)


def test_the_language_models_folder(smolvla: Played, tmp_path: Path) -> None:
    with pytest.raises(
        PolicyError, match=r"no tokenizer\.json in .*: give policy\.vlm, .* nothing is fetched"
    ):
        smolvla.policy(vlm="")
    other = tmp_path / "other"
    shutil.copytree(DATA / "vlm", other)
    sizes = json.loads((other / "config.json").read_text())
    for change, told in (
        ({"vocab_size": 100}, r"has 259 tokens, the network 100"),
        ({"num_hidden_layers": 10**9}, r"num_hidden_layers = 1000000000; expected 1 to 256"),
        ({"model_type": "qwen2"}, r"is a 'qwen2'; SmolVLM's, a llama, runs here"),
        ({"hidden_size": 24 * 10**6}, r"(does not fit|cannot be made)"),
    ):
        text = {**sizes["text_config"], **change}
        (other / "config.json").write_text(json.dumps({**sizes, "text_config": text}))
        with pytest.raises(PolicyError, match=told):
            smolvla.policy(vlm=str(other))
    (other / "config.json").write_text(json.dumps(sizes))
    (other / "tokenizer.json").write_text("{")
    with pytest.raises(PolicyError, match="the tokenizer in "):
        smolvla.policy(vlm=str(other))


def test_in_8_bits_a_chunk_is_near_and_can_be_steered(smolvla: Played) -> None:
    seen, known = smolvla.at(0), rows(smolvla)
    near = rows(smolvla, precision="int8")
    apart = np.abs(near - known).max(axis=0) / np.abs(known).max(axis=0)
    assert 0 < apart.max() < 0.05
    steered = smolvla.policy(precision="int8", blend="rtc")
    committed = steered.infer(seen).rows[:5] + 0.2
    bound = steered.infer(replace(seen, committed=committed, frozen_steps=2)).rows
    assert np.abs(bound[:2] - committed[:2]).mean() < 0.1


def test_8_bits_are_for_a_smolvla_on_a_cpu(smolvla: Played, tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match=r"precision = 'int8' is for device = 'cpu'; 'bfloat16' is fast"):
        FolderPolicy(
            LerobotFolderConfig(
                path=str(smolvla.folder), vlm=str(DATA / "vlm"), precision="int8", device="cuda"
            ),
            ROBOT,
            {},
        )
    with pytest.raises(PolicyError, match=r"precision = 'int8' has no effect: it is a act"):
        played("act", tmp_path / "other").policy(precision="int8")


def test_a_processor_without_instructions_for_8_bits_is_told(
    smolvla: Played, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    sink = logger.add(lambda message: told.append(message.record["message"]), level="WARNING")
    monkeypatch.setattr("policies.lerobot.smolvla.is_fast", lambda: False)
    smolvla.policy(precision="int8")
    logger.remove(sink)
    assert [each for each in told if "no instructions for it (VNNI)" in each]
