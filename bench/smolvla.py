"""A chunk of SmolVLA beside LeRobot's own, with the same weights, pictures and noise.

``python -m bench.smolvla``: random weights of the public sizes, one camera and two of 512x512, on the CPU as
`dexrun` runs it in float32 (``packed``) and with ``precision = "int8"``; with ``--device cuda`` (not run to
its end yet) there, with bfloat16, compile and graphs, too: LeRobot's language model in bfloat16 under
autocast, ours altogether. LeRobot 0.4.4 runs in its own environment (`make interop` makes it), in turns with
ours, and medians count. Prints one JSON line: seconds a chunk of every variant, how far it is from LeRobot's
at most and on average (``mean_size``: how large its numbers are), and ratios; ``--size tiny`` is for a try.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from policies.accelerate import Replay, compile_each
from policies.lerobot.smolvla_network import SmolVla
from policies.lerobot.smolvla_shape import PUBLIC_VLM, SmolVlaShape

ROOT = Path(__file__).parents[1]
TINY = SmolVlaShape(
    vlm={
        **PUBLIC_VLM,
        "vision_config": {
            **PUBLIC_VLM["vision_config"],
            "hidden_size": 48,
            "intermediate_size": 96,
            "num_hidden_layers": 2,
            "image_size": 64,
        },
        "text_config": {
            **PUBLIC_VLM["text_config"],
            "hidden_size": 120,
            "intermediate_size": 192,
            "head_dim": 8,
            "num_hidden_layers": 4,
            "vocab_size": 300,
        },
        "image_token_id": 299,
    },
    vlm_layers=4,
    chunk=8,
)


class LeRobot:
    """Its process.

    Args:
        python: of an environment that has LeRobot. file: where it writes weights and what it is shown.
        batch: of its training; 0: it makes chunks.
    """

    def __init__(
        self,
        python: Path,
        file: Path,
        shape: SmolVlaShape,
        device: str,
        precision: str,
        cameras: int,
        batch: int = 0,
    ) -> None:
        peer = ROOT / "tests" / "remote" / "interop" / "lerobot_smolvla_peer.py"
        sizes = json.dumps(shape.model_dump(mode="json"))
        self._process = subprocess.Popen(
            [
                str(python),
                str(peer),
                str(file),
                device,
                precision,
                str(cameras),
                sizes,
                *([str(batch)] * bool(batch)),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self._said()

    def _said(self) -> dict[str, float]:
        assert self._process.stdout is not None  # noqa: S101 - a pipe
        for line in self._process.stdout:
            if line.startswith("{"):
                return dict(json.loads(line))
        raise RuntimeError("LeRobot's side ended; its script alone, with the same arguments, says why")

    def take(self) -> dict[str, float]:
        """Compute one chunk, or take one step; how long it took."""
        assert self._process.stdin is not None  # noqa: S101 - a pipe
        self._process.stdin.write("go\n")
        self._process.stdin.flush()
        return self._said()

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None  # noqa: S101 - a pipe
        self._process.stdin.close()
        self._process.wait(60)


def variants(
    network: SmolVla, shown: dict[str, Tensor], device: torch.device, precision: str
) -> dict[str, Callable[[], Tensor]]:
    """Ways to compute a chunk, by name."""
    inputs = (shown["pixels"], shown["words"], shown["state"], shown["noise"])

    def chunk_of(network: SmolVla) -> Callable[..., Tensor]:
        def chunk(pixels: Tensor, words: Tensor, state: Tensor, noise: Tensor) -> Tensor:
            return network.sample(network.read(pixels, words, None, state), noise)

        return chunk

    def called(way: Callable[..., Tensor]) -> Callable[[], Tensor]:
        def call() -> Tensor:
            with torch.inference_mode():
                return way(*inputs)

        return call

    if device.type == "cpu":
        rounded = copy.deepcopy(network)
        network.pack(flow=True)
        rounded.pack(flow=True, int8=True)
        return {"packed": called(chunk_of(network)), "int8": called(chunk_of(rounded))}
    ways = {"eager": chunk_of(network)}
    if device.type == "cuda":
        ways["graph"] = Replay(ways["eager"], device, enabled=True)
        if precision == "bfloat16":
            quick = copy.deepcopy(network)  # what is compiled is compiled in place
            vlm, expert = quick.vlm_with_expert.vlm.model, quick.vlm_with_expert.lm_expert
            layers = [*vlm.text_model.layers, *expert.layers]
            compile_each(each.mlp for each in (*vlm.vision_model.encoder.layers, *layers))
            compile_each(each.input_layernorm for each in layers)
            compile_each(each.post_attention_layernorm for each in layers)
            ways["compile"] = chunk_of(quick)
            ways["compile+graph"] = Replay(ways["compile"], device, enabled=True)

    return {name: called(way) for name, way in ways.items()}


def timed(call: Callable[[], Tensor]) -> tuple[float, Tensor]:
    """Seconds until the answer is in the processor's memory, and the answer."""
    began = time.perf_counter()
    answer = call().float().cpu()
    return time.perf_counter() - began, answer


