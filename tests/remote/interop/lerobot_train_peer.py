"""Steps of LeRobot's ACT, for comparison; run by the interpreter of LeRobot's own environment.

For every line on the standard input one step, as its ``lerobot-train`` takes them: loss, gradients clipped at
10, AdamW. What it took is a line of JSON on the standard output. The batch is made once, floats already.
"""

from __future__ import annotations

import json
import sys
import time

import torch

JOINTS = 6
if not torch.cuda.is_available():  # PyPI's torchvision has them for CUDA alone
    OPERATORS = torch.library.Library("torchvision", "DEF")
    for _name in ("nms", "qnms"):
        OPERATORS.define(f"{_name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

from lerobot.configs.types import FeatureType, PolicyFeature  # noqa: E402 - after them
from lerobot.policies.act.configuration_act import ACTConfig  # noqa: E402
from lerobot.policies.act.modeling_act import ACTPolicy  # noqa: E402


def main() -> None:
    """Take the steps that are asked for."""
    cameras, batch, height, width, device, precision = sys.argv[1:7]
    torch.manual_seed(0)
    names = [f"observation.images.{n}" for n in range(int(cameras))]
    size = (3, int(height), int(width))
    config = ACTConfig(
        input_features={
            "observation.state": PolicyFeature(FeatureType.STATE, (JOINTS,)),
            **{name: PolicyFeature(FeatureType.VISUAL, size) for name in names},
        },
        output_features={"action": PolicyFeature(FeatureType.ACTION, (JOINTS,))},
        pretrained_backbone_weights=None,
        device=device,
    )
    policy = ACTPolicy(config).to(device).train()
    optimizer = config.get_optimizer_preset().build(policy.get_optim_params())
    rows = int(batch)
    data = {
        "observation.state": torch.randn(rows, JOINTS, device=device),
        "action": torch.randn(rows, config.chunk_size, JOINTS, device=device),
        "action_is_pad": torch.zeros(rows, config.chunk_size, dtype=torch.bool, device=device),
        **{name: torch.rand(rows, *size, device=device) for name in names},
    }
    for _ in sys.stdin:
        began, cpu = time.perf_counter(), time.process_time()
        with torch.autocast(device, torch.bfloat16, enabled=precision == "bfloat16"):
            loss, _ = policy.forward(data)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(policy.parameters(), 10.0)
        optimizer.step()
        optimizer.zero_grad()
        loss.item()
        took = {"s": time.perf_counter() - began, "cpu_s": time.process_time() - cpu}
        sys.stdout.write(json.dumps({**took, "gpu_gib": _gpu_gib()}) + "\n")
        sys.stdout.flush()


def _gpu_gib() -> float:
    return torch.cuda.max_memory_allocated() / 2**30 if torch.cuda.is_available() else 0.0


main()
