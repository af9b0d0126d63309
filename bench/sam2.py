"""SAM 2 of each public size with random weights, and what its calls take: for `bench.perception`.

    python -m bench.sam2 --size tiny --device cuda --precision bfloat16 --frames 20

Sizes are those of the public repository's configurations (sam2.1_hiera_{t,s,b+,l}.yaml): time and memory
depend on them and not on the weights' values.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from planner.perception.sam2_network import Sam2Network, network_of
from planner.perception.sam2_segmenter import Sam2Segmenter
from planner.perception.sam2_session import Sam2Session
from planner.perception.sam2_tracker import Sam2MultiTracker
from runtime.clock import NS_PER_S, RealClock
from runtime.interfaces import Prompt
from runtime.messages import Frame
from runtime.torch_device import ITEM_BYTES, open_device, torch_dtype


@dataclass(frozen=True)
class Sam2Size:
    """A public size: its backbone's widths, blocks, windows."""

    width: int
    heads: int
    blocks: tuple[int, int, int, int]
    global_blocks: tuple[int, int, int]
    windows: tuple[int, int, int, int] = (8, 4, 14, 7)
    background: int = 7


SIZES = {
    "tiny": Sam2Size(96, 1, (1, 2, 7, 2), (5, 7, 9)),
    "small": Sam2Size(96, 1, (1, 2, 11, 2), (7, 10, 13)),
    "base-plus": Sam2Size(112, 2, (2, 3, 16, 3), (12, 16, 20), background=14),
    "large": Sam2Size(144, 2, (2, 6, 36, 4), (23, 33, 43), (8, 4, 16, 8)),
}


def sam2_config(size: str) -> Any:
    """The configuration of a public size; everything beside the backbone is the same in all."""
    from transformers import Sam2HieraDetConfig, Sam2VideoConfig, Sam2VisionConfig

    shape = SIZES[size]
    widths = [shape.width << stage for stage in range(4)]
    backbone = Sam2HieraDetConfig(
        hidden_size=shape.width,
        num_attention_heads=shape.heads,
        blocks_per_stage=list(shape.blocks),
        embed_dim_per_stage=widths,
        num_attention_heads_per_stage=[shape.heads << stage for stage in range(4)],
        window_size_per_stage=list(shape.windows),
        global_attention_blocks=list(shape.global_blocks),
        window_positional_embedding_background_size=[shape.background] * 2,
    )
    vision = Sam2VisionConfig(backbone_config=backbone, backbone_channel_list=widths[::-1])
    return Sam2VideoConfig(vision_config=vision)


def random_sam2(size: str, device: str = "cpu", precision: str = "float32", *, video: bool) -> Sam2Network:
    """A network of a public size with random weights, for tracking (`video`) or for single pictures."""
    from transformers import Sam2Config, Sam2Model, Sam2VideoModel

    config = sam2_config(size)
    torch.manual_seed(0)
    opened, dtype = open_device("bench", device, precision), torch_dtype(precision)
    image = Sam2Config(vision_config=config.vision_config)
    model: Any = Sam2VideoModel(config) if video else Sam2Model(image)
    return network_of(model.eval().to(opened, dtype), "sam2_video", opened, dtype)


def stored_bytes(session: Sam2Session | None) -> int:
    """What the session's tensors take, by the storages that they are views of."""
    found: dict[int, int] = {}

    def look(what: Any) -> None:
        if isinstance(what, Tensor):
            storage = what.untyped_storage()
            found[storage.data_ptr()] = storage.nbytes()
        elif isinstance(what, dict):
            for each in what.values():
                look(each)
        elif isinstance(what, list | tuple):
            for each in what:
                look(each)
        elif hasattr(what, "__dict__") and not isinstance(what, torch.device | torch.dtype):
            look(vars(what))

    look(None if session is None else session.state)
    return sum(found.values())


def measure(
    size: str, device: str = "cpu", precision: str = "float32", *, frames: int = 5, compile_it: bool = False
) -> dict[str, Any]:
    """Milliseconds of a segmentation, of another prompt on the same picture, and of a tracked frame."""
    clock, rng = RealClock(), np.random.default_rng(0)
    pictures = [rng.integers(0, 256, (480, 640, 3), dtype=np.uint8) for _ in range(frames + 2)]
    prompt = Prompt((200.0, 150.0, 330.0, 280.0))
    mask = np.zeros((480, 640), np.uint8)
    mask[150:280, 200:330] = 1

    def spent(what: Any) -> float:
        begun = clock.now_ns()
        what()
        if device != "cpu":
            torch.cuda.synchronize()
        return (clock.now_ns() - begun) / NS_PER_S * 1e3

    still = random_sam2(size, device, precision, video=False)
    moving = random_sam2(size, device, precision, video=True)
    if compile_it:
        still.model.vision_encoder.compile()
        moving.model.vision_encoder.compile()
    segmenter, tracker = Sam2Segmenter(still), Sam2MultiTracker(moving)
    first = [spent(lambda each=each: segmenter.segment(each, prompt)) for each in pictures]
    again = spent(lambda: segmenter.segment(pictures[-1], prompt))
    tracked = [spent(lambda: tracker.update(Frame("head", 0, pictures[0]), {"it": mask}))]
    tracked += [
        spent(lambda at=at: tracker.update(Frame("head", at, pictures[at]))) for at in range(1, frames + 2)
    ]
    return {
        "model": f"sam2.1-hiera-{size}",
        "device": device,
        "precision": precision,
        "compiled": compile_it,
        "million_weights": round(sum(each.numel() for each in moving.model.parameters()) / 1e6, 1),
        "segment_ms": round(float(np.median(first[1:])), 1),
        "another_click_ms": round(again, 1),
        "track_ms": round(float(np.median(tracked[2:])), 1),
        "session_mib": round(stored_bytes(tracker._session) / 2**20, 1),  # noqa: SLF001 - a benchmark looks in
        "gpu_peak_mib": round(torch.cuda.max_memory_allocated() / 2**20, 1) if device != "cpu" else None,
    }


def main() -> None:
    """One JSON line a size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", choices=[*SIZES, "all"], default="tiny")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", choices=list(ITEM_BYTES), default="float32")
    parser.add_argument("--frames", type=int, default=5)
    parser.add_argument("--compile", action="store_true")
    asked = parser.parse_args()
    for size in SIZES if asked.size == "all" else [asked.size]:
        measured = measure(size, asked.device, asked.precision, frames=asked.frames, compile_it=asked.compile)
        print(json.dumps(measured), flush=True)


if __name__ == "__main__":
    main()
