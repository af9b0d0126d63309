"""A step of SmolVLA's training beside LeRobot's own, on the same weights and the same batch.

``python -m bench.smolvla_train``: random weights of the public sizes, one camera of 512x512, batches of 2,
float32 on the CPU; the expert and what joins it learn, the language model and what looks at pictures do not,
as in LeRobot's recipe. Ours are the loss and the frozen parts of `dexrun train`. LeRobot 0.4.4 runs in its
own environment (`make interop` makes it), in turns with ours; medians count, the first step of each does not.
Prints one JSON line: steps a second, processor seconds of a step, and how far the losses of the first batch
are apart; ``--size tiny`` is for a try.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bench.smolvla import ROOT, TINY, LeRobot
from policies.lerobot.smolvla_network import SmolVla
from policies.lerobot.smolvla_shape import SmolVlaShape
from policies.smolvla.flow import flow_error
from policies.smolvla.options import SmolVlaTraining
from policies.smolvla.parts import choose


def stepping(network: SmolVla, shown: dict[str, Tensor]) -> Callable[[], None]:
    """Takes a step."""
    learning = [each for each in network.parameters() if each.requires_grad]
    optimizer = torch.optim.AdamW(learning, lr=1e-4, betas=(0.9, 0.95), eps=1e-8, weight_decay=1e-10)

    def step() -> None:
        loss_of(network, shown).backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(learning, 10.0)
        optimizer.step()
        optimizer.zero_grad()

    return step


def loss_of(network: SmolVla, shown: dict[str, Tensor]) -> Tensor:
    """The flow's error on the batch."""
    reading = network.read(shown["pixels"], shown["words"], None, shown["state"])
    return flow_error(network, reading, shown["actions"], shown["noise"], shown["times"], None).mean()


def compared(options: argparse.Namespace) -> dict[str, Any]:
    """Both in turns."""
    shape = TINY if options.size == "tiny" else SmolVlaShape()
    with tempfile.TemporaryDirectory(dir=options.scratch) as folder:
        file = Path(folder) / "made.pt"
        peer = LeRobot(options.lerobot, file, shape, "cpu", "float32", options.cameras, options.batch)
        made = torch.load(file, weights_only=True, mmap=True)
        network = SmolVla(shape)
        network.load_state_dict(made["weights"])
    choose(network, SmolVlaTraining())
    learning = sum(each.numel() for each in network.parameters() if each.requires_grad)
    with torch.no_grad():
        away = abs(float(loss_of(network, made["shown"])) - made["loss"])
    step = stepping(network, made["shown"])
    told: dict[str, list[dict[str, float]]] = {"lerobot": [], "ours": []}
    for _ in range(options.steps + 1):
        told["lerobot"].append(peer.take())
        began, used = time.perf_counter(), time.process_time()
        step()
        told["ours"].append({"s": time.perf_counter() - began, "cpu_s": time.process_time() - used})
    peer.close()
    found: dict[str, Any] = {"loss": made["loss"], "loss_difference": away}
    found |= {"learning": learning, "lerobot_learning": made["learning"]}
    medians = {
        name: {key: statistics.median(one[key] for one in each[1:]) for key in ("s", "cpu_s")}
        for name, each in told.items()
    }
    for name, each in medians.items():
        found |= {f"{name}_steps_s": round(1 / each["s"], 4), f"{name}_cpu_s": round(each["cpu_s"], 3)}
    found["ratio"] = round(medians["lerobot"]["s"] / medians["ours"]["s"], 2)
    found["cpu_ratio"] = round(medians["lerobot"]["cpu_s"] / medians["ours"]["cpu_s"], 2)
    return found


def main() -> None:
    """Compare, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", choices=("full", "tiny"), default="full")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--cameras", type=int, default=1)
    parser.add_argument("--lerobot", type=Path, default=ROOT / ".venv-lerobot" / "bin" / "python")
    parser.add_argument("--scratch", type=Path, help="where 2 GB of weights may lie meanwhile")
    options = parser.parse_args()
    if not options.lerobot.exists():
        sys.exit(f"{options.lerobot}: not there; `make interop` makes LeRobot's environment")
    said = {"size": options.size, "batch": options.batch, "cameras": options.cameras}
    print(
        json.dumps(
            {"bench": "smolvla_train", **said, "threads": torch.get_num_threads(), **compared(options)}
        )
    )


if __name__ == "__main__":
    main()