def compared(options: argparse.Namespace, cameras: int, precision: str) -> dict[str, Any]:
    """All ways and LeRobot's in turns."""
    shape, device = TINY if options.size == "tiny" else SmolVlaShape(), torch.device(options.device)
    with tempfile.TemporaryDirectory(dir=options.scratch) as folder:
        file = Path(folder) / "made.pt"
        peer = LeRobot(options.lerobot, file, shape, options.device, precision, cameras)
        made = torch.load(file, weights_only=True, mmap=True)
        network = SmolVla(shape).eval()
        network.load_state_dict(made["weights"])
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    network.to(device=device, dtype=dtype)
    shown = {name: value.to(device) for name, value in made["shown"].items()}
    found: dict[str, Any] = {}
    ways = variants(network, shown, device, precision)
    seconds: dict[str, list[float]] = {name: [] for name in ("lerobot", *ways)}
    for name, way in ways.items():
        for _ in range(2):
            _, answer = timed(way)
        away = (answer - made["chunk"]).abs()
        found[f"{name}_largest_difference"] = float(away.max())
        found[f"{name}_mean_difference"] = float(away.mean())
    found["mean_size"] = float(made["chunk"].abs().mean())
    memory = 0.0
    for _ in range(options.repeat):
        told = peer.take()
        seconds["lerobot"].append(told["s"])
        memory = told["gpu_mib"]
        for name, way in ways.items():
            seconds[name].append(timed(way)[0])
    peer.close()
    medians = {name: statistics.median(each) for name, each in seconds.items()}
    found |= {f"{name}_s": round(each, 5) for name, each in medians.items()}
    found |= {f"{name}_ratio": round(medians["lerobot"] / medians[name], 2) for name in ways}
    if device.type == "cuda":
        found["lerobot_gpu_mib"] = round(memory)
        found["gpu_mib"] = round(torch.cuda.max_memory_allocated() / 2**20)
        torch.cuda.reset_peak_memory_stats()
    return found


def main() -> None:
    """Compare, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--size", choices=("full", "tiny"), default="full")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--cameras", type=int, nargs="*", default=(1, 2))
    parser.add_argument("--lerobot", type=Path, default=ROOT / ".venv-lerobot" / "bin" / "python")
    parser.add_argument("--scratch", type=Path, help="where 2 GB of weights may lie meanwhile")
    options = parser.parse_args()
    if not options.lerobot.exists():
        sys.exit(f"{options.lerobot}: not there; `make interop` makes LeRobot's environment")
    result: dict[str, Any] = {"bench": "smolvla", "device": options.device, "size": options.size}
    result["threads"] = torch.get_num_threads()
    for precision in ("float32", "bfloat16") if options.device == "cuda" else ("float32",):
        for cameras in options.cameras:
            result[f"{precision}_{cameras}"] = compared(options, cameras, precision)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
