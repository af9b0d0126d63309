"""Time and memory per chunk of the learned policies, each optimisation on and off, in one run.

``python -m bench.policy`` measures the DexGraspVLA controller at the public size (ViT-B and ViT-L, 518x518,
12 layers, 64x13) and ACT at the original's (ResNet-18, hidden 512, chunk 100, one and three 480x640
cameras), random weights, float32 on the CPU; with ``--device cuda``, there, with bf16, compile and graphs,
too. ``straightforward`` is the computation as the public code does it; variants take turns, and the median
counts. Prints one JSON line per variant and one with the ratios.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from bench.act_original import OriginalWay
from bench.device import peak_mib, reset_peak, wait
from policies.accelerate import Replay, compile_each, place
from policies.act.load import random_act
from policies.act.options import ActShape
from policies.act.policy import ActInference
from policies.dexgrasp.controller import Controller, ControllerInput
from policies.dexgrasp.load import random_controller
from policies.dexgrasp.options import ControllerShape
from policies.linear import pack_all

TINY = ControllerShape(
    head="tiny14", wrist="tiny14", image_size=28, position_grid=2, horizon=8, layers=2, heads=2, mask_heads=2
)
TINY_ACT = ActShape(chunk=5, hidden=16, feedforward=16, heads=2, encoder_layers=1, base_width=4)


@dataclass
class Variant:
    """One way to compute a chunk: named parts, timed one by one; `answer` is for comparing."""

    name: str
    parts: Mapping[str, Callable[[], Tensor]]
    seconds: dict[str, list[float]] = field(default_factory=dict)
    answer: Tensor | None = None
    peak_mib: float = 0.0

    def run(self, device: torch.device) -> None:
        """Time every part once."""
        reset_peak(device)
        for part, call in self.parts.items():
            wait(device)
            started = time.perf_counter()
            out = call()
            wait(device)
            self.seconds.setdefault(part, []).append(time.perf_counter() - started)
            self.answer = out.float().cpu()
        self.peak_mib = max(self.peak_mib, peak_mib(device))


def _sampled(controller: Controller, tokens: Tensor, noise: Tensor) -> Tensor:
    with torch.inference_mode():
        return controller.sampler.sample(controller.denoiser_for(tokens), noise)


def _encoded(controller: Controller, made: ControllerInput) -> Tensor:
    with torch.inference_mode():
        return controller.encode(made)


def _controller_variant(
    name: str, controller: Controller, made: ControllerInput, noise: Tensor, once: bool, graphs: bool = False
) -> Variant:
    def chosen() -> Controller:
        controller.fast.project_once = once
        return controller

    def denoise() -> Tensor:
        return _sampled(chosen(), tokens, noise)

    def total() -> Tensor:
        images = [image for image in (made.head, made.wrist) if image is not None]
        return replay(noise, made.state, *images)

    def predict(given: Tensor, state: Tensor, head: Tensor, wrist: Tensor) -> Tensor:
        return chosen().predict_action(ControllerInput(head, wrist, state), given)

    tokens = _encoded(chosen(), made)
    replay = Replay(predict, controller.device, graphs)
    parts: dict[str, Callable[[], Tensor]] = {"encode": lambda: _encoded(chosen(), made), "denoise": denoise}
    return Variant(name, {"total": total} if graphs else {**parts, "total": total})


def _controller_input(shape: ControllerShape, device: torch.device) -> ControllerInput:
    side = (shape.image_size,) * 2
    generator = torch.Generator().manual_seed(0)
    head = torch.rand(1, 1, 4, *side, generator=generator)
    head[:, :, 3] = (head[:, :, 3] > 0.5).float()
    wrist = torch.rand(1, 1, 3, *side, generator=generator)
    state = torch.rand(1, 1, shape.state_size, generator=generator)
    return ControllerInput(head.to(device), wrist.to(device), state.to(device))


def controller_variants(shape: ControllerShape, device: torch.device) -> list[Variant]:
    """The controller's variants, the straightforward one first."""
    plain = random_controller(shape, 0).eval().to(device)
    made = _controller_input(shape, device)
    noise = torch.randn((1, shape.horizon, shape.action_size), generator=torch.Generator().manual_seed(1))
    noise = noise.to(device)
    variants = [
        _controller_variant("straightforward", plain, made, noise, once=False),
        _controller_variant("project_once", plain, made, noise, once=True),
    ]
    if device.type == "cpu":
        packed = copy.deepcopy(plain)
        pack_all(packed)
        packed.forget_time_tokens()
        return [
            *variants,
            _controller_variant("packed", packed, made, noise, once=False),
            _controller_variant("project_once+packed", packed, made, noise, once=True),
        ]
    half = copy.deepcopy(plain)
    for part in (half.obs_encoder, half.model):
        place(part, device, "bfloat16")
    half.forget_time_tokens()
    variants.append(_controller_variant("project_once+bf16", half, made, noise, once=True))
    compiled = copy.deepcopy(half)
    compiled.forget_time_tokens()
    blocks = [*compiled.model.blocks, *compiled.obs_encoder.dino_head.blocks]
    compile_each([*blocks, *compiled.obs_encoder.dino_wrist.blocks])
    variants.append(_controller_variant("project_once+bf16+compile", compiled, made, noise, once=True))
    name = "project_once+bf16+compile+graphs"
    return [*variants, _controller_variant(name, compiled, made, noise, once=True, graphs=True)]


