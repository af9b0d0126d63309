"""LeRobot's own policies, saved as their folders, and what they answer; run by one that has LeRobot.

``lerobot_folder_peer.py FOLDER JSON``: makes a policy with random weights as the JSON says (``kind``,
``cameras``, ``size``, ``joints``, ``steps``, ``config``: keys of LeRobot's configuration, ``narrow``: by what
the ResNet's channels are divided, ``vlm``: a folder with sizes and a tokenizer, ``task``), saves it with its
processors into FOLDER, and beside them ``known.safetensors``: for every step of an episode the action that
``select_action`` gives (``selected``), every chunk that was computed on the way (``chunks``), and at which
step (``called``). With ``load`` FOLDER is there already, and is read as LeRobot does.
"""

from __future__ import annotations

import contextlib
import json
import sys
import types
from pathlib import Path
from typing import Any

import torch

_OPERATORS: Any = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
for _name in ("nms", "qnms"):  # beside a torch without CUDA, torchvision's own library does not load
    with contextlib.suppress(RuntimeError):
        _OPERATORS.define(f"{_name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

import torchvision  # noqa: E402 - after them
from drawn_weights import KEPT, drawn, pictures, states, statistics  # noqa: E402
from lerobot.configs.policies import PreTrainedConfig  # noqa: E402
from lerobot.configs.types import FeatureType, NormalizationMode, PolicyFeature  # noqa: E402
from lerobot.policies.factory import get_policy_class, make_policy_config, make_pre_post_processors  # noqa: E402
from safetensors.torch import save_file  # noqa: E402
from torchvision.models.resnet import BasicBlock, ResNet  # noqa: E402

SEED = 5
"""Of the noise, and of what is seen."""


def narrowed(by: int) -> None:
    """A ResNet-18 with fewer channels, in the place of torchvision's."""

    class Narrow(ResNet):  # type: ignore[misc]
        def __init__(self, **given: Any) -> None:
            given.pop("weights", None)
            super().__init__(BasicBlock, [2, 2, 2, 2], **given)
            self.inplanes = width = 64 // by
            self.dilation = 1
            self.conv1 = torch.nn.Conv2d(3, width, 7, 2, 3, bias=False)
            self.bn1 = self._norm_layer(width)
            dilate = given.get("replace_stride_with_dilation") or [False] * 3
            for stage in range(4):
                strided = {"stride": 2, "dilate": dilate[stage - 1]} if stage else {}
                setattr(self, f"layer{stage + 1}", self._make_layer(BasicBlock, width << stage, 2, **strided))
            self.fc = torch.nn.Linear(width * 8, 10)

    setattr(torchvision.models, "resnet18", Narrow)  # noqa: B010 - a stand-in


def small_vlm(vlm: str) -> None:
    """The language model's configuration and tokenizer are a folder's; patches' places are counted."""
    import lerobot.policies.smolvla.smolvlm_with_expert as with_expert
    import lerobot.processor.tokenizer_processor as with_words
    from transformers import AutoTokenizer, SmolVLMConfig
    from transformers.models.smolvlm.modeling_smolvlm import SmolVLMVisionEmbeddings

    def counted(self: Any, pixel_values: Any, patch_attention_mask: Any) -> Any:
        patches = self.patch_embedding(pixel_values).flatten(2).transpose(1, 2)
        return patches + self.position_embedding.weight

    tokens = types.SimpleNamespace(fake_image_token_id=1, global_image_token_id=2)
    sizes = SmolVLMConfig.from_pretrained(vlm)
    with_expert.AutoConfig = types.SimpleNamespace(from_pretrained=lambda _: sizes)
    processor = types.SimpleNamespace(tokenizer=tokens)
    with_expert.AutoProcessor = types.SimpleNamespace(from_pretrained=lambda _: processor)
    words = AutoTokenizer.from_pretrained(vlm)
    with_words.AutoTokenizer = types.SimpleNamespace(from_pretrained=lambda _: words)
    setattr(SmolVLMVisionEmbeddings, "forward", counted)  # noqa: B010 - a method is not assigned to


def configured(said: dict[str, Any]) -> Any:
    """LeRobot's configuration."""
    height, width = said["size"]
    inputs = {"observation.state": PolicyFeature(FeatureType.STATE, (said["joints"],))}
    for name in said["cameras"]:
        key = f"observation.images.{name}"
        inputs[key] = PolicyFeature(FeatureType.VISUAL, (3, height, width))
    if not said.get("state", True):
        del inputs["observation.state"]
    given = dict(said["config"])
    if "normalization_mapping" in given:
        modes = given["normalization_mapping"]
        given["normalization_mapping"] = {kind: NormalizationMode(mode) for kind, mode in modes.items()}
    return make_policy_config(
        said["kind"],
        input_features=inputs,
        output_features={"action": PolicyFeature(FeatureType.ACTION, (said["joints"],))},
        device="cpu",
        push_to_hub=False,
        **given,
    )


def stats_of(said: dict[str, Any]) -> dict[str, Any]:
    """Of the data set that there might have been."""
    made = {"observation.state": statistics(1, said["joints"]), "action": statistics(2, said["joints"])}
    for name in said["cameras"]:
        mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
        made[f"observation.images.{name}"] = {
            "mean": torch.tensor(mean).view(3, 1, 1),
            "std": torch.tensor(std).view(3, 1, 1),
            "min": torch.zeros(3, 1, 1),
            "max": torch.ones(3, 1, 1),
        }
    return {key: {k: torch.as_tensor(v) for k, v in held.items()} for key, held in made.items()}


def made(said: dict[str, Any], folder: Path) -> None:
    """Write the folder."""
    config = configured(said)
    policy = get_policy_class(said["kind"])(config)
    state = policy.state_dict()
    names = {}
    for name, value in state.items():
        if not name.endswith(KEPT) and value.dtype.is_floating_point:
            value.copy_(torch.from_numpy(drawn(name, value.shape)))
            names[name] = list(value.shape)
    policy.save_pretrained(folder)
    for processor in make_pre_post_processors(config, dataset_stats=stats_of(said)):
        processor.save_pretrained(folder)
    (folder / "shapes.json").write_text(json.dumps(names))


def answered(folder: Path, said: dict[str, Any]) -> None:
    """Load the folder, play an episode, write what was answered."""
    config = PreTrainedConfig.from_pretrained(folder)
    config.device = "cpu"
    strict = bool(said.get("load")) and config.type == "smolvla"
    policy = get_policy_class(config.type).from_pretrained(folder, config=config, strict=strict)
    before, after = make_pre_post_processors(config, pretrained_path=str(folder))
    steps, joints, (height, width) = said["steps"], said["joints"], said["size"]
    seen = {name: pictures(SEED + i, steps, height, width) for i, name in enumerate(said["cameras"])}
    felt = states(SEED, steps, joints)
    chunks, called, selected, own = [], [], [], policy.predict_action_chunk

    def noted(batch: Any, **given: Any) -> Any:
        chunk = own(batch, **given)
        chunks.append(after(chunk.clone())[0])
        called.append(step)
        return chunk

    policy.predict_action_chunk = noted
    if config.type == "smolvla":
        inner = policy._get_action_chunk

        def noted_inner(batch: Any, noise: Any = None, **given: Any) -> Any:
            chunk = inner(batch, noise, **given)
            chunks.append(after(chunk.clone())[0])
            called.append(step)
            return chunk

        policy._get_action_chunk = noted_inner
    policy.reset()
    torch.manual_seed(SEED)
    for step in range(steps):
        observed = {
            f"observation.images.{name}": torch.from_numpy(each[step]).permute(2, 0, 1).float() / 255
            for name, each in seen.items()
        }
        if said.get("state", True):
            observed["observation.state"] = torch.from_numpy(felt[step])
        observed["task"] = said.get("task", "")
        selected.append(after(policy.select_action(before(observed)))[0])
    known = {
        "selected": torch.stack(selected),
        "chunks": torch.stack(chunks),
        "called": torch.tensor(called),
    }
    save_file({name: value.contiguous() for name, value in known.items()}, folder / "known.safetensors")


def main() -> None:
    """As the command line says."""
    folder, said = Path(sys.argv[1]), json.loads(sys.argv[2])
    torch.set_num_threads(1)
    if said.get("narrow", 1) > 1:
        narrowed(said["narrow"])
    if said.get("vlm"):
        small_vlm(said["vlm"])
    if not said.get("load"):
        made(said, folder)
    answered(folder, said)


main()
