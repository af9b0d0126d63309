"""Steps a second of ACT in full size, beside LeRobot's ACT on the same machine.

``python -m bench.train``: ResNet-18, hidden 512, feed-forward 3200, chunk 100, batches of 8, one camera and
three of 480x640, float32 on the CPU; with ``--device cuda`` there, in bfloat16, too. Ours is `dexrun train`'s
own loop, with its loading of uint8 pictures from memory; LeRobot 0.4.4 runs in its own environment (`make
interop` makes it), its batch made beforehand. They take turns, step by step, and medians count; the
first step of each does not. Prints one JSON line.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from policies.data.dataset import ACTION, IMAGES, STATE, Array, Feature, RowNumbers, Statistics

ROOT = Path(__file__).parents[1]
ROWS, JOINTS, BATCH, SIZE = 40, 6, 8, (480, 640)


class _Episode:
    """One episode of noise."""

    number, name, length, task, label = 0, "noise", ROWS, "none", ""

    def __init__(self, cameras: int, size: tuple[int, int]) -> None:
        random = np.random.default_rng(0)
        vectors = random.standard_normal((2, ROWS, JOINTS), dtype=np.float32)
        self._arrays: dict[str, Array] = {STATE: vectors[0], ACTION: vectors[1]}
        for camera in range(cameras):
            self._arrays[f"{IMAGES}{camera}"] = random.integers(0, 256, (ROWS, *size, 3), dtype=np.uint8)

    def read(self, feature: str, rows: RowNumbers) -> Array:
        """See `policies.data.dataset.DataEpisode`."""
        return self._arrays[feature][rows]


class _Noise:
    """A `policies.data.dataset.Dataset` of it."""

    def __init__(self, cameras: int, size: tuple[int, int]) -> None:
        self.path, self.format, self.rate_hz = Path("noise"), "mcap", 30.0
        self.about: Mapping[str, Any] = {}
        self.left_out: Mapping[str, str] = {}
        self.episodes: Sequence[_Episode] = [_Episode(cameras, size)]
        vector = Feature((JOINTS,), "float32", "rad")
        pictures = {f"{IMAGES}{camera}": Feature((*size, 3), "uint8", "rgb") for camera in range(cameras)}
        self.features: Mapping[str, Feature] = {STATE: vector, ACTION: vector, **pictures}

    def statistics(self, feature: str) -> Statistics:
        """See `policies.data.dataset.Dataset`."""
        del feature
        zeros, ones = np.zeros(JOINTS), np.ones(JOINTS)
        return Statistics(zeros, ones, -ones, ones, ROWS)

    def fingerprint(self) -> str:
        """See `policies.data.dataset.Dataset`."""
        return "noise"

    def close(self) -> None:
        """Nothing is open."""


class _EnoughError(Exception):
    """No more steps are asked for."""


def ours(arguments: argparse.Namespace) -> None:
    """For every line on the standard input one step of `dexrun train`'s."""
    import torch

    from policies.act.resnet import ResNet18
    from policies.training.options import TrainingOptions
    from policies.training.trainer import train
    from runtime.clock import RealClock

    last = [0.0, 0.0]

    def asked() -> bool:
        """After each step: how long it took, and wait for the next one to be asked for."""
        gpu = torch.cuda.max_memory_allocated() / 2**30 if torch.cuda.is_available() else 0.0
        took = {"s": time.perf_counter() - last[0], "cpu_s": time.process_time() - last[1], "gpu_gib": gpu}
        sys.stdout.write(json.dumps(took) + "\n")
        sys.stdout.flush()
        wait()
        return False

    def wait() -> None:
        if not sys.stdin.readline():
            raise _EnoughError
        last[:] = time.perf_counter(), time.process_time()

    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "resnet18.pth"  # for the frozen norms that ImageNet's weights have
        torch.save(ResNet18(64).state_dict(), weights)
        options = TrainingOptions.model_validate(
            {
                "data": "noise",
                "to": folder,
                "batch": arguments.batch,
                "workers": 0,
                "device": "auto" if arguments.device == "cuda" else "cpu",
                "precision": arguments.precision,
                "optimizer": {"lr": 1e-5, "clip": 10.0},
                "validation": {"share": 0},
                "log_every": 1_000_000,
                "trackers": [],
                "policy": {"type": "act"},
                "recipe": {"backbone": str(weights)},
            }
        )
        wait()
        try:
            train(
                options,
                clock=RealClock(),
                tell=lambda line: None,
                stopped=asked,
                dataset=_Noise(arguments.cameras, tuple(arguments.size)),
            )
        except _EnoughError:
            return