def act_variants(shape: ActShape, cameras: int, size: tuple[int, int], device: torch.device) -> list[Variant]:
    """ACT's variants, the original's way first."""
    model, _ = random_act(shape, 0)
    model.eval().to(device)
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (1, cameras, *size, 3), generator=generator, dtype=torch.uint8).to(device)
    state = torch.rand(1, shape.state_size, generator=generator).to(device)
    original = OriginalWay(model).to(device)
    network = ActInference(copy.deepcopy(model), device, "float32")
    variants = [
        Variant("straightforward", {"total": lambda: original(state, images)}),
        Variant("folded+first_layer+packed", {"total": lambda: network(state, images)}),
    ]
    if device.type == "cpu":
        unpacked = ActInference(copy.deepcopy(model), device, "float32", pack=False)
        variants.insert(1, Variant("folded+first_layer", {"total": lambda: unpacked(state, images)}))
        return variants
    half = ActInference(copy.deepcopy(model), device, "bfloat16")
    half.compile()
    replay = Replay(half, device, enabled=True)
    variants.append(Variant("bf16+compile", {"total": lambda: half(state, images)}))
    variants.append(Variant("bf16+compile+graphs", {"total": lambda: replay(state, images)}))
    return variants


def report(case: Mapping[str, Any], variants: list[Variant]) -> dict[str, Any]:
    """Print every variant; returns the ratios of the first to the last."""
    first = variants[0].answer
    medians = []
    for variant in variants:
        median = {part: statistics.median(times) for part, times in variant.seconds.items()}
        medians.append(median)
        difference = None
        if first is not None and variant.answer is not None:
            difference = float((variant.answer - first).abs().max())
        rounded = {f"{part}_s": round(value, 5) for part, value in median.items()}
        line = {**case, "variant": variant.name, **rounded, "peak_mib": round(variant.peak_mib)}
        print(json.dumps({**line, "largest_difference": difference}), flush=True)
    parts = [part for part in medians[0] if part in medians[-1]]
    return {**case, **{f"{part}_speedup": round(medians[0][part] / medians[-1][part], 2) for part in parts}}


def measure(variants: list[Variant], repeat: int, device: torch.device) -> None:
    """All variants in turn, once to warm up and `repeat` times for the record."""
    for variant in variants:
        variant.run(device)
        variant.seconds.clear()
    for _ in range(repeat):
        for variant in variants:
            variant.run(device)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--policy", choices=("dexgrasp", "act", "all"), default="all")
    parser.add_argument("--size", choices=("full", "tiny"), default="full")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--repeat", type=int, default=3)
    options = parser.parse_args()
    device, full = torch.device(options.device), options.size == "full"
    ratios = []
    common = {"device": options.device, "threads": torch.get_num_threads(), "size": options.size}
    if options.policy in ("dexgrasp", "all"):
        variants = controller_variants(ControllerShape() if full else TINY, device)
        measure(variants, options.repeat, device)
        ratios.append(report({"policy": "dexgrasp", **common}, variants))
        del variants
    if options.policy in ("act", "all"):
        for cameras in (1, 3):
            size = (480, 640) if full else (64, 96)
            variants = act_variants(ActShape() if full else TINY_ACT, cameras, size, device)
            measure(variants, options.repeat * 3, device)
            ratios.append(report({"policy": "act", "cameras": cameras, **common}, variants))
    print(json.dumps({"speedups": ratios}))


if __name__ == "__main__":
    main()
