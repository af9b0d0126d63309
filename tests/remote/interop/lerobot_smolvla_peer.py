"""LeRobot's own SmolVLA, for comparison; run by an interpreter that has LeRobot.

``lerobot_smolvla_peer.py FILE DEVICE PRECISION CAMERAS SIZES [BATCH]``: makes a network with random weights,
writes them, what it is shown and its answer to FILE, and then, for every line on the standard input, computes
a chunk. What it took is a line of JSON on the standard output. With BATCH it is trained on so many
observations: its answer is their loss, and each line asks for a step.
"""

from __future__ import annotations

import json
import sys
import time
import types
from typing import Any

import torch

if not torch.cuda.is_available():  # PyPI's torchvision has them for CUDA alone
    OPERATORS: Any = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
    for _name in ("nms", "qnms"):
        OPERATORS.define(f"{_name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

import lerobot.policies.smolvla.smolvlm_with_expert as with_expert
from lerobot.policies.smolvla.configuration_smolvla import SmolVLAConfig
from lerobot.policies.smolvla.modeling_smolvla import VLAFlowMatching
from transformers import SmolVLMConfig
from transformers.models.smolvlm.modeling_smolvlm import SmolVLMVisionEmbeddings

WORDS = 16


def counted(self: Any, pixel_values: Any, patch_attention_mask: Any) -> Any:
    """Places of a whole picture's patches: some versions of transformers are off by one in float32."""
    patches = self.patch_embedding(pixel_values).flatten(2).transpose(1, 2)
    return patches + self.position_embedding.weight


def made(shape: dict[str, Any], device: str) -> Any:
    """The network; the model's folder, which would be fetched, is replaced by its sizes."""
    tokens = types.SimpleNamespace(fake_image_token_id=1, global_image_token_id=2)
    with_expert.AutoConfig = types.SimpleNamespace(from_pretrained=lambda _: SmolVLMConfig(**shape["vlm"]))
    processor = types.SimpleNamespace(tokenizer=tokens)
    with_expert.AutoProcessor = types.SimpleNamespace(from_pretrained=lambda _: processor)
    setattr(SmolVLMVisionEmbeddings, "forward", counted)  # noqa: B010 - a method is not assigned to
    config = SmolVLAConfig(
        max_state_dim=shape["state_size"],
        max_action_dim=shape["action_size"],
        chunk_size=shape["chunk"],
        n_action_steps=shape["chunk"],
        num_vlm_layers=shape["vlm_layers"],
        load_vlm_weights=False,
        device=device,
    )
    return VLAFlowMatching(config).eval()


def main() -> None:
    """Write, and compute what is asked for."""
    path, device, precision, cameras, sizes = sys.argv[1:6]
    shape = json.loads(sizes)
    if len(sys.argv) > 6:
        train(path, int(cameras), shape, int(sys.argv[6]))
        return
    torch.manual_seed(0)
    model = made(shape, device)
    side = shape["vlm"]["vision_config"]["image_size"]
    vocabulary = shape["vlm"]["text_config"]["vocab_size"]
    shown = {
        "pixels": torch.rand(1, int(cameras), 3, side, side) * 2 - 1,
        "words": torch.randint(0, vocabulary - 1, (1, WORDS)),
        "state": torch.randn(1, shape["state_size"]),
        "noise": torch.randn(1, shape["chunk"], shape["action_size"]),
    }
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    if precision == "bfloat16":  # as LeRobot loads the public one: the language model in bfloat16
        model.vlm_with_expert.vlm.to(torch.bfloat16)
    model.to(device)
    pixels, words, state, noise = (value.to(device) for value in shown.values())
    images, there = list(pixels.unbind(1)), [torch.ones(1, dtype=torch.bool, device=device)] * int(cameras)
    word_mask = torch.ones_like(words, dtype=torch.bool)

    def chunk() -> Any:
        with torch.inference_mode(), torch.autocast(device, torch.bfloat16, enabled=precision == "bfloat16"):
            return model.sample_actions(images, there, words, word_mask, state, noise=noise).float().cpu()

    torch.save({"weights": weights, "shown": shown, "chunk": chunk().clone()}, path)
    print("{}", flush=True)
    for _ in sys.stdin:
        began = time.perf_counter()
        chunk()
        took = {"s": time.perf_counter() - began, "gpu_mib": _gpu_mib()}
        print(json.dumps(took), flush=True)


def train(path: str, cameras: int, shape: dict[str, Any], batch: int) -> None:
    """Take steps as LeRobot's own recipe does, in float32 on the CPU: its expert alone learns."""
    torch.manual_seed(0)
    model = made(shape, "cpu").train()
    side, count = shape["vlm"]["vision_config"]["image_size"], (batch, shape["chunk"], shape["action_size"])
    shown = {
        "pixels": torch.rand(batch, cameras, 3, side, side) * 2 - 1,
        "words": torch.randint(0, shape["vlm"]["text_config"]["vocab_size"] - 1, (batch, WORDS)),
        "state": torch.randn(batch, shape["state_size"]),
        "actions": torch.randn(count),
        "noise": torch.randn(count),
        "times": torch.rand(batch),
    }
    learning = [each for each in model.parameters() if each.requires_grad]
    optimizer = torch.optim.AdamW(learning, lr=1e-4, betas=(0.9, 0.95), eps=1e-8, weight_decay=1e-10)
    images = list(shown["pixels"].unbind(1))
    masks = [torch.ones(batch, dtype=torch.bool)] * cameras
    words, word_mask = shown["words"], torch.ones(batch, WORDS, dtype=torch.bool)
    rest = (shown["state"], shown["actions"], shown["noise"], shown["times"])

    def loss() -> Any:
        return model.forward(images, masks, words, word_mask, *rest).mean()

    with torch.no_grad():
        first = float(loss())
    count_of = sum(each.numel() for each in learning)
    torch.save({"weights": model.state_dict(), "shown": shown, "loss": first, "learning": count_of}, path)
    print("{}", flush=True)
    for _ in sys.stdin:
        began, used = time.perf_counter(), time.process_time()
        loss().backward()
        torch.nn.utils.clip_grad_norm_(learning, 10.0)
        optimizer.step()
        optimizer.zero_grad()
        print(json.dumps({"s": time.perf_counter() - began, "cpu_s": time.process_time() - used}), flush=True)


def _gpu_mib() -> float:
    return torch.cuda.max_memory_allocated() / 2**20 if torch.cuda.is_available() else 0.0


main()