class _Child:
    """A process that takes a step when asked."""

    def __init__(self, command: Sequence[str]) -> None:
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            cwd=ROOT,
        )
        self.steps: list[dict[str, float]] = []

    def step(self) -> None:
        """Take one."""
        assert self._process.stdin is not None  # noqa: S101 - it is a pipe
        assert self._process.stdout is not None  # noqa: S101 - it is a pipe
        self._process.stdin.write("step\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self._process.args!r} ended")
        self.steps.append(json.loads(line))

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None  # noqa: S101 - it is a pipe
        self._process.stdin.close()
        self._process.wait(60)

    def median(self, key: str) -> float:
        """Of all steps but the first."""
        return statistics.median(each[key] for each in self.steps[1:])


def compared(
    arguments: argparse.Namespace, cameras: int, precision: str, peer: Path | None
) -> dict[str, float]:
    """Both in turns."""
    size = [str(side) for side in arguments.size]
    batch = str(arguments.batch)
    common = ["--device", arguments.device, "--precision", precision, "--batch", batch, "--size", *size]
    own = [sys.executable, "-m", "bench.train", "--ours", "--cameras", str(cameras), *common]
    children = {"ours": _Child(own)}
    if peer is not None:
        words = [str(cameras), batch, *size, arguments.device, precision]
        children["lerobot"] = _Child(
            [str(peer), str(ROOT / "tests" / "remote" / "interop" / "lerobot_train_peer.py"), *words]
        )
    for _ in range(arguments.steps + 1):
        for child in children.values():
            child.step()
    found: dict[str, float] = {}
    for name, child in children.items():
        child.close()
        found[f"{name}_steps_s"] = round(1 / child.median("s"), 4)
        found[f"{name}_cpu_s"] = round(child.median("cpu_s"), 3)
        if arguments.device == "cuda":
            found[f"{name}_gpu_gib"] = round(child.median("gpu_gib"), 2)
    if peer is not None:
        found["ratio"] = round(found["ours_steps_s"] / found["lerobot_steps_s"], 2)
        found["cpu_ratio"] = round(found["lerobot_cpu_s"] / found["ours_cpu_s"], 2)
    return found


def main() -> None:
    """Compare, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--batch", type=int, default=BATCH)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--size", type=int, nargs=2, default=SIZE)
    parser.add_argument("--lerobot", type=Path, default=ROOT / ".venv-lerobot" / "bin" / "python")
    parser.add_argument("--only", type=int, nargs="*", default=(1, 3), help="numbers of cameras")
    parser.add_argument("--ours", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--cameras", type=int, default=1, help=argparse.SUPPRESS)
    parser.add_argument("--precision", default="float32", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.ours:
        ours(arguments)
        return
    peer = arguments.lerobot if arguments.lerobot.exists() else None
    result: dict[str, Any] = {
        "bench": "train",
        "policy": "act",
        "batch": arguments.batch,
        "device": arguments.device,
    }
    for precision in ("float32", "bfloat16") if arguments.device == "cuda" else ("float32",):
        for cameras in arguments.only:
            found = compared(arguments, cameras, precision, peer)
            result |= {f"{precision}_{cameras}_{key}": value for key, value in found.items()}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
